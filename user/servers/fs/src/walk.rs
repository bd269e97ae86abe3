//! The walk along a path within one file system: to its last component, to a link that must be followed, or out of the
//! root.

use core::ops::Range;

use quire_abi::Errno;

use crate::who::Who;

/// The default for the maximum length of a name.
pub const NAME_MAX: usize = 255;

/// When a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Never: the operation acts on the name.
    Never,
    /// If a slash follows it.
    BeforeSlash,
    /// Always.
    Always,
}

/// The operations of a file system that a walk needs.
pub trait Names {
    /// A file, directory or link.
    type Node: Copy + PartialEq;

    /// The longest name.
    const NAME_MAX: usize = NAME_MAX;

    /// The root.
    fn root(&self) -> Self::Node;
    /// Whether it is a directory.
    fn is_dir(&self, node: Self::Node) -> bool;
    /// Whether it is a symbolic link.
    fn is_link(&self, node: Self::Node) -> bool;
    /// The directory above a directory.
    fn parent(&self, directory: Self::Node) -> Self::Node;
    /// The node with this name in a directory. An error ends the walk.
    fn child(&self, directory: Self::Node, name: &[u8]) -> Result<Option<Self::Node>, Errno>;
    /// Whether `who` may search a directory.
    fn may_search(&self, directory: Self::Node, who: &impl Who) -> bool;
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// The path is empty.
    Nothing,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// A name: its position in the path.
    Name(Range<usize>),
}

/// The end of a path, where an operation is to be done.
pub struct End {
    /// The directory that contains the last component.
    pub directory: u32,
    /// The last part.
    pub last: Last,
    /// The node, if it exists.
    pub node: Option<u32>,
    /// Whether slashes follow.
    pub slash: bool,
}

impl End {
    /// The name of the last component; `None` for `.`, `..` and an empty path.
    pub fn name<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        match &self.last {
            Last::Name(range) => path.get(range.clone()),
            _ => None,
        }
    }

    /// The name of the last component, which is to be removed. If it is not a name: EISDIR, and for rmdir EINVAL for
    /// `.`, ENOTEMPTY for `..`, EBUSY for an empty path.
    pub fn name_to_remove<'p>(&self, path: &'p [u8], is_rmdir: bool) -> Result<&'p [u8], Errno> {
        match &self.last {
            Last::Name(range) => Ok(&path[range.clone()]),
            _ if !is_rmdir => Err(Errno::EISDIR),
            Last::Dot => Err(Errno::EINVAL),
            Last::DotDot => Err(Errno::ENOTEMPTY),
            Last::Nothing => Err(Errno::EBUSY),
        }
    }
}

/// Where a walk has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walked<N> {
    /// At the end of the path.
    End {
        /// The directory that contains the last component.
        directory: N,
        /// The last part.
        last: Last,
        /// The node, if it exists.
        node: Option<N>,
        /// Whether slashes follow. If the node is not a directory, most operations then fail with ENOTDIR.
        slash: bool,
    },
    /// At a symbolic link that must be followed, in this directory; the rest of the path begins there.
    Link(N, N, usize),
    /// Above the root; the rest of the path begins there.
    Up(usize),
}

/// Walks a path from a directory. ENOENT, ENOTDIR, EACCES, ENAMETOOLONG. O(components), with one directory lookup for
/// each.
pub fn walk<F: Names>(
    names: &F,
    who: &impl Who,
    start: F::Node,
    path: &[u8],
    follow: Follow,
) -> Result<Walked<F::Node>, Errno> {
    let mut directory = start;
    let mut at = 0;
    loop {
        at += path[at..].iter().take_while(|byte| **byte == b'/').count();
        if at == path.len() {
            return Ok(Walked::End { directory, last: Last::Nothing, node: Some(directory), slash: false });
        }
        let end = at + path[at..].iter().position(|byte| *byte == b'/').unwrap_or(path.len() - at);
        let is_last = path[end..].iter().all(|byte| *byte == b'/');
        let slash = is_last && end < path.len();
        if !names.is_dir(directory) {
            return Err(Errno::ENOTDIR);
        }
        if !names.may_search(directory, who) {
            return Err(Errno::EACCES);
        }
        let name = &path[at..end];
        let (last, node) = match name {
            b"." => (Last::Dot, Some(directory)),
            b".." if directory == names.root() => return Ok(Walked::Up(end)),
            b".." => (Last::DotDot, Some(names.parent(directory))),
            name if name.len() > F::NAME_MAX => return Err(Errno::ENAMETOOLONG),
            name => (Last::Name(at..end), names.child(directory, name)?),
        };
        if let Some(node) = node
            && names.is_link(node)
            && (!is_last || follow == Follow::Always || follow == Follow::BeforeSlash && slash)
        {
            return Ok(Walked::Link(directory, node, end));
        }
        if is_last {
            return Ok(Walked::End { directory, last, node, slash });
        }
        directory = node.ok_or(Errno::ENOENT)?;
        at = end;
    }
}
