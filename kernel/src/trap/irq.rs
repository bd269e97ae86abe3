//! What interrupts do.

use core::sync::atomic::Ordering;

use crate::arch::{cpu, regs};
use crate::console::input;
use crate::devices;
use crate::interrupts::{self, Source};
use crate::task::entity::work;
use crate::task::thread::current;
use crate::task::{membarrier, percpu, sched};

/// Handles the pending interrupts. Interrupts are masked.
pub fn handle() {
    // No handler takes a lock that the interrupted code may hold.
    let held = cpu::this().held_ranks.swap(0, Ordering::Relaxed);
    let in_kernel = regs::interrupted_kernel();
    interrupts::for_each_pending(|source| match source {
        Source::Timer => sched::tick(in_kernel),
        Source::Console => input::interrupt(),
        Source::Reschedule => current().set_work(work::RESCHEDULE),
        Source::Barrier => membarrier::interrupt(),
        Source::Stop => {
            percpu::this().set_online(false);
            cpu::park();
        }
        Source::Other(intid) => {
            if !devices::interrupt::deliver(intid) {
                interrupts::note_unowned(intid);
            }
        }
        Source::Unknown => {}
    });
    cpu::this().held_ranks.store(held, Ordering::Relaxed);
}
