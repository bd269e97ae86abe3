//! The tree: nodes with names, and the elementary operations on it. An operation is either completed, or returns an
//! error without having changed anything.

use quire_abi::Errno;
use quire_fs::request::{Answer, Found};
use quire_fs::walk::{End, Follow, NAME_MAX, Names, Walked, walk};
use quire_fs::who::{EXECUTE, Owned, WRITE, Who};

use crate::directory::{Directory, copied};
use crate::objects::Objects;
use crate::table::{Kind, MOST, Node, Table};

/// The slot of the root.
pub const ROOT: u32 = 0;

/// The maximum number of names of one file.
const MOST_LINKS: u32 = 65_000;

/// The maximum size of all names and of the texts of links, in bytes.
pub const MOST_BYTES: usize = 16 << 20;

/// A permission bit: only the owner of an entry may remove it.
const STICKY: u32 = 0o1000;
/// A permission bit of a directory: what is made in it belongs to its group.
pub(crate) const SET_GROUP: u32 = 0o2000;

/// See the module.
pub struct Tree<O: Objects> {
    /// The kernel.
    pub objects: O,
    pub(crate) table: Table,
    /// The number of names, of which a file may have several; at most [`MOST`].
    names: usize,
    /// The size of these names and of the texts of links, in bytes.
    bytes: usize,
}

/// The caller of an operation on a tree.
pub struct Asker<'a, O> {
    /// User and group.
    pub identity: (u32, u32),
    /// Knows the further groups.
    pub objects: &'a O,
}

impl<O: Objects> Who for Asker<'_, O> {
    fn user(&self) -> u32 {
        self.identity.0
    }
    fn group(&self) -> u32 {
        self.identity.1
    }
    fn is_also_in(&self, group: u32) -> bool {
        self.objects.is_caller_in(group)
    }
}

impl<O: Objects> Names for Tree<O> {
    type Node = u32;

    fn root(&self) -> u32 {
        ROOT
    }
    fn is_dir(&self, node: u32) -> bool {
        self.directory(node).is_some()
    }
    fn is_link(&self, node: u32) -> bool {
        matches!(self.table.get(node), Some(Node { kind: Kind::Link(_), .. }))
    }
    fn parent(&self, directory: u32) -> u32 {
        self.directory(directory).map_or(ROOT, |directory| directory.parent)
    }
    fn child(&self, directory: u32, name: &[u8]) -> Result<Option<u32>, Errno> {
        Ok(self.directory(directory).and_then(|directory| directory.get(name)))
    }
    fn may_search(&self, directory: u32, who: &impl Who) -> bool {
        self.owned(directory).permits(who, EXECUTE)
    }
}

impl<O: Objects> Tree<O> {
    /// An empty tree, whose root has these permissions.
    pub fn new(objects: O, mode: u32) -> Self {
        let now = objects.now();
        let mut table = Table::default();
        let root = Directory::new(ROOT);
        let node = Node { kind: Kind::Directory(root), mode, user: 0, group: 0, links: 1, modified: now, changed: now };
        let _ = table.insert(node);
        Self { objects, table, names: 0, bytes: 0 }
    }

    /// Makes the numbers of nodes begin at a random one: those from a former server are then invalid.
    pub fn numbered_from(mut self, random: u32) -> Self {
        self.table.count_from(random);
        self
    }

    /// The caller.
    pub fn asker(&self, identity: (u32, u32)) -> Asker<'_, O> {
        Asker { identity, objects: &self.objects }
    }

    /// A directory.
    pub(crate) fn directory(&self, slot: u32) -> Option<&Directory> {
        match &self.table.get(slot)?.kind {
            Kind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    fn directory_mut(&mut self, slot: u32) -> Option<&mut Directory> {
        match &mut self.table.get_mut(slot)?.kind {
            Kind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Whether the caller may access a node in these ways.
    pub(crate) fn may(&self, identity: (u32, u32), slot: u32, wanted: u32) -> bool {
        let asker = self.asker(identity);
        // (For root this needs no access to the file.)
        asker.is_root() && wanted & EXECUTE == 0 || self.owned(slot).permits(&asker, wanted)
    }

    /// Type, permissions and owner of a node.
    pub(crate) fn owned(&self, slot: u32) -> Owned {
        match self.table.get(slot) {
            Some(Node { kind: Kind::File(handle), .. }) => {
                let stat = self.objects.stat(*handle);
                Owned { mode: stat.mode, user: stat.uid, group: stat.gid }
            }
            Some(node) => Owned { mode: node.full_mode(), user: node.user, group: node.group },
            None => Owned { mode: 0, user: 0, group: 0 },
        }
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
            Walked::Link(directory, node, behind) => match self.table.get(node) {
                Some(Node { kind: Kind::Link(text), .. }) => {
                    Ok(Err(Answer::link(self.table.number(directory), behind, copied(text)?)))
                }
                _ => Err(Errno::ENOENT),
            },
        }
    }

    /// ENOTDIR if slashes follow a name that is not a directory's.
    pub(crate) fn check_slash(&self, end: &End) -> Result<(), Errno> {
        let is_other = end.slash && end.node.is_some_and(|node| !self.is_dir(node));
        if is_other { Err(Errno::ENOTDIR) } else { Ok(()) }
    }

    /// The description of a node other than a file.
    fn found(&self, slot: u32) -> Result<Found, Errno> {
        let node = self.table.get(slot).ok_or(Errno::ENOENT)?;
        let (links, size) = match &node.kind {
            Kind::Directory(directory) => (2 + directory.directories, 0),
            Kind::Link(text) => (node.links, text.len() as u64),
            Kind::File(_) | Kind::Socket => (node.links, 0),
        };
        let (mode, user, group) = (node.full_mode(), node.user, node.group);
        let number = self.table.number(slot);
        Ok(Found { number, mode, links, user, group, size, modified: node.modified, changed: node.changed })
    }

    /// The answer that describes a node. It lends a file's object with these rights.
    pub(crate) fn answer(&self, slot: u32, rights: u32) -> Result<Answer, Errno> {
        let mut answer = Answer::done(self.found(slot)?.to_words());
        if let Some(Node { kind: Kind::File(handle), .. }) = self.table.get(slot) {
            answer.handle = Some((*handle, rights));
        }
        Ok(answer)
    }

    /// Whether the caller may add names to a directory and remove them: EACCES; ENOENT if the directory was removed.
    pub(crate) fn check_writable(&self, identity: (u32, u32), directory: u32) -> Result<(), Errno> {
        let may = self.may(identity, directory, WRITE | EXECUTE);
        if may { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Whether the caller may remove a name of this node from a directory: EACCES, and EPERM for another user's node in
    /// a sticky directory.
    pub(crate) fn check_removable(&self, identity: (u32, u32), directory: u32, node: u32) -> Result<(), Errno> {
        self.check_writable(identity, directory)?;
        let (place, asker) = (self.owned(directory), self.asker(identity));
        let is_kept = place.mode & STICKY != 0 && !place.is_owned_by(&asker) && !self.owned(node).is_owned_by(&asker);
        if is_kept { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// A directory's names have changed.
    pub(crate) fn touch(&mut self, directory: u32) {
        let now = self.objects.now();
        if let Some(node) = self.table.get_mut(directory) {
            (node.modified, node.changed) = (now, now);
        }
    }

    /// The group of a node that the caller makes in a directory, and additional permission bits for a directory there.
    fn group_in(&self, directory: u32, group: u32) -> (u32, u32) {
        let place = self.owned(directory);
        if place.mode & SET_GROUP != 0 { (place.group, SET_GROUP) } else { (group, 0) }
    }

    /// Makes a node in a directory. ENOSPC if there is no room.
    pub(crate) fn make(
        &mut self,
        identity: (u32, u32),
        directory: u32,
        name: &[u8],
        mode: u32,
        what: Make<'_>,
    ) -> Result<u32, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.check_writable(identity, directory)?;
        let text = if let Make::Link(text) = what { text } else { b"" };
        if !self.table.has_room() || !self.has_room(name.len() + text.len()) {
            return Err(Errno::ENOSPC);
        }
        let (group, inherited) = self.group_in(directory, identity.1);
        let user = identity.0;
        // A program that would run with a group to which its maker does not belong.
        let runs_with_group = mode & (SET_GROUP | 0o010) == SET_GROUP | 0o010;
        let is_foreign = runs_with_group && inherited != 0 && user != 0 && !self.asker(identity).is_in(group);
        let mode = if is_foreign { mode & !SET_GROUP } else { mode };
        let is_dir = matches!(what, Make::Directory);
        let kind = match what {
            Make::Directory => Kind::Directory(Directory::new(directory)),
            Make::Link(text) => Kind::Link(copied(text)?),
            Make::Socket => Kind::Socket,
            Make::File => {
                let number = self.table.next_number() + 1;
                let handle = self.objects.make(mode, (user, group), number).map_err(|_| Errno::ENOSPC)?;
                self.objects.set_links(handle, 1);
                Kind::File(handle)
            }
        };
        let now = self.objects.now();
        let mode = if is_dir { mode | inherited } else { mode };
        let node = Node { kind, mode, user, group, links: 1, modified: now, changed: now };
        let slot = match self.table.insert(node) {
            Ok(slot) => slot,
            Err(Node { kind: Kind::File(handle), .. }) => {
                self.objects.close(handle);
                return Err(Errno::ENOSPC);
            }
            Err(_) => return Err(Errno::ENOSPC),
        };
        self.bytes += text.len();
        if let Err(error) = self.enter(directory, name, slot) {
            self.forget(slot);
            return Err(error);
        }
        Ok(slot)
    }

    /// Whether there is room for one more name, and `bytes` bytes with it.
    fn has_room(&self, bytes: usize) -> bool {
        self.names < MOST && self.bytes + bytes <= MOST_BYTES
    }

    /// Whether there is room for a name that replaces another one.
    pub(crate) fn has_room_for(&self, new: &[u8], old: &[u8]) -> bool {
        new.len() <= old.len() || self.bytes + new.len() <= MOST_BYTES + old.len()
    }

    /// Enters a node under a name that does not exist; the caller has checked that there is room. ENOSPC if memory is
    /// lacking.
    pub(crate) fn enter(&mut self, directory: u32, name: &[u8], slot: u32) -> Result<(), Errno> {
        let is_dir = self.is_dir(slot);
        let place = self.directory_mut(directory).ok_or(Errno::ENOENT)?;
        place.insert(name, slot)?;
        place.directories += u32::from(is_dir);
        self.names += 1;
        self.bytes += name.len();
        if let Some(moved) = self.directory_mut(slot) {
            moved.parent = directory;
        }
        self.touch(directory);
        Ok(())
    }

    /// Removes a name; the node stays.
    pub(crate) fn leave(&mut self, directory: u32, name: &[u8], slot: u32) {
        let is_dir = self.is_dir(slot);
        if let Some(place) = self.directory_mut(directory) {
            place.remove(name);
            place.directories -= u32::from(is_dir);
        }
        self.names -= 1;
        self.bytes -= name.len();
        self.touch(directory);
    }

    /// Makes a name refer to another node.
    pub(crate) fn replace(&mut self, place: u32, name: &[u8], old: u32, new: u32) {
        let (was_dir, is_dir) = (self.is_dir(old), self.is_dir(new));
        if let Some(directory) = self.directory_mut(place) {
            directory.replace(name, new);
            directory.directories = directory.directories + u32::from(is_dir) - u32::from(was_dir);
        }
        if let Some(moved) = self.directory_mut(new) {
            moved.parent = place;
        }
        self.touch(place);
    }

    /// Gives a node one more name. EMLINK, ENOSPC.
    pub(crate) fn link(&mut self, directory: u32, name: &[u8], slot: u32) -> Result<(), Errno> {
        let links = self.table.get(slot).map_or(0, |node| node.links);
        if links >= MOST_LINKS {
            return Err(Errno::EMLINK);
        }
        if !self.has_room(name.len()) {
            return Err(Errno::ENOSPC);
        }
        self.enter(directory, name, slot)?;
        self.set_links(slot, links + 1);
        Ok(())
    }

    /// Notes that a node has lost a name: the node is removed with its last name.
    pub(crate) fn unlink(&mut self, slot: u32) {
        let links = self.table.get(slot).map_or(0, |node| node.links.saturating_sub(1));
        self.set_links(slot, links);
        if links == 0 {
            self.forget(slot);
        }
    }

    /// Removes a node that has no name.
    fn forget(&mut self, slot: u32) {
        match self.table.remove(slot).map(|node| node.kind) {
            Some(Kind::File(handle)) => self.objects.close(handle),
            Some(Kind::Link(text)) => self.bytes -= text.len(),
            _ => {}
        }
    }

    fn set_links(&mut self, slot: u32, links: u32) {
        let now = self.objects.now();
        let Some(node) = self.table.get_mut(slot) else { return };
        (node.links, node.changed) = (links, now);
        if let Kind::File(handle) = node.kind {
            self.objects.set_links(handle, links);
        }
    }

    /// Nodes, the root not counted.
    pub fn count(&self) -> usize {
        self.table.len() - 1
    }
}

/// The node to be made.
#[derive(Clone, Copy)]
pub enum Make<'a> {
    /// A directory.
    Directory,
    /// A symbolic link with this text.
    Link(&'a [u8]),
    /// A socket.
    Socket,
    /// A file.
    File,
}
