//! The real code and the model side by side: each step is done by both, and must have the same outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::vec::Vec;

use quire_abi::flags::{Map, Prot, madv};

use super::absent::Elsewhere;
use super::model::{File, Lock, Model, STACK_LIMIT};
use super::script::{BRK, CPUS, Op, PROCESSES, WINDOW};
use super::trace::Trace;
use super::{PAGE, Rig, Space};
use crate::addr::{Pfn, UserAddr};
use crate::fallible::KArc;
use crate::machine::Machine;
use crate::mm::{Access, FaultError, Limit, MapRequest, Mm, MmLayout};
use crate::object::Object;
use crate::page_alloc::{Gfp, PressureHandler};
use crate::pte::NonPresent;
use crate::sim::Sim;
use crate::sim::mmu::{Abort, Sabotage};

/// The files of the boot archive: bytes into a frame, length, and whether the last page can be mapped as it is.
const FILES: [(usize, usize, bool); 3] =
    [(0, 5 * PAGE + 100, false), (16, 3 * PAGE + 8, false), (0, 2 * PAGE + 300, true)];

/// Bad pages are counted, and a step that left one fails: a panic where a page is freed would be one more of many.
struct Counted;

impl PressureHandler for Counted {
    fn report_bad_page(&self, _: Pfn) {}
}

pub(super) struct Process {
    /// What the trace calls it: a number below [`PROCESSES`].
    pub slot: usize,
    pub mm: Space,
    pub model: Model,
}

/// Both sides of the comparison.
pub(super) struct Pair {
    pub rig: Rig,
    pub elsewhere: &'static Elsewhere,
    pub files: Vec<(KArc<Object<&'static Sim>>, File)>,
    frames: Vec<Pfn>,
    pub processes: Vec<Process>,
    /// What was done, for a real machine.
    pub trace: Option<Trace>,
    /// Which process each CPU runs.
    running: [Option<*const Mm<&'static Sim>>; CPUS],
    stamp: u64,
    /// Pages, by slot and number, that were made old, and that nobody has touched since.
    old: BTreeSet<(usize, usize)>,
}

/// Who sets access flags and dirty state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Updates {
    BySoftware,
    ByHardware,
}

impl Pair {
    pub fn new(sabotage: Option<Sabotage>, trace: Option<Trace>) -> Self {
        Self::on(Updates::BySoftware, sabotage, trace)
    }

    pub fn on(updates: Updates, sabotage: Option<Sabotage>, trace: Option<Trace>) -> Self {
        let rig = Rig::broken(256, sabotage);
        if updates == Updates::ByHardware {
            rig.sim.spaces().set_hardware_updates();
        }
        // Whatever the last machine's CPUs did on this thread, they don't here.
        rig.mmu.stir(0x5bd1_e995);
        rig.sim.pages().set_pressure_handler(&Counted);
        // Few, so that generations roll over often.
        rig.sim.spaces().asids().set_bits(3);
        let mut pair = Self {
            elsewhere: Elsewhere::attach(rig.sim),
            rig,
            files: Vec::new(),
            frames: Vec::new(),
            processes: Vec::new(),
            trace,
            running: [None; CPUS],
            stamp: 0,
            old: BTreeSet::new(),
        };
        pair.set_up();
        pair
    }

    /// A file of the boot archive, `skew` bytes into a frame.
    fn add_file(&mut self, skew: usize, len: usize, padded: bool) {
        let sim = self.rig.sim;
        let pfn = sim.pages().alloc_raw(3, Gfp::KERNEL | Gfp::ZERO).unwrap();
        self.frames.push(pfn);
        // Frames inside of the block: like those of a boot archive, they are nobody's to the page allocator.
        let start = pfn.addr() + PAGE + skew;
        // SAFETY: seven frames, all this test's, hold `skew + len` bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(sim.direct_map(start), len) };
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = (n / PAGE * 31 + n % 8 + skew) as u8;
        }
        let word = |page: usize| {
            let mut word = [0; 8];
            let from = &bytes[page * PAGE..len.min(page * PAGE + 8)];
            word[..from.len()].copy_from_slice(from);
            u64::from_le_bytes(word)
        };
        let words = Rc::new((0..len.div_ceil(PAGE)).map(word).collect());
        self.files.push((Object::boot_file(sim, start, len, padded).unwrap(), words));
    }

    /// The bytes of the files.
    pub fn file_contents(&self) -> Vec<Vec<u8>> {
        let bytes = |(pfn, (skew, len, _)): (&Pfn, (usize, usize, bool))| {
            let start = self.rig.sim.direct_map(pfn.addr() + PAGE + skew);
            // SAFETY: `add_file` wrote them there.
            unsafe { std::slice::from_raw_parts(start, len) }.to_vec()
        };
        self.frames.iter().zip(FILES).map(bytes).collect()
    }

    fn add_process(&mut self) {
        let at = |page: usize| UserAddr::new(page * PAGE);
        let layout = MmLayout {
            mmap_base: at(WINDOW.base),
            mmap_min: at(WINDOW.min),
            task_size: at(WINDOW.top),
            stack_top: at(WINDOW.top),
        };
        let mm = Mm::new(self.rig.sim, &layout).unwrap();
        mm.set_brk_start(at(BRK));
        mm.set_limit(Limit::Stack, (STACK_LIMIT * PAGE) as u64);
        let slot = self.free_slot();
        self.note(|trace| trace.process(slot));
        self.processes.push(Process { slot, mm, model: Model::new(WINDOW, BRK) });
    }

    fn free_slot(&self) -> usize {
        (0..).find(|slot| self.processes.iter().all(|p| p.slot != *slot)).unwrap_or(0)
    }

    fn note(&mut self, write: impl FnOnce(&mut Trace)) {
        self.trace.as_mut().map(write);
    }

    /// Does a step on both sides.
    ///
    /// # Panics
    /// If they differ.
    pub fn step(&mut self, op: &Op) {
        let process = op.process().map(|process| process % self.processes.len());
        self.do_both(op);
        let is_call = !matches!(op, Op::Touch { .. } | Op::Poke { .. } | Op::Exit { .. } | Op::Away { .. });
        let forked = matches!(op, Op::Fork { .. }).then_some(self.processes.len() - 1);
        for number in process.filter(|_| is_call).into_iter().chain(forked) {
            let p = &self.processes[number];
            assert_eq!(self.difference(&p.mm, &p.model), Ok(()), "process {}", p.slot);
        }
        assert_eq!(self.rig.sim.pages().bad_pages(), 0, "a page was freed that was not fit for it");
    }

    /// As [`Pair::step`], where only what the step itself answers is compared.
    pub fn do_both(&mut self, op: &Op) {
        self.forget_old(op);
        self.take_step(op);
        self.check_old();
    }

    /// What a step may touch need no longer be old.
    pub fn forget_old(&mut self, op: &Op) {
        let live = self.processes.len();
        let slot = op.process().map(|process| self.processes[process % live].slot);
        match *op {
            Op::Touch { at, count, .. } => {
                self.old.retain(|old| Some(old.0) != slot || !(at..at + count).contains(&old.1))
            }
            Op::Poke { at, .. } => drop(slot.map(|slot| self.old.remove(&(slot, at)))),
            Op::Clean { .. } | Op::InCore { .. } | Op::Sync { .. } | Op::Fork { .. } => {}
            Op::Away { .. } | Op::Settle => self.old.clear(),
            _ => self.old.retain(|old| Some(old.0) != slot),
        }
    }

    /// What was made old is old until it is touched.
    fn check_old(&mut self) {
        if self.rig.mmu.was_stirred() {
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

    fn take_step(&mut self, op: &Op) {
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
                    let in_swap = matches!(entry, Some(NonPresent::Swap(_)));
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
            Op::Clean { process, at, count } => {
                for page in at..at + count {
                    let cleaned = self.elsewhere.clean(&self.processes[process % live].mm, UserAddr::new(page * PAGE));
                    // (What was written while it was cleaned was written before.)
                    cleaned.into_iter().for_each(|pfn| self.rig.mmu.forget_writes(pfn.0));
                }
            }
            Op::Poke { process, at, write } => {
                self.stamp += 1;
                let stamp = self.stamp;
                let access = if write { Access::Write } else { Access::Read };
                let p = &mut self.processes[process % live];
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
                assert_eq!(real, expected, "{access:?} of page {at:#x} by the kernel");
                let slot = p.slot;
                if real.is_ok() {
                    self.check_traces(&self.processes[process % live], at, write);
                }
                self.note(|trace| trace.touch(slot, 0, at, access, stamp, real));
                // Every CPU that runs the space sees it.
                let mm = KArc::as_ptr(&self.processes[process % live].mm);
                for cpu in (0..CPUS).filter(|_| real.is_ok()) {
                    if self.running[cpu] == Some(mm) {
                        self.touch(process % live, cpu, at, Access::Read);
                    }
                }
            }
            Op::Settle => self.elsewhere.finish_moves(),
            Op::Fork { process } => {
                if live < PROCESSES {
                    let slot = self.free_slot();
                    let p = &self.processes[process % live];
                    let child = Process { slot, mm: p.mm.fork().unwrap(), model: p.model.fork() };
                    let parent = p.slot;
                    self.processes.push(child);
                    self.note(|trace| trace.call("fork", parent, &[slot], Ok(())));
                }
            }
            Op::Exit { process } => {
                // What is broken is not ended: that panics more than once.
                self.processes[process % live].mm.validate();
                let gone = self.processes.swap_remove(process % live);
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
            Op::Touch { process, cpu, at, count, access } => {
                for n in 0..count {
                    self.touch(process % live, cpu % CPUS, at + n, access);
                }
            }
        }
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
        let mut tries = 0;
        let real = loop {
            tries += 1;
            assert!(tries < 8, "the access to page {page:#x} never goes through");
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
        let real = self.reach(process, cpu, page, access, (access == Access::Write).then_some(stamp));
        assert_eq!(real, expected, "{access:?} of page {page:#x} on CPU {cpu}");
        if real.is_ok() {
            self.check_traces(&self.processes[process], page, access == Access::Write);
        }
        self.note(|trace| trace.touch(slot, cpu, page, access, stamp, real));
    }

    /// Everybody exits, and everything is back.
    pub fn end(mut self) {
        self.clear();
    }

    /// As [`Pair::end`]; then a new first process and new files are there.
    pub fn begin_anew(&mut self) {
        self.clear();
        self.set_up();
    }

    fn set_up(&mut self) {
        FILES.into_iter().for_each(|(skew, len, padded)| self.add_file(skew, len, padded));
        self.add_process();
    }

    fn clear(&mut self) {
        self.elsewhere.finish_moves();
        self.old.clear();
        for cpu in 0..CPUS {
            self.running[cpu] = None;
            self.rig.idle(cpu);
        }
        self.processes.clear();
        self.rig.mmu.written().into_iter().for_each(|frame| self.rig.mmu.forget_writes(frame));
        self.files.clear();
        for pfn in self.frames.drain(..) {
            // SAFETY: allocated in `add_file`; no object refers to it any more.
            unsafe { self.rig.sim.pages().free_pages(pfn, 3) };
        }
        assert_eq!(self.elsewhere.slots(), 0, "swap slots in use");
        self.rig.assert_balanced();
    }
}

/// Where the area of a page ends, in pages; 0 if there is none.
pub(super) fn area_end(mm: &Space, page: usize) -> usize {
    mm.area_from(UserAddr::new(page * PAGE), |area| area.end.get() / PAGE).unwrap_or(0)
}
