//! Listing directories, paths, sizes.

use alloc::vec::Vec;

use hadris_fs::DirCursor;
use quire_abi::Errno;
use quire_abi::layout::mode;
use quire_abi::names::statfs;
use quire_fs::records::Records;
use quire_fs::request::{Answer, TEXT_MAX};
use quire_fs::walk::Names;

use crate::aside::is_hidden;
use crate::disk::Disk;
use crate::error::errno;
use crate::nodes::ROOT;
use crate::tree::Tree;

/// The position of the first name; `.` and `..` have those before it.
const FIRST: u64 = 2;

/// Inode numbers in a list for entries without a number: Linux makes them up too.
const UNKNOWN: u64 = 1 << 47;

/// Linux's number of this type of file system.
const MSDOS: u64 = 0x4d44;

/// Bytes of a page.
const PAGE: u64 = quire_abi::PAGE_SIZE as u64;

impl<D: Disk> Tree<D> {
    /// Records of at most `room` bytes from a position on. EINVAL if not even one fits.
    pub(crate) fn readdir(&mut self, slot: u32, place: u64, room: usize) -> Result<Answer, Errno> {
        let parent = self.parent(slot);
        let inner = self.inner.get_mut();
        let node = *inner.nodes.get(slot).ok_or(Errno::ENOENT)?;
        if !node.is_dir {
            return Err(Errno::ENOTDIR);
        }
        let mut records = Records::new(room);
        for (at, name, of) in [(0, &b"."[..], slot), (1, b"..", parent)] {
            if at >= place && !records.push(name, inner.nodes.number(of), mode::DIR, at + 1)? {
                return Ok(records.into_answer());
            }
        }
        let mut cursor = DirCursor::from_raw(place.saturating_sub(FIRST));
        while let Some(entry) = inner.volume.fat.readdir(node.id, cursor).map_err(errno)? {
            let known = inner.nodes.with_id(entry.node()).map(|slot| inner.nodes.number(slot));
            let number = known.unwrap_or(UNKNOWN + entry.node().get() % UNKNOWN);
            let kind = if entry.file_type().is_dir() { mode::DIR } else { mode::REG };
            cursor = entry.next_cursor();
            if is_hidden(slot, entry.name().as_bytes()) {
                continue;
            }
            if !records.push(entry.name().as_bytes(), number, kind, cursor.into_raw() + FIRST)? {
                break;
            }
        }
        Ok(records.into_answer())
    }

    /// Whether a directory is empty.
    pub(crate) fn is_empty(&mut self, slot: u32) -> Result<bool, Errno> {
        let inner = self.inner.get_mut();
        let id = inner.nodes.get(slot).ok_or(Errno::ENOENT)?.id;
        inner.volume.fat.readdir(id, DirCursor::from_raw(0)).map(|first| first.is_none()).map_err(errno)
    }

    /// The path of a node. O(names in the directories on the way).
    pub(crate) fn path(&mut self, slot: u32) -> Result<Answer, Errno> {
        let inner = self.inner.get_mut();
        let mut path = Vec::new();
        let mut at = slot;
        while at != ROOT {
            let node = *inner.nodes.get(at).ok_or(Errno::ENOENT)?;
            if inner.aside.is_it(node.parent) {
                return Err(Errno::ENOENT);
            }
            let parent = inner.nodes.get(node.parent).ok_or(Errno::ENOENT)?.id;
            let mut cursor = DirCursor::from_raw(0);
            let entry = loop {
                let entry = inner.volume.fat.readdir(parent, cursor).map_err(errno)?.ok_or(Errno::ENOENT)?;
                if entry.node() == node.id {
                    break entry;
                }
                cursor = entry.next_cursor();
            };
            let name = entry.name().as_bytes();
            if path.len() + 1 + name.len() > TEXT_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            path.try_reserve(1 + name.len()).map_err(|_| Errno::EIO)?;
            // (The path is built from its end, and finally reversed as a whole.)
            path.extend(name.iter().rev());
            path.push(b'/');
            at = node.parent;
        }
        path.reverse();
        if path.is_empty() {
            path.push(b'/');
        }
        Ok(Answer::text(path))
    }

    /// Sizes, in pages.
    pub(crate) fn statfs(&mut self) -> Result<Answer, Errno> {
        let stats = self.inner.get_mut().volume.fat.statfs().map_err(errno)?;
        let mut words = [0; 6];
        words[statfs::PAGES] = stats.total_bytes() / PAGE;
        words[statfs::FREE] = stats.free_bytes() / PAGE;
        words[statfs::KIND] = MSDOS;
        Ok(Answer::done(words))
    }
}
