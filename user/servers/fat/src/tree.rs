//! Names, and the attributes of nodes. FAT knows no owners: everything belongs to root, everybody may read and execute
//! it, and the only permission that FAT stores is a file's write permission.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;

use hadris_fs::{Attributes, Metadata, Name};
use quire_abi::Errno;
use quire_abi::layout::mode;
use quire_abi::names::node::STORED;
use quire_fs::request::{Answer, Found};
use quire_fs::walk::{End, Follow, Names, Walked, walk};
use quire_fs::who::{EXECUTE, Owned, WRITE, Who};

use crate::aside::{Aside, is_hidden};
use crate::disk::Disk;
use crate::error::errno;
use crate::known::{Ahead, Known};
use crate::nodes::{Nodes, ROOT};
use crate::volume::{Volume, nanoseconds};

/// The maximum length of a name: 255 units of UTF-16, of which each may take three bytes.
const NAME_MAX: usize = 765;

/// Permissions of directories and files, and of a file that may not be written.
const PERMISSIONS: u32 = 0o755;
const READ_ONLY: u32 = 0o555;

/// See the module.
pub struct Tree<D: Disk> {
    pub(crate) inner: RefCell<Inner<D>>,
    pub(crate) kernel: Rc<dyn Kernel>,
}

/// Queries to the kernel, or to a substitute in tests.
pub trait Kernel {
    /// Whether this is one of the caller's supplementary groups.
    fn is_caller_in(&self, group: u32) -> bool;
    /// Whether the file with this number is open, or mapped.
    fn is_open(&self, number: u64) -> bool;
    /// Whether it is open or mapped, or has data that was not written back yet.
    fn is_used(&self, number: u64) -> bool;
}

/// The file system and its nodes.
pub(crate) struct Inner<D: Disk> {
    pub volume: Volume<D>,
    pub nodes: Nodes,
    pub aside: Aside,
    pub known: Known,
    pub ahead: Ahead,
    pub kernel: Rc<dyn Kernel>,
}

/// The caller's identity.
pub(crate) struct Asker<'a> {
    identity: (u32, u32),
    kernel: &'a dyn Kernel,
}

impl Who for Asker<'_> {
    fn user(&self) -> u32 {
        self.identity.0
    }
    fn group(&self) -> u32 {
        self.identity.1
    }
    fn is_also_in(&self, group: u32) -> bool {
        self.kernel.is_caller_in(group)
    }
}

impl<D: Disk> Inner<D> {
    /// The node with this name in a directory.
    pub fn child(&mut self, directory: u32, name: &[u8]) -> Result<Option<u32>, Errno> {
        let place = self.nodes.get(directory).ok_or(Errno::ENOENT)?.id;
        if is_hidden(directory, name) {
            return Ok(None);
        }
        if let Some(known) = self.known.find(&mut self.nodes, directory, name) {
            return Ok(Some(known));
        }
        let id = match self.volume.fat.lookup(place, Name::new(name)).map_err(errno) {
            Err(Errno::ENOENT) => return Ok(None),
            id => id?,
        };
        let is_dir = match self.volume.fat.stat(id) {
            Ok(metadata) => metadata.file_type().is_dir(),
            Err(error) => {
                self.volume.fat.forget(id, 1);
                return Err(errno(error));
            }
        };
        let node = self.enter(id, directory, is_dir)?;
        self.known.note(&self.nodes, directory, name, node);
        Ok(Some(node))
    }

    /// Enters a node that was pinned.
    pub fn enter(&mut self, id: hadris_fs::NodeId, parent: u32, is_dir: bool) -> Result<u32, Errno> {
        match self.nodes.enter(id, parent, is_dir, |number| self.kernel.is_used(number)) {
            Ok((slot, dropped)) => {
                if let Some(dropped) = dropped {
                    self.volume.fat.forget(dropped, 1);
                }
                Ok(slot)
            }
            Err(error) => {
                self.volume.fat.forget(id, 1);
                Err(error)
            }
        }
    }

    /// A node is gone.
    pub fn forget(&mut self, slot: u32) {
        if let Some(id) = self.nodes.remove(slot) {
            self.volume.fat.forget(id, 1);
        }
    }

    /// The file system's record of a node. ENOENT.
    pub fn stat(&mut self, slot: u32) -> Result<Metadata, Errno> {
        let id = self.nodes.get(slot).ok_or(Errno::ENOENT)?.id;
        self.volume.fat.stat(id).map_err(errno)
    }
}

/// Type and permissions.
fn mode_of(metadata: &Metadata) -> u32 {
    match metadata.file_type().is_dir() {
        true => mode::DIR | PERMISSIONS,
        false if metadata.attributes().contains(Attributes::READ_ONLY) => mode::REG | READ_ONLY,
        false => mode::REG | PERMISSIONS,
    }
}

impl<D: Disk> Tree<D> {
    /// The tree of a file system. Numbers begin at a random one.
    pub fn new(volume: Volume<D>, random: u32, kernel: Box<dyn Kernel>) -> Self {
        let nodes = Nodes::new(volume.fat.root(), random);
        let kernel: Rc<dyn Kernel> = Rc::from(kernel);
        Self {
            inner: RefCell::new(Inner {
                volume,
                nodes,
                aside: Aside::default(),
                known: Known::default(),
                ahead: Ahead::default(),
                kernel: kernel.clone(),
            }),
            kernel,
        }
    }

    /// Whether the file system is read-only.
    pub fn is_read_only(&self) -> bool {
        self.inner.borrow().volume.is_read_only()
    }

    /// Whether something was changed since [`Tree::sync`].
    pub fn is_changed(&self) -> bool {
        self.inner.borrow().volume.is_changed()
    }

    /// Makes all changes permanent.
    pub fn sync(&mut self) -> Result<(), Errno> {
        self.sweep();
        self.inner.get_mut().volume.sync()
    }

    pub(crate) fn asker(&self, identity: (u32, u32)) -> Asker<'_> {
        Asker { identity, kernel: &*self.kernel }
    }

    /// Type, permissions and owner of a node.
    pub(crate) fn owned(&self, slot: u32) -> Result<Owned, Errno> {
        if slot == ROOT {
            return Ok(Owned { mode: mode::DIR | PERMISSIONS, user: 0, group: 0 });
        }
        let metadata = self.inner.borrow_mut().stat(slot)?;
        Ok(Owned { mode: mode_of(&metadata), user: 0, group: 0 })
    }

    /// EACCES unless the caller may access a node in these ways.
    pub(crate) fn check(&self, identity: (u32, u32), slot: u32, wanted: u32) -> Result<(), Errno> {
        let may = self.owned(slot)?.permits(&self.asker(identity), wanted);
        if may { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Whether the caller may add names to a directory and remove them: EACCES; EROFS.
    pub(crate) fn check_writable(&self, identity: (u32, u32), directory: u32) -> Result<(), Errno> {
        self.check(identity, directory, WRITE | EXECUTE)?;
        self.inner.borrow_mut().change()
    }

    /// Walks a path: to its end, or to the answer that ends the walk earlier.
    pub(crate) fn end(
        &self,
        identity: (u32, u32),
        start: u32,
        path: &[u8],
        follow: Follow,
    ) -> Result<Result<End, Answer>, Errno> {
        match walk(self, &self.asker(identity), start, path, follow)? {
            Walked::End { directory, last, node, slash } => Ok(Ok(End { directory, last, node, slash })),
            Walked::Up(behind) => Ok(Err(Answer::up(behind))),
            Walked::Link(..) => Err(Errno::EIO),
        }
    }

    /// ENOTDIR if slashes follow a name that is not a directory's.
    pub(crate) fn check_slash(&self, end: &End) -> Result<(), Errno> {
        let is_other = end.slash && end.node.is_some_and(|node| !self.is_dir(node));
        if is_other { Err(Errno::ENOTDIR) } else { Ok(()) }
    }

    /// The answer that describes a node.
    pub(crate) fn found(&self, slot: u32) -> Result<Answer, Errno> {
        let mut inner = self.inner.borrow_mut();
        let metadata = inner.stat(slot)?;
        let modified = nanoseconds(metadata.modified());
        let stored = if metadata.file_type().is_file() { STORED } else { 0 };
        let found = Found {
            number: inner.nodes.number(slot),
            mode: mode_of(&metadata) | stored,
            // (For a directory 1, which means that its subdirectories are not counted.)
            links: u32::from(!inner.nodes.get(slot).is_some_and(|node| inner.aside.is_it(node.parent))),
            size: metadata.len(),
            modified,
            changed: modified,
            ..Found::default()
        };
        Ok(Answer::done(found.to_words()))
    }
}

impl<D: Disk> Names for Tree<D> {
    type Node = u32;

    const NAME_MAX: usize = NAME_MAX;

    fn root(&self) -> u32 {
        ROOT
    }
    fn is_dir(&self, node: u32) -> bool {
        self.inner.borrow().nodes.get(node).is_some_and(|node| node.is_dir)
    }
    fn is_link(&self, _: u32) -> bool {
        false
    }
    fn parent(&self, directory: u32) -> u32 {
        self.inner.borrow().nodes.get(directory).map_or(ROOT, |node| node.parent)
    }
    fn child(&self, directory: u32, name: &[u8]) -> Result<Option<u32>, Errno> {
        self.inner.borrow_mut().child(directory, name)
    }
    fn may_search(&self, directory: u32, who: &impl Who) -> bool {
        self.owned(directory).is_ok_and(|owned| owned.permits(who, EXECUTE))
    }
}
