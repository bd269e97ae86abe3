//! Opening files, and reading directories.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::{dtype, mode};
use quire_abi::names::op;
use quire_mm::UserAddr;
use quire_mm::fallible::KArc;

use super::file::{limit, table};
use super::lookup::{device, request, request_of, text_of};
use super::memory_file::cut;
use super::poll::pass;
use super::{Answer, Args};
use crate::arch::{speculation, uaccess};
use crate::archive::{self, Node};
use crate::ipc::descriptor::{Descriptor, Object, OpenFile, Rights};
use crate::ipc::memory_file::MemoryFile;
use crate::ipc::pipe::Side;
use crate::names::path::{PATH_MAX, Path};
use crate::names::target::{Allows, Found, Name};
use crate::names::walk::{Reached, Request};
use crate::task::thread::current;

pub fn openat(a: Args) -> Answer {
    let flags = Open::from_bits_retain(a.uint(2));
    // With O_PATH only these count.
    let of_path = Open::PATH | Open::DIRECTORY | Open::NOFOLLOW | Open::CLOEXEC;
    let flags = if flags.contains(Open::PATH) { flags & of_path } else { flags };
    if flags.contains(Open::CREAT | Open::DIRECTORY) {
        return Err(Errno::EINVAL);
    }
    let mut path = Path::from_user(a.addr(1))?;
    let rights = match a.uint(2) & 3 {
        _ if flags.contains(Open::PATH) => Rights::empty(),
        0 => Rights::READ,
        1 => Rights::WRITE,
        _ => Rights::READ | Rights::WRITE,
    };
    let object = match device(path.rest()) {
        Some(_) if flags.contains(Open::CREAT | Open::EXCL) => return Err(Errno::EEXIST),
        Some(_) if flags.contains(Open::DIRECTORY) => return Err(Errno::ENOTDIR),
        Some(object) => object,
        None => open_path(a.int(0), &mut path, flags, a.uint(3), rights)?,
    };
    let status = flags - Open::CLOEXEC - Open::CREAT - Open::EXCL - Open::NOCTTY - Open::TRUNC;
    let file = OpenFile::new(object, status)?;
    let descriptor = Descriptor { file, rights, close_on_exec: flags.contains(Open::CLOEXEC) };
    table()?.insert(descriptor, 0, limit()).map(|fd| fd as usize)
}

fn open_path(dirfd: i32, path: &mut Path, flags: Open, mode: u32, rights: Rights) -> Result<Object, Errno> {
    let makes = flags.contains(Open::CREAT);
    let mode = mode & 0o7777 & !current().process().directory.umask();
    let asked = Request {
        op: op::OPEN,
        argument: flags.bits().into(),
        mode: mode.into(),
        follow: !flags.contains(Open::NOFOLLOW) && !flags.contains(Open::CREAT | Open::EXCL),
        ..Request::LOOKUP
    };
    let reached = request(dirfd, path, &asked)?;
    if makes && matches!(reached, Reached::Archive(None)) {
        return Err(Errno::EROFS);
    }
    match Found::of(reached)? {
        Found::Archive(node) => open_node(node, flags, rights),
        Found::File(file, allows) => open_file(file, allows, flags, rights),
        Found::Name(name) => open_name(name, flags),
        Found::Held(object) => open_held(object, flags, rights),
    }
}

fn open_node(node: &'static Node, flags: Open, rights: Rights) -> Result<Object, Errno> {
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

/// Opens a server's file. EACCES if the server does not lend the requested rights.
fn open_file(file: KArc<MemoryFile>, allows: Allows, flags: Open, rights: Rights) -> Result<Object, Errno> {
    let lacks = |right: Rights, is_there: bool| rights.contains(right) && !is_there;
    if lacks(Rights::READ, allows.read) || lacks(Rights::WRITE, allows.write) {
        return Err(Errno::EACCES);
    }
    if flags.contains(Open::TRUNC) {
        if !allows.write {
            return Err(Errno::EACCES);
        }
        cut(&file, 0)?;
    }
    Ok(Object::Memory(file))
}

fn open_name(name: Name, flags: Open) -> Result<Object, Errno> {
    if name.is_link() && !flags.contains(Open::PATH) {
        return Err(Errno::ELOOP);
    }
    let name = name.opened()?;
    if let Some(file) = name.file.as_ref().filter(|_| flags.contains(Open::TRUNC)) {
        // (The server allows writing it.)
        cut(file, 0)?;
    }
    Ok(Object::Name(name))
}

/// Opens an object that a process holds again: for a pipe, the requested side. ENXIO for an object without a name that
/// cannot be opened in this way, as on Linux.
fn open_held(object: Object, flags: Open, rights: Rights) -> Result<Object, Errno> {
    if flags.contains(Open::DIRECTORY) {
        return Err(Errno::ENOTDIR);
    }
    match object {
        Object::Console | Object::Null | Object::Zero => Ok(object),
        Object::Pipe(pipe, side) => {
            let side = match rights {
                Rights::READ => Side::Reader,
                Rights::WRITE => Side::Writer,
                rights if rights.is_empty() => side,
                _ => return Err(Errno::ENXIO),
            };
            pipe.open(side);
            Ok(Object::Pipe(pipe, side))
        }
        _ => Err(Errno::ENXIO),
    }
}

pub fn getdents(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::READ)?;
    match &file.object {
        Object::Archive(dir) if dir.is_dir() => list_node(dir, &file, a),
        Object::Name(name) if name.is_dir() => list_name(name, &file, a),
        _ => Err(Errno::ENOTDIR),
    }
}

/// The server's records, unchanged.
fn list_name(name: &Name, file: &OpenFile, a: Args) -> Answer {
    let room = a.word(2).min(PATH_MAX);
    if room < dtype::HEADER {
        return Err(Errno::EINVAL);
    }
    let argument = file.offset.load(Ordering::Relaxed);
    let asked = Request { op: op::READDIR, argument, mode: room as u64, room, ..Request::LOOKUP };
    let Reached::Server(served) = request_of(name.place, &asked)? else { return Err(Errno::EIO) };
    let records = text_of(&served)?;
    let next = last_offset(records)?;
    if uaccess::copy_to_user(a.addr(1), records)? != records.len() {
        return Err(Errno::EFAULT);
    }
    if let Some(next) = next {
        file.offset.store(next, Ordering::Relaxed);
    }
    Ok(records.len())
}

/// The position of the next record, according to the last one. EIO for invalid records.
fn last_offset(mut records: &[u8]) -> Result<Option<u64>, Errno> {
    let mut last = None;
    while !records.is_empty() {
        let header = records.first_chunk::<{ dtype::HEADER }>().ok_or(Errno::EIO)?;
        let len = usize::from(u16::from_le_bytes([header[16], header[17]]));
        let [.., a, b, c, d, e, f, g, h] = *header.first_chunk::<16>().ok_or(Errno::EIO)?;
        last = Some(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        records = records.get(len..).filter(|_| len > dtype::HEADER).ok_or(Errno::EIO)?;
    }
    Ok(last)
}

fn list_node(dir: &Node, file: &OpenFile, a: Args) -> Answer {
    let parent = archive::by_number(dir.parent).ok_or(Errno::ENOENT)?;
    let offset = file.offset.load(Ordering::Relaxed) as usize;
    let Some(first) = place_in(dir, offset) else { return Ok(0) };
    let special = [(&b"."[..], dir), (&b".."[..], parent)];
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

/// The index in a directory's list for an offset, which a program may have set; `None` at the end of the list and
/// beyond.
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
