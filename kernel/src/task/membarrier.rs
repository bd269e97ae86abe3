//! membarrier: a barrier that all threads of a process execute, or all of the machine, at the price of one who asks for it.
//!
//! The asker interrupts the other CPUs and waits until each has executed a barrier. Returning from the interrupt is an event that
//! synchronises the CPU's context, so instructions that were changed before are fetched anew.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use quire_mm::machine::MAX_CPUS;

use super::thread::current;
use super::{percpu, rseq};
use crate::arch::cpu;
use crate::interrupts;

/// What a CPU was asked for: barriers in all, and those that it has executed.
struct Asked {
    tickets: AtomicU64,
    done: AtomicU64,
    /// Sections are to be aborted, too.
    aborts: AtomicBool,
}

static ASKED: [Asked; MAX_CPUS] =
    [const { Asked { tickets: AtomicU64::new(0), done: AtomicU64::new(0), aborts: AtomicBool::new(false) } }; MAX_CPUS];

/// Has the other CPUs execute a barrier, or `only` that one; with `aborts` critical sections of threads that run there are aborted.
/// The caller is in process context, with interrupts enabled, and holds no lock.
pub fn everywhere(only: Option<usize>, aborts: bool) {
    // What the caller has done before comes before what others do after theirs.
    fence(Ordering::SeqCst);
    let mut tickets = [0; MAX_CPUS];
    let me = cpu::this().id();
    let is_meant = |id: usize| id != me && only.is_none_or(|only| only == id);
    for id in percpu::online().map(|cpu| cpu.id()).filter(|id| is_meant(*id)) {
        if aborts {
            ASKED[id].aborts.store(true, Ordering::Release);
        }
        tickets[id] = ASKED[id].tickets.fetch_add(1, Ordering::AcqRel) + 1;
        interrupts::send_barrier(id);
    }
    for (asked, ticket) in ASKED.iter().zip(tickets) {
        while asked.done.load(Ordering::Acquire) < ticket {
            core::hint::spin_loop();
        }
    }
    fence(Ordering::SeqCst);
}

/// The interrupt of [`everywhere`].
pub fn interrupt() {
    let asked = &ASKED[cpu::this().id()];
    let ticket = asked.tickets.load(Ordering::Acquire);
    fence(Ordering::SeqCst);
    if asked.aborts.swap(false, Ordering::AcqRel) {
        rseq::note(current());
    }
    asked.done.store(ticket, Ordering::Release);
}
