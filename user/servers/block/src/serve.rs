//! Requests and their answers: a directory with a file for each disk, which only root can read and write.

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::mode;
use quire_abi::names::op;
use quire_fs::records::Records;
use quire_fs::request::{Answer, Found, Request};
use quire_fs::walk::{Names, Walked, walk};
use quire_fs::who::{EXECUTE, Identity, Owned, READ, WRITE, Who};

use crate::control;
use crate::disk::{self, SECTOR};
use crate::volume::{Disks, LIST, LIST_NAME, ROOT};

/// Permissions of the directory, of a disk, and of the list of disks.
const DIRECTORY: Owned = Owned { mode: mode::DIR | 0o755, user: 0, group: 0 };
const FILE: Owned = Owned { mode: mode::BLK | 0o600, user: 0, group: 0 };
const LIST_FILE: Owned = Owned { mode: mode::REG | 0o444, user: 0, group: 0 };

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
    fn child(&self, _: u64, name: &[u8]) -> Result<Option<u64>, Errno> {
        let volume = self.volumes().iter().find(|volume| volume.name == name).map(|volume| volume.number);
        Ok(volume.or((name == LIST_NAME).then_some(LIST)))
    }
    fn may_search(&self, _: u64, who: &impl Who) -> bool {
        DIRECTORY.permits(who, EXECUTE)
    }
}

impl Disks<'_> {
    /// Handles a request; `room` is the size of window 1.
    pub fn serve(&mut self, request: &Request<'_>, room: usize) -> Answer {
        self.try_serve(request, room).unwrap_or_else(Answer::error)
    }

    fn try_serve(&mut self, request: &Request<'_>, room: usize) -> Result<Answer, Errno> {
        let (start, argument) = (request.directory, request.argument);
        match request.op {
            op::READDIR if start == ROOT => self.entries(argument, room),
            op::PATH if start == ROOT => Ok(Answer::text(b"/".to_vec())),
            op::STATFS => Ok(Answer::done([0; 6])),
            // (Whoever has opened it may.)
            op::READ if start == ROOT => Err(Errno::EISDIR),
            op::READ if start == LIST => {
                let mut text = self.list()?;
                text.drain(..text.len().min(usize::try_from(argument).unwrap_or(usize::MAX)));
                text.truncate(room);
                Ok(Answer::text(text))
            }
            op::READ => self.with(start, |disk| disk::read(disk, argument, room)).map(Answer::text),
            op::WRITE => {
                let done = self.with(start, |disk| disk::write(disk, argument, request.text))?;
                Ok(Answer::done([done as u64, 0, 0, 0, 0, 0]))
            }
            op::SYNC if start == ROOT => self.flush().map(|()| Answer::default()),
            op::SYNC => self.with(start, |disk| disk.flush()).map(|()| Answer::default()),
            op::CONTROL => control::control(self, start, argument, request.text, request.identity.0),
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
            op::MKDIR | op::SYMLINK | op::SOCKET | op::LINK => true,
            op::OPEN => request.argument as u32 & Open::CREAT.bits() != 0,
            _ => false,
        };
        let Some(node) = node else { return Err(if makes { Errno::EACCES } else { Errno::ENOENT }) };
        let owned = match node {
            ROOT => DIRECTORY,
            LIST => LIST_FILE,
            _ => FILE,
        };
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
        if wanted & WRITE != 0 && (node == LIST || self.is_read_only(self.with_number(node)?)) {
            return Err(if node == LIST { Errno::EACCES } else { Errno::EROFS });
        }
        self.found(node)
    }

    fn found(&self, node: u64) -> Result<Answer, Errno> {
        let found = match node {
            ROOT => Found { number: ROOT, mode: DIRECTORY.mode, links: 2, ..Found::default() },
            LIST => Found { number: LIST, mode: LIST_FILE.mode, links: 1, ..Found::default() },
            number => {
                let volume = self.with_number(number)?;
                let size = volume.len() * SECTOR as u64;
                // (In place of the time of the last change.)
                Found { number, mode: FILE.mode, links: 1, size, changed: volume.device, ..Found::default() }
            }
        };
        Ok(Answer::done(found.to_words()))
    }

    fn entries(&self, from: u64, room: usize) -> Result<Answer, Errno> {
        let mut records = Records::new(room);
        let fixed =
            [(&b"."[..], ROOT, DIRECTORY.mode), (b"..", ROOT, DIRECTORY.mode), (LIST_NAME, LIST, LIST_FILE.mode)];
        let volumes = self.volumes().iter().map(|volume| (&volume.name[..], volume.number, FILE.mode));
        for ((name, number, mode), next) in fixed.into_iter().chain(volumes).zip(1..).skip(from as usize) {
            if !records.push(name, number, mode, next)? {
                break;
            }
        }
        Ok(records.into_answer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::Memory;
    use crate::volume::Naming;
    use alloc::boxed::Box;
    use alloc::vec;
    use alloc::vec::Vec;
    use quire_abi::block;
    use quire_abi::names::node;

    const NAMING: Naming = Naming { prefix: b"vd", first: b'a', major: 254, minors: 16 };

    /// Two disks, of which the first has a table with one partition.
    fn disks() -> Disks<'static> {
        let mut first = Memory::new(8);
        first.bytes[..SECTOR].fill(0);
        first.bytes[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0]);
        first.bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        let mut disks = Disks::new(NAMING, |name, damage| panic!("{name:?}: {damage}"));
        disks.add(Box::new(first)).unwrap();
        disks.add(Box::new(Memory::new(2))).unwrap();
        disks
    }

    fn asked<'a>(op: u64, directory: u64, path: &'a [u8], argument: u64) -> Request<'a> {
        let identity = (0, 0);
        Request { op, directory, argument, mode: 0, identity, follow: true, path, text: b"" }
    }

    fn number(disks: &mut Disks<'_>, name: &[u8]) -> u64 {
        let found = disks.serve(&asked(op::OPEN, ROOT, name, 2), 0);
        assert_eq!(found.label, 0);
        found.words[node::NUMBER]
    }

    #[test]
    fn disks_are_found_listed_read_and_written() {
        let mut disks = disks();
        let found = disks.serve(&asked(op::OPEN, ROOT, b"vdb", 2), 0);
        assert_eq!((found.words[node::SIZE], found.words[node::CHANGED]), (2 * SECTOR as u64, 254 << 8 | 16));
        let listed = disks.serve(&asked(op::READDIR, ROOT, b"", 0), 4096);
        assert_eq!(listed.text.len(), 24 + 24 + 32 + 3 * 24);
        let (whole, part) = (number(&mut disks, b"vda"), number(&mut disks, b"vda1"));
        let write = Request { text: b"hello", ..asked(op::WRITE, part, b"", 700) };
        assert_eq!(disks.serve(&write, 0).words[0], 5);
        for (number, at) in [(part, 700), (whole, 700 + 2 * SECTOR as u64)] {
            assert_eq!(disks.serve(&asked(op::READ, number, b"", at), 5).text, b"hello");
        }
        assert_eq!(disks.serve(&asked(op::READ, part, b"", 0), 4096).text.len(), 5 * SECTOR);
        let list = disks.serve(&asked(op::READ, LIST, b"", 0), 4096).text;
        let list = core::str::from_utf8(&list).unwrap();
        let expected = "\
major minor  #blocks  name

 254        0          4 vda
 254        1          2 vda1
 254       16          1 vdb
";
        assert_eq!(list, expected);
        assert_eq!(disks.serve(&asked(op::SYNC, part, b"", 0), 0).label, 0);
        assert_eq!(disks.serve(&asked(op::SYNC, ROOT, b"", 0), 0).label, 0);
    }

    #[test]
    fn ioctl_says_what_linux_says() {
        let mut disks = disks();
        let part = number(&mut disks, b"vda1");
        let mut control = |which: usize, text: &[u8]| {
            disks.serve(&Request { text, ..asked(op::CONTROL, part, b"", which as u64) }, 8)
        };
        assert_eq!(control(block::GETSIZE64, b"").text, (5 * SECTOR as u64).to_ne_bytes());
        assert_eq!(control(block::GETSIZE, b"").text, 5u64.to_ne_bytes());
        assert_eq!(control(block::SSZGET, b"").text, 512u32.to_ne_bytes());
        assert_eq!(control(block::ROGET, b"").text, 0u32.to_ne_bytes());
        assert_eq!(control(block::FLSBUF, b""), Answer::default());
        assert_eq!(control(block::RRPART, b""), Answer::error(Errno::EINVAL));
        assert_eq!(control(0x5401, b""), Answer::error(Errno::ENOTTY));
        let discard = |start: u64, len: u64| [start.to_ne_bytes(), len.to_ne_bytes()].concat();
        assert_eq!(control(block::DISCARD, &discard(512, 1024)), Answer::error(Errno::EOPNOTSUPP));
        for (start, len) in [(512, 5 * 512), (100, 512), (0, 100), (u64::MAX - 511, 512)] {
            assert_eq!(control(block::DISCARD, &discard(start, len)), Answer::error(Errno::EINVAL));
        }
    }

    /// Numbers are derived from the properties of a partition.
    #[test]
    fn a_partition_that_changes_is_another_one() {
        let mut disks = disks();
        let (whole, part) = (number(&mut disks, b"vda"), number(&mut disks, b"vda1"));
        let read_again = asked(op::CONTROL, whole, b"", block::RRPART as u64);
        assert_eq!(disks.serve(&read_again, 0).label, 0);
        assert_eq!(number(&mut disks, b"vda1"), part);
        let table = vec![0u8, 0, 0, 0, 0x83, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0];
        let write = Request { text: &table, ..asked(op::WRITE, whole, b"", 446) };
        assert_eq!(disks.serve(&write, 0).words[0], 16);
        assert_eq!(disks.serve(&read_again, 0).label, 0);
        assert_ne!(number(&mut disks, b"vda1"), part);
        assert_eq!(disks.serve(&asked(op::READ, part, b"", 0), 5), Answer::error(Errno::ENOENT));
        let names: Vec<_> = disks.volumes().iter().map(|volume| &volume.name[..]).collect();
        assert_eq!(names, [&b"vda"[..], b"vda1", b"vdb"]);
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
            (asked(op::OPEN, ROOT, LIST_NAME, 1), -13),
            (asked(op::MKDIR, ROOT, b"new", 0), -13),
            (asked(op::UNLINK, ROOT, b"vda", 0), -1),
            (asked(op::READ, ROOT, b"", 0), -21),
            (asked(op::WRITE, LIST, b"", 0), -2),
            (asked(op::READ, 9, b"", 0), -2),
            (asked(op::READDIR, 2, b"", 0), -20),
            (Request { identity: (5, 5), ..asked(op::CONTROL, 2, b"", block::FLSBUF as u64) }, -13),
        ] {
            assert_eq!(error(&request), expected, "{request:?}");
        }
    }
}
