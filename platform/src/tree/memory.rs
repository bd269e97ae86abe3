//! Memory nodes, and the NUMA distance map.

use heapless::Vec;

use super::walk::{CellCounts, Cells, Node, pairs};
use super::{Board, MAX_BANKS, MAX_NODES, MEMORY_LIMIT, Oddity, PAGE, Region};

/// A run of memory that belongs to one NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bank {
    /// Where; whole pages.
    pub region: Region,
    /// The NUMA node, below [`MAX_NODES`]; 0 where the tree does not say.
    pub node: u8,
}

/// The distances between NUMA nodes, in the units of the binding `numa-distance-map-v1`: 10 is local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distances([[u8; MAX_NODES]; MAX_NODES]);

const LOCAL: u8 = 10;
const REMOTE: u8 = 20;

impl Distances {
    /// 10 to the node itself, 20 to every other node.
    pub const fn new() -> Self {
        let mut table = [[REMOTE; MAX_NODES]; MAX_NODES];
        let mut node = 0;
        while node < MAX_NODES {
            table[node][node] = LOCAL;
            node += 1;
        }
        Self(table)
    }

    /// The distance of memory on `to` from a CPU on `from`; nonexistent nodes have the largest distance.
    pub fn get(&self, from: usize, to: usize) -> u8 {
        self.0.get(from).and_then(|row| row.get(to)).copied().unwrap_or(u8::MAX)
    }

    fn set(&mut self, from: u64, to: u64, distance: u64) -> bool {
        let distance = u8::try_from(distance).unwrap_or(0);
        let sensible = if from == to { distance == LOCAL } else { distance > LOCAL };
        let (from, to) = (from.min(usize::MAX as u64) as usize, to.min(usize::MAX as u64) as usize);
        let cell = self.0.get_mut(from).and_then(|row| row.get_mut(to));
        match cell {
            Some(cell) if sensible => *cell = distance,
            _ => return false,
        }
        true
    }

    pub(super) fn validate(&self) -> Result<(), &'static str> {
        let nodes = || 0..MAX_NODES;
        let holds = nodes().all(|a| nodes().all(|b| if a == b { self.0[a][b] == LOCAL } else { self.0[a][b] > LOCAL }));
        if holds { Ok(()) } else { Err("a node is nearest to itself") }
    }
}

impl Default for Distances {
    fn default() -> Self {
        Self::new()
    }
}

impl Board {
    /// Reads the memory nodes of the root. If there are more banks than the list has room for, it keeps those that
    /// overlap `keep`, and the largest of the others.
    pub(super) fn read_memory(&mut self, root: &Node<'_>, keep: &[Region]) {
        for node in root.children().filter(|node| node.okay && node.device_type == Some("memory")) {
            self.add_memory(root.cells, &node, keep);
        }
        self.sort_banks();
    }

    fn add_memory(&mut self, cells: CellCounts, node: &Node<'_>, keep: &[Region]) {
        let numa = self.numa_node(node);
        let Some(reg) = node.property("reg") else { return };
        for pair in pairs(reg, cells) {
            match pair {
                Some((_, 0)) => {}
                Some((base, size)) => match Region::new(base, size) {
                    Some(region) => self.add_bank(node.name, region, numa, keep),
                    None => self.warn(Oddity::BadRegion, node.name, base, size),
                },
                None => self.warn(Oddity::BadRegion, node.name, 0, 0),
            }
        }
    }

    fn add_bank(&mut self, name: &str, region: Region, node: u8, keep: &[Region]) {
        if region.end() > MEMORY_LIMIT {
            self.warn(Oddity::BankTooHigh, name, region.base, region.size);
        }
        if region.base >= MEMORY_LIMIT {
            return;
        }
        let (base, end) = (region.base.next_multiple_of(PAGE), region.end().min(MEMORY_LIMIT) / PAGE * PAGE);
        match end.checked_sub(base).and_then(|size| Region::new(base, size)) {
            None => self.warn(Oddity::TinyBank, name, region.base, region.size),
            Some(region) => {
                if let Some(lost) = self.insert_bank(Bank { region, node }, keep) {
                    self.warn(Oddity::TooManyBanks, name, lost.region.base, lost.region.size);
                }
            }
        }
    }

    /// Inserts a bank in order. Returns the bank that is left out, if there is no room.
    fn insert_bank(&mut self, bank: Bank, keep: &[Region]) -> Option<Bank> {
        if self.banks.is_full() {
            self.sort_banks();
        }
        let mut lost = None;
        if self.banks.is_full() {
            let worth = |bank: &Bank| (keep.iter().any(|kept| kept.overlaps(&bank.region)), bank.region.size);
            let least = self.banks.iter().enumerate().min_by_key(|(_, bank)| worth(bank));
            let at = least.filter(|(_, least)| worth(least) < worth(&bank)).map(|(at, _)| at);
            let Some(at) = at else { return Some(bank) };
            lost = Some(self.banks.remove(at));
        }
        let key = |bank: &Bank| (bank.region.base, bank.node);
        let at = self.banks.partition_point(|other| key(other) <= key(&bank));
        // There is room now.
        let _ = self.banks.insert(at, bank);
        lost
    }

    /// The NUMA node of a memory or CPU node.
    pub(super) fn numa_node(&mut self, node: &Node<'_>) -> u8 {
        match node.word("numa-node-id") {
            None => 0,
            Some(number) if (number as usize) < MAX_NODES => number as u8,
            Some(number) => {
                self.warn(Oddity::BadNode, node.name, u64::from(number), 0);
                0
            }
        }
    }

    /// Joins adjacent banks of one node, and removes what two banks claim from the higher one.
    fn sort_banks(&mut self) {
        let mut settled: Vec<Bank, MAX_BANKS> = Vec::new();
        for bank in core::mem::take(&mut self.banks) {
            let Some(last) = settled.last_mut() else {
                let _ = settled.push(bank);
                continue;
            };
            let (floor, end) = (last.region.end(), bank.region.end());
            if bank.region.base < floor {
                self.warn(Oddity::OverlappingBanks, "memory", bank.region.base, bank.region.size);
            }
            if bank.region.base <= floor && bank.node == last.node {
                last.region.size = end.max(floor) - last.region.base;
            } else if end > floor {
                let base = bank.region.base.max(floor);
                let region = Region { base, size: end - base };
                // There is room: no bank is split.
                let _ = settled.push(Bank { region, ..bank });
            }
        }
        self.banks = settled;
    }

    /// `/distance-map`: (from, to, distance) triplets. A distance given in one direction holds for both, unless both
    /// are given.
    pub(super) fn read_distances(&mut self, node: &Node<'_>) {
        let triplets = || node.property("distance-matrix").unwrap_or_default().chunks_exact(12).map(triplet);
        for (from, to, distance) in triplets() {
            if !(self.distances.set(from, to, distance) && self.distances.set(to, from, distance)) {
                self.warn(Oddity::BadDistance, node.name, from << 32 | to, distance);
            }
        }
        for (from, to, distance) in triplets() {
            self.distances.set(from, to, distance);
        }
    }
}

fn triplet(bytes: &[u8]) -> (u64, u64, u64) {
    let mut cells = Cells(bytes);
    let mut next = || cells.take(1).unwrap_or(u64::MAX);
    (next(), next(), next())
}
