//! What the tree asks of the kernel: memory objects, the time, who else the caller is.

use quire_abi::Errno;
use quire_abi::layout::Stat;

/// The kernel, or what stands for it in tests.
pub trait Objects {
    /// A new memory object with these permissions, for a file with this inode number; returns its handle.
    fn make(&mut self, mode: u32, owner: (u32, u32), number: u64) -> Result<u32, Errno>;
    /// What the object knows of its file.
    fn stat(&self, handle: u32) -> Stat;
    /// Sets how many names the file has.
    fn set_links(&mut self, handle: u32, links: u32);
    /// Closes a handle.
    fn close(&mut self, handle: u32);
    /// Nanoseconds since 1970.
    fn now(&self) -> u64;
    /// Whether the caller is in this group beside its first one.
    fn is_caller_in(&self, group: u32) -> bool;
}
