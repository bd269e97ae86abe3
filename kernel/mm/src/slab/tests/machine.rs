//! Machines and heaps for slab tests.

use std::cell::Cell;

use crate::machine::MAX_CPUS;
use crate::page_alloc::FaultInjection;
use crate::sim::{Sim, SimConfig};
use crate::slab::{Backend, Config, DebugFlags, KernelHeap, Report};

pub type TestMachine = &'static Sim;

/// Two nodes; the even CPUs are on the first one.
pub fn machine() -> TestMachine {
    let mut config = SimConfig::new().bank(1 << 30, 16 << 20, 0).bank(2 << 30, 16 << 20, 1);
    for cpu in 0..MAX_CPUS {
        config.node_of_cpu[cpu] = cpu as u8 % 2;
    }
    Sim::boot(&config)
}

/// Makes this thread a CPU.
pub fn run_on(cpu: usize) {
    Sim::set_cpu(cpu);
}

/// Pages that somebody has.
pub fn pages_taken(machine: TestMachine) -> usize {
    machine.summary().managed - machine.pages().total_free()
}

/// Makes the `nth` request for pages from now fail; 0 for none.
pub fn fail(machine: TestMachine, nth: u32) {
    machine.pages().inject_failures(if nth == 0 { FaultInjection::OFF } else { FaultInjection::nth(nth) });
}

thread_local! {
    static REPORTS: Cell<Vec<Report>> = const { Cell::new(Vec::new()) };
}

fn note(report: &Report) {
    let mut reports = REPORTS.take();
    reports.push(*report);
    REPORTS.set(reports);
}

/// What was reported on this thread since the last call.
pub fn reports() -> Vec<Report> {
    REPORTS.take()
}

/// A heap with this back end.
pub fn heap(machine: TestMachine, backend: Backend) -> &'static KernelHeap<TestMachine> {
    heap_with(machine, Config { backend, ..Config::default() })
}

/// A heap with these options.
pub fn heap_with(machine: TestMachine, config: Config) -> &'static KernelHeap<TestMachine> {
    let heap = Box::leak(Box::new(KernelHeap::new(machine)));
    heap.init(Config { seed: 0x5eed, report: note, ..config });
    heap
}

pub const BACKENDS: [Backend; 3] = [Backend::Slub, Backend::Slab, Backend::Slob];

/// Each back end, and with every debug option those that support them.
pub fn configs() -> impl Iterator<Item = Config> {
    let plain = BACKENDS.map(|backend| Config { backend, ..Config::default() });
    let debug = [Backend::Slub, Backend::Slab];
    plain.into_iter().chain(debug.map(|backend| Config { backend, debug: DebugFlags::LAYOUT, ..Config::default() }))
}
