//! Requests and their answers: a directory with a file for each disk, which is root's to read and write.

use alloc::boxed::Box;
use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::mode;
use quire_abi::names::op;
use quire_fs::records::Records;
use quire_fs::request::{Answer, Found, Request};
use quire_fs::walk::{Names, Walked, walk};
use quire_fs::who::{EXECUTE, Identity, Owned, READ, WRITE, Who};

use crate::disk::{self, Disk};

/// The directory's number. A disk's is one more than its place in the list.
const ROOT: u64 = 0;

/// Permissions of the directory, and of a disk.
const DIRECTORY: Owned = Owned { mode: mode::DIR | 0o755, user: 0, group: 0 };
const FILE: Owned = Owned { mode: mode::BLK | 0o600, user: 0, group: 0 };

/// A disk with its name.
pub struct Named<'a> {
    /// As in the directory.
    pub name: Vec<u8>,
    /// The disk.
    pub disk: Box<dyn Disk + 'a>,
}

/// All disks of a driver.
pub struct Disks<'a>(pub Vec<Named<'a>>);

impl Names for Disks<'_> {
    type Node = u64;

    fn root(&self) -> u64 {
        ROOT
    }
    fn is_dir(&self, node: u64) -> bool {
        node == ROOT
    }
    fn is_link(&self, _: u64) -> bool {
        false
    }
    fn parent(&self, _: u64) -> u64 {
        ROOT
    }
    fn child(&self, _: u64, name: &[u8]) -> Option<u64> {
        self.0.iter().position(|disk| disk.name == name).map(|at| at as u64 + 1)
    }
    fn may_search(&self, _: u64, who: &impl Who) -> bool {
        DIRECTORY.permits(who, EXECUTE)
    }
}

impl Disks<'_> {
    /// Does what is asked; `room` is that of window 1.
    pub fn serve(&mut self, request: &Request<'_>, room: usize) -> Answer {
        self.try_serve(request, room).unwrap_or_else(Answer::error)
    }

    fn try_serve(&mut self, request: &Request<'_>, room: usize) -> Result<Answer, Errno> {
        let (start, argument) = (request.directory, request.argument);
        match request.op {
            op::READDIR if start == ROOT => self.list(argument, room),
            op::PATH if start == ROOT => Ok(Answer::text(b"/".to_vec())),
            op::STATFS => Ok(Answer::done([0; 6])),
            // (Whoever has opened it may.)
            op::READ => disk::read(self.disk(start)?, argument, room).map(Answer::text),
            op::WRITE => {
                let done = disk::write(self.disk(start)?, argument, request.text)?;
                Ok(Answer::done([done as u64, 0, 0, 0, 0, 0]))
            }
            op::SYNC => self.disk(start)?.flush().map(|()| Answer::default()),
            _ if request.has_no_path() => Err(Errno::ENOTDIR),
            _ => match walk(self, &Identity(request.identity), start, request.path, request.follow())? {
                Walked::Up(behind) => Ok(Answer::up(behind)),
                Walked::Link(..) => Err(Errno::EIO),
                Walked::End { node, slash, .. } => self.at_end(request, node, slash),
            },
        }
    }

    fn at_end(&self, request: &Request<'_>, node: Option<u64>, slash: bool) -> Result<Answer, Errno> {
        let makes = match request.op {
            op::MKDIR | op::SYMLINK | op::LINK => true,
            op::OPEN => request.argument as u32 & Open::CREAT.bits() != 0,
            _ => false,
        };
        let Some(node) = node else { return Err(if makes { Errno::EACCES } else { Errno::ENOENT }) };
        let owned = if node == ROOT { DIRECTORY } else { FILE };
        if slash && node != ROOT {
            return Err(Errno::ENOTDIR);
        }
        let asker = Identity(request.identity);
        match request.op {
            op::LOOKUP => self.found(node),
            op::OPEN => self.open(Open::from_bits_retain(request.argument as u32), node, owned, &asker),
            op::ACCESS if owned.permits(&asker, request.argument as u32 & 7) => self.found(node),
            op::ACCESS => Err(Errno::EACCES),
            op::READLINK => Err(Errno::EINVAL),
            _ if makes => Err(Errno::EEXIST),
            _ => Err(Errno::EPERM),
        }
    }

    fn open(&self, flags: Open, node: u64, owned: Owned, asker: &Identity) -> Result<Answer, Errno> {
        let wanted = match flags.bits() & 3 {
            _ if flags.contains(Open::PATH) => return self.found(node),
            0 => READ,
            1 => WRITE,
            _ => READ | WRITE,
        };
        if flags.contains(Open::CREAT | Open::EXCL) {
            return Err(Errno::EEXIST);
        }
        if node == ROOT && (wanted & WRITE != 0 || flags.contains(Open::CREAT)) {
            return Err(Errno::EISDIR);
        }
        if node != ROOT && flags.contains(Open::DIRECTORY) {
            return Err(Errno::ENOTDIR);
        }
        if !owned.permits(asker, wanted) {
            return Err(Errno::EACCES);
        }
        if wanted & WRITE != 0 && self.named(node)?.disk.is_read_only() {
            return Err(Errno::EROFS);
        }
        self.found(node)
    }

    fn found(&self, node: u64) -> Result<Answer, Errno> {
        let found = match node {
            ROOT => Found { number: ROOT, mode: DIRECTORY.mode, links: 2, ..Found::default() },
            node => {
                let size = disk::len(&*self.named(node)?.disk);
                Found { number: node, mode: FILE.mode, links: 1, size, ..Found::default() }
            }
        };
        Ok(Answer::done(found.to_words()))
    }

    fn list(&self, from: u64, room: usize) -> Result<Answer, Errno> {
        let mut records = Records::new(room);
        let fixed = [(&b"."[..], ROOT, DIRECTORY.mode), (b"..", ROOT, DIRECTORY.mode)];
        let disks = self.0.iter().zip(1..).map(|(disk, number)| (&disk.name[..], number, FILE.mode));
        for ((name, number, mode), next) in fixed.into_iter().chain(disks).zip(1..).skip(from as usize) {
            if !records.push(name, number, mode, next)? {
                break;
            }
        }
        Ok(records.into_answer())
    }

    fn named(&self, node: u64) -> Result<&Named<'_>, Errno> {
        let at = node.checked_sub(1).and_then(|at| usize::try_from(at).ok()).ok_or(Errno::EISDIR)?;
        self.0.get(at).ok_or(Errno::ENOENT)
    }

    fn disk(&mut self, node: u64) -> Result<&mut dyn Disk, Errno> {
        let at = node.checked_sub(1).and_then(|at| usize::try_from(at).ok()).ok_or(Errno::EISDIR)?;
        Ok(&mut *self.0.get_mut(at).ok_or(Errno::ENOENT)?.disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SECTOR;
    use crate::disk::tests::Memory;
    use quire_abi::names::node;

    fn disks() -> Disks<'static> {
        let mut disks = Vec::new();
        for (name, sectors) in [(&b"vda"[..], 8), (b"vdb", 2)] {
            disks.push(Named { name: name.to_vec(), disk: Box::new(Memory::new(sectors)) as Box<dyn Disk> });
        }
        Disks(disks)
    }

    fn asked<'a>(op: u64, directory: u64, path: &'a [u8], argument: u64) -> Request<'a> {
        let identity = (0, 0);
        Request { op, directory, argument, mode: 0, identity, follow: true, path, text: b"" }
    }

    #[test]
    fn disks_are_found_listed_read_and_written() {
        let mut disks = disks();
        let found = disks.serve(&asked(op::OPEN, ROOT, b"vdb", 2), 0);
        assert_eq!((found.label, found.words[node::NUMBER], found.words[node::SIZE]), (0, 2, 2 * SECTOR as u64));
        let listed = disks.serve(&asked(op::READDIR, ROOT, b"", 0), 4096);
        assert_eq!(listed.text.len(), 24 + 24 + 24 + 24);
        let write = Request { text: b"hello", ..asked(op::WRITE, 1, b"", 700) };
        assert_eq!(disks.serve(&write, 0).words[0], 5);
        assert_eq!(disks.serve(&asked(op::READ, 1, b"", 700), 5).text, b"hello");
        assert_eq!(disks.serve(&asked(op::SYNC, 1, b"", 0), 0).label, 0);
    }

    #[test]
    fn a_disk_is_roots_and_nothing_else_can_be_done_there() {
        let error = |request: &Request<'_>| disks().serve(request, 4096).label as i64 as i32;
        let as_user = Request { identity: (5, 5), ..asked(op::OPEN, ROOT, b"vda", 0) };
        assert_eq!(error(&as_user), -13);
        for (request, expected) in [
            (asked(op::OPEN, ROOT, b"vdc", 0), -2),
            (asked(op::OPEN, ROOT, b"vda/", 0), -20),
            (asked(op::OPEN, ROOT, b"vda/x", 0), -20),
            (asked(op::OPEN, ROOT, b".", 1), -21),
            (asked(op::MKDIR, ROOT, b"new", 0), -13),
            (asked(op::UNLINK, ROOT, b"vda", 0), -1),
            (asked(op::READ, ROOT, b"", 0), -21),
            (asked(op::READ, 9, b"", 0), -2),
            (asked(op::READDIR, 1, b"", 0), -20),
        ] {
            assert_eq!(error(&request), expected, "{request:?}");
        }
    }
}
