//! Files by path, by the calls themselves.

use core::ffi::CStr;

use quire_rt::abi::flags::Open;
use quire_rt::abi::layout::{Stat, at};
use quire_rt::abi::nr;
use quire_rt::{Errno, fs, io};

use crate::raw;

/// The working directory, as an argument of a call.
pub const HERE: usize = at::FDCWD as usize;

/// A path, as an argument of a call.
pub fn path(path: &CStr) -> usize {
    path.as_ptr() as usize
}

/// Makes a directory.
pub fn mkdir(name: &CStr, mode: u32) -> Result<usize, Errno> {
    raw(nr::MKDIRAT, [HERE, path(name), mode as usize])
}

/// Removes a name; `flags` are those of `unlinkat`.
pub fn remove(name: &CStr, flags: u32) -> Result<usize, Errno> {
    raw(nr::UNLINKAT, [HERE, path(name), flags as usize])
}

/// Opens a file; `mode` is for one that this makes.
pub fn open(name: &CStr, flags: Open, mode: u32) -> Result<i32, Errno> {
    fs::openat(at::FDCWD, name, flags, mode)
}

/// Makes a file with this content, in place of one that is there.
pub fn create(name: &CStr, bytes: &[u8]) {
    let fd = open(name, Open::CREAT | Open::WRONLY | Open::TRUNC, 0o666).expect("a file");
    assert_eq!(io::write(fd, bytes), Ok(bytes.len()));
    close(fd);
}

/// Closes a descriptor.
pub fn close(fd: i32) {
    let _ = io::close(fd);
}

/// What is known of a name, which is not followed.
pub fn stat(name: &CStr) -> Result<Stat, Errno> {
    fs::stat(name, at::SYMLINK_NOFOLLOW)
}
