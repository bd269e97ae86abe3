//! The threads of the memory manager's machine.

use core::sync::atomic::Ordering;

use quire_mm::cgroup::STALLED;
use quire_mm::machine::{Killed, Limit, Threads};

use super::entity;
use super::point::resched_point;
use super::thread::{Thread, current};
use super::wait::{self, Sleep};
use super::{sched, signal};
use crate::arch::{cpu, timer};
use crate::ipc::trigger;
use crate::vm::{Cpu, GROUPS};

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
            process.whole.time.add_major();
        }
    }

    #[cold]
    fn begin_stall(self) -> Option<u16> {
        if cpu::this().current.load(Ordering::Relaxed).is_null() {
            return None;
        }
        let thread = entity::current();
        if thread.hindrance.load(Ordering::Relaxed) != 0 {
            return None;
        }
        let irq = cpu::irq_save();
        let group = thread.control_group();
        thread.hindrance.store(STALLED, Ordering::Relaxed);
        let is_awaited = GROUPS.begin_stall(cpu::this().id(), group, timer::now_ns());
        cpu::irq_restore(irq);
        if is_awaited {
            trigger::ask();
        }
        Some(group)
    }

    #[cold]
    fn end_stall(self, group: u16) {
        let irq = cpu::irq_save();
        let thread = entity::current();
        thread.hindrance.store(0, Ordering::Relaxed);
        GROUPS.end_stall(cpu::this().id(), group, thread.runs(), timer::now_ns());
        cpu::irq_restore(irq);
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
