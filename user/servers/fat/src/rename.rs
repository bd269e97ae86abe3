//! Moving names.

use hadris_fs::{Name, RenameMode};
use quire_abi::Errno;
use quire_fs::request::{Answer, Request};
use quire_fs::walk::{End, Names};

use crate::disk::Disk;
use crate::error::errno;
use crate::nodes::ROOT;
use crate::tree::Tree;

/// Flags of renameat2.
const NOREPLACE: u64 = 1;

impl<D: Disk> Tree<D> {
    /// A file that is replaced while it is open is moved [aside](crate::aside).
    pub(crate) fn rename(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let flags = request.argument;
        if flags & !NOREPLACE != 0 {
            return Err(Errno::EINVAL);
        }
        let no_name = if flags == NOREPLACE { Errno::EEXIST } else { Errno::EBUSY };
        let new = end.name(request.path).ok_or(no_name)?;
        let (from, old, node) = self.old(request)?;
        let to = end.directory;
        if end.node.is_some() && flags == NOREPLACE {
            return Err(Errno::EEXIST);
        }
        let is_dir = self.is_dir(node);
        if end.slash && !is_dir {
            return Err(Errno::ENOTDIR);
        }
        if is_dir && self.is_within(to, node) {
            return Err(Errno::EINVAL);
        }
        if end.node.is_some_and(|there| self.is_dir(there) && self.is_within(from, there)) {
            return Err(Errno::ENOTEMPTY);
        }
        self.check_writable(request.identity, from)?;
        self.check_writable(request.identity, to)?;
        let replaced = end.node.filter(|there| *there != node);
        match replaced.map(|there| self.is_dir(there)) {
            Some(false) if is_dir => return Err(Errno::ENOTDIR),
            Some(true) if !is_dir => return Err(Errno::EISDIR),
            _ => {}
        }
        let inner = self.inner.get_mut();
        let id = |slot: u32| inner.nodes.get(slot).map(|node| node.id).ok_or(Errno::ENOENT);
        let (from_id, to_id) = (id(from)?, id(to)?);
        if let Some(there) = replaced {
            let id = id(there)?;
            if self.is_dir(there) && !self.is_empty(there)? {
                return Err(Errno::ENOTEMPTY);
            }
            let inner = self.inner.get_mut();
            if !inner.nodes.get(there).is_some_and(|node| node.is_dir) && self.kernel.is_open(inner.nodes.number(there))
            {
                inner.set_aside(to, new, there)?;
            } else {
                // A pinned file cannot be replaced.
                inner.volume.fat.close(id).map_err(errno)?;
                inner.forget(there);
            }
        }
        let inner = self.inner.get_mut();
        let renamed = inner.volume.fat.rename(from_id, Name::new(old), to_id, Name::new(new), RenameMode::Replace);
        inner.known.forget(inner.nodes.number(node));
        renamed.map_err(errno)?;
        inner.nodes.set_parent(node, to);
        Ok(Answer::default())
    }

    /// The name in the second text, in the second directory; returns that directory, the name, and the node. ENOENT;
    /// ENOTDIR for a name with a slash that is not a directory's.
    fn old<'a>(&mut self, request: &Request<'a>) -> Result<(u32, &'a [u8], u32), Errno> {
        let inner = self.inner.get_mut();
        let directory = inner.nodes.slot(request.mode).ok_or(Errno::ENOENT)?;
        let slashes = request.text.iter().rev().take_while(|byte| **byte == b'/').count();
        let name = &request.text[..request.text.len() - slashes];
        let node = inner.child(directory, name)?.ok_or(Errno::ENOENT)?;
        if slashes != 0 && !self.is_dir(node) {
            return Err(Errno::ENOTDIR);
        }
        Ok((directory, name, node))
    }

    /// Whether a directory is the other one, or below it. O(depth).
    fn is_within(&self, mut directory: u32, other: u32) -> bool {
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
