//! What is remembered between requests: the nodes that names led to, and the bytes after the last read of a file.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::nodes::Nodes;

/// The most names.
const NAMES: usize = 1024;

/// The number of bytes that are read at once when small pieces are requested sequentially.
pub const AHEAD: usize = 32 << 10;

/// Names by directory, in the spelling of the request, and the numbers of their nodes. A removed node's number is
/// invalid, so a name only has to be removed if it leads elsewhere.
#[derive(Default)]
pub struct Known {
    names: BTreeMap<(u64, Vec<u8>), u64>,
}

impl Known {
    /// The node of a name.
    pub fn find(&self, nodes: &mut Nodes, directory: u32, name: &[u8]) -> Option<u32> {
        let mut key = Vec::new();
        key.try_reserve_exact(name.len()).ok()?;
        key.extend_from_slice(name);
        nodes.slot(*self.names.get(&(nodes.number(directory), key))?)
    }

    /// Remembers a name.
    pub fn note(&mut self, nodes: &Nodes, directory: u32, name: &[u8], node: u32) {
        if self.names.len() >= NAMES {
            self.names.clear();
        }
        let mut key = Vec::new();
        if key.try_reserve_exact(name.len()).is_ok() {
            key.extend_from_slice(name);
            self.names.insert((nodes.number(directory), key), nodes.number(node));
        }
    }

    /// Removes the names of a node. O(names).
    pub fn forget(&mut self, number: u64) {
        self.names.retain(|_, of| *of != number);
    }
}

/// The part of a file that was read ahead, and where the last read ended.
#[derive(Default)]
pub struct Ahead {
    number: u64,
    at: u64,
    bytes: Vec<u8>,
    next: u64,
}

impl Ahead {
    /// Bytes of a file from a position on, if they were read ahead.
    pub fn find(&self, number: u64, at: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(at.checked_sub(self.at)?).ok()?;
        (self.number == number).then(|| self.bytes.get(start..start.checked_add(len)?)).flatten()
    }

    /// Whether a read continues where the last one ended; records that it ends at `end`.
    pub fn goes_on(&mut self, number: u64, at: u64, end: u64) -> bool {
        let goes_on = self.number == number && self.next == at;
        if self.number != number {
            self.clear();
            self.number = number;
        }
        self.next = end;
        goes_on
    }

    /// Stores the bytes from a position on.
    pub fn fill(&mut self, at: u64, bytes: Vec<u8>) {
        (self.at, self.bytes) = (at, bytes);
    }

    /// Drops the bytes, which may be outdated.
    pub fn clear(&mut self) {
        self.bytes = Vec::new();
    }
}
