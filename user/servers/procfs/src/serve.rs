//! Requests and their answers. Nothing can be made, moved or removed here: EACCES for a name that cannot be made, EPERM
//! for an attribute that cannot be changed.

use alloc::string::String;

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::names::{held, node as said, op, statfs};
use quire_fs::records::Records;
use quire_fs::request::{Answer, Found, Request};
use quire_fs::trigger;
use quire_fs::walk::{Names, Walked, walk};
use quire_fs::who::{Identity, READ, WRITE, Who};

use crate::facts::Facts;
use crate::names::{DIRECTORIES, FILES, FIXED, Fixed, LINKS, Node, System, Text, Tree, fixed_in, is_directory};
use crate::out::{Marks, Out};
use crate::process::{self, Subject};
use crate::system::{GROUPS, Group};

/// Linux's number of this type of file system.
const PROC: u64 = 0x9fa0;

/// The same of /sys.
const SYSFS: u64 = 0x6265_6572;

/// The length that lstat returns for links that are not followed by their text.
const LINK_SIZE: u64 = 64;

/// The key of the root of control groups, whose pressure is the machine's.
const MACHINE: u64 = 0;

/// Handles a request; `room` is the size of window 1.
pub fn serve(tree: &Tree<'_>, marks: &mut Marks, request: &Request<'_>, room: usize) -> Answer {
    try_serve(tree, marks, request, room).unwrap_or_else(Answer::error)
}

fn try_serve(tree: &Tree<'_>, marks: &mut Marks, request: &Request<'_>, room: usize) -> Result<Answer, Errno> {
    let facts = tree.0;
    // (The root's number is 0 in each of them.)
    let start = match request.directory {
        0 => tree.root(),
        number => Node::from_number(number).ok_or(Errno::ENOENT)?,
    };
    if request.has_no_path() {
        return match request.op {
            op::READDIR => list(tree, request, start, room),
            op::PATH => path(start),
            op::READ => read(tree, marks, request, start, room),
            op::WRITE => write(tree, request, start),
            op::STATFS => {
                let mut words = [0; 6];
                words[statfs::KIND] = if tree.1 == System::Proc { PROC } else { SYSFS };
                Ok(Answer::done(words))
            }
            _ => Err(Errno::EACCES),
        };
    }
    match walk(tree, &Identity(request.identity), start, request.path, request.follow())? {
        Walked::Up(behind) => Ok(Answer::up(behind)),
        Walked::Link(directory, link, behind) => Ok(match what_is_held(link) {
            Some((pid, what, number)) => Answer::held(pid, behind, what, number),
            None => Answer::link(directory.number(), behind, link_text(facts, link).into_bytes()),
        }),
        Walked::End { node, .. } => at_end(tree, request, node),
    }
}

fn at_end(tree: &Tree<'_>, request: &Request<'_>, node: Option<Node>) -> Result<Answer, Errno> {
    let makes = match request.op {
        op::MKDIR | op::SYMLINK | op::SOCKET | op::LINK => true,
        op::OPEN => request.argument as u32 & Open::CREAT.bits() != 0,
        _ => false,
    };
    let Some(node) = node else { return Err(if makes { Errno::EACCES } else { Errno::ENOENT }) };
    let subject = tree.subject(node, &Identity(request.identity))?;
    let subject = subject.as_ref();
    match request.op {
        op::LOOKUP => Ok(found(tree, node, subject)),
        op::OPEN => open(tree, request, node, subject),
        op::ACCESS => permit(tree, request, node, subject, request.argument as u32).map(|()| Answer::default()),
        op::READLINK if tree.is_link(node) => Ok(match what_is_held(node) {
            Some((pid, what, number)) => Answer::held(pid, request.path.len(), what, number),
            None => Answer::text(link_text(tree.0, node).into_bytes()),
        }),
        op::READLINK => Err(Errno::EINVAL),
        _ if makes => Err(Errno::EEXIST),
        _ => Err(Errno::EPERM),
    }
}

fn found(tree: &Tree<'_>, node: Node, subject: Option<&Subject<'_>>) -> Answer {
    let owned = tree.owned(node, subject);
    let size = match node {
        Node::Descriptor(..) => LINK_SIZE,
        node if tree.is_link(node) => link_text(tree.0, node).len() as u64,
        _ => 0,
    };
    let now = tree.0.now();
    let links = if tree.is_dir(node) { 2 } else { 1 };
    let found = Found {
        number: node.number(),
        mode: owned.mode | if node.takes_triggers() { said::TRIGGER } else { 0 },
        links,
        user: owned.user,
        group: owned.group,
        size,
        modified: now,
        changed: now,
    };
    Answer::done(found.to_words())
}

fn open(tree: &Tree<'_>, request: &Request<'_>, node: Node, subject: Option<&Subject<'_>>) -> Result<Answer, Errno> {
    let flags = Open::from_bits_retain(request.argument as u32);
    if flags.contains(Open::PATH) {
        return Ok(found(tree, node, subject));
    }
    if flags.contains(Open::CREAT | Open::EXCL) {
        return Err(Errno::EEXIST);
    }
    if tree.is_link(node) {
        return Err(Errno::ELOOP);
    }
    let wanted = match flags.bits() & 3 {
        0 => READ,
        1 => WRITE,
        _ => READ | WRITE,
    };
    let wanted = if flags.contains(Open::TRUNC) { wanted | WRITE } else { wanted };
    if tree.is_dir(node) && (wanted & WRITE != 0 || flags.contains(Open::CREAT)) {
        return Err(Errno::EISDIR);
    }
    if flags.contains(Open::DIRECTORY) && !tree.is_dir(node) {
        return Err(Errno::ENOTDIR);
    }
    permit(tree, request, node, subject, wanted)?;
    Ok(found(tree, node, subject))
}

/// EACCES unless the caller may access a node in this way: by its permissions, and if it reveals the contents of a
/// process's memory, only if the caller may inspect the process. Files that nobody can write cannot be written by root
/// either.
fn permit(
    tree: &Tree<'_>,
    request: &Request<'_>,
    node: Node,
    subject: Option<&Subject<'_>>,
    wanted: u32,
) -> Result<(), Errno> {
    let owned = tree.owned(node, subject);
    let is_own = matches!(node, Node::Descriptors(pid) if tree.0.caller().0 == pid);
    let is_private = matches!(node, Node::Info(..)) || node.file().is_some_and(|file| file.is_private);
    let may_read = !is_private || wanted & READ == 0 || subject.is_some_and(|subject| subject.is_open);
    let may_write = wanted & WRITE == 0 || tree.is_link(node) || owned.mode & 0o222 != 0;
    let may = owned.permits(&Identity(request.identity), wanted) || is_own && wanted & WRITE == 0;
    if may && may_read && may_write { Ok(()) } else { Err(Errno::EACCES) }
}

/// For a link to an object that a process holds: the process, the kind of object, and the descriptor's number.
fn what_is_held(node: Node) -> Option<(u32, u64, u32)> {
    match node {
        Node::Link(pid, link) => Some((pid, LINKS[link].1, 0)),
        Node::Descriptor(pid, number) => Some((pid, held::DESCRIPTOR, number)),
        _ => None,
    }
}

fn link_text(facts: &dyn Facts, node: Node) -> String {
    match node {
        Node::Fixed(at) => match FIXED[at].2 {
            Fixed::Own => alloc::format!("{}", facts.caller().0),
            Fixed::OwnThread => {
                let (pid, tid) = facts.caller();
                alloc::format!("{pid}/task/{tid}")
            }
            Fixed::Link(text) => text.into(),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

/// The text of a file, from a position on. It is generated anew for each read.
fn read(tree: &Tree<'_>, marks: &mut Marks, request: &Request<'_>, node: Node, room: usize) -> Result<Answer, Errno> {
    let facts = tree.0;
    let subject = tree.subject(node, &Identity(request.identity)).map_err(ended)?;
    permit_still(tree, request, node, subject.as_ref(), READ)?;
    if room == 0 {
        return Ok(Answer::default());
    }
    if let (Some(Text::Memory(which)), Some(pid)) = (node.file().map(|file| file.text), node.pid()) {
        let mut text = alloc::vec![0; room];
        let len = facts.text(pid, which, request.argument, &mut text);
        text.truncate(len);
        return Ok(Answer::text(text));
    }
    let key = (node.number(), facts.caller().1);
    let mut out = Out::new(request.argument, room, marks.find(key, request.argument));
    // (An error means that there is no more room.)
    let _ = match (node, &subject) {
        (Node::Fixed(at), _) => match FIXED[at].2 {
            Fixed::File(text) | Fixed::Secret(text) | Fixed::Setting(text, _) | Fixed::Trigger(text) => {
                text(facts, &mut out)
            }
            Fixed::Order(_) => return Err(Errno::EACCES),
            _ => return Err(Errno::EISDIR),
        },
        (Node::OfOne(group, n, file), _) => (GROUPS[group].files[file].1)(facts, n as usize, &mut out),
        (Node::Info(_, number), Some(subject)) => process::descriptor(subject, number, &mut out),
        (node, Some(subject)) => match node.file().map(|file| file.text) {
            Some(Text::Written(text)) => text(subject, &mut out),
            _ => return Err(Errno::EISDIR),
        },
        _ => return Err(Errno::EISDIR),
    };
    let (text, mark) = out.finish();
    if let Some(mark) = mark {
        marks.keep(key, mark);
    }
    Ok(Answer::text(text))
}

/// For an open file of a process that has ended meanwhile: ESRCH, as on Linux.
fn ended(error: Errno) -> Errno {
    if error == Errno::ENOENT { Errno::ESRCH } else { error }
}

/// A file that its opener was allowed to open may also be read by processes that it was passed to, except if it reveals
/// the contents of a process's memory.
fn permit_still(
    tree: &Tree<'_>,
    request: &Request<'_>,
    node: Node,
    subject: Option<&Subject<'_>>,
    wanted: u32,
) -> Result<(), Errno> {
    let is_private = matches!(node, Node::Info(..)) || node.file().is_some_and(|file| file.is_private);
    if is_private { permit(tree, request, node, subject, wanted) } else { Ok(()) }
}

/// Writes to a file. The whole text counts, at whatever position it is written.
fn write(tree: &Tree<'_>, request: &Request<'_>, node: Node) -> Result<Answer, Errno> {
    let asker = Identity(request.identity);
    let subject = tree.subject(node, &asker).map_err(ended)?;
    permit(tree, request, node, subject.as_ref(), WRITE)?;
    match (node, subject) {
        (Node::Fixed(at), _) => match FIXED[at].2 {
            Fixed::Setting(_, set) | Fixed::Order(set) => set(tree.0, request.text)?,
            Fixed::Trigger(_) => return trigger::answer(request.text, &asker, MACHINE),
            _ => return Err(Errno::EINVAL),
        },
        (node, Some(subject)) => {
            let change = node.file().and_then(|file| file.write).ok_or(Errno::EINVAL)?;
            change(&subject, request.text, asker.is_root())?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(Answer::done([request.text.len() as u64, 0, 0, 0, 0, 0]))
}

/// Records of a directory from a position on.
fn list(tree: &Tree<'_>, request: &Request<'_>, directory: Node, room: usize) -> Result<Answer, Errno> {
    let subject = tree.subject(directory, &Identity(request.identity))?;
    if !tree.is_dir(directory) {
        return Err(Errno::ENOTDIR);
    }
    permit(tree, request, directory, subject.as_ref(), READ)?;
    let mut list = List { records: Records::new(room), place: request.argument };
    match fill(tree, directory, &mut list) {
        Ok(()) | Err(Stop::Full) => Ok(list.records.into_answer()),
        Err(Stop::Error(error)) => Err(error),
    }
}

/// `.`, `..`, the fixed names, then the numbered names, each at the position of its number.
fn fill(tree: &Tree<'_>, directory: Node, list: &mut List) -> Result<(), Stop> {
    let facts = tree.0;
    list.add(0, ".", directory)?;
    list.add(1, "..", tree.parent(directory))?;
    let first = 2;
    match directory {
        Node::Fixed(at) => {
            for n in fixed_in(at) {
                list.add(first + n as u64, FIXED[n].1, Node::Fixed(n))?;
            }
            if at == 0 {
                let first = first + FIXED.len() as u64;
                let pids = facts.processes(list.number(first)).map(|process| process.pid);
                list.add_numbers(first, "", pids, Node::Process)?;
            }
            for (n, group) in GROUPS.iter().enumerate().filter(|(_, group)| is_directory(at, group.directory)) {
                let first = first + FIXED.len() as u64;
                let numbers = list.number(first)..(group.count)(facts) as u32;
                list.add_numbers(first, group.prefix, numbers, |number| Node::One(n, number))?;
            }
        }
        Node::Process(pid) => {
            let files = FILES.iter().enumerate().map(|(n, file)| (file.name, Node::Of(pid, n)));
            let links = LINKS.iter().enumerate().map(|(n, (name, _))| (*name, Node::Link(pid, n)));
            let directories = DIRECTORIES.iter().map(|(name, node)| (*name, node(pid)));
            for (n, (name, node)) in files.chain(links).chain(directories).enumerate() {
                list.add(first + n as u64, name, node)?;
            }
        }
        Node::Task(pid, tid) => {
            for (n, file) in FILES.iter().enumerate().filter(|(_, file)| file.is_of_threads) {
                list.add(first + n as u64, file.name, Node::OfTask(pid, tid, n))?;
            }
        }
        Node::Tasks(pid) => {
            let tids = facts.threads(pid, list.number(first)).map(|thread| thread.tid);
            list.add_numbers(first, "", tids, |tid| Node::Task(pid, tid))?;
        }
        Node::Descriptors(pid) | Node::Infos(pid) => {
            let is_info = matches!(directory, Node::Infos(_));
            let node = |number| if is_info { Node::Info(pid, number) } else { Node::Descriptor(pid, number) };
            let numbers = facts.descriptors(pid, list.number(first)).map(|descriptor| descriptor.number);
            list.add_numbers(first, "", numbers, node)?;
        }
        Node::One(group, n) => {
            for (file, (name, _)) in GROUPS[group].files.iter().enumerate() {
                list.add(first + file as u64, name, Node::OfOne(group, n, file))?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// A directory's list from a position on.
struct List {
    records: Records,
    place: u64,
}

/// Why a list ends before the directory does.
enum Stop {
    /// There is no more room.
    Full,
    /// There is no room for the first record, or no memory.
    Error(Errno),
}

impl List {
    /// The number of the first numbered name to be listed, if the number 0 is at the position `first`.
    fn number(&self, first: u64) -> u32 {
        u32::try_from(self.place.saturating_sub(first)).unwrap_or(u32::MAX)
    }

    /// Adds the entry at a position, unless the list begins after it.
    fn add(&mut self, at: u64, name: &str, node: Node) -> Result<(), Stop> {
        if at < self.place {
            return Ok(());
        }
        match self.records.push(name.as_bytes(), node.number(), node.mode(), at + 1) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stop::Full),
            Err(error) => Err(Stop::Error(error)),
        }
    }

    /// Adds entries whose names are numbers.
    fn add_numbers(
        &mut self,
        first: u64,
        prefix: &str,
        numbers: impl Iterator<Item = u32>,
        node: impl Fn(u32) -> Node,
    ) -> Result<(), Stop> {
        for number in numbers {
            self.add(first + u64::from(number), &alloc::format!("{prefix}{number}"), node(number))?;
        }
        Ok(())
    }
}

fn path(node: Node) -> Result<Answer, Errno> {
    let one = |group: usize, n: u32| {
        let Group { directory, prefix, .. } = &GROUPS[group];
        alloc::format!("{}/{prefix}{n}", directory.strip_prefix("/sys").unwrap_or(directory))
    };
    let text = match node {
        Node::Fixed(at) => match FIXED[at] {
            ("" | "/" | "/sys", name, _) => alloc::format!("/{name}"),
            (directory, name, _) => alloc::format!("/{}/{name}", directory.strip_prefix("/sys/").unwrap_or(directory)),
        },
        Node::One(group, n) => one(group, n),
        Node::OfOne(group, n, file) => alloc::format!("{}/{}", one(group, n), GROUPS[group].files[file].0),
        Node::Process(pid) => alloc::format!("/{pid}"),
        Node::Of(pid, file) => alloc::format!("/{pid}/{}", FILES[file].name),
        Node::Link(pid, link) => alloc::format!("/{pid}/{}", LINKS[link].0),
        Node::Tasks(pid) => alloc::format!("/{pid}/task"),
        Node::Task(pid, tid) => alloc::format!("/{pid}/task/{tid}"),
        Node::OfTask(pid, tid, file) => alloc::format!("/{pid}/task/{tid}/{}", FILES[file].name),
        Node::Descriptors(pid) => alloc::format!("/{pid}/fd"),
        Node::Descriptor(pid, number) => alloc::format!("/{pid}/fd/{number}"),
        Node::Infos(pid) => alloc::format!("/{pid}/fdinfo"),
        Node::Info(pid, number) => alloc::format!("/{pid}/fdinfo/{number}"),
    };
    Ok(Answer::text(text.into_bytes()))
}
