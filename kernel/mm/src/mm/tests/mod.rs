//! Address spaces on a simulated machine with a software MMU.

mod beside;
mod calls;
mod cgroup;
mod collapse;
mod compact;
mod compare;
mod contiguous;
mod directed;
mod failing;
mod files;
mod found;
mod give_up;
mod huge;
mod killed;
mod migrate;
mod model;
mod non_present;
mod object_out;
mod oracle;
mod outcomes;
mod paged;
mod pair;
mod pin;
mod reclaim;
mod remove;
mod rmap;
mod script;
mod shortage;
mod threads;
mod trace;
mod translation;
mod updates;

use std::cell::RefCell;
use std::vec::Vec;

use crate::addr::{PAGE_SIZE, UserAddr};
use crate::fallible::KArc;
use crate::machine::Machine;
use crate::mm::{Access, FaultError, MapRequest, Mm, MmLayout};
use crate::sim::Sim;
use crate::sim::mmu::{Abort, Mmu, Sabotage};
use quire_abi::Errno;
use quire_abi::flags::{Map, Prot};

pub(super) type Space = KArc<Mm<&'static Sim>>;
pub(super) const RW: Prot = Prot::READ.union(Prot::WRITE);
pub(super) const PAGE: usize = PAGE_SIZE;

/// A machine, its MMUs, and what was free when it had booted.
pub(super) struct Rig {
    pub sim: &'static Sim,
    pub mmu: Mmu,
    free: usize,
}

impl Rig {
    pub fn new(mib: usize) -> Self {
        Self::broken(mib, None)
    }

    pub fn broken(mib: usize, sabotage: Option<Sabotage>) -> Self {
        Self::on(Sim::with_mib(mib), sabotage)
    }

    pub fn on(sim: &'static Sim, sabotage: Option<Sabotage>) -> Self {
        OVER.with(|over| over.borrow_mut().0.drain(..).for_each(Sim::forget));
        let mmu = Mmu::attach_broken(sim, sabotage);
        sim.spaces().init(16).unwrap();
        Self { sim, mmu, free: free_pages(sim) }
    }

    pub fn space(&self) -> Space {
        Mm::new(self.sim, &MmLayout::default()).unwrap()
    }

    /// What a program on `cpu` does: the access, with faults taken until it goes through or must not.
    pub fn touch(&self, cpu: usize, mm: &Space, va: usize, access: Access) -> Result<*mut u8, FaultError> {
        Sim::set_cpu(cpu);
        self.mmu.load(cpu, Some(mm.activate(cpu)));
        // (Others may take the page or the right away each time before the access goes through.)
        for _ in 0..1000 {
            match self.mmu.access(cpu, va, access) {
                Ok(addr) => return Ok(self.sim.direct_map(addr)),
                Err(Abort::Translation | Abort::AccessFlag | Abort::Permission) => mm.fault(va, access)?,
            }
        }
        panic!("the access to {va:#x} never goes through");
    }

    pub fn write(&self, mm: &Space, va: usize, value: u64) -> Result<(), FaultError> {
        let at = self.touch(0, mm, va, Access::Write)?.cast::<u64>();
        // SAFETY: the MMU allows the write, to memory of the simulated machine, which only this thread touches.
        unsafe { at.write_unaligned(value) };
        Ok(())
    }

    pub fn read(&self, mm: &Space, va: usize) -> Result<u64, FaultError> {
        let at = self.touch(0, mm, va, Access::Read)?.cast::<u64>();
        // SAFETY: as for `write`.
        Ok(unsafe { at.read_unaligned() })
    }

    /// The process on `cpu` is gone or switched away from.
    pub fn idle(&self, cpu: usize) {
        self.mmu.load(cpu, None);
    }

    /// All that the spaces had is back.
    pub fn assert_balanced(&self) {
        self.assert_balanced_but(0);
    }

    /// As [`Rig::assert_balanced`], except for `pages` pages that others have.
    pub fn assert_balanced_but(&self, pages: usize) {
        assert_eq!(self.sim.spaces().tables(), 0, "table pages");
        assert_eq!(self.sim.spaces().asids().spaces(), 0, "spaces with an ASID");
        assert_eq!(self.sim.spaces().commit().sum(), 0, "promised pages");
        assert_eq!(free_pages(self.sim) + pages, self.free, "free pages");
    }
}

/// Machines of this thread's whose rigs are gone. What others have of such a machine goes after its rig, but before the thread ends, or sets up
/// the next one.
struct Over(Vec<&'static Sim>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Sim::forget);
    }
}

std::thread_local! {
    static OVER: RefCell<Over> = const { RefCell::new(Over(Vec::new())) };
}

impl Drop for Rig {
    fn drop(&mut self) {
        // (It is not there any more where the thread is about to end.)
        let _ = OVER.try_with(|over| over.borrow_mut().0.push(self.sim));
    }
}

fn free_pages(sim: &'static Sim) -> usize {
    sim.pages().total_free()
}

pub(super) fn anon(rig: &Rig, mm: &Space, len: usize) -> usize {
    let _ = rig;
    mm.map(&MapRequest::anonymous(len, RW)).unwrap().get()
}

pub(super) fn map_at(mm: &Space, addr: usize, len: usize, prot: Prot, more: Map) -> Result<usize, Errno> {
    let flags = if more.intersects(Map::SHARED_VALIDATE) { more } else { more | Map::PRIVATE };
    let flags = flags | Map::ANONYMOUS;
    let request = MapRequest { addr, len, prot, flags, object: None, max_prot: Prot::all() };
    mm.map(&request).map(UserAddr::get)
}

/// What a thread of a test does on a CPU, with the seeded bug of the test, if there is one.
pub(super) fn body<'a>(
    cpu: usize,
    bug: Option<crate::seeded::Bug>,
    work: impl FnOnce() + Send + 'a,
) -> crate::sim::turns::Body<'a> {
    Box::new(move || {
        crate::seeded::switch(bug);
        Sim::set_cpu(cpu);
        work();
    })
}
