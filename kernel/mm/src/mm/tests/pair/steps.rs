//! The effect of each step on both sides, and the part of its outcome that is compared at once.

use std::collections::BTreeMap;
use std::vec::Vec;

use quire_abi::flags::{Map, Prot, madv};

use super::{Pair, Process};
use crate::addr::{Pfn, UserAddr};
use crate::fallible::KArc;
use crate::frame;
use crate::mm::tests::model::Lock;
use crate::mm::tests::script::{CPUS, Op, PROCESSES, WINDOW};
use crate::mm::tests::{PAGE, Space};
use crate::mm::{Access, MapRequest, Mm, Stays, for_each_mapping, migrate};
use crate::page::PageFlags;
use crate::pte::{ENTRIES, NonPresent, Pte, bits};
use crate::rmap::{Release, whole};
use crate::sim::Sim;
use crate::sim::mmu::Mmu;

/// What was written so far to pages that have been given up need not be known any more.
pub fn forget_given_up(mmu: &Mmu, mm: &Space, at: usize, len: usize) {
    for page in at..at + len {
        let pte = mm.entry(UserAddr::new(page * PAGE));
        if pte.is_present() && pte.is_given_up() {
            mmu.forget_writes(pte.addr().pfn().0);
        }
    }
}

/// Whoever is to take a page of a block elsewhere takes the block apart first.
pub fn take_apart(sim: &'static Sim, pfn: Pfn) {
    whole::take_apart(sim, Pfn(pfn.0 & !(ENTRIES - 1)));
}

impl Pair {
    pub(super) fn take_step(&mut self, op: &Op) {
        let live = self.processes.len();
        match *op {
            Op::Map { process, at, len, prot, flags, file } => {
                let prot = Prot::from_bits_retain(prot);
                let both = file.map(|(file, index)| (file % self.files.len(), index));
                let p = &mut self.processes[process % live];
                let flags = if both.is_some() { flags } else { flags | Map::ANONYMOUS };
                let request = MapRequest {
                    addr: at * PAGE,
                    len: len * PAGE,
                    prot,
                    flags,
                    object: both.map(|(file, index)| (self.files[file].0.clone(), index)),
                    max_prot: if both.is_some() { Prot::READ | Prot::EXEC } else { Prot::all() },
                };
                let words = both.map(|(file, index)| (file, self.files[file].1.clone(), index));
                let real = p.mm.map(&request).map(|at| at.get() / PAGE);
                if at != 0 && at < WINDOW.min && flags.intersects(Map::FIXED | Map::FIXED_NOREPLACE) {
                    assert!(real.is_err());
                    return;
                }
                let expected = p.model.map(at, len, prot, flags, words);
                assert_eq!(real, expected);
                let slot = p.slot;
                self.note(|trace| trace.map(slot, (at, len), prot, flags, both, real));
            }
            Op::Unmap { process, at, len } => {
                let p = &mut self.processes[process % live];
                assert_eq!(p.mm.unmap(at * PAGE, len * PAGE), Ok(()));
                p.model.unmap(at, len);
                let slot = p.slot;
                self.note(|trace| trace.call("unmap", slot, &[at, len], Ok(())));
            }
            Op::Protect { process, at, len, prot } => {
                let p = &mut self.processes[process % live];
                let prot = Prot::from_bits_retain(prot);
                let real = p.mm.protect(at * PAGE, len * PAGE, prot);
                assert_eq!(real, p.model.protect(at, len, prot));
                let slot = p.slot;
                self.note(|trace| trace.call("protect", slot, &[at, len, prot.bits() as usize], real));
            }
            Op::Brk { process, to } => {
                let p = &mut self.processes[process % live];
                let old = p.model.brk;
                let new = p.mm.brk(to * PAGE).get() / PAGE;
                assert_eq!(new, p.model.brk(to));
                let slot = p.slot;
                self.note(|trace| trace.brk(slot, old, new));
            }
            Op::Remap { process, at, old, new, flags, to } => {
                let p = &mut self.processes[process % live];
                let to = to.max(WINDOW.min);
                let mut area = (0, 0);
                p.mm.area_from(UserAddr::new(at * PAGE), |a| area = (a.start.get() / PAGE, a.end.get() / PAGE));
                let expected = p.model.remap(at, old, new, flags, to, || area);
                let real = p.mm.remap(at * PAGE, old * PAGE, new * PAGE, flags, to * PAGE);
                let real = real.map(|at| at.get() / PAGE);
                assert_eq!(real, expected);
                if real.is_ok() {
                    assert_eq!(Mm::audit(&p.mm, || true).unlisted, 0, "pages that moved and are not found again");
                }
                let slot = p.slot;
                self.note(|trace| trace.remap(slot, at, old, new, flags, to, real));
            }
            Op::Advise { process, at, len, advice } => {
                let p = &mut self.processes[process % live];
                let real = p.mm.advise(at * PAGE, len * PAGE, advice);
                assert_eq!(real, p.model.advise(at, len, advice));
                let slot = p.slot;
                if advice == madv::FREE {
                    forget_given_up(&self.rig.mmu, &p.mm, at, len);
                }
                if advice == madv::COLD && real.is_ok() {
                    let there = |page: &usize| p.mm.entry(UserAddr::new(page * PAGE)).is_present();
                    self.old.extend((at..at + len).filter(there).map(|page| (slot, page)));
                }
                self.note(|trace| trace.call("advise", slot, &[at, len, advice as usize], real));
            }
            Op::Lock { process, at, len, on_fault } => {
                let p = &mut self.processes[process % live];
                let real = p.mm.lock(at * PAGE, len * PAGE, on_fault);
                assert_eq!(real, p.model.lock(at, len, if on_fault { Lock::OnFault } else { Lock::Yes }));
                if real.is_ok() && !on_fault {
                    let all = |_, there: bool| assert!(there, "a page of locked memory is not there");
                    assert_eq!(p.mm.in_core(at * PAGE, len * PAGE, all), Ok(()));
                }
                let slot = p.slot;
                self.note(|trace| trace.call("lock", slot, &[at, len, on_fault as usize], real));
            }
            Op::Unlock { process, at, len } => {
                let p = &mut self.processes[process % live];
                let real = p.mm.unlock(at * PAGE, len * PAGE);
                assert_eq!(real, p.model.lock(at, len, Lock::No));
                let slot = p.slot;
                self.note(|trace| trace.call("unlock", slot, &[at, len], real));
            }
            Op::LockAll { process, current, future } => {
                let p = &mut self.processes[process % live];
                if current || future {
                    assert_eq!(p.mm.lock_all(current, future, false), Ok(()));
                } else {
                    p.mm.unlock_all();
                }
                p.model.lock_all(current, future);
                let (slot, what) = (p.slot, current as usize | (future as usize) << 1);
                self.note(|trace| trace.call("lockall", slot, &[what], Ok(())));
            }
            Op::InCore { process, at, len } => {
                let p = &mut self.processes[process % live];
                let mut core = BTreeMap::new();
                let real = p.mm.in_core(at * PAGE, len * PAGE, |page, there| {
                    core.insert(at + page, there);
                });
                assert_eq!(real, p.model.in_core(at, len));
                for (page, there) in core {
                    let entry = p.mm.entry(UserAddr::new(page * PAGE)).kind();
                    let of_object = || {
                        let areas = p.mm.areas.read();
                        let backing =
                            areas.tree.find(UserAddr::new(page * PAGE))?.backing_at(UserAddr::new(page * PAGE))?;
                        Some(backing.object.is_swapped(backing.index))
                    };
                    let in_swap = match entry {
                        Some(NonPresent::None) => of_object() == Some(true),
                        entry => matches!(entry, Some(NonPresent::Swap(_))),
                    };
                    let written = !p.model.pages[&page].may_be_absent();
                    assert!(!in_swap || !there, "page {page:#x} is in swap and in memory");
                    assert!(in_swap || !written || there, "page {page:#x} was written and is not in memory");
                }
                let slot = p.slot;
                self.note(|trace| trace.call("incore", slot, &[at, len], real));
            }
            Op::Sync { process, at, len, flags } => {
                let p = &mut self.processes[process % live];
                let real = p.mm.sync(at * PAGE, len * PAGE, flags);
                assert_eq!(real, p.model.sync(at, len, flags));
                let slot = p.slot;
                self.note(|trace| trace.call("sync", slot, &[at, len, flags.bits() as usize], real));
            }
            Op::Away { process, at, count, how } => {
                for page in at..at + count {
                    self.elsewhere.take_away(&self.processes[process % live].mm, UserAddr::new(page * PAGE), how);
                }
            }
            Op::Migrate { process, at, count } => {
                for page in at..at + count {
                    self.migrate(process % live, page);
                }
            }
            Op::Clean { process, at, count } => {
                for page in at..at + count {
                    let cleaned = self.elsewhere.clean(&self.processes[process % live].mm, UserAddr::new(page * PAGE));
                    // (What was written while it was cleaned was written before.)
                    cleaned.into_iter().for_each(|pfn| self.rig.mmu.forget_writes(pfn.0));
                }
            }
            Op::Poke { process, at, write } => self.poke(process % live, at, write),
            Op::Settle => self.elsewhere.finish_moves(),
            Op::Fork { process } => self.fork(process % live),
            Op::Exit { process } => self.exit(process % live),
            Op::Touch { process, cpu, at, count, access } => {
                for n in 0..count {
                    self.touch(process % live, cpu % CPUS, at + n, access);
                }
            }
        }
    }

    /// Moves the page at `page`, if there is one: its entries are what they were, but for the frame.
    fn migrate(&mut self, process: usize, page: usize) {
        let pte = self.processes[process].mm.entry(UserAddr::new(page * PAGE));
        if !pte.is_present() || pte.is_special() {
            return;
        }
        let (sim, old) = (self.rig.sim, pte.addr().pfn());
        take_apart(sim, old);
        let stirred = self.rig.mmu.stirred();
        let mut before = Vec::new();
        for_each_mapping(sim, old, |mm, at| {
            before.push((mm.clone(), at, mm.entry(at)));
            true
        });
        if page.is_multiple_of(3) {
            assert!(frame::page(sim, old).get());
            assert_eq!(migrate(sim, old, || frame::alloc_to_move(sim)).map_err(drop), Err(()), "somebody holds it");
            Release::new(sim).page(old);
        }
        let was_dirty = frame::page(sim, old).flags().contains(PageFlags::DIRTY);
        let was_written = self.rig.mmu.written().contains(&old.0);
        let moved = migrate(sim, old, || frame::alloc_to_move(sim));
        if self.elsewhere.is_moving(old) {
            // (Its object has given it to a fault meanwhile.)
            assert_eq!(moved, Err(Stays::NotMovable));
            return;
        }
        let new = moved.expect("nobody holds the page");
        assert!(!frame::page(sim, old).state().is_user(), "the old frame is free");
        assert!(!was_dirty || frame::page(sim, new).flags().contains(PageFlags::DIRTY), "the page is clean now");
        if was_written {
            self.rig.mmu.note_write(new.0);
        }
        for (mm, at, was) in before {
            let is = mm.entry(at);
            // A writable entry is dirty, and DBM says nothing more of it.
            let same = |pte: Pte| match pte.0 & bits::READ_ONLY {
                0 => (pte.0 | bits::DIRTY) & !(bits::ADDR | bits::AHEAD | bits::DBM),
                _ => pte.0 & !(bits::ADDR | bits::AHEAD),
            };
            assert_eq!(is.addr().pfn(), new, "an entry for another frame at {at}");
            // (CPUs that update entries may do so meanwhile.)
            let may_differ = self.rig.mmu.stirred() != stirred;
            assert!(same(is) == same(was) || may_differ, "{was:?} became {is:?} at {at}");
            // A program that goes on has its page at once.
            let cpu = (0..CPUS).find(|cpu| self.running[*cpu] == Some(KArc::as_ptr(&mm)));
            if let Some(cpu) = cpu.filter(|_| is.is_readable() && is.is_young()) {
                assert!(self.rig.mmu.access(cpu, at.get(), Access::Read).is_ok(), "a fault at {at} after a move");
            }
        }
    }

    fn fork(&mut self, process: usize) {
        if self.processes.len() < PROCESSES {
            let slot = self.free_slot();
            let p = &self.processes[process];
            let child = Process { slot, mm: p.mm.fork().unwrap(), model: p.model.fork() };
            let parent = p.slot;
            self.processes.push(child);
            self.note(|trace| trace.call("fork", parent, &[slot], Ok(())));
        }
    }

    fn exit(&mut self, process: usize) {
        // What is broken is not ended: that panics more than once.
        self.processes[process].mm.validate();
        let gone = self.processes.swap_remove(process);
        for cpu in 0..CPUS {
            if self.running[cpu] == Some(KArc::as_ptr(&gone.mm)) {
                self.running[cpu] = None;
                self.rig.idle(cpu);
            }
        }
        self.note(|trace| trace.call("exit", gone.slot, &[], Ok(())));
        drop(gone);
        if self.processes.is_empty() {
            self.add_process();
        }
    }
}
