//! The threads of the memory manager's machine.

use core::sync::atomic::Ordering;

use quire_mm::machine::{Killed, Limit, Threads};

use super::point::resched_point;
use super::thread::{Thread, current};
use super::wait::{self, Sleep};
use super::{sched, signal};
use crate::arch::cpu;
use crate::vm::Cpu;

impl Threads for Cpu {
    fn is_killed(self) -> bool {
        signal::interrupts(current(), Sleep::Killable)
    }

    #[inline(always)]
    fn resched_point(self) -> Result<(), Killed> {
        resched_point(Sleep::Killable).map_err(|_| Killed)
    }

    /// (Boot, before there is a thread and in the first one, allocates with interrupts masked.)
    fn may_wait(self) -> bool {
        let is_boot = || cpu::this().current.load(Ordering::Relaxed).is_null() || !current().is_user();
        !cpu::irqs_masked() || is_boot()
    }

    #[inline(always)]
    fn limit(self, which: Limit) -> u64 {
        current().process.as_ref().map_or(u64::MAX, |process| process.memory_limits.get(which))
    }

    #[inline(always)]
    fn limits(self, which: [Limit; 2]) -> [u64; 2] {
        let process = current().process.as_ref();
        process.map_or([u64::MAX; 2], |process| which.map(|which| process.memory_limits.get(which)))
    }

    fn note_major_fault(self) {
        let thread = current();
        thread.time.add_major();
        if let Some(process) = &thread.process {
            process.time.add_major();
        }
    }

    fn this_thread(self) -> usize {
        core::ptr::from_ref(current()).expose_provenance()
    }

    fn park(self, killable: bool, ready: &mut dyn FnMut() -> bool) -> bool {
        let sleep = if killable { Sleep::Killable } else { Sleep::Deaf };
        wait::sleep(sleep, None, || ready().then_some(())).is_ok()
    }

    unsafe fn unpark(self, thread: usize) {
        // SAFETY: `this_thread` returned a thread's address, and the caller promises that the thread still exists.
        sched::wake(unsafe { &*core::ptr::with_exposed_provenance::<Thread>(thread) });
    }
}
