//! A software MMU: CPUs with TLBs that keep entries until they are invalidated.
//!
//! It uses every freedom that the architecture allows:
//! - Nothing is ever evicted, valid entries are cached whether the access is allowed or not, and entries that point to
//!   last-level tables are cached separately (so that freeing a table without invalidating those is detected:
//!   [`Mmu::access`] then reads a table that has been reused).
//! - Walkers see stores to tables late, and in another order, until they are published (stores.rs).
//! - Walkers speculatively cache entries, in particular those that were just invalidated (speculation.rs).
//! - Instructions are fetched from a frame as they were before the kernel wrote to it, until it has synchronised them.
//!
//! If two CPUs would hold different frames for one page of one ASID, or a CPU a different one than the table,
//! break-before-make was omitted, and it panics. It also panics if a CPU reads a frame's old contents, from before it
//! became a table or was filled for a program.
//!
//! If the machine's spaces are configured for hardware updates, this MMU makes them: an access sets the access flag, a
//! write makes a writable entry dirty, both by compare-exchange. [`Mmu::stir`] lets CPUs do that between any two
//! accesses of software to an entry.

mod chance;
mod sabotage;
mod speculation;
mod stir;
mod stores;

use std::boxed::Box;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use super::{Call, CallSite, Sim, TlbEvent, TlbObserver, turns};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, USER_END};
use crate::machine::{MAX_CPUS, Machine};
use crate::mm::{Access, Ttbr0};
use crate::page::{Page, PageState};
use crate::pte::{LEVEL_SHIFT, Pte, bits, index};
use speculation::Recent;
use stores::Stores;

pub(super) use chance::Chance;
pub use sabotage::Sabotage;
pub use stir::meanwhile;
pub use stores::Drain;

/// Why an access was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// No valid entry.
    Translation,
    /// The accessed flag is clear.
    AccessFlag,
    /// The entry does not allow it.
    Permission,
}

/// The reason for a walk: a program's access, or speculation, which leaves no trace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walk {
    For(Access),
    Speculative,
}

/// Where a walk ends.
enum End {
    /// In a last-level table.
    Leaf(PhysAddr),
    /// At this level-2 entry.
    Block(&'static AtomicU64),
}

/// The TLB of a CPU.
#[derive(Default)]
struct Cpu {
    ttbr0: Option<Ttbr0>,
    /// By ASID and page number: the entry, and the root of the tables that it came from, which no hardware knows.
    pages: HashMap<(u16, usize), (Pte, PhysAddr)>,
    /// Blocks, by ASID and 2 MiB region, in the same way.
    blocks: HashMap<(u16, usize), (Pte, PhysAddr)>,
    /// Last-level tables, by ASID and 2 MiB region.
    tables: HashMap<(u16, usize), PhysAddr>,
}

/// The MMUs of all CPUs of a machine.
#[derive(Clone)]
pub struct Mmu {
    machine: &'static Sim,
    state: Arc<Mutex<State>>,
    /// CPUs that have something in their store buffers, a bit each: to be read without the lock.
    busy: Arc<AtomicU32>,
    sabotage: Option<Sabotage>,
}

struct State {
    machine: &'static Sim,
    cpus: Vec<Cpu>,
    stores: Stores,
    traces: Traces,
    chance: Chance,
    recent: Recent,
}

/// Effects of accesses that software has not observed, and frames written by the kernel.
#[derive(Default)]
struct Traces {
    /// Frames that were written since somebody asked to forget it.
    written: BTreeSet<usize>,
    /// How often an entry was made young, or dirty, out of turn.
    stirred: usize,
    /// Frames that the kernel has written and not made fit for fetches since.
    unsynchronised: HashSet<Pfn>,
    /// Where it has called for anything.
    calls: HashSet<Call>,
}

impl TlbObserver for Mmu {
    fn event(&self, cpu: usize, event: TlbEvent, at: CallSite) {
        let call = Call::of(event, at);
        let (event, here) = self.sabotage.map_or((Some(event), false), |sabotage| sabotage.spoil(event, call));
        let Some(event) = event else { return };
        let mut state = self.lock();
        state.traces.calls.extend(call);
        match event {
            TlbEvent::PublishTables => state.stores.publish(cpu),
            TlbEvent::SyncInstructions(frame) => drop(state.traces.unsynchronised.remove(&frame.pfn())),
            TlbEvent::NewContent(frame) => {
                let host = self.machine.direct_map(frame).addr();
                state.stores.fill(cpu, frame.pfn(), host);
                state.traces.written.remove(&frame.pfn().0);
                state.traces.unsynchronised.insert(frame.pfn());
            }
            TlbEvent::Kernel { .. } => {}
            TlbEvent::Pages { asid, start, pages } => state.forget_pages(here.then_some(cpu), asid, start, pages),
            TlbEvent::Asid(asid) => {
                let keep_tables = self.sabotage == Some(Sabotage::AsidKeepsTables);
                state.forget_asid(here.then_some(cpu), asid, keep_tables);
            }
            TlbEvent::All => (0..MAX_CPUS).for_each(|cpu| state.forget_all(cpu)),
            TlbEvent::Local => state.forget_all(cpu),
        }
        state.speculate_somewhere();
        self.note_busy(&state);
    }

    fn load(&self, cpu: usize, word: &AtomicU64) {
        if self.busy.load(Ordering::Relaxed) & !(1 << cpu) != 0 {
            let mut state = self.lock();
            state.stores.load(cpu, word.as_ptr().addr());
            self.note_busy(&state);
        }
    }

    fn found(&self, cpu: usize, frame: Pfn) {
        let mut state = self.lock();
        state.stores.found(cpu, frame);
        self.note_busy(&state);
    }

    fn store(&self, cpu: usize, word: &AtomicU64, new: Pte, release: bool) {
        let mut state = self.lock();
        let old = Pte(word.load(Ordering::Relaxed));
        state.stores.store(cpu, word.as_ptr().addr(), old, new, release);
        state.speculate_somewhere();
        self.note_busy(&state);
    }
}

impl Mmu {
    /// Puts MMUs into a machine.
    pub fn attach(machine: &'static Sim) -> Self {
        Self::attach_broken(machine, None)
    }

    /// MMUs with broken maintenance operations.
    pub fn attach_broken(machine: &'static Sim, sabotage: Option<Sabotage>) -> Self {
        let state = State {
            machine,
            cpus: (0..MAX_CPUS).map(|_| Cpu::default()).collect(),
            stores: Stores::new(),
            traces: Traces::default(),
            chance: Chance::new(1),
            recent: Recent::default(),
        };
        let mmu = Self { machine, state: Arc::new(Mutex::new(state)), busy: Arc::default(), sabotage };
        machine.observe_tlb(Box::new(mmu.clone()));
        mmu
    }

    /// Seeds the CPUs' speculative behaviour.
    pub fn set_chance(&self, seed: u64, drain: Drain) {
        let mut state = self.lock();
        state.chance = Chance::new(seed);
        state.stores.set_drain(drain);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_busy(&self, state: &State) {
        self.busy.store(state.stores.busy(), Ordering::Relaxed);
    }

    /// The calls that there have been.
    pub fn calls(&self) -> HashSet<Call> {
        self.lock().traces.calls.clone()
    }

    /// Frames that were written and not forgotten.
    pub fn written(&self) -> BTreeSet<usize> {
        self.lock().traces.written.clone()
    }

    /// Records a write to a frame by other means than an access here.
    pub fn note_write(&self, frame: usize) {
        self.lock().traces.written.insert(frame);
    }

    /// A frame is clean, or another page's by now.
    pub fn forget_writes(&self, frame: usize) {
        self.lock().traces.written.remove(&frame);
    }

    /// Loads TTBR0 of a CPU; `None` for the empty table that the kernel uses when no space is active.
    ///
    /// # Panics
    /// If walkers may see what was in the root's frame before it was a table.
    pub fn load(&self, cpu: usize, ttbr0: Option<Ttbr0>) {
        let mut state = self.lock();
        state.cpus[cpu].ttbr0 = ttbr0;
        ttbr0.inspect(|ttbr0| state.check_table(ttbr0.table));
    }

    /// What EL0 gets on `cpu` for an access to `va`.
    ///
    /// # Panics
    /// If break-before-make was left out, a walk goes astray, or the frame's content is not what it must be.
    pub fn access(&self, cpu: usize, va: usize, access: Access) -> Result<PhysAddr, Abort> {
        assert!(va < USER_END);
        turns::point();
        let mut state = self.lock();
        state.speculate_around(cpu, va);
        let pte = state.translate(cpu, va, access);
        self.note_busy(&state);
        let pte = pte?;
        let allowed = match access {
            Access::Read => pte.is_readable(),
            Access::Write => pte.is_writable(),
            Access::Exec => pte.is_executable(),
        };
        if !allowed {
            return Err(Abort::Permission);
        }
        let frame = pte.addr().pfn();
        assert!(!state.stores.hides(frame, cpu), "CPU {cpu} finds at {va:#x} what the frame held before");
        match access {
            Access::Read => {}
            Access::Write => drop(state.traces.written.insert(frame.0)),
            Access::Exec => {
                let synchronised = !state.traces.unsynchronised.contains(&frame);
                assert!(synchronised, "CPU {cpu} fetches at {va:#x} what the kernel wrote and did not synchronise");
            }
        }
        Ok(pte.addr() + va % PAGE_SIZE)
    }
}

impl State {
    /// Whether this hardware updates entries.
    fn updates(&self) -> bool {
        self.machine.spaces().hardware_updates()
    }

    /// The entry by which `cpu` makes an access, from its TLB or from the tables.
    fn translate(&mut self, cpu: usize, va: usize, access: Access) -> Result<Pte, Abort> {
        let ttbr0 = self.cpus[cpu].ttbr0.ok_or(Abort::Translation)?;
        let key = (ttbr0.asid.0, va >> PAGE_SHIFT);
        let pte = match self.cached(cpu, ttbr0, va) {
            Some((pte, root)) => {
                assert_eq!(root, ttbr0.table, "{va:#x}: an entry of another space with this ASID");
                self.check_same(ttbr0.table, va, pte);
                pte
            }
            None => {
                let (pte, is_block) = self.walk(cpu, ttbr0, va, Walk::For(access))?;
                self.enter(cpu, ttbr0, va, pte, is_block);
                pte
            }
        };
        if access != Access::Write || !pte.is_writable_clean() || !self.updates() {
            return Ok(pte);
        }
        // The entry in memory is what must become dirty, and it may be another one by now.
        match self.walk(cpu, ttbr0, va, Walk::For(access)) {
            Ok((there, is_block)) if there.addr() == pte.addr() && there.is_writable() => {
                self.forget_cached(cpu, key);
                self.enter(cpu, ttbr0, va, there, is_block);
                Ok(there)
            }
            other => {
                self.forget_cached(cpu, key);
                Err(other.err().unwrap_or(Abort::Permission))
            }
        }
    }

    /// What is being taken away may still be in a TLB; what has come to be there instead may not.
    fn check_same(&self, root: PhysAddr, va: usize, pte: Pte) {
        let now = self.in_memory(root, va);
        let same = now.is_none_or(|now| !now.is_present() || now.addr() == pte.addr());
        assert!(same, "break-before-make left out at {va:#x}");
    }

    /// What the TLB of `cpu` has for an address: the entry of the page, and the root that it came from.
    fn cached(&self, cpu: usize, ttbr0: Ttbr0, va: usize) -> Option<(Pte, PhysAddr)> {
        let it = &self.cpus[cpu];
        let of_block = || it.blocks.get(&(ttbr0.asid.0, va >> LEVEL_SHIFT[2]));
        let page_of = |(pte, root): &(Pte, PhysAddr)| (pte.page_of_block(index(va, 3)), *root);
        it.pages.get(&(ttbr0.asid.0, va >> PAGE_SHIFT)).copied().or_else(|| of_block().map(page_of))
    }

    /// Removes what the TLB of `cpu` has for a page.
    fn forget_cached(&mut self, cpu: usize, key: (u16, usize)) {
        self.cpus[cpu].pages.remove(&key);
        self.cpus[cpu].blocks.remove(&(key.0, key.1 >> (LEVEL_SHIFT[2] - PAGE_SHIFT)));
    }

    /// Puts into the TLB of `cpu` what a walk has found: the entry of a page, or that of a page of a block.
    fn enter(&mut self, cpu: usize, ttbr0: Ttbr0, va: usize, pte: Pte, is_block: bool) {
        let key = (ttbr0.asid.0, va >> PAGE_SHIFT);
        let region = (ttbr0.asid.0, va >> LEVEL_SHIFT[2]);
        self.check_same(ttbr0.table, va, pte);
        for other in 0..self.cpus.len() {
            // (Another root's entry is of a past generation of ASIDs: its CPU forgets it in time.)
            let same =
                self.cached(other, ttbr0, va).is_none_or(|(old, root)| old.addr() == pte.addr() || root != ttbr0.table);
            assert!(same, "break-before-make left out at {va:#x}");
            // Entries of two sizes for one address are a conflict, though they say the same.
            let it = &self.cpus[other];
            let conflicts = match is_block {
                true => it.pages.iter().any(|((asid, page), (_, root))| {
                    (*asid, page >> (LEVEL_SHIFT[2] - PAGE_SHIFT)) == region && *root == ttbr0.table
                }),
                false => it.blocks.get(&region).is_some_and(|(_, root)| *root == ttbr0.table),
            };
            assert!(!conflicts, "a block and a page in TLBs at {va:#x}");
        }
        if is_block {
            let first = pte.addr().get() & !((1 << LEVEL_SHIFT[2]) - 1);
            let block = Pte::block(PhysAddr::new(first), pte.0 & !(bits::ADDR | bits::TABLE | bits::VALID));
            self.cpus[cpu].blocks.insert(region, (block, ttbr0.table));
        } else {
            self.cpus[cpu].pages.insert(key, (pte, ttbr0.table));
        }
    }

    /// The last-level entry as it is in memory, whatever TLBs have and walkers see.
    fn in_memory(&self, root: PhysAddr, va: usize) -> Option<Pte> {
        let mut table = root;
        for level in 0..3 {
            let entry = Pte(self.word(table, index(va, level)).load(Ordering::Acquire));
            if level == 2 && entry.is_block() {
                return Some(entry.page_of_block(index(va, 3)));
            }
            if !entry.is_table() {
                return None;
            }
            table = entry.addr();
        }
        Some(Pte(self.word(table, index(va, 3)).load(Ordering::Acquire)))
    }

    /// The entry for `va` as the walker of `cpu` sees it, updated as the access demands.
    fn walk(&mut self, cpu: usize, ttbr0: Ttbr0, va: usize, walk: Walk) -> Result<(Pte, bool), Abort> {
        match self.find_end(cpu, ttbr0, va)? {
            End::Leaf(leaf) => self.walk_at(self.word(leaf, index(va, 3)), walk).map(|pte| (pte, false)),
            End::Block(word) => {
                let pte = self.walk_at(word, walk)?;
                // (By the time of an update it may be a table.)
                if pte.is_block() { Ok((pte.page_of_block(index(va, 3)), true)) } else { Err(Abort::Translation) }
            }
        }
    }

    /// The entry in a word as the walker sees it, updated as the access demands.
    fn walk_at(&mut self, word: &'static AtomicU64, walk: Walk) -> Result<Pte, Abort> {
        let seen = self.seen(word);
        if !seen.is_present() {
            return Err(Abort::Translation);
        }
        if walk == Walk::Speculative || !self.updates() {
            return if seen.is_young() { Ok(seen) } else { Err(Abort::AccessFlag) };
        }
        let updated = |pte: Pte| {
            let writes = walk == Walk::For(Access::Write) && pte.is_readable() && pte.is_writable_clean();
            Pte((pte.0 | bits::ACCESSED) & if writes { !bits::READ_ONLY } else { !0 })
        };
        if updated(seen) == seen {
            return Ok(seen);
        }
        // An update is made to what is there, so that this is what the walker must have seen.
        self.stores.drain_all(word.as_ptr().addr());
        loop {
            let pte = Pte(word.load(Ordering::Acquire));
            if !pte.is_present() || pte.is_table() != seen.is_table() {
                return Err(Abort::Translation);
            }
            let new = updated(pte);
            if word.compare_exchange(pte.0, new.0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Ok(new);
            }
        }
    }

    /// The last-level table for `va`, from the cache of such tables or from those above; or a block.
    fn find_end(&mut self, cpu: usize, ttbr0: Ttbr0, va: usize) -> Result<End, Abort> {
        let region = (ttbr0.asid.0, va >> LEVEL_SHIFT[2]);
        if let Some(leaf) = self.cpus[cpu].tables.get(&region) {
            return Ok(End::Leaf(*leaf));
        }
        let mut table = ttbr0.table;
        for level in 0..3 {
            let word = self.word(table, index(va, level));
            let entry = self.seen(word);
            if !entry.is_present() {
                return Err(Abort::Translation);
            }
            if level == 2 && entry.is_block() {
                return Ok(End::Block(word));
            }
            assert!(entry.is_table(), "a block at level {level}");
            table = entry.addr();
            self.check_table(table);
        }
        self.cpus[cpu].tables.insert(region, table);
        Ok(End::Leaf(table))
    }

    /// A word as walkers see it.
    fn seen(&mut self, word: &AtomicU64) -> Pte {
        let Self { stores, chance, .. } = self;
        stores.seen(word.as_ptr().addr(), chance).unwrap_or_else(|| Pte(word.load(Ordering::Acquire)))
    }

    /// Walkers come to a table: they must not see what was in its frame before.
    fn check_table(&self, table: PhysAddr) {
        let hidden = self.stores.hides_from_walkers(table.pfn());
        assert!(!hidden, "a walk reads what was in a table's frame before it was one");
    }

    fn word(&self, table: PhysAddr, i: usize) -> &'static AtomicU64 {
        // SAFETY: a table is a frame, whose record exists.
        let state = unsafe { Page::of(self.machine, table.pfn()) }.state();
        assert_eq!(state, PageState::Table, "the walk reads a frame that is no table (any more)");
        // SAFETY: the frame is a table, all of whose words are atomics; the machine is never freed.
        unsafe { &*self.machine.direct_map(table).cast::<AtomicU64>().add(i) }
    }
}
