//! Making and removing names, and changing attributes.

use hadris_fs::{Attributes, Name, SetAttr};
use quire_abi::Errno;
use quire_abi::layout::at;
use quire_abi::names::{Change, op};
use quire_fs::request::{Answer, Request};
use quire_fs::walk::{End, Last, Names};
use quire_fs::who::{WRITE, Who};

use crate::disk::Disk;
use crate::error::errno;
use crate::nodes::ROOT;
use crate::tree::Tree;
use crate::volume::time;

/// The write permission of a file's owner.
const OWNER_WRITES: u32 = 0o200;

impl<D: Disk> Tree<D> {
    pub(crate) fn mkdir(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let name = new_name(request, end)?;
        self.check_writable(request.identity, end.directory)?;
        let node = self.make(end.directory, name, true)?;
        self.found(node)
    }

    /// FAT supports neither kind of link. EEXIST; EPERM.
    pub(crate) fn no_link(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        new_name(request, end)?;
        Err(Errno::EPERM)
    }

    /// The parent directory of the last name. EBUSY for `.`, `..` and the root, which cannot be moved; EPERM for a
    /// second name of a file.
    pub(crate) fn parent_of(&self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        match &end.last {
            Last::Name(range) => {
                let number = self.inner.borrow().nodes.number(end.directory);
                Ok(Answer::done([number, range.start as u64, 0, 0, 0, 0]))
            }
            _ if request.argument == op::LINK => Err(Errno::EPERM),
            _ => Err(Errno::EBUSY),
        }
    }

    /// A file that is open is moved [aside](crate::aside).
    pub(crate) fn remove(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let is_rmdir = request.argument as u32 & at::REMOVEDIR != 0;
        let name = end.name_to_remove(request.path, is_rmdir)?;
        let node = end.node.ok_or(Errno::ENOENT)?;
        self.check_writable(request.identity, end.directory)?;
        if end.slash && !self.is_dir(node) {
            return Err(Errno::ENOTDIR);
        }
        match self.is_dir(node) {
            true if !is_rmdir => return Err(Errno::EISDIR),
            false if is_rmdir => return Err(Errno::ENOTDIR),
            _ => {}
        }
        let inner = self.inner.get_mut();
        if !is_rmdir && self.kernel.is_open(inner.nodes.number(node)) {
            return inner.set_aside(end.directory, name, node).map(|()| Answer::default());
        }
        let place = inner.nodes.get(end.directory).ok_or(Errno::ENOENT)?.id;
        match is_rmdir {
            true => inner.volume.fat.rmdir(place, Name::new(name)),
            false => inner.volume.fat.unlink(place, Name::new(name)),
        }
        .map_err(errno)?;
        inner.forget(node);
        Ok(Answer::default())
    }

    /// The only attribute for permissions marks a file that nobody may write; as on Linux, other changes have no
    /// effect. EPERM for an owner other than root.
    pub(crate) fn set(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let change = request.change()?;
        let slot = end.node.ok_or(Errno::ENOENT)?;
        self.check_change(request.identity, slot, &change)?;
        let has = |bits: u32| change.what & bits != 0;
        let inner = self.inner.get_mut();
        let metadata = inner.stat(slot)?;
        let mut wanted = SetAttr::new();
        if has(Change::MODE) && !metadata.file_type().is_dir() {
            let (old, bit) = (metadata.attributes(), Attributes::READ_ONLY);
            let new = if change.mode & OWNER_WRITES != 0 { old.without(bit) } else { old.union(bit) };
            if new != old {
                wanted = wanted.with_attributes(new);
            }
        }
        if has(Change::MODIFIED) {
            wanted = wanted.with_modified(time(change.modified)?);
        }
        if has(Change::ACCESSED) {
            wanted = wanted.with_accessed(time(change.accessed)?);
        }
        // (The root has no entry that could store it.)
        if !wanted.is_empty() && slot != ROOT {
            inner.change()?;
            let id = inner.nodes.get(slot).ok_or(Errno::ENOENT)?.id;
            inner.volume.fat.setattr(id, &wanted).map_err(errno)?;
        }
        self.found(slot)
    }

    fn check_change(&self, identity: (u32, u32), slot: u32, change: &Change) -> Result<(), Errno> {
        let (place, asker) = (self.owned(slot)?, self.asker(identity));
        let has = |bits: u32| change.what & bits != 0;
        let is_owner = place.is_owned_by(&asker);
        let gives_away =
            has(Change::USER) && change.user != place.user || has(Change::GROUP) && change.group != place.group;
        let sets_times = has(Change::ACCESSED | Change::MODIFIED);
        let needs_owner = has(Change::MODE | Change::USER | Change::GROUP) || sets_times && !has(Change::NOW);
        if gives_away || needs_owner && !is_owner {
            return Err(Errno::EPERM);
        }
        let may_touch = asker.is_root() || !sets_times || is_owner || place.permits(&asker, WRITE);
        if may_touch { Ok(()) } else { Err(Errno::EACCES) }
    }
}

/// A name that is free. EEXIST.
pub(crate) fn new_name<'a>(request: &Request<'a>, end: &End) -> Result<&'a [u8], Errno> {
    if end.node.is_some() {
        return Err(Errno::EEXIST);
    }
    end.name(request.path).ok_or(Errno::EEXIST)
}
