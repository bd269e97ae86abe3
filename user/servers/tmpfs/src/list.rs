//! Listing directories, and the paths of nodes.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::names::{list, statfs};
use quire_fs::records::Records;
use quire_fs::request::{Answer, TEXT_MAX};
use quire_fs::walk::Names;

use crate::directory::FIRST;
use crate::objects::Objects;
use crate::table::{MOST, Node};
use crate::tree::{ROOT, Tree};

/// Linux's number of this type of file system.
const TMPFS: u64 = 0x0102_1994;

impl<O: Objects> Tree<O> {
    /// Records of at most `room` bytes from a position on. EINVAL if not even one fits.
    pub(crate) fn readdir(&self, slot: u32, place: u64, room: usize) -> Result<Answer, Errno> {
        let directory = self.directory(slot).ok_or(Errno::ENOTDIR)?;
        let special = [(0, &b"."[..], slot), (1, &b".."[..], self.parent(slot))];
        let special = special.into_iter().filter(|(at, ..)| *at >= place);
        let mut records = Records::new(room);
        let mut is_end = 1;
        for (at, name, node) in special.chain(directory.from(place.max(FIRST))) {
            let mode = self.table.get(node).map_or(0, Node::full_mode);
            if !records.push(name, self.table.number(node), mode, at + 1)? {
                is_end = 0;
                break;
            }
        }
        let mut answer = records.into_answer().kept();
        answer.words[list::IS_END] = is_end;
        Ok(answer)
    }

    /// A directory that contains a node.
    fn holder(&self, slot: u32) -> Option<u32> {
        if self.directory(slot).is_some() {
            return Some(self.parent(slot));
        }
        let has = |holder: &u32| self.directory(*holder).is_some_and(|holder| holder.name_of(slot).is_some());
        self.table.slots().find(has)
    }

    /// The path of a directory, or one path of a file. ENOENT for a file without a name, ENAMETOOLONG. O(names of the
    /// directories on the way), and for a file O(names in all directories).
    pub(crate) fn path(&self, slot: u32) -> Result<Answer, Errno> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let (mut at, mut len) = (slot, 0);
        while at != ROOT {
            let parent = self.holder(at).ok_or(Errno::ENOENT)?;
            let name = self.directory(parent).and_then(|parent| parent.name_of(at)).ok_or(Errno::ENOENT)?;
            len += 1 + name.len();
            if len > TEXT_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            parts.try_reserve(1).map_err(|_| Errno::EIO)?;
            parts.push(name);
            at = parent;
        }
        let mut path = Vec::new();
        path.try_reserve_exact(len + 1).map_err(|_| Errno::EIO)?;
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Ok(Answer::text(path))
    }

    /// Sizes: `pages` and `free` are those of the machine.
    pub(crate) fn statfs(&self, (pages, free): (u64, u64)) -> Answer {
        let mut words = [0; 6];
        words[statfs::PAGES] = pages / 2;
        words[statfs::FREE] = free.min(pages / 2);
        words[statfs::FILES] = MOST as u64;
        words[statfs::FREE_FILES] = (MOST - self.table.len()) as u64;
        words[statfs::KIND] = TMPFS;
        Answer::done(words)
    }
}
