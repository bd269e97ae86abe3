//! A tree with the test's own objects, and requests in the way of the kernel.

#![allow(dead_code)]

use std::cell::Cell;
use std::collections::BTreeMap;

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::{Stat, dtype, mode};
use quire_abi::names::{self, DONE, KEPT, NOTHING, op};
use quire_fs::request::{Answer, Request};
use quire_tmpfs::objects::Objects;
use quire_tmpfs::tree::Tree;

/// Memory objects: the object of each handle; and each object's record.
#[derive(Default)]
pub struct Model {
    pub handles: BTreeMap<u32, u64>,
    pub objects: BTreeMap<u64, Stat>,
    pub groups: Vec<u32>,
    next: u32,
    clock: Cell<u64>,
}

impl Objects for Model {
    fn make(&mut self, mode_: u32, (uid, gid): (u32, u32), number: u64) -> Result<u32, Errno> {
        self.next += 1;
        self.handles.insert(self.next, number);
        let stat = Stat { mode: mode::REG | mode_, uid, gid, ino: number, ..Stat::default() };
        assert!(self.objects.insert(number, stat).is_none(), "a number is used once");
        Ok(self.next)
    }
    fn stat(&self, handle: u32) -> Stat {
        self.objects[&self.handles[&handle]]
    }
    fn set_links(&mut self, handle: u32, links: u32) {
        let object = self.handles[&handle];
        self.objects.get_mut(&object).unwrap().nlink = links;
    }
    fn close(&mut self, handle: u32) {
        assert!(self.handles.remove(&handle).is_some(), "it was open");
    }
    fn now(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }
    fn is_caller_in(&self, group: u32) -> bool {
        self.groups.contains(&group)
    }
}

pub struct Asked {
    pub tree: Tree<Model>,
    pub who: (u32, u32),
    pub start: u64,
}

/// An answer's description of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    pub number: u64,
    pub mode: u32,
    pub links: u32,
}

impl Asked {
    pub fn new() -> Self {
        Self { tree: Tree::new(Model::default(), 0o755), who: (0, 0), start: 0 }
    }

    /// Makes a request. A lent handle must exist.
    pub fn raw(&mut self, op: u64, path: &str, argument: u64, mode: u64, text: &[u8], follow: bool) -> Answer {
        let path = path.as_bytes();
        let request = Request { op, directory: self.start, argument, mode, identity: self.who, follow, path, text };
        let answer = self.tree.serve(&request, if op == op::READDIR { mode as usize } else { 4095 }, || (1000, 500));
        if let Some((handle, _)) = answer.handle {
            assert!(self.tree.objects.handles.contains_key(&handle));
        }
        answer
    }

    pub fn ask(&mut self, op: u64, path: &str, argument: u64, mode: u64, text: &[u8]) -> Result<Answer, Errno> {
        let answer = self.raw(op, path, argument, mode, text, false);
        match answer.label {
            DONE | KEPT => Ok(answer),
            NOTHING => Err(Errno::ENOENT),
            label => Err(Errno::from_ret(label as isize).expect_err("not stopped on the way")),
        }
    }

    pub fn open(&mut self, path: &str, flags: Open, mode: u32) -> Result<Node, Errno> {
        let answer = self.ask(op::OPEN, path, flags.bits().into(), mode.into(), b"")?;
        Ok(self.node(&answer))
    }

    pub fn create(&mut self, path: &str) -> Result<Node, Errno> {
        self.open(path, Open::CREAT | Open::EXCL | Open::WRONLY, 0o644)
    }

    pub fn mkdir(&mut self, path: &str) -> Result<(), Errno> {
        self.ask(op::MKDIR, path, 0, 0o755, b"").map(drop)
    }

    pub fn symlink(&mut self, text: &str, path: &str) -> Result<(), Errno> {
        self.ask(op::SYMLINK, path, 0, 0, text.as_bytes()).map(drop)
    }

    pub fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        self.ask(op::UNLINK, path, 0, 0, b"").map(drop)
    }

    pub fn rmdir(&mut self, path: &str) -> Result<(), Errno> {
        self.ask(op::UNLINK, path, 0x200, 0, b"").map(drop)
    }

    /// In the way of the kernel: finds the old name's directory, then does the operation.
    pub fn with_old(&mut self, op: u64, old: &str, new: &str, flags: u64) -> Result<(), Errno> {
        let parent = self.ask(op::PARENT, old, op, 0, b"")?;
        let name = &old.as_bytes()[parent.words[1] as usize..];
        self.ask(op, new, flags, parent.words[0], name).map(drop)
    }

    pub fn rename(&mut self, old: &str, new: &str, flags: u64) -> Result<(), Errno> {
        self.with_old(op::RENAME, old, new, flags)
    }

    pub fn link(&mut self, old: &str, new: &str) -> Result<(), Errno> {
        self.with_old(op::LINK, old, new, 0)
    }

    pub fn lookup(&mut self, path: &str) -> Result<Node, Errno> {
        let answer = self.ask(op::LOOKUP, path, 0, 0, b"")?;
        Ok(self.node(&answer))
    }

    pub fn node(&self, answer: &Answer) -> Node {
        let words = answer.words;
        Node {
            number: words[names::node::NUMBER],
            mode: words[names::node::MODE] as u32,
            links: (words[names::node::MODE] >> 32) as u32,
        }
    }

    /// The names from one call, and the position after the last one.
    pub fn list(&mut self, directory: u64, place: u64, room: u64) -> Result<(Vec<(String, u8)>, u64), Errno> {
        let start = std::mem::replace(&mut self.start, directory);
        let answer = self.ask(op::READDIR, "", place, room, b"");
        self.start = start;
        let text = answer?.text;
        let (mut rest, mut names, mut next) = (&text[..], Vec::new(), place);
        while !rest.is_empty() {
            let len = usize::from(u16::from_le_bytes([rest[16], rest[17]]));
            assert!(len.is_multiple_of(8));
            next = u64::from_le_bytes(rest[8..16].try_into().unwrap());
            let name = rest[dtype::HEADER..len].split(|byte| *byte == 0).next().unwrap();
            names.push((String::from_utf8(name.to_vec()).unwrap(), rest[18]));
            rest = &rest[len..];
        }
        Ok((names, next))
    }

    /// All names of a directory but `.` and `..`, in order.
    pub fn names(&mut self, path: &str) -> Vec<String> {
        let directory = self.lookup(path).unwrap().number;
        let (mut all, mut place) = (Vec::new(), 0);
        loop {
            let (names, next) = self.list(directory, place, 300).unwrap();
            if names.is_empty() {
                break;
            }
            all.extend(names.into_iter().map(|(name, _)| name));
            place = next;
        }
        assert_eq!(&all[..2], [".", ".."]);
        let mut names = all.split_off(2);
        names.sort();
        names
    }
}
