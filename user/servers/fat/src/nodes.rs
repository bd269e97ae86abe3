//! Files and directories by number.
//!
//! The kernel keeps numbers of directories and open files for as long as it likes, and does not report when it no
//! longer needs them. So a number consists of a slot and a count of the slot's earlier uses: the number of a removed
//! node is recognised, and never refers to another file. Nodes that have no others below them and were not used lately
//! make room for new ones; their numbers become stale.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use hadris_fs::NodeId;
use quire_abi::Errno;

/// The most nodes.
pub const MOST: usize = 1 << 14;

/// The maximum number of uses of a slot: a number has 48 bits.
const USES: u64 = 1 << 33;

/// The slot of the root.
pub const ROOT: u32 = 0;

/// The state of a file or directory.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Its identifier in `hadris-fat`, where it is pinned.
    pub id: NodeId,
    /// Its parent directory.
    pub parent: u32,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The number of nodes below it, and whether it is kept even if there are none.
    children: u32,
    used: u64,
}

#[derive(Default)]
struct Slot {
    uses: u64,
    node: Option<Node>,
}

/// All of them.
pub struct Nodes {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: BTreeMap<NodeId, u32>,
    now: u64,
    /// The use count of a new slot.
    first: u64,
}

impl Nodes {
    /// Only the root. Numbers begin at a random one, so that those of a former server are invalid.
    pub fn new(root: NodeId, random: u32) -> Self {
        let node = Node { id: root, parent: ROOT, is_dir: true, children: 0, used: 0 };
        let slots = Vec::from([Slot { uses: 0, node: Some(node) }]);
        let by_id = BTreeMap::from([(root, ROOT)]);
        Self { slots, free: Vec::new(), by_id, now: 0, first: u64::from(random) + 1 }
    }

    /// The node in a slot.
    pub fn get(&self, slot: u32) -> Option<&Node> {
        self.slots.get(slot as usize)?.node.as_ref()
    }

    /// The number of the node in a slot.
    pub fn number(&self, slot: u32) -> u64 {
        let uses = self.slots.get(slot as usize).map_or(0, |slot| slot.uses);
        uses << MOST.trailing_zeros() | u64::from(slot)
    }

    /// The slot of a number, if its node exists; this counts as a use.
    pub fn slot(&mut self, number: u64) -> Option<u32> {
        let slot = (number % MOST as u64) as u32;
        let is_it = self.get(slot).is_some() && self.number(slot) == number;
        if !is_it {
            return None;
        }
        self.touch(slot);
        Some(slot)
    }

    /// The slot of the node with this identifier, if there is one.
    pub fn with_id(&self, id: NodeId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    fn touch(&mut self, slot: u32) {
        self.now += 1;
        let now = self.now;
        if let Some(node) = self.slots.get_mut(slot as usize).and_then(|slot| slot.node.as_mut()) {
            node.used = now;
        }
    }

    /// Enters a node that was pinned once more; returns its slot, and nodes whose pins must be dropped: the same one if
    /// it was already entered. ENOSPC. Nodes for which `is_used` returns true are not evicted: a process that has such
    /// a file open must still find it by its number.
    pub fn enter(
        &mut self,
        id: NodeId,
        parent: u32,
        is_dir: bool,
        is_used: impl Fn(u64) -> bool,
    ) -> Result<(u32, Option<NodeId>), Errno> {
        if let Some(slot) = self.with_id(id) {
            self.touch(slot);
            return Ok((slot, Some(id)));
        }
        let mut dropped = None;
        if self.free.is_empty() && self.slots.len() >= MOST {
            let oldest = self.unused(parent, is_used).ok_or(Errno::ENFILE)?;
            dropped = self.remove(oldest);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.try_reserve(1).map_err(|_| Errno::ENOSPC)?;
                self.free.try_reserve(self.slots.len() + 1).map_err(|_| Errno::ENOSPC)?;
                self.slots.push(Slot { uses: self.first, node: None });
                self.slots.len() as u32 - 1
            }
        };
        self.slots[slot as usize].node = Some(Node { id, parent, is_dir, children: 0, used: 0 });
        self.by_id.insert(id, slot);
        self.count(parent, 1);
        self.touch(slot);
        Ok((slot, dropped))
    }

    /// The oldest of them that is not in use. Those in use then count as recently used.
    fn unused(&mut self, but: u32, is_used: impl Fn(u64) -> bool) -> Option<u32> {
        const TRIES: usize = 64;
        for _ in 0..TRIES {
            let oldest = self.oldest(but)?;
            let is_dir = self.get(oldest).is_some_and(|node| node.is_dir);
            if is_dir || !is_used(self.number(oldest)) {
                return Some(oldest);
            }
            self.touch(oldest);
        }
        None
    }

    /// The node that was not used for the longest time, among those without others below them. O(nodes).
    fn oldest(&self, but: u32) -> Option<u32> {
        let all = (0..).zip(&self.slots).filter_map(|(number, slot)| Some((number, slot.node.as_ref()?)));
        let removable = all.filter(|(slot, node)| *slot != ROOT && *slot != but && node.children == 0);
        removable.min_by_key(|(_, node)| node.used).map(|(slot, _)| slot)
    }

    fn count(&mut self, slot: u32, more: i32) {
        if let Some(node) = self.slots.get_mut(slot as usize).and_then(|slot| slot.node.as_mut()) {
            node.children = node.children.saturating_add_signed(more);
        }
    }

    /// Removes a node, or forgets it: its number becomes invalid. Returns the identifier to be unpinned.
    pub fn remove(&mut self, slot: u32) -> Option<NodeId> {
        if slot == ROOT {
            return None;
        }
        let there = self.slots.get_mut(slot as usize)?;
        let node = there.node.take()?;
        there.uses += 1;
        if there.uses < USES {
            self.free.push(slot);
        }
        self.by_id.remove(&node.id);
        self.count(node.parent, -1);
        Some(node.id)
    }

    /// Marks a node so that it is never evicted.
    pub fn keep(&mut self, slot: u32) {
        self.count(slot, 1);
    }

    /// Moves a node to another directory.
    pub fn set_parent(&mut self, slot: u32, parent: u32) {
        let Some(node) = self.slots.get_mut(slot as usize).and_then(|slot| slot.node.as_mut()) else { return };
        let former = core::mem::replace(&mut node.parent, parent);
        self.count(former, -1);
        self.count(parent, 1);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are no nodes; the root always exists.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
