//! Nodes by number. A number consists of a slot and a count of the slot's earlier uses, so that no number is reused
//! while the server runs. Counts begin at a number that the server chooses, so that a new server does not accept the
//! numbers of a former one.

use alloc::vec::Vec;

use quire_abi::layout::mode;

use crate::directory::Directory;

/// The maximum number of nodes: the slot in a number has 16 bits.
pub const MOST: usize = 1 << 16;

/// The maximum number of uses of a slot: a number has 48 bits in total.
const USES: u64 = 1 << 32;

/// The kind of a node.
pub enum Kind {
    /// A directory.
    Directory(Directory),
    /// A symbolic link, with its text.
    Link(Vec<u8>),
    /// A socket, which only the kernel knows.
    Socket,
    /// A file: the handle of its memory object, which keeps its attributes.
    File(u32),
}

/// A file, directory or link. The attributes of files are in their objects.
pub struct Node {
    /// Its kind.
    pub kind: Kind,
    /// Permissions.
    pub mode: u32,
    /// User.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// The number of its names, without the `.` of a directory and the `..` of those in it.
    pub links: u32,
    /// When its content was last changed, in nanoseconds since 1970.
    pub modified: u64,
    /// When its attributes were changed.
    pub changed: u64,
}

impl Node {
    /// Type and permissions.
    pub fn full_mode(&self) -> u32 {
        self.mode
            | match self.kind {
                Kind::Directory(_) => mode::DIR,
                Kind::Link(_) => mode::LNK,
                Kind::Socket => mode::SOCK,
                Kind::File(_) => mode::REG,
            }
    }
}

struct Slot {
    uses: u64,
    node: Option<Node>,
}

/// All nodes.
#[derive(Default)]
pub struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The use count of a new slot.
    first: u64,
}

impl Table {
    /// Enters a node; returns its slot, or the node if there is no room.
    pub fn insert(&mut self, node: Node) -> Result<u32, Node> {
        if let Some(slot) = self.free.pop()
            && let Some(free) = self.slots.get_mut(slot as usize)
        {
            free.node = Some(node);
            return Ok(slot);
        }
        // (There must be room in both lists, so that a removal needs no memory.)
        let has_room = self.slots.len() < MOST
            && self.slots.try_reserve(1).is_ok()
            && self.free.try_reserve(self.slots.len() + 1).is_ok();
        if !has_room {
            return Err(node);
        }
        self.slots.push(Slot { uses: self.first, node: Some(node) });
        Ok(self.slots.len() as u32 - 1)
    }

    /// Sets the use count of new slots to `uses`, limited so that half of the range is left.
    pub fn count_from(&mut self, uses: u32) {
        self.first = u64::from(uses) % (USES / 2);
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < MOST
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a node out; its number is not used again.
    pub fn remove(&mut self, slot: u32) -> Option<Node> {
        let there = self.slots.get_mut(slot as usize)?;
        let node = there.node.take()?;
        there.uses += 1;
        if there.uses < USES {
            self.free.push(slot);
        }
        Some(node)
    }

    /// The node in a slot.
    pub fn get(&self, slot: u32) -> Option<&Node> {
        self.slots.get(slot as usize)?.node.as_ref()
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Node> {
        self.slots.get_mut(slot as usize)?.node.as_mut()
    }

    /// The slots that there are.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        0..self.slots.len() as u32
    }

    /// The number of the node in a slot.
    pub fn number(&self, slot: u32) -> u64 {
        let uses = self.slots.get(slot as usize).map_or(self.first, |slot| slot.uses);
        uses << MOST.trailing_zeros() | u64::from(slot)
    }

    /// The number of the next node, if it is inserted at once.
    pub fn next_number(&self) -> u64 {
        self.number(self.free.last().copied().unwrap_or(self.slots.len() as u32))
    }

    /// The slot of a number, if its node still exists.
    pub fn slot(&self, number: u64) -> Option<u32> {
        let slot = (number % MOST as u64) as u32;
        (self.get(slot).is_some() && self.number(slot) == number).then_some(slot)
    }
}
