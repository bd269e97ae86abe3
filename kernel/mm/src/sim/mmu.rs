//! A software MMU: CPUs with TLBs that keep what they have read until they are told to forget it.
//!
//! It is as unkind as the architecture allows: nothing is ever evicted, valid entries are cached whether the access
//! is allowed or not, and entries that lead to last-level tables are cached apart (so that freeing a table without
//! invalidating those is noticed: [`Mmu::access`] then reads a table that is somebody else's by now). Where two CPUs
//! would hold different frames for one page of one ASID, or a CPU another one than the table, break-before-make was left
//! out, and it panics.
//!
//! Where the machine's spaces are told of hardware that updates entries, this is such hardware: an access sets the access
//! flag, a write makes a writable entry dirty, both by compare-exchange. [`Mmu::stir`] lets CPUs do that between any two
//! looks of software at an entry.

use std::boxed::Box;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use super::{Sim, TlbEvent, TlbObserver};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, USER_END};
use crate::machine::{Asid, MAX_CPUS, Machine};
use crate::mm::{Access, Ttbr0};
use crate::page::{Page, PageState};
use crate::pte::{LEVEL_SHIFT, Pte, bits, index};

/// Why an access did not go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// No valid entry.
    Translation,
    /// The accessed flag is clear.
    AccessFlag,
    /// The entry does not allow it.
    Permission,
}

#[derive(Default)]
struct Cpu {
    ttbr0: Option<Ttbr0>,
    /// By ASID and page number: the entry, and the root of the tables that it came from, which no hardware knows.
    pages: HashMap<(u16, usize), (Pte, PhysAddr)>,
    /// Last-level tables, by ASID and 2 MiB region.
    tables: HashMap<(u16, usize), PhysAddr>,
}

impl Cpu {
    fn forget_asid(&mut self, asid: u16, keep_tables: bool) {
        self.pages.retain(|key, _| key.0 != asid);
        self.tables.retain(|key, _| keep_tables || key.0 != asid);
    }

    fn forget_all(&mut self) {
        self.pages.clear();
        self.tables.clear();
    }
}

/// Ways in which TLB maintenance can be wrong, to see whether tests notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Invalidation by page is left out.
    NoPages,
    /// It stops one page early.
    PagesOneShort,
    /// It hits another ASID.
    PagesOfWrongAsid,
    /// It reaches only the CPU that asks.
    PagesOnlyHere,
    /// Invalidation by ASID is left out.
    NoAsid,
    /// It forgets pages, but not the way to last-level tables.
    AsidKeepsTables,
    /// It reaches only the CPU that asks.
    AsidOnlyHere,
    /// The local flush after a roll-over of ASIDs is left out.
    NoLocal,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NoPages,
        Self::PagesOneShort,
        Self::PagesOfWrongAsid,
        Self::PagesOnlyHere,
        Self::NoAsid,
        Self::AsidKeepsTables,
        Self::AsidOnlyHere,
        Self::NoLocal,
    ];

    /// What becomes of an event: nothing, or another one; and whether it stays on the CPU that asks.
    fn spoil(self, event: TlbEvent) -> (Option<TlbEvent>, bool) {
        let spoilt = match (self, event) {
            (Self::NoPages, TlbEvent::Pages { .. })
            | (Self::NoAsid, TlbEvent::Asid(_))
            | (Self::NoLocal, TlbEvent::Local) => None,
            (Self::PagesOneShort, TlbEvent::Pages { asid, start, pages }) => {
                Some(TlbEvent::Pages { asid, start, pages: pages - 1 })
            }
            (Self::PagesOfWrongAsid, TlbEvent::Pages { asid, start, pages }) => {
                Some(TlbEvent::Pages { asid: Asid(asid.0 ^ 1), start, pages })
            }
            _ => Some(event),
        };
        let here = match event {
            TlbEvent::Pages { .. } => self == Self::PagesOnlyHere,
            TlbEvent::Asid(_) => self == Self::AsidOnlyHere,
            _ => false,
        };
        (spoilt, here)
    }
}

/// The MMUs of all CPUs of a machine.
#[derive(Clone)]
pub struct Mmu {
    machine: &'static Sim,
    cpus: Arc<Mutex<Vec<Cpu>>>,
    traces: Arc<Mutex<Traces>>,
    sabotage: Option<Sabotage>,
}

/// What accesses did, as no software saw it.
#[derive(Default)]
struct Traces {
    /// Frames that were written since somebody asked to forget it.
    written: BTreeSet<usize>,
    /// Whether an entry was made young out of turn.
    stirred: bool,
}

/// What the CPUs of a machine do out of turn: who they are, and a source of chance.
struct Stir {
    mmu: Mmu,
    state: u64,
}

std::thread_local! {
    static STIR: RefCell<Option<Stir>> = const { RefCell::new(None) };
}

/// Software has just read this entry of a last-level table, under its lock: what CPUs do to it now, before software goes
/// on, if that is stirred up on this thread ([`Mmu::stir`]).
pub fn meanwhile(entry: &AtomicU64) {
    STIR.with_borrow_mut(|stir| {
        if let Some(stir) = stir {
            stir.state ^= stir.state << 13;
            stir.state ^= stir.state >> 7;
            stir.state ^= stir.state << 17;
            if stir.state >> 32 & 3 == 0 {
                stir.mmu.touch_out_of_turn(entry, stir.state >> 40 & 1 == 0);
            }
        }
    });
}

impl TlbObserver for Mmu {
    fn event(&self, cpu: usize, event: TlbEvent) {
        let (event, here) = self.sabotage.map_or((Some(event), false), |sabotage| sabotage.spoil(event));
        let Some(event) = event else { return };
        let mut cpus = self.lock();
        let reached = if here { &mut cpus[cpu..=cpu] } else { &mut cpus[..] };
        match event {
            TlbEvent::PublishTables | TlbEvent::SyncInstructions(_) | TlbEvent::Kernel { .. } => {}
            TlbEvent::NewContent(frame) => {
                self.forget_writes(frame.pfn().0);
            }
            TlbEvent::Pages { asid, start, pages } => {
                for cpu in reached {
                    for page in 0..pages {
                        cpu.pages.remove(&(asid.0, (start >> PAGE_SHIFT) + page));
                    }
                }
            }
            TlbEvent::Asid(Asid(asid)) => {
                let keep_tables = self.sabotage == Some(Sabotage::AsidKeepsTables);
                reached.iter_mut().for_each(|cpu| cpu.forget_asid(asid, keep_tables));
            }
            TlbEvent::All => cpus.iter_mut().for_each(Cpu::forget_all),
            TlbEvent::Local => cpus[cpu].forget_all(),
        }
    }
}

impl Mmu {
    /// Puts MMUs into a machine.
    pub fn attach(machine: &'static Sim) -> Self {
        Self::attach_broken(machine, None)
    }

    /// MMUs that do not do what they are told.
    pub fn attach_broken(machine: &'static Sim, sabotage: Option<Sabotage>) -> Self {
        let cpus = (0..MAX_CPUS).map(|_| Cpu::default()).collect();
        let mmu = Self { machine, cpus: Arc::new(Mutex::new(cpus)), traces: Arc::default(), sabotage };
        machine.observe_tlb(Box::new(mmu.clone()));
        mmu
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Cpu>> {
        self.cpus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traces(&self) -> MutexGuard<'_, Traces> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames that were written and not forgotten.
    pub fn written(&self) -> BTreeSet<usize> {
        self.traces().written.clone()
    }

    /// A frame was written by other means than an access here.
    pub fn note_write(&self, frame: usize) {
        self.traces().written.insert(frame);
    }

    /// A frame is clean, or another page's by now.
    pub fn forget_writes(&self, frame: usize) {
        self.traces().written.remove(&frame);
    }

    /// Whether an entry was made young out of turn since the last answer.
    pub fn was_stirred(&self) -> bool {
        core::mem::take(&mut self.traces().stirred)
    }

    /// From now on CPUs touch pages whose entries this thread looks at, at chance and just then: they look into the
    /// future, and programs store what is there already. Until another machine is stirred, or [`Mmu::calm`].
    pub fn stir(&self, seed: u64) {
        let stir = self.machine.spaces().hardware_updates().then(|| Stir { mmu: self.clone(), state: seed | 1 });
        STIR.set(stir);
    }

    /// Nobody does anything out of turn on this thread's behalf any more.
    pub fn calm() {
        STIR.set(None);
    }

    fn touch_out_of_turn(&self, entry: &AtomicU64, write: bool) {
        let old = Pte(entry.load(Ordering::Relaxed));
        if !old.is_present() || !old.is_readable() {
            return;
        }
        let mut new = old.0 | bits::ACCESSED;
        if write && old.is_writable_clean() {
            new &= !bits::READ_ONLY;
            self.note_write(old.addr().pfn().0);
        }
        self.traces().stirred |= !old.is_young();
        entry.store(new, Ordering::Relaxed);
    }

    /// Loads TTBR0 of a CPU; `None` for the empty table that the kernel uses when no space is active.
    pub fn load(&self, cpu: usize, ttbr0: Option<Ttbr0>) {
        self.lock()[cpu].ttbr0 = ttbr0;
    }

    /// What EL0 gets on `cpu` for an access to `va`.
    ///
    /// # Panics
    /// If break-before-make was left out, or a walk goes astray.
    pub fn access(&self, cpu: usize, va: usize, access: Access) -> Result<PhysAddr, Abort> {
        assert!(va < USER_END);
        let mut cpus = self.lock();
        let ttbr0 = cpus[cpu].ttbr0.ok_or(Abort::Translation)?;
        let key = (ttbr0.asid.0, va >> PAGE_SHIFT);
        let mut pte = match cpus[cpu].pages.get(&key) {
            Some((pte, root)) => {
                assert_eq!(*root, ttbr0.table, "{va:#x}: an entry of another space with this ASID");
                // What is being taken away may still be here; what has come to be there instead may not.
                let now = self.in_memory(ttbr0.table, va);
                let same = now.is_none_or(|now| !now.is_present() || now.addr() == pte.addr());
                assert!(same, "break-before-make left out at {va:#x}");
                *pte
            }
            None => {
                let pte = self.walk(&mut cpus[cpu], ttbr0, va, access)?;
                for (old, root) in cpus.iter().filter_map(|other| other.pages.get(&key)) {
                    // (Another root's entry is of a past generation of ASIDs: its CPU forgets it in time.)
                    let same = old.addr() == pte.addr() || *root != ttbr0.table;
                    assert!(same, "break-before-make left out at {va:#x}");
                }
                cpus[cpu].pages.insert(key, (pte, ttbr0.table));
                pte
            }
        };
        if access == Access::Write && pte.is_writable_clean() && self.updates() {
            // The entry in memory is what must become dirty, and it may be another one by now.
            let there = self.walk(&mut cpus[cpu], ttbr0, va, access);
            if !there.is_ok_and(|there| there.addr() == pte.addr() && there.is_writable()) {
                cpus[cpu].pages.remove(&key);
                return Err(there.map_or_else(|abort| abort, |_| Abort::Permission));
            }
            pte = there.unwrap_or(pte);
            cpus[cpu].pages.insert(key, (pte, ttbr0.table));
        }
        let allowed = match access {
            Access::Read => pte.is_readable(),
            Access::Write => pte.is_writable(),
            Access::Exec => pte.is_executable(),
        };
        if !allowed {
            return Err(Abort::Permission);
        }
        if access == Access::Write {
            self.note_write(pte.addr().pfn().0);
        }
        Ok(pte.addr() + va % PAGE_SIZE)
    }

    /// Whether this hardware updates entries.
    fn updates(&self) -> bool {
        self.machine.spaces().hardware_updates()
    }

    /// The last-level entry as it is in memory, whatever TLBs have.
    fn in_memory(&self, root: PhysAddr, va: usize) -> Option<Pte> {
        let mut table = root;
        for level in 0..3 {
            let entry = self.read(table, index(va, level));
            if !entry.is_table() {
                return None;
            }
            table = entry.addr();
        }
        Some(self.read(table, index(va, 3)))
    }

    /// The entry for `va` as tables have it, updated as the access demands.
    fn walk(&self, cpu: &mut Cpu, ttbr0: Ttbr0, va: usize, access: Access) -> Result<Pte, Abort> {
        let region = (ttbr0.asid.0, va >> LEVEL_SHIFT[2]);
        let leaf = match cpu.tables.get(&region) {
            Some(leaf) => *leaf,
            None => {
                let mut table = ttbr0.table;
                for level in 0..3 {
                    let entry = self.read(table, index(va, level));
                    if !entry.is_present() {
                        return Err(Abort::Translation);
                    }
                    assert!(entry.is_table(), "a block at level {level}");
                    table = entry.addr();
                }
                cpu.tables.insert(region, table);
                table
            }
        };
        let entry = self.entry(leaf, index(va, 3));
        loop {
            let pte = Pte(entry.load(Ordering::Acquire));
            if !pte.is_present() {
                return Err(Abort::Translation);
            }
            if !self.updates() {
                return if pte.is_young() { Ok(pte) } else { Err(Abort::AccessFlag) };
            }
            let writes = access == Access::Write && pte.is_readable() && pte.is_writable_clean();
            let new = (pte.0 | bits::ACCESSED) & if writes { !bits::READ_ONLY } else { !0 };
            if entry.compare_exchange(pte.0, new, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Ok(Pte(new));
            }
        }
    }

    fn read(&self, table: PhysAddr, i: usize) -> Pte {
        Pte(self.entry(table, i).load(Ordering::Acquire))
    }

    fn entry(&self, table: PhysAddr, i: usize) -> &AtomicU64 {
        // SAFETY: a table is a frame, whose record exists.
        let state = unsafe { Page::of(self.machine, table.pfn()) }.state();
        assert_eq!(state, PageState::Table, "the walk reads a frame that is no table (any more)");
        // SAFETY: the frame is a table, all of whose words are atomics.
        unsafe { &*self.machine.direct_map(table).cast::<AtomicU64>().add(i) }
    }
}
