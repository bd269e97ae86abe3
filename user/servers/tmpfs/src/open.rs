//! Opening, lookups, access checks, reading links.

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::ipc::rights;
use quire_fs::request::{Answer, Request};
use quire_fs::walk::{End, Names};
use quire_fs::who::{READ, WRITE};

use crate::directory::copied;
use crate::objects::Objects;
use crate::table::{Kind, Node};
use crate::tree::{Make, Tree};

/// A flag of open: a file without a name.
const TMPFILE: u32 = 0o20000000;

impl<O: Objects> Tree<O> {
    pub(crate) fn lookup(&self, end: &End) -> Result<Answer, Errno> {
        let Some(node) = end.node else { return Ok(Answer::nothing()) };
        // (The kernel decides who may access a file that it has cached, and how.)
        let mut answer = self.answer(node, rights::READ | rights::WRITE)?.kept();
        if let Some(Node { kind: Kind::Link(text), .. }) = self.table.get(node) {
            answer.text = copied(text)?;
        }
        Ok(answer)
    }

    pub(crate) fn open(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let flags = Open::from_bits_retain(request.argument as u32);
        if flags.bits() & TMPFILE != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if flags.contains(Open::PATH) {
            return self.open_name(flags, end);
        }
        let makes = flags.contains(Open::CREAT);
        if makes && flags.contains(Open::DIRECTORY) {
            return Err(Errno::EINVAL);
        }
        if makes && end.slash {
            return Err(Errno::EISDIR);
        }
        let Some(node) = end.node else { return self.create(request, flags, end) };
        if flags.contains(Open::CREAT | Open::EXCL) {
            return Err(Errno::EEXIST);
        }
        self.check_slash(end)?;
        let is_dir = self.is_dir(node);
        if flags.contains(Open::DIRECTORY) && !is_dir {
            return Err(Errno::ENOTDIR);
        }
        if self.is_link(node) {
            return Err(Errno::ELOOP);
        }
        if matches!(self.table.get(node), Some(Node { kind: Kind::Socket, .. })) {
            return Err(Errno::ENXIO);
        }
        let (wanted, rights) = access(flags);
        if is_dir && (wanted & WRITE != 0 || makes) {
            return Err(Errno::EISDIR);
        }
        if !self.may(request.identity, node, wanted) {
            return Err(Errno::EACCES);
        }
        self.answer(node, rights)
    }

    fn open_name(&self, flags: Open, end: &End) -> Result<Answer, Errno> {
        let node = end.node.ok_or(Errno::ENOENT)?;
        self.check_slash(end)?;
        if flags.contains(Open::DIRECTORY) && !self.is_dir(node) {
            return Err(Errno::ENOTDIR);
        }
        self.answer(node, rights::READ)
    }

    fn create(&mut self, request: &Request<'_>, flags: Open, end: &End) -> Result<Answer, Errno> {
        if !flags.contains(Open::CREAT) {
            return Err(Errno::ENOENT);
        }
        let name = end.name(request.path).ok_or(Errno::EISDIR)?;
        let mode = request.mode as u32 & 0o7777;
        let node = self.make(request.identity, end.directory, name, mode, Make::File)?;
        self.answer(node, access(flags).1)
    }

    pub(crate) fn access(&self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let node = end.node.ok_or(Errno::ENOENT)?;
        let may = self.may(request.identity, node, request.argument as u32 & 7);
        if may { Ok(Answer::default()) } else { Err(Errno::EACCES) }
    }

    pub(crate) fn readlink(&self, end: &End) -> Result<Answer, Errno> {
        match self.table.get(end.node.ok_or(Errno::ENOENT)?) {
            Some(Node { kind: Kind::Link(text), .. }) => Ok(Answer::text(copied(text)?)),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// The access that open's flags ask for, and the corresponding rights of the handle.
fn access(flags: Open) -> (u32, u32) {
    let (access, mut rights) = match flags.bits() & 3 {
        0 => (READ, rights::READ),
        1 => (WRITE, rights::WRITE),
        _ => (READ | WRITE, rights::READ | rights::WRITE),
    };
    if !flags.contains(Open::TRUNC) {
        return (access, rights);
    }
    rights |= rights::WRITE;
    (access | WRITE, rights)
}
