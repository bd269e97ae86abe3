//! Making and removing names, and changing attributes of nodes other than files.

use quire_abi::Errno;
use quire_abi::ipc::rights;
use quire_abi::layout::at;
use quire_abi::names::{Change, op};
use quire_fs::request::{Answer, Request};
use quire_fs::walk::{End, Last, Names};
use quire_fs::who::{WRITE, Who};

use crate::objects::Objects;
use crate::table::Kind;
use crate::tree::{Make, ROOT, SET_GROUP, Tree};

impl<O: Objects> Tree<O> {
    pub(crate) fn mkdir(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let name = new_name(request, end)?;
        let mode = request.mode as u32 & 0o7777;
        let node = self.make(request.identity, end.directory, name, mode, Make::Directory)?;
        self.answer(node, 0)
    }

    pub(crate) fn symlink(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let name = new_name(request, end)?;
        if end.slash || request.text.is_empty() {
            return Err(Errno::ENOENT);
        }
        if request.text.contains(&0) {
            return Err(Errno::EINVAL);
        }
        let node = self.make(request.identity, end.directory, name, 0o777, Make::Link(request.text))?;
        self.answer(node, 0)
    }

    pub(crate) fn socket(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let name = new_name(request, end)?;
        if end.slash {
            return Err(Errno::ENOENT);
        }
        let mode = request.mode as u32 & 0o7777;
        let node = self.make(request.identity, end.directory, name, mode, Make::Socket)?;
        self.answer(node, 0)
    }

    pub(crate) fn link_to(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let (_, _, node) = self.old(request)?;
        let name = new_name(request, end)?;
        if end.slash {
            return Err(Errno::ENOENT);
        }
        if self.is_dir(node) {
            return Err(Errno::EPERM);
        }
        self.check_writable(request.identity, end.directory)?;
        self.link(end.directory, name, node)?;
        Ok(Answer::default())
    }

    /// The name in the second text, in the second directory; returns that directory, the name, and the node. ENOENT;
    /// ENOTDIR for a name with a slash that is not a directory's.
    pub(crate) fn old<'a>(&self, request: &Request<'a>) -> Result<(u32, &'a [u8], u32), Errno> {
        let directory = self.table.slot(request.mode).ok_or(Errno::ENOENT)?;
        let slashes = request.text.iter().rev().take_while(|byte| **byte == b'/').count();
        let name = &request.text[..request.text.len() - slashes];
        let node = self.child(directory, name)?.ok_or(Errno::ENOENT)?;
        if slashes != 0 && !self.is_dir(node) {
            return Err(Errno::ENOTDIR);
        }
        Ok((directory, name, node))
    }

    /// The parent directory of the last name. EBUSY for `.`, `..` and the root, which cannot be moved; EPERM for a
    /// second name of a directory.
    pub(crate) fn parent_of(&self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        match &end.last {
            Last::Name(range) => {
                let words = [self.table.number(end.directory), range.start as u64, 0, 0, 0, 0];
                Ok(Answer::done(words))
            }
            _ if request.argument == op::LINK => Err(Errno::EPERM),
            _ => Err(Errno::EBUSY),
        }
    }

    pub(crate) fn remove(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let is_rmdir = request.argument as u32 & at::REMOVEDIR != 0;
        let name = end.name_to_remove(request.path, is_rmdir)?;
        let node = end.node.ok_or(Errno::ENOENT)?;
        self.check_removable(request.identity, end.directory, node)?;
        if end.slash && !self.is_dir(node) {
            return Err(Errno::ENOTDIR);
        }
        match self.directory(node) {
            Some(_) if !is_rmdir => return Err(Errno::EISDIR),
            Some(directory) if !directory.is_empty() => return Err(Errno::ENOTEMPTY),
            None if is_rmdir => return Err(Errno::ENOTDIR),
            _ => {}
        }
        self.leave(end.directory, name, node);
        self.unlink(node);
        Ok(Answer::default())
    }

    /// The attributes of a file are kept by its memory object: the kernel changes them.
    pub(crate) fn set(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let change = request.change()?;
        let slot = end.node.ok_or(Errno::ENOENT)?;
        let place = self.owned(slot);
        if let Some(node) = self.table.get(slot)
            && !matches!(node.kind, Kind::File(_))
        {
            self.check_change(request.identity, slot, &change)?;
            let may_keep = self.asker(request.identity).is_root() || self.asker(request.identity).is_in(place.group);
            let now = self.objects.now();
            if let Some(node) = self.table.get_mut(slot) {
                if change.what & Change::MODE != 0 {
                    node.mode = change.mode & if may_keep { 0o7777 } else { 0o7777 & !SET_GROUP };
                }
                if change.what & Change::USER != 0 {
                    node.user = change.user;
                }
                if change.what & Change::GROUP != 0 {
                    node.group = change.group;
                }
                if change.what & Change::MODIFIED != 0 {
                    node.modified = change.modified;
                }
                node.changed = now;
            }
        }
        self.answer(slot, rights::READ)
    }

    fn check_change(&self, identity: (u32, u32), slot: u32, change: &Change) -> Result<(), Errno> {
        let (place, asker) = (self.owned(slot), self.asker(identity));
        if change.what & Change::MODE != 0 && self.is_link(slot) {
            return Err(Errno::EOPNOTSUPP);
        }
        let has = |bits: u32| change.what & bits != 0;
        let is_owner = place.is_owned_by(&asker);
        let gives_away = has(Change::USER) && change.user != place.user
            || has(Change::GROUP) && change.group != place.group && !asker.is_in(change.group);
        let sets_times = has(Change::ACCESSED | Change::MODIFIED);
        // (Anybody may make an empty change, as on Linux.)
        let needs_owner = has(Change::MODE | Change::USER | Change::GROUP) || sets_times && !has(Change::NOW);
        if needs_owner && !is_owner || gives_away && !asker.is_root() {
            return Err(Errno::EPERM);
        }
        let may_touch = is_owner || !sets_times || place.permits(&asker, WRITE);
        if may_touch { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Whether a directory is the other one, or below it. O(depth).
    pub(crate) fn is_within(&self, mut directory: u32, other: u32) -> bool {
        loop {
            if directory == other {
                return true;
            }
            if directory == ROOT {
                return false;
            }
            directory = self.parent(directory);
        }
    }
}

/// A name that is free. EEXIST.
fn new_name<'a>(request: &Request<'a>, end: &End) -> Result<&'a [u8], Errno> {
    if end.node.is_some() {
        return Err(Errno::EEXIST);
    }
    end.name(request.path).ok_or(Errno::EEXIST)
}
