//! Requests and their answers. Nothing is made, moved, removed or written here: EACCES for a name that cannot be made, EPERM for
//! what cannot be changed.

use alloc::string::String;
use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::info::ProcessInfo;
use quire_abi::names::{op, statfs};
use quire_fs::records::Records;
use quire_fs::request::{Answer, Found, Request};
use quire_fs::walk::{Names, Walked, walk};
use quire_fs::who::{READ, WRITE, Who};

use crate::facts::Facts;
use crate::names::{FILES, FIXED, Fixed, Node, Tree};

/// Linux's number of this kind of file system.
const PROC: u64 = 0x9fa0;

struct Asker((u32, u32));

impl Who for Asker {
    fn user(&self) -> u32 {
        self.0.0
    }
    fn group(&self) -> u32 {
        self.0.1
    }
    fn is_also_in(&self, _: u32) -> bool {
        false
    }
}

/// Does what is asked; `room` is that of window 1.
pub fn serve(facts: &dyn Facts, request: &Request<'_>, room: usize) -> Answer {
    try_serve(facts, request, room).unwrap_or_else(Answer::error)
}

fn try_serve(facts: &dyn Facts, request: &Request<'_>, room: usize) -> Result<Answer, Errno> {
    let start = Node::from_number(request.directory).ok_or(Errno::ENOENT)?;
    if request.has_no_path() {
        return match request.op {
            op::READDIR => list(facts, start, request.argument, room),
            op::PATH => path(start),
            op::READ => read(facts, request, start, room),
            op::STATFS => {
                let mut words = [0; 6];
                words[statfs::KIND] = PROC;
                Ok(Answer::done(words))
            }
            _ => Err(Errno::EACCES),
        };
    }
    let tree = Tree(facts);
    match walk(&tree, &Asker(request.identity), start, request.path, request.follow())? {
        Walked::Up(behind) => Ok(Answer::up(behind)),
        Walked::Link(directory, link, behind) => {
            Ok(Answer::link(directory.number(), behind, link_text(facts, link).into_bytes()))
        }
        Walked::End { node, .. } => at_end(facts, request, node),
    }
}

fn at_end(facts: &dyn Facts, request: &Request<'_>, node: Option<Node>) -> Result<Answer, Errno> {
    let makes = match request.op {
        op::MKDIR | op::SYMLINK | op::LINK => true,
        op::OPEN => request.argument as u32 & Open::CREAT.bits() != 0,
        _ => false,
    };
    let Some(node) = node else { return Err(if makes { Errno::EACCES } else { Errno::ENOENT }) };
    let process = process_of(facts, node)?;
    match request.op {
        op::LOOKUP => Ok(found(facts, node, process)),
        op::OPEN => open(facts, request, node, process),
        op::ACCESS if request.argument as u32 & WRITE != 0 => Err(Errno::EACCES),
        op::ACCESS => check(request, node, process).map(|()| Answer::default()),
        op::READLINK if Tree(facts).is_link(node) => Ok(Answer::text(link_text(facts, node).into_bytes())),
        op::READLINK => Err(Errno::EINVAL),
        _ if makes => Err(Errno::EEXIST),
        _ => Err(Errno::EPERM),
    }
}

/// The process that a node belongs to: ENOENT if it has ended.
fn process_of(facts: &dyn Facts, node: Node) -> Result<Option<ProcessInfo>, Errno> {
    match node {
        Node::Fixed(_) => Ok(None),
        Node::Process(pid) | Node::Of(pid, _) => facts.process(pid).map(Some).ok_or(Errno::ENOENT),
    }
}

fn found(facts: &dyn Facts, node: Node, process: Option<ProcessInfo>) -> Answer {
    let (user, group) = process.map_or((0, 0), |process| (process.uid, process.gid));
    let size = if Tree(facts).is_link(node) { link_text(facts, node).len() as u64 } else { 0 };
    let now = facts.now();
    let links = if Tree(facts).is_dir(node) { 2 } else { 1 };
    let found =
        Found { number: node.number(), mode: node.mode(), links, user, group, size, modified: now, changed: now };
    Answer::done(found.to_words())
}

fn open(facts: &dyn Facts, request: &Request<'_>, node: Node, process: Option<ProcessInfo>) -> Result<Answer, Errno> {
    let flags = Open::from_bits_retain(request.argument as u32);
    let is_dir = Tree(facts).is_dir(node);
    if flags.contains(Open::PATH) {
        return Ok(found(facts, node, process));
    }
    if flags.contains(Open::CREAT | Open::EXCL) {
        return Err(Errno::EEXIST);
    }
    if Tree(facts).is_link(node) {
        return Err(Errno::ELOOP);
    }
    if flags.contains(Open::DIRECTORY) && !is_dir {
        return Err(Errno::ENOTDIR);
    }
    if flags.bits() & 3 != 0 || flags.contains(Open::TRUNC) {
        return Err(if is_dir { Errno::EISDIR } else { Errno::EACCES });
    }
    check(request, node, process)?;
    Ok(found(facts, node, process))
}

/// Whether the caller may read a node: some files of a process are for its user, and root.
fn check(request: &Request<'_>, node: Node, process: Option<ProcessInfo>) -> Result<(), Errno> {
    let (Node::Of(_, file), Some(process)) = (node, process) else { return Ok(()) };
    let (.., is_for_all) = FILES[file];
    let asker = Asker(request.identity);
    let wants = request.op != op::ACCESS || request.argument as u32 & READ != 0;
    let may = is_for_all || !wants || asker.is_root() || asker.user() == process.uid;
    if may { Ok(()) } else { Err(Errno::EACCES) }
}

fn link_text(facts: &dyn Facts, node: Node) -> String {
    match node {
        Node::Fixed(at) => match FIXED[at].2 {
            Fixed::Own => alloc::format!("{}", facts.caller()),
            Fixed::Link(text) => text.into(),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

/// The text of a file, from a place on. It is made anew for each read.
fn read(facts: &dyn Facts, request: &Request<'_>, node: Node, room: usize) -> Result<Answer, Errno> {
    let process = process_of(facts, node)?;
    check(request, node, process)?;
    let text = match (node, process) {
        (Node::Fixed(at), _) => match FIXED[at].2 {
            Fixed::File(text) => text(facts),
            _ => return Err(Errno::EISDIR),
        },
        (Node::Of(_, file), Some(process)) => (FILES[file].1)(facts, &process),
        _ => return Err(Errno::EISDIR),
    };
    let rest = usize::try_from(request.argument).ok().and_then(|at| text.as_bytes().get(at..)).unwrap_or(&[]);
    Ok(Answer::text(rest[..rest.len().min(room)].to_vec()))
}

/// Records of a directory from a place on: `.`, `..`, the fixed names, then the processes, each at its number.
fn list(facts: &dyn Facts, directory: Node, place: u64, room: usize) -> Result<Answer, Errno> {
    let tree = Tree(facts);
    process_of(facts, directory)?;
    if !tree.is_dir(directory) {
        return Err(Errno::ENOTDIR);
    }
    let mut entries: Vec<(u64, String, Node)> =
        Vec::from([(0, ".".into(), directory), (1, "..".into(), tree.parent(directory))]);
    match directory {
        Node::Fixed(at) => {
            let fixed = (1..FIXED.len()).filter(|n| FIXED[*n].0 == at);
            entries.extend(fixed.map(|n| (2 + n as u64, FIXED[n].1.into(), Node::Fixed(n))));
            if at == 0 {
                let first = 2 + FIXED.len() as u64;
                let of = |process: ProcessInfo| {
                    (first + u64::from(process.pid), alloc::format!("{}", process.pid), Node::Process(process.pid))
                };
                entries.extend(facts.processes().into_iter().map(of));
            }
        }
        Node::Process(pid) => {
            entries.extend(
                FILES.iter().enumerate().map(|(n, (name, ..))| (2 + n as u64, (*name).into(), Node::Of(pid, n))),
            );
        }
        Node::Of(..) => {}
    }
    let mut records = Records::new(room);
    for (at, name, node) in entries.into_iter().filter(|(at, ..)| *at >= place) {
        if !records.push(name.as_bytes(), node.number(), node.mode(), at + 1)? {
            break;
        }
    }
    Ok(records.into_answer())
}

fn path(directory: Node) -> Result<Answer, Errno> {
    let text = match directory {
        Node::Process(pid) => alloc::format!("/{pid}"),
        Node::Of(..) => return Err(Errno::ENOTDIR),
        Node::Fixed(mut at) => {
            let mut text = String::new();
            while at != 0 {
                text = alloc::format!("/{}{text}", FIXED[at].1);
                at = FIXED[at].0;
            }
            if text.is_empty() { "/".into() } else { text }
        }
    };
    Ok(Answer::text(text.into_bytes()))
}
