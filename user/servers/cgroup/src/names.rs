//! The names that exist: groups are directories, and contain the files of [`FILES`].

use alloc::string::String;

use quire_abi::Errno;
use quire_abi::group::GroupInfo;
use quire_abi::layout::mode;
use quire_fs::walk::Names;
use quire_fs::who::Who;

use crate::facts::Facts;
use crate::files::{FILES, File};

/// A directory or a file of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The group with this key.
    Group(u64),
    /// A file of it.
    File(u64, usize),
}

/// How many bits of a number identify a group's file.
const FILE_BITS: u32 = 8;

impl Node {
    /// The root.
    pub const ROOT: Node = Node::Group(0);

    /// Its number.
    pub fn number(self) -> u64 {
        match self {
            Node::Group(key) => key << FILE_BITS,
            Node::File(key, file) => key << FILE_BITS | (file as u64 + 1),
        }
    }

    /// The node with this number, whether or not the group exists.
    pub fn from_number(number: u64) -> Option<Self> {
        let key = number >> FILE_BITS;
        match (number & ((1 << FILE_BITS) - 1)) as usize {
            0 => Some(Node::Group(key)),
            file => (file <= FILES.len()).then(|| Node::File(key, file - 1)),
        }
    }

    /// The key of its group.
    pub fn key(self) -> u64 {
        match self {
            Node::Group(key) | Node::File(key, _) => key,
        }
    }

    /// The file that it is.
    pub fn file(self) -> Option<&'static File> {
        match self {
            Node::Group(_) => None,
            Node::File(_, file) => FILES.get(file),
        }
    }

    /// Its type and permissions.
    pub fn mode(self) -> u32 {
        self.file().map_or(mode::DIR | 0o755, |file| mode::REG | file.permissions())
    }
}

/// The names at the moment.
pub struct Tree<'a>(pub &'a dyn Facts);

impl Tree<'_> {
    /// The files of a group, with their indices.
    pub fn files(&self, group: GroupInfo) -> impl Iterator<Item = (usize, &'static File)> {
        let parent = if group.key == 0 { None } else { self.0.group(group.parent) };
        FILES.iter().enumerate().filter(move |(_, file)| file.is_of(&group, parent.as_ref()))
    }

    /// The path of a group.
    pub fn path(&self, key: u64) -> String {
        let mut path = String::new();
        let mut at = key;
        while at != 0
            && let Some(group) = self.0.group(at)
        {
            let len = group.name.iter().position(|byte| *byte == 0).unwrap_or(group.name.len());
            path.insert_str(0, &String::from_utf8_lossy(&group.name[..len]));
            path.insert(0, '/');
            at = group.parent;
        }
        if path.is_empty() { "/".into() } else { path }
    }
}

impl Names for Tree<'_> {
    type Node = Node;

    fn root(&self) -> Node {
        Node::ROOT
    }
    fn is_dir(&self, node: Node) -> bool {
        matches!(node, Node::Group(_))
    }
    fn is_link(&self, _: Node) -> bool {
        false
    }
    fn parent(&self, directory: Node) -> Node {
        match directory {
            Node::Group(key) => Node::Group(self.0.group(key).map_or(0, |group| group.parent)),
            Node::File(key, _) => Node::Group(key),
        }
    }
    fn child(&self, directory: Node, name: &[u8]) -> Result<Option<Node>, Errno> {
        let group = self.0.group(directory.key()).ok_or(Errno::ENOENT)?;
        let file = self.files(group).find(|(_, file)| file.name.as_bytes() == name);
        Ok(match file {
            Some((at, _)) => Some(Node::File(group.key, at)),
            None => self.0.find(group.key, name).map(Node::Group),
        })
    }
    fn may_search(&self, _: Node, _: &impl Who) -> bool {
        true
    }
}
