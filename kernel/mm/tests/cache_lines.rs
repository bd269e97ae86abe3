//! CPUs that work apart write no common cache line: each operation's writes are found by comparing all of the
//! allocator's memory before and after.

use std::collections::BTreeSet;

use quire_mm::Machine;
use quire_mm::page::Page;
use quire_mm::page_alloc::{Gfp, PageAllocator, PageBlock};
use quire_mm::sim::Sim;

const LINE: usize = 64;
const CPUS: usize = 4;

/// A copy of the allocator and of all records, and where they are.
struct Snapshot(Vec<(usize, Vec<u64>)>);

impl Snapshot {
    fn take(sim: &'static Sim) -> Self {
        let zone = sim.pages().zones().next().unwrap();
        let (start, frames) = zone.span();
        let allocator = (std::ptr::from_ref(sim.pages()).addr(), size_of::<PageAllocator<&'static Sim>>());
        let records = (sim.mem_map().wrapping_add(start.0).addr(), frames * size_of::<Page>());
        Self([allocator, records].map(|(at, len)| (at, words(at, len).collect())).into())
    }

    /// Lines that differ now.
    fn written(&self) -> impl Iterator<Item = usize> {
        self.0.iter().flat_map(|(at, before)| {
            let changed = words(*at, before.len() * 8).zip(before).enumerate().filter(|(_, (now, old))| now != *old);
            changed.map(move |(i, _)| (at + i * 8) / LINE)
        })
    }
}

fn words(at: usize, len: usize) -> impl Iterator<Item = u64> {
    let start = std::ptr::with_exposed_provenance::<u64>(at);
    // SAFETY: the range is the allocator's or the records', and nobody writes to them meanwhile.
    (0..len / 8).map(move |i| unsafe { start.add(i).read_volatile() })
}

/// Allocations and frees that stay within a full and an empty list; the lines that they write.
fn work(sim: &'static Sim, cpu: usize) -> BTreeSet<usize> {
    Sim::set_cpu(cpu);
    let mut lines = BTreeSet::new();
    let mut held: Vec<PageBlock<&'static Sim>> = Vec::new();
    let mut step = |work: &mut dyn FnMut()| {
        let before = Snapshot::take(sim);
        work();
        lines.extend(before.written());
    };
    for _ in 0..6 {
        step(&mut || held.push(sim.pages().alloc_page(Gfp::HIGHUSER_MOVABLE).unwrap()));
    }
    for _ in 0..6 {
        step(&mut || drop(held.pop()));
    }
    lines
}

#[test]
fn cpus_that_work_apart_write_no_common_line() {
    let sim = Sim::with_mib(128);
    std::ptr::from_ref(sim.pages()).expose_provenance();
    sim.mem_map().expose_provenance();
    // The first allocation of each CPU fills its list from the buddy: that is the common path.
    for cpu in 0..CPUS {
        Sim::set_cpu(cpu);
        drop(sim.pages().alloc_page(Gfp::HIGHUSER_MOVABLE).unwrap());
    }
    let lines: Vec<BTreeSet<usize>> = (0..CPUS).map(|cpu| work(sim, cpu)).collect();
    Sim::set_cpu(0);
    for cpu in 0..CPUS {
        assert!(lines[cpu].len() >= 4, "the lists and the records of six pages: {:x?}", lines[cpu]);
        for other in 0..cpu {
            let common: Vec<_> = lines[cpu].intersection(&lines[other]).collect();
            assert!(common.is_empty(), "CPUs {other} and {cpu} both write {common:x?}");
        }
    }
}
