//! Starting the other CPUs.

use core::sync::atomic::Ordering;

use quire_mm::PhysAddr;
use quire_platform::tree::{Board, Cpu as Described, EnableMethod};

use super::Count;
use crate::arch::barrier::dsb_sy;
use crate::arch::firmware::Smccc;
use crate::arch::{cache, cpu, smp, timer};
use crate::task::percpu::{self, PERCPU, PerCpu};
use crate::vm::kernel_map;
use crate::vm::kmap::kmap_local;
use crate::vm::stack::Stack;

/// Starts the other CPUs, one after the other, and waits for each for a while.
pub fn start_secondaries(board: &Board) {
    /// Nanoseconds to wait for one CPU. The host of an emulator may run other programs first.
    const PATIENCE: u64 = 10_000_000_000;
    let Some(root) = kernel_map::root() else { return };
    for (id, described) in smp::in_order(board).enumerate().skip(1) {
        let here = &PERCPU[id];
        here.node.store(u32::from(described.node), Ordering::Relaxed);
        let Ok(stack) = Stack::new() else {
            log::warn!("CPU {id}: no memory for its stack");
            break;
        };
        let top = core::mem::ManuallyDrop::new(stack).top();
        if let Err(why) = start(board, described, root, top, here) {
            log::warn!("CPU {id} ({:#x}) does not start: {why}", described.mpidr);
            continue;
        }
        let give_up = timer::now_ns() + PATIENCE;
        while !here.is_online() && timer::now_ns() < give_up {
            cpu::relax();
        }
        if !here.is_online() {
            // It may still come, and would then read the values for the next CPU: no more CPUs are started.
            log::warn!("CPU {id} ({:#x}) did not come in {} s", described.mpidr, PATIENCE / 1_000_000_000);
            break;
        }
    }
    if board.cpus.len() > PERCPU.len() {
        log::warn!("{} CPUs, of which {} are used", board.cpus.len(), PERCPU.len());
    }
    PERCPU[0].node.store(smp::in_order(board).next().map_or(0, |c| u32::from(c.node)), Ordering::Relaxed);
    log::info!("{}", Count(percpu::online().count(), "CPU"));
}

/// Starts a CPU at `secondary_main` with this stack and record.
fn start(
    board: &Board,
    which: &Described,
    ttbr1: PhysAddr,
    stack_top: usize,
    record: &'static PerCpu,
) -> Result<(), &'static str> {
    let entry = smp::prepare_secondary(ttbr1, stack_top, core::ptr::from_ref(record).cast());
    match (which.enable, &board.psci) {
        (EnableMethod::Psci, Some(psci)) => psci.cpu_on(&Smccc, which.mpidr, entry, 0).map_err(|_| "firmware refuses"),
        (EnableMethod::Psci, None) => Err("the tree has no PSCI"),
        (EnableMethod::SpinTable(release), _) => {
            // The tree may mark the table's page no-map, since the firmware's code is beside it.
            let page = kmap_local(PhysAddr::new(release as usize)).map_err(|_| "its release word cannot be mapped")?;
            let word = page.as_ptr().cast::<u64>();
            // SAFETY: the tree's reader checked that the word is memory, aligned; it is mapped for now.
            unsafe { word.write_volatile(entry) };
            cache::clean_to_memory(word.cast(), 8);
            dsb_sy();
            cpu::send_event();
            Ok(())
        }
        (EnableMethod::None, _) => Err("the tree names no way to start it"),
    }
}
