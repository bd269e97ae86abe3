//! The configuration of a simulated machine.

use std::vec::Vec;

use crate::addr::{PhysAddr, PhysRange};
use crate::machine::MAX_CPUS;
use crate::memblock::{MemBlock, RegionKind};
use crate::page_alloc::{Config, MovableSplit};

/// A bank of DRAM.
#[derive(Clone, Debug)]
pub struct Bank {
    /// Physical address.
    pub start: usize,
    /// Bytes.
    pub size: usize,
    /// NUMA node.
    pub node: usize,
}

/// Banks, and the settings of a command line.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Memory; banks do not overlap.
    pub banks: Vec<Bank>,
    /// Taken before boot.
    pub reserved: Vec<(PhysRange, RegionKind)>,
    /// See [`Config::dma_limit`].
    pub dma_limit: Option<PhysAddr>,
    /// See [`Config::movable`].
    pub movable: MovableSplit,
    /// See [`Config::min_free_kbytes`].
    pub min_free_kbytes: Option<usize>,
    /// See [`Config::poison`].
    pub poison: bool,
    /// See [`Config::node_of_cpu`].
    pub node_of_cpu: [u8; MAX_CPUS],
    /// See [`Config::cpus`].
    pub cpus: usize,
    /// See [`Config::distance`].
    pub distance: fn(usize, usize) -> u32,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl SimConfig {
    /// A machine without memory, all CPUs on node 0.
    pub fn new() -> Self {
        Self {
            banks: Vec::new(),
            reserved: Vec::new(),
            dma_limit: None,
            movable: MovableSplit::None,
            min_free_kbytes: None,
            poison: false,
            node_of_cpu: [0; MAX_CPUS],
            cpus: 4,
            distance: |a, b| if a == b { 10 } else { 20 },
        }
    }

    /// Adds a bank.
    #[must_use]
    pub fn bank(mut self, start: usize, size: usize, node: usize) -> Self {
        self.banks.push(Bank { start, size, node });
        self
    }

    /// Takes a range before boot.
    #[must_use]
    pub fn reserve(mut self, start: usize, size: usize, kind: RegionKind) -> Self {
        self.reserved.push((PhysAddr::new(start)..PhysAddr::new(start + size), kind));
        self
    }

    pub(super) fn end(&self) -> PhysAddr {
        PhysAddr::new(self.banks.iter().map(|bank| bank.start + bank.size).max().unwrap_or(0))
    }

    pub(super) fn memblock(&self) -> MemBlock {
        let mut memory = MemBlock::new();
        for bank in &self.banks {
            let range = PhysAddr::new(bank.start)..PhysAddr::new(bank.start + bank.size);
            memory.add(range, bank.node).expect("banks are few and not empty");
        }
        for (range, kind) in &self.reserved {
            memory.reserve(range.clone(), *kind, "").expect("reservations are few and not empty");
        }
        memory
    }

    pub(super) fn page_alloc(&self) -> Config<'_> {
        Config {
            dma_limit: self.dma_limit,
            movable: self.movable,
            min_free_kbytes: self.min_free_kbytes,
            poison: self.poison,
            node_of_cpu: self.node_of_cpu,
            cpus: self.cpus,
            distance: &self.distance,
        }
    }
}
