//! Requests and queries to the kernel: memory objects, the time, the caller's groups.

use quire_abi::Errno;
use quire_abi::layout::Stat;

/// The kernel, or a substitute in tests.
pub trait Objects {
    /// Makes a memory object with these permissions, for a file with this inode number; returns its handle.
    fn make(&mut self, mode: u32, owner: (u32, u32), number: u64) -> Result<u32, Errno>;
    /// The object's record of its file.
    fn stat(&self, handle: u32) -> Stat;
    /// Sets the file's number of names.
    fn set_links(&mut self, handle: u32, links: u32);
    /// Closes a handle.
    fn close(&mut self, handle: u32);
    /// Nanoseconds since 1970.
    fn now(&self) -> u64;
    /// Whether this is one of the caller's supplementary groups.
    fn is_caller_in(&self, group: u32) -> bool;
}
