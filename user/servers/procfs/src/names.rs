//! Which files there are, and their numbers.
//!
//! Numbers: that of a fixed name is its place in [`FIXED`]; that of a process's directory is its pid behind [`PROCESS`], and those of its
//! files follow.

use alloc::string::String;

use quire_abi::info::ProcessInfo;
use quire_abi::layout::mode;
use quire_fs::walk::Names;
use quire_fs::who::Who;

use crate::facts::Facts;
use crate::{machine, process};

/// What a fixed name is.
pub enum Fixed {
    /// A directory.
    Directory,
    /// A link to the caller's directory.
    Own,
    /// A link to this.
    Link(&'static str),
    /// A file with this text.
    File(fn(&dyn Facts) -> String),
}

/// The fixed names: directory, name, what it is. A directory comes before what is in it.
pub const FIXED: &[(usize, &str, Fixed)] = &[
    (0, "", Fixed::Directory),
    (0, "buddyinfo", Fixed::File(machine::buddyinfo)),
    (0, "cpuinfo", Fixed::File(machine::cpuinfo)),
    (0, "filesystems", Fixed::File(machine::filesystems)),
    (0, "meminfo", Fixed::File(machine::meminfo)),
    (0, "mounts", Fixed::Link("self/mounts")),
    (0, "self", Fixed::Own),
    (0, "stat", Fixed::File(machine::stat)),
    (0, "sys", Fixed::Directory),
    (0, "uptime", Fixed::File(machine::uptime)),
    (0, "version", Fixed::File(machine::version)),
    (0, "vmstat", Fixed::File(machine::vmstat)),
    (8, "kernel", Fixed::Directory),
    (12, "hostname", Fixed::File(machine::hostname)),
    (12, "osrelease", Fixed::File(machine::osrelease)),
    (12, "ostype", Fixed::File(machine::ostype)),
];

/// A file of a process: its name, its text, and whether others than its user may read it.
pub type OfProcess = (&'static str, fn(&dyn Facts, &ProcessInfo) -> String, bool);

/// The files of a process.
pub const FILES: &[OfProcess] = &[
    ("comm", process::comm, true),
    ("maps", process::maps, false),
    ("mounts", process::mounts, true),
    ("smaps", process::smaps, false),
    ("stat", process::stat, true),
    ("statm", process::statm, true),
    ("status", process::status, true),
];

const PROCESS: u64 = 1 << 40;
/// Numbers for each process.
const SPAN: u64 = 256;

/// Something with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A fixed one.
    Fixed(usize),
    /// The directory of a process.
    Process(u32),
    /// A file of a process.
    Of(u32, usize),
}

impl Node {
    /// Its number.
    pub fn number(self) -> u64 {
        match self {
            Self::Fixed(at) => at as u64,
            Self::Process(pid) => PROCESS + u64::from(pid) * SPAN,
            Self::Of(pid, file) => PROCESS + u64::from(pid) * SPAN + 1 + file as u64,
        }
    }

    /// What has a number, whether the process is there or not.
    pub fn from_number(number: u64) -> Option<Self> {
        let Some(rest) = number.checked_sub(PROCESS) else {
            return ((number as usize) < FIXED.len()).then_some(Self::Fixed(number as usize));
        };
        let pid = u32::try_from(rest / SPAN).ok()?;
        match (rest % SPAN).checked_sub(1) {
            None => Some(Self::Process(pid)),
            Some(file) => ((file as usize) < FILES.len()).then_some(Self::Of(pid, file as usize)),
        }
    }

    /// Its type and permissions.
    pub fn mode(self) -> u32 {
        match self {
            Self::Fixed(at) => match FIXED[at].2 {
                Fixed::Directory => mode::DIR | 0o555,
                Fixed::Own | Fixed::Link(_) => mode::LNK | 0o777,
                Fixed::File(_) => mode::REG | 0o444,
            },
            Self::Process(_) => mode::DIR | 0o555,
            Self::Of(..) => mode::REG | 0o444,
        }
    }
}

/// The names, as they are now.
pub struct Tree<'a>(pub &'a dyn Facts);

impl Names for Tree<'_> {
    type Node = Node;

    fn root(&self) -> Node {
        Node::Fixed(0)
    }
    fn is_dir(&self, node: Node) -> bool {
        node.mode() & mode::FMT == mode::DIR
    }
    fn is_link(&self, node: Node) -> bool {
        node.mode() & mode::FMT == mode::LNK
    }
    fn parent(&self, directory: Node) -> Node {
        match directory {
            Node::Fixed(at) => Node::Fixed(FIXED[at].0),
            Node::Process(_) => self.root(),
            Node::Of(pid, _) => Node::Process(pid),
        }
    }
    fn child(&self, directory: Node, name: &[u8]) -> Option<Node> {
        let at = match directory {
            Node::Fixed(at) => at,
            Node::Process(pid) => {
                return FILES.iter().position(|(file, ..)| file.as_bytes() == name).map(|file| Node::Of(pid, file));
            }
            Node::Of(..) => return None,
        };
        // (The root is in itself.)
        let is_it = |n: &usize| FIXED[*n].0 == at && FIXED[*n].1.as_bytes() == name;
        if let Some(found) = (1..FIXED.len()).find(is_it) {
            return Some(Node::Fixed(found));
        }
        let number = core::str::from_utf8(name).ok().filter(|name| at == 0 && !name.starts_with(['0', '+']));
        let pid = number.and_then(|number| number.parse().ok())?;
        self.0.process(pid).map(|_| Node::Process(pid))
    }
    fn may_search(&self, _: Node, _: &impl Who) -> bool {
        true
    }
}
