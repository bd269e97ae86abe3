//! Requests and their answers.

use alloc::string::String;
use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::at;
use quire_abi::names::{node as said, op, state, statfs};
use quire_fs::records::Records;
use quire_fs::request::{Answer, Found, Request};
use quire_fs::trigger;
use quire_fs::walk::{Last, Names, Walked, walk};
use quire_fs::who::{Identity, Owned, READ, WRITE, Who};

use crate::facts::{self, Facts};
use crate::files::FILES;
use crate::names::{Node, Tree};

/// Linux's number of this type of file system.
const CGROUP2: u64 = 0x6367_7270;

/// Handles a request; `room` is the size of window 1.
pub fn serve(facts: &dyn Facts, request: &Request<'_>, room: usize) -> Answer {
    try_serve(&Tree(facts), request, room).unwrap_or_else(Answer::error)
}

fn try_serve(tree: &Tree<'_>, request: &Request<'_>, room: usize) -> Result<Answer, Errno> {
    let start = Node::from_number(request.directory).ok_or(Errno::ENOENT)?;
    if request.has_no_path() {
        return match request.op {
            op::READDIR => list(tree, request, start, room),
            op::PATH => path(tree, start),
            op::READ => read(tree, request, start, room),
            op::WRITE => write(tree, request, start),
            // Any write replaces the whole content.
            op::CUT if start.file().is_some() => Ok(Answer::default()),
            op::STATFS => {
                let mut words = [0; 6];
                words[statfs::KIND] = CGROUP2;
                Ok(Answer::done(words))
            }
            _ => Err(Errno::EINVAL),
        };
    }
    match walk(tree, &Identity(request.identity), start, request.path, request.follow())? {
        Walked::Up(behind) => Ok(Answer::up(behind)),
        Walked::Link(..) => Err(Errno::EINVAL),
        Walked::End { directory, last, node, slash } => {
            let name = match last {
                Last::Name(range) => Some(&request.path[range]),
                _ => None,
            };
            if slash && node.is_some_and(|node| !tree.is_dir(node)) {
                return Err(Errno::ENOTDIR);
            }
            at_end(tree, request, directory, name, node)
        }
    }
}

fn at_end(
    tree: &Tree<'_>,
    request: &Request<'_>,
    directory: Node,
    name: Option<&[u8]>,
    node: Option<Node>,
) -> Result<Answer, Errno> {
    let who = Identity(request.identity);
    match request.op {
        op::MKDIR => return make(tree, &who, directory, name, node),
        op::UNLINK => return remove(tree, request, node),
        op::SYMLINK | op::SOCKET | op::LINK | op::RENAME => return Err(Errno::EPERM),
        op::OPEN if node.is_none() && request.argument as u32 & Open::CREAT.bits() != 0 => return Err(Errno::EACCES),
        _ => {}
    }
    let node = node.ok_or(Errno::ENOENT)?;
    match request.op {
        op::LOOKUP => Ok(found(tree, node)),
        op::OPEN => open(tree, request, node),
        op::ACCESS => permit(&who, node, request.argument as u32).map(|()| Answer::default()),
        op::READLINK => Err(Errno::EINVAL),
        _ => Err(Errno::EPERM),
    }
}

/// Groups are root's.
fn make(
    tree: &Tree<'_>,
    who: &Identity,
    directory: Node,
    name: Option<&[u8]>,
    node: Option<Node>,
) -> Result<Answer, Errno> {
    let name = name.filter(|_| node.is_none()).ok_or(Errno::EEXIST)?;
    if !who.is_root() {
        return Err(Errno::EACCES);
    }
    // (So a name can never hide a file of a group, whether or not the file exists at the moment.)
    if name.contains(&b'\n') || FILES.iter().any(|file| file.name.as_bytes() == name) {
        return Err(Errno::EINVAL);
    }
    tree.0.make(directory.key(), name).map(|()| Answer::default())
}

fn remove(tree: &Tree<'_>, request: &Request<'_>, node: Option<Node>) -> Result<Answer, Errno> {
    let is_rmdir = request.argument as u32 & at::REMOVEDIR != 0;
    match node.ok_or(Errno::ENOENT)? {
        Node::Group(_) if !is_rmdir => Err(Errno::EISDIR),
        Node::File(..) if is_rmdir => Err(Errno::ENOTDIR),
        Node::File(..) => Err(Errno::EPERM),
        _ if !Identity(request.identity).is_root() => Err(Errno::EACCES),
        Node::Group(0) => Err(Errno::EBUSY),
        Node::Group(key) => tree.0.remove(key).map(|()| Answer::default()),
    }
}

fn found(tree: &Tree<'_>, node: Node) -> Answer {
    let now = tree.0.now();
    let links = if tree.is_dir(node) { 2 } else { 1 };
    let is_watched = node.file().is_some_and(|file| file.takes_triggers || file.tells_state);
    let notes = if is_watched { said::TRIGGER } else { 0 };
    let found = Found {
        number: node.number(),
        mode: node.mode() | notes,
        links,
        modified: now,
        changed: now,
        ..Found::default()
    };
    Answer::done(found.to_words())
}

fn open(tree: &Tree<'_>, request: &Request<'_>, node: Node) -> Result<Answer, Errno> {
    let flags = Open::from_bits_retain(request.argument as u32);
    if flags.contains(Open::PATH) {
        return Ok(found(tree, node));
    }
    if flags.contains(Open::CREAT | Open::EXCL) {
        return Err(Errno::EEXIST);
    }
    let wanted = match flags.bits() & 3 {
        0 => READ,
        1 => WRITE,
        _ => READ | WRITE,
    };
    if tree.is_dir(node) && (wanted & WRITE != 0 || flags.contains(Open::CREAT)) {
        return Err(Errno::EISDIR);
    }
    if flags.contains(Open::DIRECTORY) && !tree.is_dir(node) {
        return Err(Errno::ENOTDIR);
    }
    permit(&Identity(request.identity), node, wanted)?;
    Ok(found(tree, node))
}

/// EACCES unless the caller may access a node in this way; what nobody can read or write, root cannot either.
fn permit(who: &Identity, node: Node, wanted: u32) -> Result<(), Errno> {
    let mode = node.mode();
    let there = |access: u32, bits: u32| wanted & access == 0 || mode & bits != 0;
    let may = Owned { mode, user: 0, group: 0 }.permits(who, wanted);
    if may && there(READ, 0o444) && there(WRITE, 0o222) { Ok(()) } else { Err(Errno::EACCES) }
}

/// ENODEV if the group no longer exists, as on Linux.
fn read(tree: &Tree<'_>, request: &Request<'_>, node: Node, room: usize) -> Result<Answer, Errno> {
    let file = node.file().ok_or(Errno::EISDIR)?;
    let group = tree.0.group(node.key()).ok_or(Errno::ENODEV)?;
    let mut text = String::new();
    file.read.ok_or(Errno::EINVAL)?(tree.0, &group, &mut text);
    let from = usize::try_from(request.argument).unwrap_or(usize::MAX).min(text.len());
    let end = from.saturating_add(room).min(text.len());
    let mut answer = Answer::text(Vec::from(&text.as_bytes()[from..end]));
    if file.tells_state {
        (answer.words[state::GROUP], answer.words[state::CHANGES]) = (group.key, group.changes);
    }
    Ok(answer)
}

/// The whole text counts, at whatever position it is written. A process that an open file was passed to may write too.
fn write(tree: &Tree<'_>, request: &Request<'_>, node: Node) -> Result<Answer, Errno> {
    let file = node.file().ok_or(Errno::EISDIR)?;
    let group = tree.0.group(node.key()).ok_or(Errno::ENODEV)?;
    if file.takes_triggers {
        return trigger::answer(request.text, &Identity(request.identity), group.key);
    }
    file.write.ok_or(Errno::EINVAL)?(tree.0, &group, request.text)?;
    Ok(Answer::done([request.text.len() as u64, 0, 0, 0, 0, 0]))
}

/// `.`, `..`, the files, then the child groups, each at the position of its number.
fn list(tree: &Tree<'_>, request: &Request<'_>, directory: Node, room: usize) -> Result<Answer, Errno> {
    let Node::Group(key) = directory else { return Err(Errno::ENOTDIR) };
    let group = tree.0.group(key).ok_or(Errno::ENOENT)?;
    let mut records = Records::new(room);
    let place = request.argument;
    let first = 2 + FILES.len() as u64;
    let ends = [(0, ".", directory), (1, "..", tree.parent(directory))];
    let files = tree.files(group).map(|(n, file)| (2 + n as u64, file.name, Node::File(key, n)));
    for (at, name, node) in ends.into_iter().chain(files).filter(|(at, ..)| *at >= place) {
        if !records.push(name.as_bytes(), node.number(), node.mode(), at + 1)? {
            return Ok(records.into_answer());
        }
    }
    let from = u32::try_from(place.saturating_sub(first)).unwrap_or(u32::MAX);
    for child in tree.0.groups(from).filter(|child| child.parent == key) {
        let (node, at) = (Node::Group(child.key), first + u64::from(facts::number(&child)));
        let len = child.name.iter().position(|byte| *byte == 0).unwrap_or(child.name.len());
        if !records.push(&child.name[..len], node.number(), node.mode(), at + 1)? {
            break;
        }
    }
    Ok(records.into_answer())
}

fn path(tree: &Tree<'_>, node: Node) -> Result<Answer, Errno> {
    let mut text = tree.path(node.key());
    if let Some(file) = node.file() {
        if text != "/" {
            text.push('/');
        }
        text.push_str(file.name);
    }
    Ok(Answer::text(text.into_bytes()))
}
