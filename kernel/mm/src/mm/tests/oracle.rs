//! The oracle: random programs run on the real code and on the model, and must agree after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use quire_abi::flags::{Map, Prot};

use super::model::{File, Model, STACK_LIMIT};
use super::script::{BRK, CPUS, Op, PROCESSES, Random, WINDOW};
use super::{PAGE, Rig, Space};
use crate::addr::{Pfn, UserAddr};
use crate::fallible::KArc;
use crate::machine::Machine;
use crate::mm::{Access, Limit, MapRequest, Mm, MmLayout, for_each_mapping};
use crate::object::Object;
use crate::page_alloc::{FaultInjection, Gfp};
use crate::sim::Sim;
use crate::sim::mmu::{Abort, Sabotage};

struct Process {
    mm: Space,
    model: Model,
}

/// Both sides of the comparison.
struct Pair {
    rig: Rig,
    files: Vec<(KArc<Object<&'static Sim>>, File)>,
    frames: Vec<Pfn>,
    processes: Vec<Process>,
    /// Which process each CPU runs.
    running: [Option<*const Mm<&'static Sim>>; CPUS],
    stamp: u64,
}

impl Pair {
    fn new(sabotage: Option<Sabotage>) -> Self {
        let rig = Rig::broken(64, sabotage);
        // Few, so that generations roll over often.
        rig.sim.spaces().asids().set_bits(3);
        let mut pair =
            Self { rig, files: Vec::new(), frames: Vec::new(), processes: Vec::new(), running: [None; CPUS], stamp: 0 };
        pair.add_file(0, 5 * PAGE + 100, false);
        pair.add_file(16, 3 * PAGE + 8, false);
        pair.add_file(0, 2 * PAGE + 300, true);
        pair.add_process();
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
        self.processes.push(Process { mm, model: Model::new(WINDOW, BRK) });
    }

    fn step(&mut self, op: &Op) {
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
            }
            Op::Unmap { process, at, len } => {
                let p = &mut self.processes[process % live];
                assert_eq!(p.mm.unmap(at * PAGE, len * PAGE), Ok(()));
                p.model.unmap(at, len);
            }
            Op::Protect { process, at, len, prot } => {
                let p = &mut self.processes[process % live];
                let prot = Prot::from_bits_retain(prot);
                assert_eq!(p.mm.protect(at * PAGE, len * PAGE, prot), p.model.protect(at, len, prot));
            }
            Op::Brk { process, to } => {
                let p = &mut self.processes[process % live];
                assert_eq!(p.mm.brk(to * PAGE).get() / PAGE, p.model.brk(to));
            }
            Op::Remap { process, at, old, new, flags, to } => {
                let p = &mut self.processes[process % live];
                let to = to.max(WINDOW.min);
                let mut end = 0;
                p.mm.area_from(UserAddr::new(at * PAGE), |area| end = area.end.get() / PAGE);
                let expected = p.model.remap(at, old, new, flags, to, || end);
                let real = p.mm.remap(at * PAGE, old * PAGE, new * PAGE, flags, to * PAGE);
                assert_eq!(real.map(|at| at.get() / PAGE), expected);
            }
            Op::Advise { process, at, len, advice } => {
                let p = &mut self.processes[process % live];
                assert_eq!(p.mm.advise(at * PAGE, len * PAGE, advice), p.model.advise(at, len, advice));
            }
            Op::Fork { process } => {
                if live < PROCESSES {
                    let p = &self.processes[process % live];
                    let child = Process { mm: p.mm.fork().unwrap(), model: p.model.fork() };
                    self.processes.push(child);
                }
            }
            Op::Exit { process } => {
                let gone = self.processes.swap_remove(process % live);
                for cpu in 0..CPUS {
                    if self.running[cpu] == Some(KArc::as_ptr(&gone.mm)) {
                        self.running[cpu] = None;
                        self.rig.idle(cpu);
                    }
                }
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

    fn touch(&mut self, process: usize, cpu: usize, page: usize, access: Access) {
        self.stamp += 1;
        let stamp = self.stamp;
        let p = &mut self.processes[process];
        Sim::set_cpu(cpu);
        if self.running[cpu] != Some(KArc::as_ptr(&p.mm)) {
            self.running[cpu] = Some(KArc::as_ptr(&p.mm));
            self.rig.mmu.load(cpu, Some(p.mm.activate(cpu)));
        }
        let mm = &p.mm;
        let expected = p.model.touch(page, access, stamp, |page| {
            mm.area_from(UserAddr::new(page * PAGE), |area| area.end.get() / PAGE).unwrap_or(0)
        });
        let mut tries = 0;
        let real = loop {
            tries += 1;
            assert!(tries < 8, "the access to page {page:#x} never goes through");
            match self.rig.mmu.access(cpu, page * PAGE, access) {
                Ok(addr) => {
                    let at = self.rig.sim.direct_map(addr).cast::<u64>();
                    // SAFETY: the MMU allows the access to a frame of the simulated machine; one thread runs.
                    let word = unsafe { at.read() };
                    if access == Access::Write {
                        // SAFETY: as above.
                        unsafe { at.write(stamp) };
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
        assert_eq!(real, expected, "{access:?} of page {page:#x} on CPU {cpu}");
    }

    /// Everything at once, without touching anything.
    fn check(&self) {
        let mut mappings: BTreeMap<usize, BTreeSet<(usize, usize)>> = BTreeMap::new();
        for (number, p) in self.processes.iter().enumerate() {
            p.mm.validate();
            let mut areas = Vec::new();
            p.mm.for_each_vma(|area| areas.push((area.start.get() / PAGE, area.end.get() / PAGE, area.flags)));
            let mapped: usize = areas.iter().map(|(start, end, _)| end - start).sum();
            assert_eq!(mapped, p.model.pages.len(), "mapped pages");
            for (start, end, flags) in areas {
                for page in start..end {
                    let model = p.model.pages.get(&page).unwrap_or_else(|| panic!("page {page:#x} is mapped"));
                    assert_eq!(model.prot.bits(), flags.bits() & 7, "rights of page {page:#x}");
                    assert!(page + 1 == end || model.joins(&p.model.pages[&(page + 1)]), "an area of two kinds");
                }
            }
            let mut present = BTreeSet::new();
            p.mm.tables.for_each_entry(|va, pte| {
                let page = va.get() / PAGE;
                present.insert(page);
                let at = self.rig.sim.direct_map(pte.addr()).cast::<u64>();
                // SAFETY: a mapped frame of the simulated machine; one thread runs.
                let word = unsafe { at.read() };
                assert_eq!(Ok(word), p.model.pages[&page].word(), "content of page {page:#x} of process {number}");
                if pte.addr() != self.rig.sim.spaces().zero_page() {
                    mappings.entry(pte.addr().pfn().0).or_default().insert((KArc::as_ptr(&p.mm).addr(), page));
                }
            });
            for (page, model) in &p.model.pages {
                assert!(model.may_be_absent() || present.contains(page), "page {page:#x} was written and is gone");
            }
        }
        for (pfn, expected) in mappings {
            let mut found = BTreeSet::new();
            for_each_mapping(self.rig.sim, Pfn(pfn), |mm, va| {
                found.insert((KArc::as_ptr(mm).addr(), va.get() / PAGE));
                true
            });
            assert_eq!(found, expected, "reverse mapping of frame {pfn:#x}");
        }
    }

    /// A step of the real code alone; whether it fails does not matter.
    fn step_alone(&mut self, op: &Op) {
        let live = self.processes.len();
        let mm = |process: usize| &self.processes[process % live].mm;
        match *op {
            Op::Map { process, at, len, prot, flags, file } => {
                let object = file.map(|(file, index)| (self.files[file].0.clone(), index));
                let flags = if object.is_some() { flags } else { flags | Map::ANONYMOUS };
                let (prot, max_prot) = (Prot::from_bits_retain(prot), Prot::READ | Prot::EXEC);
                let _ =
                    mm(process).map(&MapRequest { addr: at * PAGE, len: len * PAGE, prot, flags, object, max_prot });
            }
            Op::Unmap { process, at, len } => drop(mm(process).unmap(at * PAGE, len * PAGE)),
            Op::Protect { process, at, len, prot } => {
                let _ = mm(process).protect(at * PAGE, len * PAGE, Prot::from_bits_retain(prot));
            }
            Op::Brk { process, to } => drop(mm(process).brk(to * PAGE)),
            Op::Remap { process, at, old, new, flags, to } => {
                let _ = mm(process).remap(at * PAGE, old * PAGE, new * PAGE, flags, to * PAGE);
            }
            Op::Advise { process, at, len, advice } => drop(mm(process).advise(at * PAGE, len * PAGE, advice)),
            Op::Fork { process } => {
                if live < PROCESSES
                    && let Ok(child) = mm(process).fork()
                {
                    self.processes.push(Process { mm: child, model: Model::new(WINDOW, BRK) });
                }
            }
            Op::Exit { process } => {
                if live > 1 {
                    (0..CPUS).for_each(|cpu| self.rig.idle(cpu));
                    self.processes.swap_remove(process % live);
                }
            }
            Op::Touch { process, at, count, access, .. } => {
                for page in at..at + count {
                    let _ = self.rig.touch(0, mm(process), page * PAGE, access);
                }
            }
        }
    }

    fn finish(self) {
        self.check();
        self.end();
    }

    /// Everybody exits, and everything is back.
    fn end(mut self) {
        for cpu in 0..CPUS {
            self.rig.idle(cpu);
        }
        self.processes.clear();
        self.files.clear();
        for pfn in self.frames.drain(..) {
            // SAFETY: allocated in `add_file`; no object refers to it any more.
            unsafe { self.rig.sim.pages().free_pages(pfn, 3) };
        }
        self.rig.assert_balanced();
    }
}

/// Runs a script; answers what went wrong and at which step.
fn run(script: &[Op], sabotage: Option<Sabotage>) -> Result<(), (usize, String)> {
    let mut at = 0;
    let done = catch_unwind(AssertUnwindSafe(|| {
        let mut pair = Pair::new(sabotage);
        for (n, op) in script.iter().enumerate() {
            at = n;
            pair.step(op);
            if n % 200 == 199 {
                pair.check();
            }
        }
        at = script.len();
        pair.finish();
    }));
    done.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        (at, text.unwrap_or_default())
    })
}

/// A shorter script that fails too.
fn shrink(script: &[Op], failed_at: usize) -> Vec<Op> {
    let mut script = script[..(failed_at + 1).min(script.len())].to_vec();
    let mut chunk = script.len() / 2;
    while chunk > 0 {
        let mut from = 0;
        while from < script.len() {
            let mut shorter = script.clone();
            shorter.drain(from..(from + chunk).min(script.len()));
            match run(&shorter, None) {
                Err((at, _)) => {
                    shorter.truncate(at + 1);
                    script = shorter;
                }
                Ok(()) => from += chunk,
            }
        }
        chunk /= 2;
    }
    script
}

fn compare(seed: u64, steps: usize) {
    let mut random = Random(seed);
    let script: Vec<Op> = (0..steps).map(|_| random.op()).collect();
    if let Err((at, text)) = run(&script, None) {
        let short = shrink(&script, at);
        let error = run(&short, None).err().map_or(text, |(_, text)| text);
        let mut listing = vec![format!("seed {seed}, step {at}: {error}")];
        listing.extend(short.iter().map(|op| format!("    {op:?},")));
        panic!("{}", listing.join("\n"));
    }
}

#[test]
fn random_programs_agree_with_the_model() {
    for seed in 1..=20 {
        compare(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15), 1000);
    }
}

#[test]
fn wrong_tlb_maintenance_is_noticed() {
    for sabotage in Sabotage::ALL {
        let noticed = (1..=20_u64).any(|seed| {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let script: Vec<Op> = (0..1000).map(|_| random.op()).collect();
            run(&script, Some(sabotage)).is_err()
        });
        assert!(noticed, "nobody noticed {sabotage:?}");
    }
}

/// Every allocation of a page fails once: what was asked for fails or not, nothing is lost and nothing half done.
#[test]
fn failed_allocations_lose_nothing() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let script: Vec<Op> = (0..60).map(|_| random.op()).collect();
    for nth in 1..=150 {
        let mut pair = Pair::new(None);
        pair.rig.sim.pages().inject_failures(FaultInjection::nth(nth));
        for op in &script {
            pair.step_alone(op);
            pair.processes.iter().for_each(|p| p.mm.validate());
        }
        pair.rig.sim.pages().inject_failures(FaultInjection::OFF);
        pair.end();
    }
}

/// The long form: `ORACLE_STEPS=1000000 cargo test --release -p quire-mm oracle -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn random_programs_agree_for_a_long_time() {
    let steps: u64 = std::env::var("ORACLE_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let first: u64 = std::env::var("ORACLE_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    for seed in first..first + steps.div_ceil(2000) {
        compare(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 2000);
    }
}
