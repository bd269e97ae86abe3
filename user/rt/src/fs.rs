//! Files: those of the boot archive, and everything else with a path.

use alloc::vec::Vec;
use core::ffi::CStr;

use quire_abi::flags::Open;
use quire_abi::layout::{Stat, at, dtype};
use quire_abi::{Errno, nr};

use crate::ipc::Sender;
use crate::{handles, io, sys};

/// Opens a path; the caller must close the descriptor.
pub fn open(path: &CStr, flags: Open) -> Result<i32, Errno> {
    openat(at::FDCWD, path, flags, 0o666)
}

/// Opens a path relative to a directory; `mode` is for a file that this call creates.
pub fn openat(dir: i32, path: &CStr, flags: Open, mode: u32) -> Result<i32, Errno> {
    // SAFETY: the kernel reads a terminated string.
    unsafe { sys::call(nr::OPENAT, [dir as usize, path.as_ptr() as usize, flags.bits() as usize, mode as usize]) }
        .map(|fd| fd as i32)
}

/// An open file that is closed when dropped.
#[derive(Debug)]
pub struct File(i32);

impl File {
    /// Opens a path.
    pub fn open(path: &CStr, flags: Open) -> Result<File, Errno> {
        open(path, flags | Open::CLOEXEC).map(File)
    }

    /// The descriptor.
    pub fn fd(&self) -> i32 {
        self.0
    }

    /// Everything up to the end.
    pub fn read_to_end(&self) -> Result<Vec<u8>, Errno> {
        let mut all = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            match io::read(self.0, &mut buffer) {
                Ok(0) => return Ok(all),
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // A close writes nothing back, so its error carries no information.
        let _ = io::close(self.0);
    }
}

/// The record of an open file.
pub fn fstat(fd: i32) -> Result<Stat, Errno> {
    let mut stat = Stat::default();
    // SAFETY: the kernel writes one record.
    unsafe { sys::call(nr::FSTAT, [fd as usize, &raw mut stat as usize]) }?;
    Ok(stat)
}

/// The record of the file at a path; `flags` are [`at::SYMLINK_NOFOLLOW`] and [`at::EMPTY_PATH`].
pub fn stat(path: &CStr, flags: u32) -> Result<Stat, Errno> {
    let mut stat = Stat::default();
    // SAFETY: the kernel reads a terminated string and writes one record.
    unsafe {
        sys::call(nr::NEWFSTATAT, [at::FDCWD as usize, path.as_ptr() as usize, &raw mut stat as usize, flags as usize])
    }?;
    Ok(stat)
}

/// Mounts the file system of a server, to which this sender leads, over a directory; `kind` has 15 bytes at most.
/// Requires the right to mount.
pub fn mount(path: &CStr, server: Sender, kind: &CStr) -> Result<(), Errno> {
    mount_of(path, server, kind, None, false)
}

/// The same, with the name of the source, and optionally read-only.
pub fn mount_of(
    path: &CStr,
    server: Sender,
    kind: &CStr,
    source: Option<&CStr>,
    is_read_only: bool,
) -> Result<(), Errno> {
    let source = source.map_or(0, |source| source.as_ptr() as usize);
    let names = [path.as_ptr() as usize, server.0 as usize, kind.as_ptr() as usize, source];
    let [path, server, kind, source] = names;
    let control = handles::control() as usize;
    // SAFETY: the kernel reads terminated strings.
    unsafe { sys::call(nr::QUIRE_MOUNT, [control, path, server, kind, source, usize::from(is_read_only)]) }.map(drop)
}

/// Moves the file position: relative to the start (0), the present position (1) or the end (2).
pub fn lseek(fd: i32, offset: i64, whence: u32) -> Result<u64, Errno> {
    sys::plain!(nr::LSEEK, fd, offset, whence).map(|at| at as u64)
}

/// Reads at a position without moving the file position.
pub fn pread(fd: i32, buffer: &mut [u8], offset: i64) -> Result<usize, Errno> {
    // SAFETY: the kernel writes only within the buffer.
    unsafe { sys::call(nr::PREAD64, [fd as usize, buffer.as_mut_ptr() as usize, buffer.len(), offset as usize]) }
}

/// Writes at a position without moving the file position.
pub fn pwrite(fd: i32, bytes: &[u8], offset: i64) -> Result<usize, Errno> {
    // SAFETY: the call reads the slice alone.
    unsafe { sys::call(nr::PWRITE64, [fd as usize, bytes.as_ptr() as usize, bytes.len(), offset as usize]) }
}

/// Makes what was written to a file permanent, whatever happens to the machine.
pub fn fsync(fd: i32) -> Result<(), Errno> {
    sys::plain!(nr::FSYNC, fd).map(drop)
}

/// The same for all files.
pub fn sync() {
    let _ = sys::plain!(nr::SYNC);
}

/// Changes the working directory.
pub fn chdir(path: &CStr) -> Result<(), Errno> {
    // SAFETY: the kernel reads a terminated string.
    unsafe { sys::call(nr::CHDIR, [path.as_ptr() as usize]) }.map(drop)
}

/// The working directory's path.
pub fn getcwd() -> Result<Vec<u8>, Errno> {
    let mut buffer = [0u8; 4096];
    // SAFETY: the kernel writes only within the buffer.
    let len = unsafe { sys::call(nr::GETCWD, [buffer.as_mut_ptr() as usize, buffer.len()]) }?;
    Ok(buffer[..len.saturating_sub(1).min(buffer.len())].to_vec())
}

/// Where a symbolic link leads.
pub fn readlink(path: &CStr) -> Result<Vec<u8>, Errno> {
    let mut buffer = [0u8; 4096];
    // SAFETY: the kernel reads a terminated string and writes only within the buffer.
    let len = unsafe {
        sys::call(
            nr::READLINKAT,
            [at::FDCWD as usize, path.as_ptr() as usize, buffer.as_mut_ptr() as usize, buffer.len()],
        )
    }?;
    Ok(buffer[..len.min(buffer.len())].to_vec())
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Inode number.
    pub ino: u64,
    /// A type of [`dtype`].
    pub kind: u8,
    /// The name.
    pub name: Vec<u8>,
}

/// All entries of an open directory, including `.` and `..`, in the order of the kernel.
pub fn read_dir_fd(fd: i32) -> Result<Vec<Entry>, Errno> {
    let mut entries = Vec::new();
    let mut buffer = [0u64; 256];
    loop {
        // SAFETY: the kernel writes only within the buffer.
        let len =
            unsafe { sys::call(nr::GETDENTS64, [fd as usize, buffer.as_mut_ptr() as usize, size_of_val(&buffer)]) }?;
        if len == 0 {
            return Ok(entries);
        }
        // SAFETY: the buffer's memory, as bytes; every value is a valid byte.
        let bytes = unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), len.min(size_of_val(&buffer))) };
        parse_entries(bytes, &mut entries).ok_or(Errno::EIO)?;
    }
}

/// Splits the result of one `getdents64`; `None` if it does not consist of whole records.
fn parse_entries(mut bytes: &[u8], entries: &mut Vec<Entry>) -> Option<()> {
    while !bytes.is_empty() {
        let ino = u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?);
        let len = u16::from_ne_bytes(bytes.get(16..18)?.try_into().ok()?) as usize;
        let kind = *bytes.get(18)?;
        let name = CStr::from_bytes_until_nul(bytes.get(dtype::HEADER..len)?).ok()?;
        entries.push(Entry { ino, kind, name: name.to_bytes().to_vec() });
        bytes = bytes.get(len..)?;
    }
    Some(())
}

/// The entries of a directory by name, without `.` and `..`.
pub fn read_dir(path: &CStr) -> Result<Vec<Entry>, Errno> {
    let dir = File::open(path, Open::DIRECTORY)?;
    let mut entries = read_dir_fd(dir.fd())?;
    entries.retain(|entry| entry.name != b"." && entry.name != b"..");
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
