//! The real code and the model side by side: each step is done by both, and must have the same outcome.
//!
//! This file has the common state, its set-up and its end; steps.rs has the steps, access.rs the accesses.

mod access;
mod steps;

pub use steps::{forget_given_up, take_apart};

use std::collections::BTreeSet;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::vec::Vec;

use super::model::{File, Model, STACK_LIMIT};
use super::non_present::Elsewhere;
use super::script::{BRK, CPUS, Op, WINDOW};
use super::trace::Trace;
use super::{PAGE, Rig, Space};
use crate::addr::{Pfn, UserAddr};
use crate::fallible::KArc;
use crate::machine::{Limit, Machine};
use crate::mm::{Mm, MmLayout};
use crate::object::Object;
use crate::page_alloc::{Gfp, PressureHandler};
use crate::sim::Sim;
use crate::sim::mmu::{Drain, Sabotage};
use crate::spaces::HugePages;

/// The files of the boot archive: bytes into a frame, length, and whether the last page can be mapped as it is.
const FILES: [(usize, usize, bool); 3] =
    [(0, 5 * PAGE + 100, false), (16, 3 * PAGE + 8, false), (0, 2 * PAGE + 300, true)];

/// Steps between two looks at what is charged to groups.
const LOOK_AT_BOOKS: usize = 64;

/// Bad pages are counted, and a step that left one fails: a panic where a page is freed would be one more of many.
struct Counted;

impl PressureHandler for Counted {
    fn report_bad_page(&self, _: Pfn) {}
}

pub(super) struct Process {
    /// What the trace calls it: a number below [`PROCESSES`](super::script::PROCESSES).
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
    /// The control groups of processes, by slot: none, one, and one within that.
    groups: [u16; 3],
    steps: usize,
    /// How often the hardware had updated entries out of turn when they were last looked at.
    stirred: usize,
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
        let drain = if updates == Updates::ByHardware { Drain::AtChance } else { Drain::Late };
        rig.mmu.set_chance(1, drain);
        // Whatever the last machine's CPUs did on this thread, they don't here.
        rig.mmu.stir(0x5bd1_e995);
        rig.sim.spaces().huge_pages().set(HugePages::Always);
        rig.sim.pages().set_pressure_handler(&Counted);
        // Few, so that generations roll over often.
        rig.sim.spaces().asids().set_bits(3);
        let mut pair = Self {
            elsewhere: Elsewhere::attach(rig.sim),
            files: Vec::new(),
            frames: Vec::new(),
            processes: Vec::new(),
            trace,
            running: [None; CPUS],
            stamp: 0,
            old: BTreeSet::new(),
            groups: super::cgroup::nested(rig.sim),
            steps: 0,
            rig,
            stirred: 0,
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
        (0..7).for_each(|n| sim.note_content(pfn.addr() + (1 + n) * PAGE));
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
        self.rig.sim.set_limit(Limit::Stack, (STACK_LIMIT * PAGE) as u64);
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
        let is_call =
            !matches!(op, Op::Touch { .. } | Op::Poke { .. } | Op::Exit { .. } | Op::Away { .. } | Op::Migrate { .. });
        let forked = matches!(op, Op::Fork { .. }).then_some(self.processes.len() - 1);
        for number in process.filter(|_| is_call).into_iter().chain(forked) {
            let p = &self.processes[number];
            assert_eq!(self.difference(&p.mm, &p.model), Ok(()), "process {}", p.slot);
        }
        assert_eq!(self.rig.sim.pages().bad_pages(), 0, "a page was freed that was not fit for it");
    }

    /// As [`Pair::step`], where only what the step itself returns is compared.
    pub fn do_both(&mut self, op: &Op) {
        self.learn();
        self.forget_old(op);
        let slot = op.process().map_or(0, |process| self.processes[process % self.processes.len()].slot);
        Sim::set_group(self.groups[slot % self.groups.len()]);
        self.take_step(op);
        Sim::set_group(0);
        self.check_old();
        self.steps += 1;
        if self.steps.is_multiple_of(LOOK_AT_BOOKS) {
            self.rig.sim.groups().assert_books();
        }
    }

    /// Everybody exits, and everything is back. What is broken stays as it is: ending it would panic again.
    pub fn end(self) {
        let mut this = ManuallyDrop::new(self);
        this.clear();
        drop(ManuallyDrop::into_inner(this));
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
        while let Some(process) = self.processes.pop() {
            drop(process);
        }
        self.rig.mmu.written().into_iter().for_each(|frame| self.rig.mmu.forget_writes(frame));
        self.files.clear();
        for pfn in self.frames.drain(..) {
            // SAFETY: allocated in `add_file`; no object refers to it any more.
            unsafe { self.rig.sim.pages().free_pages(pfn, 3) };
        }
        assert_eq!(self.elsewhere.used_slots(), 0, "swap slots in use");
        self.rig.sim.groups().assert_books();
        assert_eq!(self.rig.sim.groups().charged(), self.rig.sim.groups().in_stocks(), "pages charged to groups");
        self.rig.assert_balanced();
    }
}

/// Where the area of a page ends, in pages; 0 if there is none.
pub(super) fn area_end(mm: &Space, page: usize) -> usize {
    mm.area_from(UserAddr::new(page * PAGE), |area| area.end.get() / PAGE).unwrap_or(0)
}
