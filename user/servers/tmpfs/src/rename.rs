//! Moving names.

use quire_abi::Errno;
use quire_fs::request::{Answer, Request};
use quire_fs::walk::{End, Names};
use quire_fs::who::WRITE;

use crate::objects::Objects;
use crate::tree::Tree;

/// Flags of renameat2.
const NOREPLACE: u64 = 1;
const EXCHANGE: u64 = 2;

impl<O: Objects> Tree<O> {
    pub(crate) fn rename(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let flags = request.argument;
        if flags & !(NOREPLACE | EXCHANGE) != 0 || flags == NOREPLACE | EXCHANGE {
            return Err(Errno::EINVAL);
        }
        let is_exchange = flags == EXCHANGE;
        let no_name = if flags == NOREPLACE { Errno::EEXIST } else { Errno::EBUSY };
        let new = end.name(request.path).ok_or(no_name)?;
        let (from, old, node) = self.old(request)?;
        let to = end.directory;
        match end.node {
            Some(_) if flags == NOREPLACE => return Err(Errno::EEXIST),
            None if is_exchange => return Err(Errno::ENOENT),
            _ => {}
        }
        let is_dir = self.is_dir(node);
        // A slash after the new name: in an exchange the existing node must be a directory, otherwise the moved one.
        let named = if is_exchange { end.node } else { Some(node) };
        if end.slash && named.is_some_and(|named| !self.is_dir(named)) {
            return Err(Errno::ENOTDIR);
        }
        // A directory can neither move into itself, nor replace one above it.
        if is_dir && self.is_within(to, node) {
            return Err(Errno::EINVAL);
        }
        if end.node.is_some_and(|there| self.is_dir(there) && self.is_within(from, there)) {
            return Err(if is_exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if end.node == Some(node) {
            return Ok(Answer::default());
        }
        self.check_rename(request.identity, (from, node), (to, end.node), is_exchange)?;
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
        if is_exchange {
            self.replace(from, old, node, there);
            self.replace(to, new, there, node);
            self.note_moved(node);
            self.note_moved(there);
            return Ok(Answer::default());
        }
        if self.directory(there).is_some_and(|directory| !directory.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        // (The name keeps its position: a reader that lists the directory meanwhile sees it once.)
        self.replace(to, new, there, node);
        self.leave(from, old, node);
        self.unlink(there);
        self.note_moved(node);
        Ok(Answer::default())
    }

    /// Whether the caller may move a node from its directory to another one, replacing what is there or in exchange
    /// with it. EACCES, EPERM; EISDIR and ENOTDIR if only one of the two is a directory, and they are not exchanged.
    fn check_rename(
        &self,
        identity: (u32, u32),
        (from, node): (u32, u32),
        (to, there): (u32, Option<u32>),
        is_exchange: bool,
    ) -> Result<(), Errno> {
        self.check_removable(identity, from, node)?;
        match there {
            None => self.check_writable(identity, to)?,
            Some(there) => {
                self.check_removable(identity, to, there)?;
                match (self.is_dir(node), self.is_dir(there)) {
                    _ if is_exchange => {}
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    _ => {}
                }
            }
        }
        // The `..` of a directory that moves will change.
        let moves = [Some(node), there.filter(|_| is_exchange)];
        let may_move = |moved: u32| !self.is_dir(moved) || self.owned(moved).permits(&self.asker(identity), WRITE);
        if from == to || moves.into_iter().flatten().all(may_move) { Ok(()) } else { Err(Errno::EACCES) }
    }

    fn note_moved(&mut self, slot: u32) {
        let now = self.objects.now();
        if let Some(node) = self.table.get_mut(slot) {
            node.changed = now;
        }
    }
}
