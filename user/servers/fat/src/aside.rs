//! Files that were removed while they were open: they are kept in a hidden directory until they are closed. The server
//! is not notified of that, so it asks the kernel from time to time. Files that a crashed machine has left there are
//! removed with the first change.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use hadris_fs::{Attributes, DirCursor, Name, RenameMode, SetAttr};
use quire_abi::Errno;

use crate::disk::Disk;
use crate::error::errno;
use crate::nodes::ROOT;
use crate::tree::{Inner, Kernel, Tree};

/// The directory, in the root.
pub(crate) const NAME: &str = ".quire-removed";

/// The most files there.
const MOST: usize = 256;

/// See the module.
#[derive(Default)]
pub(crate) struct Aside {
    /// The slot of the directory, if it exists.
    directory: Option<u32>,
    /// The numbers of the files.
    files: Vec<u64>,
    /// Whether files that were left there have been removed.
    is_swept: bool,
}

impl Aside {
    /// Whether this is the directory.
    pub fn is_it(&self, slot: u32) -> bool {
        self.directory == Some(slot)
    }

    /// Whether there are files.
    pub fn has_files(&self) -> bool {
        !self.files.is_empty()
    }
}

/// Whether a name in a directory is that of the hidden directory.
pub(crate) fn is_hidden(directory: u32, name: &[u8]) -> bool {
    directory == ROOT && name.eq_ignore_ascii_case(NAME.as_bytes())
}

/// The name of a file there.
fn name_of(number: u64) -> String {
    format!("{number:012x}")
}

impl<D: Disk> Inner<D> {
    /// Called before a change: EROFS if the file system may not be changed.
    pub fn change(&mut self) -> Result<(), Errno> {
        self.volume.change()?;
        self.ahead.clear();
        if !self.aside.is_swept {
            self.aside.is_swept = true;
            // (Files that cannot be removed now do no harm.)
            let _ = self.sweep_left();
        }
        Ok(())
    }

    /// Removes files that were left, and the directory.
    fn sweep_left(&mut self) -> Result<(), Errno> {
        let root = self.volume.fat.root();
        let Ok(directory) = self.volume.fat.lookup(root, Name::new(NAME)) else { return Ok(()) };
        let swept = self.empty(directory);
        self.volume.fat.forget(directory, 1);
        swept?;
        self.volume.fat.rmdir(root, Name::new(NAME)).map_err(errno)
    }

    fn empty(&mut self, directory: hadris_fs::NodeId) -> Result<(), Errno> {
        while let Some(entry) = self.volume.fat.readdir(directory, DirCursor::from_raw(0)).map_err(errno)? {
            self.volume.fat.unlink(directory, entry.name()).map_err(errno)?;
        }
        Ok(())
    }

    /// The directory, which is made if it does not exist.
    fn directory(&mut self) -> Result<u32, Errno> {
        if let Some(directory) = self.aside.directory {
            return Ok(directory);
        }
        let root = self.volume.fat.root();
        let hidden = SetAttr::new().with_attributes(Attributes::HIDDEN);
        let id = match self.volume.fat.mkdir(root, Name::new(NAME), &hidden).map_err(errno) {
            Err(Errno::EEXIST) => self.volume.fat.lookup(root, Name::new(NAME)).map_err(errno)?,
            id => id?,
        };
        let slot = self.enter(id, ROOT, true)?;
        self.nodes.keep(slot);
        self.aside.directory = Some(slot);
        Ok(slot)
    }

    /// Moves a file there from a directory. EBUSY if there are too many; ENOSPC.
    pub fn set_aside(&mut self, from: u32, name: &[u8], node: u32) -> Result<(), Errno> {
        if self.aside.files.len() >= MOST {
            return Err(Errno::EBUSY);
        }
        self.aside.files.try_reserve(1).map_err(|_| Errno::ENOSPC)?;
        let directory = self.directory()?;
        let number = self.nodes.number(node);
        let id = |slot: u32| self.nodes.get(slot).map(|node| node.id).ok_or(Errno::ENOENT);
        let (from, to) = (id(from)?, id(directory)?);
        let new = name_of(number);
        let moved = self.volume.fat.rename(from, Name::new(name), to, Name::new(&new), RenameMode::NoReplace);
        moved.map_err(errno)?;
        self.known.forget(number);
        self.nodes.set_parent(node, directory);
        self.nodes.keep(node);
        self.aside.files.push(number);
        Ok(())
    }

    /// Removes files that are not open any more.
    pub fn sweep(&mut self, kernel: &dyn Kernel) {
        let Some(slot) = self.aside.directory else { return };
        let Some(directory) = self.nodes.get(slot).map(|node| node.id) else { return };
        if self.aside.files.iter().all(|number| kernel.is_open(*number)) || self.volume.change().is_err() {
            return;
        }
        let mut files = core::mem::take(&mut self.aside.files);
        files.retain(|number| {
            if kernel.is_open(*number) {
                return true;
            }
            let removed = self.volume.fat.unlink(directory, Name::new(&name_of(*number))).map_err(errno);
            let is_gone = matches!(removed, Ok(()) | Err(Errno::ENOENT));
            if is_gone && let Some(node) = self.nodes.slot(*number) {
                self.forget(node);
            }
            !is_gone
        });
        self.aside.files = files;
        if self.aside.files.is_empty() && self.volume.fat.rmdir(self.volume.fat.root(), Name::new(NAME)).is_ok() {
            self.aside.directory = None;
            self.forget(slot);
        }
    }
}

impl<D: Disk> Tree<D> {
    /// Whether there are files that were removed while they were open.
    pub fn has_removed(&self) -> bool {
        self.inner.borrow().aside.has_files()
    }

    /// Removes those of them that are not open any more.
    pub fn sweep(&mut self) {
        self.inner.get_mut().sweep(&*self.kernel);
    }
}
