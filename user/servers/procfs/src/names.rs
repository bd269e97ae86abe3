//! The files that exist, and their numbers.
//!
//! A number has a kind in its highest bits, followed by a process, a thread or descriptor of it, and a file, depending
//! on the kind.

use core::fmt;

use quire_abi::Errno;
use quire_abi::layout::mode;
use quire_abi::names::held;
use quire_abi::process::{self as abi, flag};
use quire_fs::walk::Names;
use quire_fs::who::{EXECUTE, Owned, Who};

use crate::facts::Facts;
use crate::out::Out;
use crate::process::Subject;
use crate::system::GROUPS;
use crate::{change, machine, process, settings, system};

/// The kind of a fixed name.
pub enum Fixed {
    /// A directory, with its path.
    Directory(&'static str),
    /// A link to the caller's directory.
    Own,
    /// A link to the directory of the caller's thread.
    OwnThread,
    /// A link to this.
    Link(&'static str),
    /// A file with this text.
    File(Written),
    /// A file that only root may read.
    Secret(Written),
    /// A file that root may write.
    Setting(Written, Set),
    /// A file with this text about the machine's pressure; everybody may set triggers.
    Trigger(Written),
    /// A file that only root may write, and that cannot be read.
    Order(Set),
}

/// Sets a property of the machine to the value in a text.
pub type Set = fn(&dyn Facts, &[u8]) -> Result<(), Errno>;

/// Writes a text about the machine.
pub type Written = fn(&dyn Facts, &mut Out) -> fmt::Result;

/// The fixed names: the path of the directory, the name, the kind. The first one is the root of /proc; paths that begin
/// with a slash are in /sys.
pub const FIXED: &[(&str, &str, Fixed)] = &[
    ("", "", Fixed::Directory("")),
    ("", "buddyinfo", Fixed::File(machine::buddyinfo)),
    ("", "cmdline", Fixed::File(machine::cmdline)),
    ("", "cpuinfo", Fixed::File(machine::cpuinfo)),
    ("", "filesystems", Fixed::File(machine::filesystems)),
    ("", "loadavg", Fixed::File(machine::loadavg)),
    ("", "meminfo", Fixed::File(machine::meminfo)),
    ("", "mounts", Fixed::Link("self/mounts")),
    ("", "pagetypeinfo", Fixed::Secret(machine::pagetypeinfo)),
    ("", "partitions", Fixed::Link("/dev/block/partitions")),
    ("", "pressure", Fixed::Directory("pressure")),
    ("", "self", Fixed::Own),
    ("", "slabinfo", Fixed::Secret(machine::slabinfo)),
    ("", "stat", Fixed::File(machine::stat)),
    ("", "swaps", Fixed::File(machine::swaps)),
    ("", "sys", Fixed::Directory("sys")),
    ("", "thread-self", Fixed::OwnThread),
    ("", "uptime", Fixed::File(machine::uptime)),
    ("", "version", Fixed::File(machine::version)),
    ("", "vmallocinfo", Fixed::Secret(machine::vmallocinfo)),
    ("", "vmstat", Fixed::File(machine::vmstat)),
    ("", "zoneinfo", Fixed::File(machine::zoneinfo)),
    ("pressure", "memory", Fixed::Trigger(machine::pressure)),
    ("sys", "fs", Fixed::Directory("sys/fs")),
    ("sys", "kernel", Fixed::Directory("sys/kernel")),
    ("sys", "vm", Fixed::Directory("sys/vm")),
    ("sys/fs", "nr_open", Fixed::File(settings::nr_open)),
    ("sys/fs", "pipe-max-size", Fixed::File(settings::pipe_max_size)),
    ("sys/kernel", "domainname", Fixed::Setting(settings::domainname, settings::set_domainname)),
    ("sys/kernel", "hostname", Fixed::Setting(settings::hostname, settings::set_hostname)),
    ("sys/kernel", "ngroups_max", Fixed::File(settings::ngroups_max)),
    ("sys/kernel", "osrelease", Fixed::File(settings::osrelease)),
    ("sys/kernel", "ostype", Fixed::File(settings::ostype)),
    ("sys/kernel", "pid_max", Fixed::File(settings::pid_max)),
    ("sys/kernel", "random", Fixed::Directory("sys/kernel/random")),
    ("sys/kernel", "threads-max", Fixed::File(settings::threads_max)),
    ("sys/kernel", "version", Fixed::File(settings::version)),
    ("sys/kernel/random", "uuid", Fixed::File(settings::uuid)),
    ("sys/vm", "compact_memory", Fixed::Order(settings::compact_memory)),
    ("sys/vm", "max_map_count", Fixed::File(settings::max_map_count)),
    ("sys/vm", "min_free_kbytes", Fixed::File(settings::min_free_kbytes)),
    ("sys/vm", "mmap_min_addr", Fixed::File(settings::mmap_min_addr)),
    ("sys/vm", "overcommit_kbytes", Fixed::Setting(settings::overcommit_kbytes, settings::set_overcommit_kbytes)),
    ("sys/vm", "overcommit_memory", Fixed::Setting(settings::overcommit_memory, settings::set_overcommit_memory)),
    ("sys/vm", "overcommit_ratio", Fixed::Setting(settings::overcommit_ratio, settings::set_overcommit_ratio)),
    ("/", "", Fixed::Directory("/sys")),
    ("/sys", "devices", Fixed::Directory("/sys/devices")),
    ("/sys", "fs", Fixed::Directory("/sys/fs")),
    ("/sys", "kernel", Fixed::Directory("/sys/kernel")),
    ("/sys/devices", "system", Fixed::Directory("/sys/devices/system")),
    ("/sys/devices/system", "cpu", Fixed::Directory("/sys/devices/system/cpu")),
    ("/sys/devices/system", "node", Fixed::Directory("/sys/devices/system/node")),
    ("/sys/devices/system/cpu", "offline", Fixed::File(system::offline)),
    ("/sys/devices/system/cpu", "online", Fixed::File(system::online)),
    ("/sys/devices/system/cpu", "possible", Fixed::File(system::present)),
    ("/sys/devices/system/cpu", "present", Fixed::File(system::present)),
    ("/sys/devices/system/node", "has_cpu", Fixed::File(system::has_cpu)),
    ("/sys/devices/system/node", "has_memory", Fixed::File(system::has_memory)),
    ("/sys/devices/system/node", "online", Fixed::File(system::nodes)),
    ("/sys/devices/system/node", "possible", Fixed::File(system::nodes)),
    ("/sys/fs", "cgroup", Fixed::Link("/cgroup")),
    ("/sys/kernel", "mm", Fixed::Directory("/sys/kernel/mm")),
    ("/sys/kernel/mm", "transparent_hugepage", Fixed::Directory("/sys/kernel/mm/transparent_hugepage")),
    ("/sys/kernel/mm/transparent_hugepage", "enabled", Fixed::Setting(settings::huge_pages, settings::set_huge_pages)),
    ("/sys/kernel/mm/transparent_hugepage", "hpage_pmd_size", Fixed::File(settings::huge_page_size)),
];

/// Which of the file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// /proc.
    Proc,
    /// /sys.
    Sys,
}

impl System {
    /// Its root.
    pub fn root(self) -> Node {
        let is_it = |fixed: &(&str, &str, Fixed)| fixed.1.is_empty() && fixed.0 == "/";
        match self {
            Self::Proc => Node::Fixed(0),
            Self::Sys => Node::Fixed(FIXED.iter().position(is_it).unwrap_or(0)),
        }
    }
}

/// The indices in [`FIXED`] of the entries of the directory at one index.
pub fn fixed_in(at: usize) -> impl Iterator<Item = usize> {
    // (A root is its own parent, and has no name.)
    (1..FIXED.len()).filter(move |n| matches!(FIXED[at].2, Fixed::Directory(path) if path == FIXED[*n].0))
}

/// The parent directory of a fixed name.
fn fixed_above(at: usize) -> usize {
    let is_it = |fixed: &(&str, &str, Fixed)| matches!(fixed.2, Fixed::Directory(path) if path == FIXED[at].0);
    FIXED.iter().position(is_it).unwrap_or(0)
}

/// The content of a file of a process.
#[derive(Clone, Copy)]
pub enum Text {
    /// A text that is generated for each reader.
    Written(fn(&Subject<'_>, &mut Out) -> fmt::Result),
    /// A part of its memory.
    Memory(usize),
}

/// A file of a process.
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// Its content.
    pub text: Text,
    /// Its permissions.
    pub mode: u32,
    /// Whether only callers that may inspect the process may read it.
    pub is_private: bool,
    /// Whether each thread has one too.
    pub is_of_threads: bool,
    /// The effect of a write.
    pub write: Option<change::Change>,
}

const fn file(name: &'static str, text: Text) -> File {
    File { name, text, mode: 0o444, is_private: false, is_of_threads: true, write: None }
}

const fn private(name: &'static str, mode: u32, text: Text) -> File {
    File { mode, is_private: true, ..file(name, text) }
}

/// The files of a process.
pub const FILES: &[File] = &[
    private("auxv", 0o400, Text::Memory(abi::text::AUXILIARY)),
    file("cgroup", Text::Written(process::cgroup)),
    file("cmdline", Text::Memory(abi::text::ARGUMENTS)),
    File { mode: 0o644, write: Some(change::comm), ..file("comm", Text::Written(process::comm)) },
    private("environ", 0o400, Text::Memory(abi::text::ENVIRONMENT)),
    file("limits", Text::Written(process::limits)),
    private("maps", 0o444, Text::Written(process::maps)),
    file("mountinfo", Text::Written(process::mountinfo)),
    file("mounts", Text::Written(process::mounts)),
    file("oom_score", Text::Written(process::oom_score)),
    File {
        mode: 0o644,
        write: Some(change::oom_score_adj),
        ..file("oom_score_adj", Text::Written(process::oom_score_adj))
    },
    private("smaps", 0o444, Text::Written(process::smaps)),
    private("smaps_rollup", 0o444, Text::Written(process::smaps_rollup)),
    file("stat", Text::Written(process::stat)),
    file("statm", Text::Written(process::statm)),
    file("status", Text::Written(process::status)),
    file("wchan", Text::Written(process::wchan)),
];

/// A directory of a process: its name, and its node.
pub type Directory = (&'static str, fn(u32) -> Node);

/// The directories of a process.
pub const DIRECTORIES: &[Directory] = &[("fd", Node::Descriptors), ("fdinfo", Node::Infos), ("task", Node::Tasks)];

/// Links to objects that a process holds.
pub const LINKS: &[(&str, u64)] = &[("cwd", held::WORKING_DIRECTORY), ("exe", held::PROGRAM), ("root", held::ROOT)];

/// Something with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A fixed one.
    Fixed(usize),
    /// The directory of a process.
    Process(u32),
    /// A file of a process.
    Of(u32, usize),
    /// A link of a process.
    Link(u32, usize),
    /// The threads of a process.
    Tasks(u32),
    /// The directory of a thread of a process.
    Task(u32, u32),
    /// A file of a thread.
    OfTask(u32, u32, usize),
    /// The descriptors of a process.
    Descriptors(u32),
    /// A descriptor: a link to what it refers to.
    Descriptor(u32, u32),
    /// Information about the descriptors of a process.
    Infos(u32),
    /// Information about one descriptor.
    Info(u32, u32),
    /// The directory of a member of one of the groups in /sys.
    One(usize, u32),
    /// A file of it.
    OfOne(usize, u32, usize),
}

/// The parts of a number.
const KIND: u32 = 44;
const PID: u32 = 26;
const PART: u32 = 6;

impl Node {
    /// Its number.
    pub fn number(self) -> u64 {
        let of = |kind: u64, pid: u32, part: u32, file: usize| {
            kind << KIND | u64::from(pid) << PID | u64::from(part) << PART | file as u64
        };
        match self {
            Self::Fixed(at) => at as u64,
            Self::Process(pid) => of(1, pid, 0, 0),
            Self::Of(pid, file) => of(1, pid, 0, file + 1),
            Self::Tasks(pid) => of(2, pid, 0, 0),
            Self::Task(pid, tid) => of(2, pid, tid, 0),
            Self::OfTask(pid, tid, file) => of(2, pid, tid, file + 1),
            Self::Descriptors(pid) => of(3, pid, 0, 0),
            Self::Descriptor(pid, number) => of(3, pid, number, 1),
            Self::Infos(pid) => of(4, pid, 0, 0),
            Self::Info(pid, number) => of(4, pid, number, 1),
            Self::Link(pid, link) => of(5, pid, 0, link),
            Self::One(group, n) => of(6, n, group as u32, 0),
            Self::OfOne(group, n, file) => of(6, n, group as u32, file + 1),
        }
    }

    /// The node with this number, whether or not the process exists.
    pub fn from_number(number: u64) -> Option<Self> {
        let field = |from: u32, to: u32| (number >> from & ((1 << (to - from)) - 1)) as u32;
        let (pid, part, file) = (field(PID, KIND), field(PART, PID), field(0, PART) as usize);
        let files = file <= FILES.len();
        match (number >> KIND, part, file) {
            (0, ..) => usize::try_from(number).ok().filter(|at| *at < FIXED.len()).map(Self::Fixed),
            (1, 0, 0) => Some(Self::Process(pid)),
            (1, 0, file) if files => Some(Self::Of(pid, file - 1)),
            (2, 0, 0) => Some(Self::Tasks(pid)),
            (2, tid, 0) => Some(Self::Task(pid, tid)),
            (2, tid, file) if files && tid != 0 => Some(Self::OfTask(pid, tid, file - 1)),
            (3, 0, 0) => Some(Self::Descriptors(pid)),
            (3, number, 1) => Some(Self::Descriptor(pid, number)),
            (4, 0, 0) => Some(Self::Infos(pid)),
            (4, number, 1) => Some(Self::Info(pid, number)),
            (5, 0, link) if link < LINKS.len() => Some(Self::Link(pid, link)),
            (6, group, file) => {
                let files = GROUPS.get(group as usize)?.files.len();
                match file.checked_sub(1) {
                    None => Some(Self::One(group as usize, pid)),
                    Some(file) => (file < files).then_some(Self::OfOne(group as usize, pid, file)),
                }
            }
            _ => None,
        }
    }

    /// The process that it belongs to.
    pub fn pid(self) -> Option<u32> {
        match self {
            Self::Fixed(_) | Self::One(..) | Self::OfOne(..) => None,
            Self::Process(pid) | Self::Tasks(pid) | Self::Descriptors(pid) | Self::Infos(pid) => Some(pid),
            Self::Of(pid, _) | Self::Link(pid, _) => Some(pid),
            Self::Task(pid, _) | Self::OfTask(pid, ..) | Self::Descriptor(pid, _) | Self::Info(pid, _) => Some(pid),
        }
    }

    /// If the node is a file of a process or a thread: that file.
    pub fn file(self) -> Option<&'static File> {
        match self {
            Self::Of(_, file) | Self::OfTask(_, _, file) => FILES.get(file),
            _ => None,
        }
    }

    /// Whether writing to it sets a trigger.
    pub fn takes_triggers(self) -> bool {
        matches!(self, Self::Fixed(at) if matches!(FIXED[at].2, Fixed::Trigger(_)))
    }

    /// Its type and permissions, except that those of a descriptor's link depend on the descriptor.
    pub fn mode(self) -> u32 {
        match self {
            Self::Fixed(at) => match FIXED[at].2 {
                Fixed::Directory(_) => mode::DIR | 0o555,
                Fixed::Own | Fixed::OwnThread | Fixed::Link(_) => mode::LNK | 0o777,
                Fixed::File(_) => mode::REG | 0o444,
                Fixed::Secret(_) => mode::REG | 0o400,
                Fixed::Setting(..) => mode::REG | 0o644,
                Fixed::Trigger(_) => mode::REG | 0o666,
                Fixed::Order(_) => mode::REG | 0o200,
            },
            Self::Process(_) | Self::Tasks(_) | Self::Task(..) | Self::Infos(_) | Self::One(..) => mode::DIR | 0o555,
            Self::OfOne(..) => mode::REG | 0o444,
            Self::Descriptors(_) => mode::DIR | 0o500,
            Self::Of(..) | Self::OfTask(..) => mode::REG | self.file().map_or(0, |file| file.mode),
            Self::Info(..) => mode::REG | 0o400,
            Self::Link(..) => mode::LNK | 0o777,
            Self::Descriptor(..) => mode::LNK | 0o700,
        }
    }
}

/// The names of one of the file systems at the moment.
pub struct Tree<'a>(pub &'a dyn Facts, pub System);

impl Tree<'_> {
    fn in_fixed(&self, at: usize, name: &[u8]) -> Option<Node> {
        if let Some(found) = fixed_in(at).find(|n| FIXED[*n].1.as_bytes() == name) {
            return Some(Node::Fixed(found));
        }
        if at == 0 {
            let pid = number(name)?;
            return self.0.process(pid).map(|_| Node::Process(pid));
        }
        let group = GROUPS.iter().position(|group| is_directory(at, group.directory))?;
        let n = number(name.strip_prefix(GROUPS[group].prefix.as_bytes())?)?;
        ((n as usize) < (GROUPS[group].count)(self.0)).then_some(Node::One(group, n))
    }

    fn in_process(&self, pid: u32, name: &[u8]) -> Option<Node> {
        let file = FILES.iter().position(|file| file.name.as_bytes() == name).map(|file| Node::Of(pid, file));
        let link = || LINKS.iter().position(|(link, _)| link.as_bytes() == name).map(|link| Node::Link(pid, link));
        let directory = || DIRECTORIES.iter().find(|(other, _)| other.as_bytes() == name).map(|(_, node)| node(pid));
        file.or_else(link).or_else(directory)
    }

    /// The process or thread that a node is about, if it exists. `None` for a fixed name.
    pub fn subject(&self, node: Node, who: &impl Who) -> Result<Option<Subject<'_>>, Errno> {
        let Some(pid) = node.pid() else { return Ok(None) };
        let process = self.0.process(pid).ok_or(Errno::ENOENT)?;
        let thread = match node {
            Node::Task(_, tid) | Node::OfTask(_, tid, _) => Some(self.0.thread(pid, tid).ok_or(Errno::ENOENT)?),
            _ => None,
        };
        Ok(Some(Subject { facts: self.0, process, thread, is_open: self.may_inspect(pid, who) }))
    }

    /// Whether `who` may inspect a process, by the rule of Linux's `ptrace_may_access`: the process is `who`'s own, or
    /// `who` is root, or the process has no other user or group than `who` and has not been made private.
    pub fn may_inspect(&self, pid: u32, who: &impl Who) -> bool {
        if who.is_root() || self.0.caller().0 == pid {
            return true;
        }
        let Some(detail) = self.0.detail(pid) else { return false };
        let same = |ids: [u32; 4], mine: u32| ids[..3].iter().all(|id| *id == mine);
        detail.flags & flag::DUMPABLE != 0 && same(detail.users, who.user()) && same(detail.groups, who.group())
    }

    /// The owner of a node, and its type and permissions: those of a process belong to its user, unless it has been
    /// made private.
    pub fn owned(&self, node: Node, subject: Option<&Subject<'_>>) -> Owned {
        let process = subject.map(|subject| subject.process).filter(|process| process.flags & flag::DUMPABLE != 0);
        let (user, group) = process.map_or((0, 0), |process| (process.uid, process.gid));
        let mode = match (node, subject) {
            (Node::Descriptor(pid, number), Some(_)) => {
                let rights = self.0.descriptor(pid, number).map_or(0, |descriptor| descriptor.rights);
                let [reads, writes] = [1, 2].map(|right| rights & right != 0);
                let bits = [(reads, 0o500), (writes, 0o300)];
                mode::LNK | bits.iter().filter(|(has, _)| *has).fold(0, |bits, (_, more)| bits | more)
            }
            _ => node.mode(),
        };
        Owned { mode, user, group }
    }
}

/// Whether a fixed name is the directory with this path.
pub fn is_directory(at: usize, path: &str) -> bool {
    matches!(FIXED[at].2, Fixed::Directory(own) if own == path)
}

/// The number that a name represents, without leading zeros or the like.
fn number(name: &[u8]) -> Option<u32> {
    let text = core::str::from_utf8(name).ok()?;
    let is_plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_plain)
}

impl Tree<'_> {
    /// The node with this name in a directory.
    fn named(&self, directory: Node, name: &[u8]) -> Option<Node> {
        match directory {
            Node::Fixed(at) => self.in_fixed(at, name),
            Node::Process(pid) => self.in_process(pid, name),
            Node::Tasks(pid) => {
                number(name).filter(|tid| self.0.thread(pid, *tid).is_some()).map(|tid| Node::Task(pid, tid))
            }
            Node::Task(pid, tid) => {
                let is_it = |file: &File| file.is_of_threads && file.name.as_bytes() == name;
                FILES.iter().position(is_it).map(|file| Node::OfTask(pid, tid, file))
            }
            Node::Descriptors(pid) | Node::Infos(pid) => {
                let number = number(name).filter(|number| self.0.descriptor(pid, *number).is_some())?;
                Some(match directory {
                    Node::Descriptors(_) => Node::Descriptor(pid, number),
                    _ => Node::Info(pid, number),
                })
            }
            Node::One(group, n) => {
                let file = GROUPS[group].files.iter().position(|(file, _)| file.as_bytes() == name);
                file.map(|file| Node::OfOne(group, n, file))
            }
            _ => None,
        }
    }
}

impl Names for Tree<'_> {
    type Node = Node;

    fn root(&self) -> Node {
        self.1.root()
    }
    fn is_dir(&self, node: Node) -> bool {
        node.mode() & mode::FMT == mode::DIR
    }
    fn is_link(&self, node: Node) -> bool {
        node.mode() & mode::FMT == mode::LNK
    }
    fn parent(&self, directory: Node) -> Node {
        match directory {
            Node::Fixed(at) => Node::Fixed(fixed_above(at)),
            Node::Process(_) => self.root(),
            Node::Of(pid, _) | Node::Link(pid, _) => Node::Process(pid),
            Node::Tasks(pid) | Node::Descriptors(pid) | Node::Infos(pid) => Node::Process(pid),
            Node::Task(pid, _) => Node::Tasks(pid),
            Node::OfTask(pid, tid, _) => Node::Task(pid, tid),
            Node::Descriptor(pid, _) => Node::Descriptors(pid),
            Node::Info(pid, _) => Node::Infos(pid),
            Node::One(group, _) => {
                let above = (0..FIXED.len()).find(|at| is_directory(*at, GROUPS[group].directory));
                above.map_or(self.root(), Node::Fixed)
            }
            Node::OfOne(group, n, _) => Node::One(group, n),
        }
    }
    fn child(&self, directory: Node, name: &[u8]) -> Result<Option<Node>, Errno> {
        Ok(self.named(directory, name))
    }
    fn may_search(&self, directory: Node, who: &impl Who) -> bool {
        if directory.mode() & 0o111 == 0o111 {
            return true;
        }
        let is_own = directory.pid() == Some(self.0.caller().0);
        let subject = self.subject(directory, who).ok().flatten();
        is_own || self.owned(directory, subject.as_ref()).permits(who, EXECUTE)
    }
}
