//! Accesses to memory, by programs and by the kernel on their behalf, and their effects on entries.
//!
//! A page is young and, if it was written, dirty once it has been touched; one that was made old stays so until then.
//! On CPUs that update entries, a page may be accessed out of turn, after which no page is known to be old.

use super::{Pair, Process, area_end};
use crate::addr::UserAddr;
use crate::fallible::KArc;
use crate::machine::{Killed, Machine};
use crate::mm::tests::PAGE;
use crate::mm::tests::script::{CPUS, Op};
use crate::mm::{Access, FaultError, FirstTouch, Outcome};
use crate::sim::Sim;
use crate::sim::mmu::Abort;

/// What was said of a page before an access is what came of it.
fn check_foretold(foretold: Result<Outcome, Killed>, access: Access, real: Result<(), FaultError>) {
    let touch = match (foretold, access) {
        (Ok(Outcome::Unmapped), _) => return assert_eq!(real, Err(FaultError::Unmapped)),
        (Ok(Outcome::Untouched { read, .. }), Access::Read) => read,
        (Ok(Outcome::Untouched { write, .. }), Access::Write) => write,
        _ => return,
    };
    let expected = match touch {
        FirstTouch::Refused => Err(FaultError::Protection),
        FirstTouch::BeyondObject => Err(FaultError::BeyondObject),
        _ => Ok(()),
    };
    assert_eq!(real, expected, "an access was foretold otherwise: {foretold:?}");
}

impl Pair {
    /// What a step may touch need no longer be old.
    pub fn forget_old(&mut self, op: &Op) {
        let live = self.processes.len();
        let slot = op.process().map(|process| self.processes[process % live].slot);
        match *op {
            Op::Touch { at, count, .. } => {
                self.old.retain(|old| Some(old.0) != slot || !(at..at + count).contains(&old.1))
            }
            Op::Poke { at, .. } => drop(slot.map(|slot| self.old.remove(&(slot, at)))),
            Op::Clean { .. } | Op::Migrate { .. } | Op::InCore { .. } | Op::Sync { .. } | Op::Fork { .. } => {}
            Op::Away { .. } | Op::Settle => self.old.clear(),
            _ => self.old.retain(|old| Some(old.0) != slot),
        }
    }

    /// What was made old is old until it is touched.
    pub(super) fn check_old(&mut self) {
        let stirred = self.rig.mmu.stirred();
        if core::mem::replace(&mut self.stirred, stirred) != stirred {
            self.old.clear();
        }
        for (slot, page) in &self.old {
            if let Some(p) = self.processes.iter().find(|p| p.slot == *slot) {
                let pte = p.mm.entry(UserAddr::new(page * PAGE));
                assert!(!pte.is_present() || !pte.is_young(), "page {page:#x} was not touched and is young");
            }
        }
    }

    /// An access has been made to a page: its entry tells.
    fn check_traces(&self, p: &Process, page: usize, write: bool) {
        let pte = p.mm.entry(UserAddr::new(page * PAGE));
        assert!(pte.is_present() && pte.is_young(), "page {page:#x} was touched and is old");
        assert!(!write || pte.is_dirty(), "page {page:#x} was written and is clean");
    }

    /// An access by a program on `cpu`: faults are taken until it goes through or must not.
    pub fn reach(
        &mut self,
        process: usize,
        cpu: usize,
        page: usize,
        access: Access,
        write: Option<u64>,
    ) -> Result<u64, FaultError> {
        let p = &self.processes[process];
        Sim::set_cpu(cpu);
        if self.running[cpu] != Some(KArc::as_ptr(&p.mm)) {
            self.running[cpu] = Some(KArc::as_ptr(&p.mm));
            self.rig.mmu.load(cpu, Some(p.mm.activate(cpu)));
        }
        // One fault makes the access possible, unless somebody changes the entry while it is being handled.
        let (mut tries, stirred) = (0, self.rig.mmu.stirred());
        let real = loop {
            tries += 1;
            assert!(tries <= 2 + self.rig.mmu.stirred() - stirred, "the access to page {page:#x} faults again");
            match self.rig.mmu.access(cpu, page * PAGE, access) {
                Ok(addr) => {
                    let at = self.rig.sim.direct_map(addr).cast::<u64>();
                    // SAFETY: the MMU allows the access to a frame of the simulated machine; one thread runs.
                    let word = unsafe { at.read() };
                    if let Some(value) = write {
                        // SAFETY: as above.
                        unsafe { at.write(value) };
                    }
                    break Ok(word);
                }
                Err(Abort::Translation | Abort::AccessFlag | Abort::Permission) => {
                    if let Err(error) = p.mm.fault(page * PAGE, access) {
                        break Err(error);
                    }
                }
            }
        };
        Sim::set_cpu(0);
        real
    }

    pub fn touch(&mut self, process: usize, cpu: usize, page: usize, access: Access) {
        self.stamp += 1;
        let stamp = self.stamp;
        let p = &mut self.processes[process];
        let (mm, slot) = (&p.mm, p.slot);
        let expected = p.model.touch(page, access, stamp, |page| area_end(mm, page));
        let foretold = mm.translate(UserAddr::new(page * PAGE), |found| found.outcome);
        let real = self.reach(process, cpu, page, access, (access == Access::Write).then_some(stamp));
        assert_eq!(real, expected, "{access:?} of page {page:#x} on CPU {cpu}");
        check_foretold(foretold, access, real.map(drop));
        if real.is_ok() {
            self.check_traces(&self.processes[process], page, access == Access::Write);
        }
        self.note(|trace| trace.touch(slot, cpu, page, access, stamp, real));
    }

    /// The kernel reaches a page.
    pub(super) fn poke(&mut self, process: usize, at: usize, write: bool) {
        self.stamp += 1;
        let stamp = self.stamp;
        let access = if write { Access::Write } else { Access::Read };
        let p = &mut self.processes[process];
        let mm = &p.mm;
        let expected = p.model.touch(at, access, stamp, |page| area_end(mm, page));
        // Nobody else is here who could take the page away.
        Sim::kill_after(0);
        let real = p.mm.pin(at * PAGE, write).map(|page| {
            let word = page.as_ptr().cast::<u64>();
            if write {
                self.rig.mmu.note_write(page.pfn().0);
            }
            // SAFETY: the page is pinned, for writing if so; one thread runs.
            unsafe { if write { word.replace(stamp) } else { word.read() } }
        });
        Sim::kill_after(usize::MAX);
        assert_eq!(real, expected, "{access:?} of page {at:#x} by the kernel");
        let slot = p.slot;
        if real.is_ok() {
            self.check_traces(&self.processes[process], at, write);
        }
        self.note(|trace| trace.touch(slot, 0, at, access, stamp, real));
        // Every CPU that runs the space sees it.
        let mm = KArc::as_ptr(&self.processes[process].mm);
        for cpu in (0..CPUS).filter(|_| real.is_ok()) {
            if self.running[cpu] == Some(mm) {
                self.touch(process, cpu, at, Access::Read);
            }
        }
    }
}
