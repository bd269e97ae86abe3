//! Moving names.

use quire_abi::Errno;
use quire_fs::request::{Answer, Request};
use quire_fs::walk::Names;
use quire_fs::who::WRITE;

use crate::objects::Objects;
use crate::tree::{End, Tree};

/// Flags of renameat2.
const NOREPLACE: u64 = 1;
const EXCHANGE: u64 = 2;

impl<O: Objects> Tree<O> {
    pub(crate) fn rename(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let flags = request.argument;
        if flags & !(NOREPLACE | EXCHANGE) != 0 || flags == NOREPLACE | EXCHANGE {
            return Err(Errno::EINVAL);
        }
        let (from, old, node) = self.old(request)?;
        let new = end.name(request.path).ok_or(Errno::EBUSY)?;
        let to = end.directory;
        match end.node {
            Some(_) if flags == NOREPLACE => return Err(Errno::EEXIST),
            None if flags == EXCHANGE => return Err(Errno::ENOENT),
            _ => {}
        }
        let is_dir = self.is_dir(node);
        if end.slash && !is_dir && flags != EXCHANGE {
            return Err(Errno::ENOTDIR);
        }
        // A directory does not come to lie within itself.
        let over_dir = end.node.filter(|there| flags == EXCHANGE && self.is_dir(*there));
        if is_dir && self.is_within(to, node) || over_dir.is_some_and(|there| self.is_within(from, there)) {
            return Err(Errno::EINVAL);
        }
        self.check_removable(request.identity, from, node)?;
        self.check_writable(request.identity, to)?;
        // Its `..` changes.
        let may_move = |moved: u32| {
            from == to || !self.is_dir(moved) || self.owned(moved).permits(&self.asker(request.identity), WRITE)
        };
        if !may_move(node) || over_dir.is_some_and(|there| !may_move(there)) {
            return Err(Errno::EACCES);
        }
        let Some(there) = end.node else {
            if !self.has_room_for(new, old) {
                return Err(Errno::ENOSPC);
            }
            // (First what may fail.)
            self.enter(to, new, node)?;
            self.leave(from, old, node);
            self.note_moved(node);
            return Ok(Answer::default());
        };
        if there == node {
            return Ok(Answer::default());
        }
        self.check_removable(request.identity, to, there)?;
        if flags == EXCHANGE {
            self.replace(from, old, node, there);
            self.replace(to, new, there, node);
            self.note_moved(node);
            self.note_moved(there);
            return Ok(Answer::default());
        }
        match self.directory(there) {
            Some(_) if !is_dir => return Err(Errno::EISDIR),
            Some(directory) if !directory.is_empty() => return Err(Errno::ENOTEMPTY),
            None if is_dir => return Err(Errno::ENOTDIR),
            _ => {}
        }
        // (The name keeps its place: whoever lists the directory meanwhile meets it once.)
        self.replace(to, new, there, node);
        self.leave(from, old, node);
        self.unlink(there);
        self.note_moved(node);
        Ok(Answer::default())
    }

    fn note_moved(&mut self, slot: u32) {
        let now = self.objects.now();
        if let Some(node) = self.table.get_mut(slot) {
            node.changed = now;
        }
    }
}
