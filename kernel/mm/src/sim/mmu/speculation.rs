//! Speculative walks.
//!
//! At any moment a CPU may walk for any address of the space that it runs, and cache a present entry whose access flag
//! is set (Arm ARM D8.2.7, D8.17). The most revealing walks are made often: for pages that were just invalidated, since
//! an invalidation before walkers see the new entry brings the old one back; around each access; and, whenever software
//! has stored to a table or filled a frame, for recently used addresses, on any CPU.

use std::vec::Vec;

use super::{State, Walk};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, USER_END};
use crate::machine::{Asid, MAX_CPUS};
use crate::pte::LEVEL_SHIFT;

/// Addresses that were used lately.
#[derive(Default)]
pub(super) struct Recent {
    addresses: [usize; 8],
    next: usize,
}

/// The most entries of those that one invalidation hit that are brought back on each CPU.
const BROUGHT_BACK: usize = 4;

impl Recent {
    fn note(&mut self, va: usize) {
        self.addresses[self.next % 8] = va;
        self.next += 1;
    }
}

impl State {
    /// `cpu` walks for `va` as if it were to be used soon.
    fn speculate(&mut self, cpu: usize, va: usize) {
        let Some(ttbr0) = self.cpus[cpu].ttbr0.filter(|_| va < USER_END) else { return };
        if self.cached(cpu, ttbr0, va).is_some() {
            return;
        }
        if let Ok((pte, is_block)) = self.walk(cpu, ttbr0, va, Walk::Speculative) {
            self.enter(cpu, ttbr0, va, pte, is_block);
        }
    }

    /// Now and then somebody walks for what was used lately.
    pub fn speculate_somewhere(&mut self) {
        // (A test that has failed drops its spaces while CPUs have them loaded.)
        if std::thread::panicking() {
            return;
        }
        if self.chance.one_in(4) {
            let running: Vec<usize> = (0..MAX_CPUS).filter(|cpu| self.cpus[*cpu].ttbr0.is_some()).collect();
            if !running.is_empty() {
                let cpu = running[self.chance.below(running.len())];
                let va = self.recent.addresses[self.chance.below(8)];
                self.speculate(cpu, va);
            }
        }
    }

    /// `cpu` is about to use `va`: somebody may walk for it, or for what comes next.
    pub fn speculate_around(&mut self, cpu: usize, va: usize) {
        self.recent.note(va);
        match self.chance.below(8) {
            0 => self.speculate(cpu, va + PAGE_SIZE),
            1 => {
                let other = self.chance.below(4);
                self.speculate(other, va);
            }
            _ => {}
        }
    }

    /// The entries of `pages` pages are invalidated, on `only` one CPU or on all, and some come back.
    pub fn forget_pages(&mut self, only: Option<usize>, Asid(asid): Asid, start: usize, pages: usize) {
        for cpu in only.map_or(0..MAX_CPUS, |cpu| cpu..cpu + 1) {
            let keys = (0..pages).map(|page| (asid, (start >> PAGE_SHIFT) + page));
            let it = &mut self.cpus[cpu];
            let shift = LEVEL_SHIFT[2] - PAGE_SHIFT;
            let was_there = |key: &(u16, usize)| {
                let was_block = it.blocks.remove(&(key.0, key.1 >> shift)).is_some();
                it.pages.remove(key).is_some() || was_block
            };
            let gone: Vec<_> = keys.filter(was_there).collect();
            self.bring_back(cpu, gone);
        }
    }

    /// All of an ASID is invalidated, and some comes back.
    pub fn forget_asid(&mut self, only: Option<usize>, Asid(asid): Asid, keep_tables: bool) {
        for cpu in only.map_or(0..MAX_CPUS, |cpu| cpu..cpu + 1) {
            self.forget(cpu, |key| key.0 == asid, keep_tables);
        }
    }

    /// All that a CPU has cached is invalidated, and some comes back.
    pub fn forget_all(&mut self, cpu: usize) {
        self.forget(cpu, |_| true, false);
    }

    fn forget(&mut self, cpu: usize, which: impl Fn(&(u16, usize)) -> bool, keep_tables: bool) {
        let it = &mut self.cpus[cpu];
        let mut gone: Vec<_> = it.pages.extract_if(|key, _| which(key)).map(|(key, _)| key).collect();
        let blocks = it.blocks.extract_if(|key, _| which(key));
        gone.extend(blocks.map(|((asid, region), _)| (asid, region << (LEVEL_SHIFT[2] - PAGE_SHIFT))));
        if !keep_tables {
            let tables = it.tables.extract_if(|key, _| which(key));
            gone.extend(tables.map(|((asid, region), _)| (asid, region << (LEVEL_SHIFT[2] - PAGE_SHIFT))));
        }
        // (The order of a map is no order that a seed decides.)
        gone.sort_unstable();
        self.bring_back(cpu, gone);
    }

    /// Some of what was just invalidated is walked for anew, as walkers see it.
    fn bring_back(&mut self, cpu: usize, gone: Vec<(u16, usize)>) {
        for _ in 0..gone.len().min(BROUGHT_BACK) {
            let (asid, page) = gone[self.chance.below(gone.len())];
            if self.cpus[cpu].ttbr0.is_some_and(|ttbr0| ttbr0.asid.0 == asid) && self.chance.one_in(2) {
                self.speculate(cpu, page << PAGE_SHIFT);
            }
        }
    }
}
