//! Looking, opening, asking for access.

use hadris_fs::{Name, SetAttr};
use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_fs::request::{Answer, Request};
use quire_fs::walk::{End, Names};
use quire_fs::who::{READ, WRITE};

use crate::disk::Disk;
use crate::error::errno;
use crate::tree::Tree;

/// A flag of open: a file without a name.
const TMPFILE: u32 = 0o20000000;

impl<D: Disk> Tree<D> {
    pub(crate) fn open(&mut self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let flags = Open::from_bits_retain(request.argument as u32);
        if flags.bits() & TMPFILE == TMPFILE {
            return Err(Errno::EOPNOTSUPP);
        }
        let makes = flags.contains(Open::CREAT) && !flags.contains(Open::PATH);
        if makes && flags.contains(Open::DIRECTORY) {
            return Err(Errno::EINVAL);
        }
        if makes && end.slash {
            return Err(Errno::EISDIR);
        }
        let Some(node) = end.node else {
            let name = end.name(request.path).filter(|_| makes).ok_or(Errno::ENOENT)?;
            self.check_writable(request.identity, end.directory)?;
            let node = self.make(end.directory, name, false)?;
            return self.found(node);
        };
        if makes && flags.contains(Open::EXCL) {
            return Err(Errno::EEXIST);
        }
        self.check_slash(end)?;
        let is_dir = self.is_dir(node);
        if flags.contains(Open::DIRECTORY) && !is_dir {
            return Err(Errno::ENOTDIR);
        }
        if flags.contains(Open::PATH) {
            return self.found(node);
        }
        let cuts = flags.contains(Open::TRUNC);
        let wanted = match flags.bits() & 3 {
            0 if cuts => READ | WRITE,
            0 => READ,
            1 => WRITE,
            _ => READ | WRITE,
        };
        if is_dir && (wanted & WRITE != 0 || makes) {
            return Err(Errno::EISDIR);
        }
        self.check(request.identity, node, wanted)?;
        if wanted & WRITE != 0 {
            self.inner.borrow_mut().change()?;
        }
        // (Whoever opens it truncates it: the kernel, which has pages of it.)
        self.found(node)
    }

    /// Makes a file or directory; the caller may write to the parent directory.
    pub(crate) fn make(&mut self, directory: u32, name: &[u8], is_dir: bool) -> Result<u32, Errno> {
        match self.try_make(directory, name, is_dir) {
            Err(Errno::ENOSPC) if self.has_removed() => {
                self.sweep();
                self.try_make(directory, name, is_dir)
            }
            made => made,
        }
    }

    fn try_make(&mut self, directory: u32, name: &[u8], is_dir: bool) -> Result<u32, Errno> {
        let inner = self.inner.get_mut();
        let place = inner.nodes.get(directory).ok_or(Errno::ENOENT)?.id;
        let name = Name::new(name);
        let id = match is_dir {
            true => inner.volume.fat.mkdir(place, name, &SetAttr::new()),
            false => inner.volume.fat.create(place, name, &SetAttr::new()),
        };
        inner.enter(id.map_err(errno)?, directory, is_dir)
    }

    pub(crate) fn access(&self, request: &Request<'_>, end: &End) -> Result<Answer, Errno> {
        let node = end.node.ok_or(Errno::ENOENT)?;
        let wanted = request.argument as u32 & 7;
        self.check(request.identity, node, wanted)?;
        if wanted & WRITE != 0 && self.is_read_only() {
            return Err(Errno::EROFS);
        }
        Ok(Answer::default())
    }
}
