//! A software MMU: CPUs with TLBs that keep what they have read until they are told to forget it.
//!
//! It is as unkind as the architecture allows: nothing is ever evicted, valid entries are cached whether the access
//! is allowed or not, and entries that lead to last-level tables are cached apart (so that freeing a table without
//! invalidating those is noticed: [`Mmu::access`] then reads a table that is somebody else's by now). Where two CPUs
//! would hold different frames for one page of one ASID, break-before-make was left out, and it panics.

use std::boxed::Box;
use std::collections::HashMap;
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
    sabotage: Option<Sabotage>,
}

impl TlbObserver for Mmu {
    fn event(&self, cpu: usize, event: TlbEvent) {
        let (event, here) = self.sabotage.map_or((Some(event), false), |sabotage| sabotage.spoil(event));
        let Some(event) = event else { return };
        let mut cpus = self.lock();
        let reached = if here { &mut cpus[cpu..=cpu] } else { &mut cpus[..] };
        match event {
            TlbEvent::PublishTables | TlbEvent::SyncInstructions(_) | TlbEvent::Kernel { .. } => {}
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
        let mmu = Self { machine, cpus: Arc::new(Mutex::new(cpus)), sabotage };
        machine.observe_tlb(Box::new(mmu.clone()));
        mmu
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Cpu>> {
        self.cpus.lock().unwrap_or_else(PoisonError::into_inner)
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
        let pte = match cpus[cpu].pages.get(&key) {
            Some((pte, root)) => {
                assert_eq!(*root, ttbr0.table, "{va:#x}: an entry of another space with this ASID");
                *pte
            }
            None => {
                let pte = self.walk(&mut cpus[cpu], ttbr0, va)?;
                if pte.0 & bits::ACCESSED == 0 {
                    return Err(Abort::AccessFlag);
                }
                for (old, root) in cpus.iter().filter_map(|other| other.pages.get(&key)) {
                    // (Another root's entry is of a past generation of ASIDs: its CPU forgets it in time.)
                    let same = old.addr() == pte.addr() || *root != ttbr0.table;
                    assert!(same, "break-before-make left out at {va:#x}");
                }
                cpus[cpu].pages.insert(key, (pte, ttbr0.table));
                pte
            }
        };
        let allowed = match access {
            Access::Read => pte.is_readable(),
            Access::Write => pte.is_writable(),
            Access::Exec => pte.is_executable(),
        };
        if allowed { Ok(pte.addr() + va % PAGE_SIZE) } else { Err(Abort::Permission) }
    }

    fn walk(&self, cpu: &mut Cpu, ttbr0: Ttbr0, va: usize) -> Result<Pte, Abort> {
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
        let pte = self.read(leaf, index(va, 3));
        if pte.is_present() { Ok(pte) } else { Err(Abort::Translation) }
    }

    fn read(&self, table: PhysAddr, i: usize) -> Pte {
        // SAFETY: a table is a frame, whose record exists.
        let state = unsafe { Page::of(self.machine, table.pfn()) }.state();
        assert_eq!(state, PageState::Table, "the walk reads a frame that is no table (any more)");
        // SAFETY: the frame is a table, all of whose words are atomics.
        let entry = unsafe { &*self.machine.direct_map(table).cast::<core::sync::atomic::AtomicU64>().add(i) };
        Pte(entry.load(core::sync::atomic::Ordering::Acquire))
    }
}
