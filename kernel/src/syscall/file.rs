//! Descriptors and files.

use core::sync::atomic::Ordering;

use alloc::vec::Vec;
use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::{Stat, Timespec, at, dtype, mode, rlimit};
use quire_mm::UserAddr;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::try_zeroed;

use super::poll::pass;
use super::{Answer, Args, content};
use crate::arch::{speculation, uaccess};
use crate::archive::{self, Node};
use crate::ipc::descriptor::{Descriptor, Object, OpenFile, Rights};
use crate::ipc::pipe::{Pipe, Side};
use crate::ipc::table::Descriptors;
use crate::task::oom;
use crate::task::thread::current;

/// Longest path, its NUL included (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// The caller's descriptors.
pub(super) fn table() -> Result<&'static Descriptors, Errno> {
    // SAFETY: the calls that use this neither exec nor exit, and keep the reference no longer than they last.
    unsafe { current().process().own_descriptors() }
}

/// The upper bound of descriptor numbers, whatever the limit says: Linux's `nr_open`.
const MOST_DESCRIPTORS: u64 = 1 << 20;

pub(super) fn limit() -> u64 {
    current().process().limit(rlimit::NOFILE).min(MOST_DESCRIPTORS)
}

/// Room for a path.
pub fn path_buffer() -> Result<Vec<u8>, Errno> {
    Ok(try_zeroed(PATH_MAX)?)
}

/// Resolves a (directory, path) pair. `flags` are those of the `*at` calls.
pub(super) fn resolve(dirfd: i32, path: UserAddr, flags: u32) -> Result<&'static Node, Errno> {
    let mut buffer = path_buffer()?;
    let path = uaccess::get_string(&mut buffer, path)?;
    if path.is_empty() && flags & at::EMPTY_PATH == 0 {
        return Err(Errno::ENOENT);
    }
    if path.is_empty() && dirfd != at::FDCWD {
        return match &table()?.get(dirfd)?.file.object {
            Object::Archive(node) => Ok(node),
            _ => Err(Errno::EACCES),
        };
    }
    let start = if path.starts_with(b"/") { 0 } else { start_of(dirfd)? };
    if path.is_empty() {
        return archive::by_number(start).ok_or(Errno::ENOENT);
    }
    archive::lookup(start, path, flags & at::SYMLINK_NOFOLLOW == 0)
}

fn start_of(dirfd: i32) -> Result<u32, Errno> {
    if dirfd == at::FDCWD {
        return Ok(current().process().directory.get());
    }
    match &table()?.get(dirfd)?.file.object {
        Object::Archive(node) if node.is_dir() => Ok(node.ino),
        _ => Err(Errno::ENOTDIR),
    }
}

pub fn openat(a: Args) -> Answer {
    let flags = Open::from_bits_retain(a.uint(2));
    // With O_PATH only these count.
    let of_path = Open::PATH | Open::DIRECTORY | Open::NOFOLLOW | Open::CLOEXEC;
    let flags = if flags.contains(Open::PATH) { flags & of_path } else { flags };
    let mut buffer = path_buffer()?;
    let path = uaccess::get_string(&mut buffer, a.addr(1))?;
    let rights = match a.uint(2) & 3 {
        _ if flags.contains(Open::PATH) => Rights::empty(),
        0 => Rights::READ,
        1 => Rights::WRITE,
        _ => Rights::READ | Rights::WRITE,
    };
    let object = match device(path) {
        Some(_) if flags.contains(Open::CREAT | Open::EXCL) => return Err(Errno::EEXIST),
        Some(_) if flags.contains(Open::DIRECTORY) => return Err(Errno::ENOTDIR),
        Some(object) => object,
        None => open_node(a.int(0), path, flags, rights)?,
    };
    let status = flags - Open::CLOEXEC - Open::CREAT - Open::EXCL - Open::NOCTTY - Open::TRUNC;
    let file = OpenFile::new(object, status)?;
    let descriptor = Descriptor { file, rights, close_on_exec: flags.contains(Open::CLOEXEC) };
    table()?.insert(descriptor, 0, limit()).map(|fd| fd as usize)
}

/// The devices that the kernel itself provides.
pub(super) fn device(path: &[u8]) -> Option<Object> {
    Some(match path {
        b"/dev/console" | b"/dev/tty" => Object::Console,
        b"/dev/null" => Object::Null,
        b"/dev/zero" => Object::Zero,
        _ => return None,
    })
}

fn open_node(dirfd: i32, path: &[u8], flags: Open, rights: Rights) -> Result<Object, Errno> {
    let start = if path.starts_with(b"/") { 0 } else { start_of(dirfd)? };
    let node = match archive::lookup(start, path, !flags.contains(Open::NOFOLLOW)) {
        Err(Errno::ENOENT) if flags.contains(Open::CREAT) => return Err(Errno::EROFS),
        found => found?,
    };
    if flags.contains(Open::CREAT | Open::EXCL) {
        return Err(Errno::EEXIST);
    }
    if flags.contains(Open::DIRECTORY) && !node.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if node.is_link() && !flags.contains(Open::PATH) {
        return Err(Errno::ELOOP);
    }
    let changes = rights.contains(Rights::WRITE) || flags.contains(Open::TRUNC);
    if node.is_dir() && (changes || flags.contains(Open::CREAT)) {
        return Err(Errno::EISDIR);
    }
    if changes { Err(Errno::EROFS) } else { Ok(Object::Archive(node)) }
}

pub fn close(a: Args) -> Answer {
    let closed = table()?.remove(a.int(0))?;
    drop(closed);
    Ok(0)
}

/// Closes all descriptors from x0 to x1, or marks them as closed by exec. A table is a process's: CLOSE_RANGE_UNSHARE,
/// which gives a thread one of its own, is an unknown flag.
pub fn close_range(a: Args) -> Answer {
    const CLOEXEC: u32 = 4;
    let (first, last, flags) = (a.uint(0), a.uint(1), a.uint(2));
    if flags & !CLOEXEC != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    let (first, last) = (first as usize, last as usize);
    match flags {
        0 => table()?.remove_range(first, last),
        _ => table()?.close_range_on_exec(first, last),
    }
    .map(|()| 0)
}

pub fn lseek(a: Args) -> Answer {
    const SET: u32 = 0;
    const CUR: u32 = 1;
    const END: u32 = 2;
    const DATA: u32 = 3;
    const HOLE: u32 = 4;
    let file = table()?.get(a.int(0))?.file;
    let len = match &file.object {
        Object::Archive(node) => node.data.len() as u64,
        Object::Memory(file) => file.content.len(),
        // Linux's answer for what has no position and is not sought in either.
        Object::EventFd(_) | Object::Epoll(_) | Object::TimerFd(_) | Object::SignalFd(_) => return Ok(0),
        _ => return Err(Errno::ESPIPE),
    };
    let offset = a.0[1] as i64;
    let base = match a.uint(2) {
        SET => 0,
        CUR => file.offset.load(Ordering::Relaxed) as i64,
        END => len as i64,
        which @ (DATA | HOLE) => {
            let at = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            let to = content::seek(&file, at, which == HOLE)?;
            file.offset.store(to, Ordering::Relaxed);
            return Ok(to as usize);
        }
        _ => return Err(Errno::EINVAL),
    };
    let to = base.checked_add(offset).ok_or(Errno::EOVERFLOW)?;
    if to < 0 {
        return Err(Errno::EINVAL);
    }
    file.offset.store(to as u64, Ordering::Relaxed);
    Ok(to as usize)
}

pub fn getdents(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::READ)?;
    let Object::Archive(dir) = &file.object else { return Err(Errno::ENOTDIR) };
    if !dir.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let parent = archive::by_number(dir.parent).ok_or(Errno::ENOENT)?;
    let offset = file.offset.load(Ordering::Relaxed) as usize;
    let Some(first) = place_in(dir, offset) else { return Ok(0) };
    let special = [(&b"."[..], *dir), (&b".."[..], parent)];
    let all = special.into_iter().chain(dir.entries().iter().map(|n| (n.name, n)));
    let (mut done, mut index) = (0, first);
    for (name, node) in all.skip(first) {
        pass(index)?;
        let len = (dtype::HEADER + name.len() + 1).next_multiple_of(8);
        if done + len > a.word(2) {
            if done == 0 {
                return Err(Errno::EINVAL);
            }
            break;
        }
        put_entry(a.addr(1) + done, name, node, index as i64 + 1, len)?;
        done += len;
        index += 1;
    }
    file.offset.store(index as u64, Ordering::Relaxed);
    Ok(done)
}

/// The place in a directory's list at an offset, which a program may have set; `None` at its end and beyond.
pub fn place_in(dir: &Node, offset: usize) -> Option<usize> {
    const SPECIAL: usize = 2;
    speculation::bounded(offset, SPECIAL + dir.entries().len())
}

fn put_entry(to: UserAddr, name: &[u8], node: &Node, next: i64, len: usize) -> Result<(), Errno> {
    const LONGEST: usize = 256;
    let mut record = [0; dtype::HEADER + LONGEST + 8];
    let name = &name[..name.len().min(LONGEST - 1)];
    record[..8].copy_from_slice(&u64::from(node.ino + 1).to_le_bytes());
    record[8..16].copy_from_slice(&next.to_le_bytes());
    record[16..18].copy_from_slice(&(len as u16).to_le_bytes());
    record[18] = match node.mode & mode::FMT {
        mode::DIR => dtype::DIR,
        mode::LNK => dtype::LNK,
        mode::REG => dtype::REG,
        _ => dtype::UNKNOWN,
    };
    record[dtype::HEADER..dtype::HEADER + name.len()].copy_from_slice(name);
    let len = len.min(record.len());
    if uaccess::copy_to_user(to, &record[..len])? == len { Ok(()) } else { Err(Errno::EFAULT) }
}

/// The boot archive's device number.
const ARCHIVE: u64 = 1;

fn stat_node(node: &Node) -> Stat {
    let time = Timespec { sec: i64::from(node.mtime), nsec: 0 };
    Stat {
        dev: ARCHIVE,
        ino: u64::from(node.ino) + 1,
        mode: node.mode,
        nlink: 1,
        size: node.data.len() as i64,
        blksize: PAGE_SIZE as i32,
        blocks: node.data.len().div_ceil(512) as i64,
        atime: time,
        mtime: time,
        ctime: time,
        ..Stat::default()
    }
}

pub(super) fn stat_object(object: &Object) -> Stat {
    let special = |mode: u32, rdev: u64| Stat { mode, nlink: 1, rdev, blksize: 1024, ..Stat::default() };
    match object {
        Object::Archive(node) => stat_node(node),
        Object::Memory(file) => file.stat(),
        // Linux's numbers: 5:1 console, 1:3 null, 1:5 zero.
        Object::Console => special(mode::CHR | 0o620, 5 << 8 | 1),
        Object::Null => special(mode::CHR | 0o666, 1 << 8 | 3),
        Object::Zero => special(mode::CHR | 0o666, 1 << 8 | 5),
        // (They are no kind of file.)
        Object::EventFd(_) | Object::Epoll(_) | Object::TimerFd(_) | Object::SignalFd(_) => special(0o600, 0),
        Object::PidFd(_) => special(0o700, 0),
        Object::Pipe(..) => Stat { blksize: PAGE_SIZE as i32, ..special(mode::FIFO | 0o600, 0) },
    }
}

pub fn fstat(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file;
    uaccess::put(a.addr(1), &stat_object(&file.object))?;
    Ok(0)
}

pub fn fstatat(a: Args) -> Answer {
    const NO_AUTOMOUNT: u32 = 0x800;
    let flags = a.uint(3);
    if flags & !(at::SYMLINK_NOFOLLOW | at::EMPTY_PATH | NO_AUTOMOUNT) != 0 {
        return Err(Errno::EINVAL);
    }
    uaccess::put(a.addr(2), &stat_at(a, flags)?)?;
    Ok(0)
}

/// The record of the file that a directory's descriptor and a path name, or with an empty path the descriptor.
pub(super) fn stat_at(a: Args, flags: u32) -> Result<Stat, Errno> {
    if flags & at::EMPTY_PATH != 0 && a.int(0) >= 0 && is_empty(a.addr(1))? {
        return Ok(stat_object(&table()?.get(a.int(0))?.file.object));
    }
    let mut buffer = path_buffer()?;
    match device(uaccess::get_string(&mut buffer, a.addr(1))?) {
        Some(object) => Ok(stat_object(&object)),
        None => Ok(stat_node(resolve(a.int(0), a.addr(1), flags)?)),
    }
}

/// Whether a path is "", or (as on Linux since 6.11) null.
fn is_empty(path: UserAddr) -> Result<bool, Errno> {
    Ok(path.get() == 0 || uaccess::get::<u8>(path)? == 0)
}

pub fn readlinkat(a: Args) -> Answer {
    if a.int(3) <= 0 {
        return Err(Errno::EINVAL);
    }
    let node = resolve(a.int(0), a.addr(1), at::SYMLINK_NOFOLLOW)?;
    if !node.is_link() {
        return Err(Errno::EINVAL);
    }
    let n = node.data.len().min(a.word(3));
    uaccess::copy_to_user(a.addr(2), &node.data[..n])
}

pub fn faccessat(a: Args, flags: u32) -> Answer {
    const EXECUTE: u32 = 1;
    const WRITE: u32 = 2;
    const EFFECTIVE_IDS: u32 = 0x200;
    if a.uint(2) > 7 || flags & !(at::SYMLINK_NOFOLLOW | at::EMPTY_PATH | EFFECTIVE_IDS) != 0 {
        return Err(Errno::EINVAL);
    }
    let stat = stat_at(a, flags)?;
    if a.uint(2) & WRITE != 0 && stat.dev == ARCHIVE {
        return Err(Errno::EROFS);
    }
    if a.uint(2) & EXECUTE != 0 && stat.mode & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    Ok(0)
}

pub fn getcwd(a: Args) -> Answer {
    let node = archive::by_number(current().process().directory.get()).ok_or(Errno::ENOENT)?;
    let mut buffer = path_buffer()?;
    let len = node.path(&mut buffer)?;
    if len > a.word(1) {
        return Err(Errno::ERANGE);
    }
    if uaccess::copy_to_user(a.addr(0), &buffer[..len])? == len { Ok(len) } else { Err(Errno::EFAULT) }
}

pub fn chdir(a: Args) -> Answer {
    enter(resolve(at::FDCWD, a.addr(0), 0)?)
}

pub fn fchdir(a: Args) -> Answer {
    match &table()?.get(a.int(0))?.file.object {
        Object::Archive(node) => enter(node),
        _ => Err(Errno::ENOTDIR),
    }
}

/// A directory becomes the working directory.
fn enter(node: &Node) -> Answer {
    if !node.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    current().process().directory.set(node.ino);
    Ok(0)
}

pub fn dup(a: Args) -> Answer {
    let table = table()?;
    let descriptor = Descriptor { close_on_exec: false, ..table.get(a.int(0))? };
    table.insert(descriptor, 0, limit()).map(|fd| fd as usize)
}

pub fn dup3(a: Args) -> Answer {
    let flags = Open::from_bits_retain(a.uint(2));
    if a.int(0) == a.int(1) || !(flags - Open::CLOEXEC).is_empty() {
        return Err(Errno::EINVAL);
    }
    let table = table()?;
    let descriptor = Descriptor { close_on_exec: flags.contains(Open::CLOEXEC), ..table.get(a.int(0))? };
    let replaced = table.replace(a.int(1), descriptor, limit())?;
    drop(replaced);
    Ok(a.word(1))
}

pub fn pipe2(a: Args) -> Answer {
    let flags = Open::from_bits_retain(a.uint(1));
    if !(flags - Open::CLOEXEC - Open::NONBLOCK).is_empty() {
        return Err(Errno::EINVAL);
    }
    let made = match make_pipe(a, flags) {
        Err(Errno::ENOMEM) => oom::again(Errno::ENOMEM, || make_pipe(a, flags)),
        made => made,
    };
    // pipe(2) documents no ENOMEM; like Linux, answer ENFILE if there is no memory for a pipe.
    made.map_err(|e| if e == Errno::ENOMEM { Errno::ENFILE } else { e })
}

fn make_pipe(a: Args, flags: Open) -> Answer {
    let pipe = Pipe::new()?;
    let status = flags & Open::NONBLOCK;
    let close_on_exec = flags.contains(Open::CLOEXEC);
    let reader = OpenFile::new(Object::Pipe(pipe.clone(), Side::Reader), status)?;
    let writer = OpenFile::new(Object::Pipe(pipe, Side::Writer), status | Open::WRONLY)?;
    let table = table()?;
    let reader = table.insert(Descriptor { file: reader, rights: Rights::READ, close_on_exec }, 0, limit())?;
    let writer = match table.insert(Descriptor { file: writer, rights: Rights::WRITE, close_on_exec }, 0, limit()) {
        Ok(fd) => fd,
        Err(e) => {
            drop(table.remove(reader));
            return Err(e);
        }
    };
    if let Err(e) = uaccess::put(a.addr(0), &[reader, writer]) {
        drop(table.remove(reader));
        drop(table.remove(writer));
        return Err(e);
    }
    Ok(0)
}
