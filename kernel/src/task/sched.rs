//! The scheduler: who runs next on this CPU, round-robin with slices. Which CPU's queue a thread waits in is the
//! business of [`balance`].
//!
//! [`Thread::state`] says what a thread wants and whether a CPU has it (RUNNING, until the CPU is entirely off it).
//! Who queues a thread follows from that one word, and nobody waits for a thread to leave a CPU, least of all with
//! interrupts masked:
//!
//! - A waker that finds a sleeping thread off every CPU makes it runnable and queues it.
//! - A waker that finds it RUNNING only makes it runnable. Either it goes on, or the CPU that leaves it finds it
//!   runnable in [`finish_switch`], and queues it.
//! - A thread that is preempted, yields or may not stay is queued by [`finish_switch`] for the same reason.
//!
//! So a thread in a queue is off every CPU, with its registers saved, and any CPU may take it.
//!
//! The kernel is not preempted: a thread leaves the CPU in [`block`], [`yield_now`], at a
//! [point](super::point::resched_point) of long work, and on the way back to user mode. A CPU that runs a program gets
//! a tick every slice; an idle one gets none.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_mm::fallible::KArc;
use quire_mm::sync::SLEEPING;
use quire_platform::bootargs;

use super::balance::{self, enqueue, may_run, requeue};
use super::percpu::PerCpu;
use super::thread::{Thread, current, state, work};
use crate::arch::{context, cpu, regs, timer};
use crate::trap::irq;
use crate::vm::space;

/// Nanoseconds that a thread runs while others wait.
static SLICE: AtomicU64 = AtomicU64::new(4_000_000);

/// The least and the most that `slice=` may say, in microseconds.
const SLICES: core::ops::RangeInclusive<u64> = 10..=1_000_000;

/// Takes the slice from the kernel argument `slice=`, in microseconds.
pub fn init(args: &str) {
    let Some(text) = bootargs::find(args, "slice") else { return };
    match text.parse() {
        Ok(microseconds) if SLICES.contains(&microseconds) => SLICE.store(microseconds * 1000, Ordering::Relaxed),
        _ => log::warn!("slice={text}: not a number of microseconds from {} to {}", SLICES.start(), SLICES.end()),
    }
}

fn slice() -> u64 {
    SLICE.load(Ordering::Relaxed)
}

/// Makes a sleeping thread runnable. Nothing happens if it is not asleep.
pub fn wake(thread: &Thread) -> bool {
    wake_from(thread, state::SLEEPING) || wake_from(thread, state::KILLABLE)
}

/// Wakes a thread from one kind of sleep.
pub fn wake_from(thread: &Thread, from: u32) -> bool {
    // Ordered behind what the caller did before: a thread that announces its sleep later sees that.
    let mut was = thread.state.load(Ordering::SeqCst);
    loop {
        if was & !state::RUNNING != from {
            return false;
        }
        let now = was & state::RUNNING | state::RUNNABLE;
        match thread.state.compare_exchange_weak(was, now, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => break,
            Err(other) => was = other,
        }
    }
    if was & state::RUNNING == 0 {
        enqueue(thread);
    }
    true
}

/// Lets a new thread run, where least is to do.
pub fn start(thread: &Thread) {
    let best = balance::least_loaded(thread.affinity.load(Ordering::Relaxed));
    thread.cpu.store(best.id() as u32, Ordering::Relaxed);
    wake(thread);
}

/// Interrupts the CPU that a thread runs on, so that it looks at its work.
pub fn kick(thread: &Thread) {
    if thread.state.load(Ordering::SeqCst) & state::RUNNING != 0 && !core::ptr::eq(thread, current()) {
        irq::send_reschedule(thread.cpu.load(Ordering::Relaxed) as usize);
    }
}

/// Sleeps in the state that the caller has set with [`prepare`], until somebody wakes this thread.
pub fn block() {
    schedule();
}

/// Announces a sleep: from here on a wake-up is not lost. The caller checks its condition next, then blocks or calls
/// [`cancel`].
pub fn prepare(kind: u32) {
    current().state.store(kind | state::RUNNING, Ordering::SeqCst);
}

/// Takes back what [`prepare`] announced.
pub fn cancel() {
    current().state.store(state::RUNNABLE | state::RUNNING, Ordering::SeqCst);
}

/// Lets others run first.
pub fn yield_now() {
    schedule();
}

/// Ends the current thread, which nobody finds any more.
pub fn leave() -> ! {
    current().state.store(state::DEAD | state::RUNNING, Ordering::SeqCst);
    schedule();
    unreachable!("a dead thread ran")
}

/// Runs the next ready thread; returns when this one runs again. One that is to go on does so at once when nobody
/// else waits.
pub fn schedule() {
    let irq = cpu::irq_save();
    let here = cpu::this();
    let prev = current();
    prev.clear_work(work::RESCHEDULE);
    here.latency.rescheduled(timer::now_ns);
    // SAFETY: the idle thread lives for ever.
    let idle = unsafe { &*here.idle.load(Ordering::Relaxed) };
    let goes_on = || {
        let is_runnable = prev.state.load(Ordering::SeqCst) == state::RUNNABLE | state::RUNNING;
        is_runnable && may_run(prev, here.id())
    };
    match here.pick() {
        Some(next) => switch_to(here, prev, next),
        None if core::ptr::eq(prev, idle) || goes_on() => {}
        None => switch_to(here, prev, idle),
    }
    cpu::irq_restore(irq);
}

fn switch_to(here: &'static PerCpu, prev: &Thread, next: &'static Thread) {
    if cfg!(debug_assertions) {
        carry_ranks(here, prev, next);
    }
    charge(here, prev);
    here.switches.fetch_add(1, Ordering::Relaxed);
    next.state.store(state::RUNNABLE | state::RUNNING, Ordering::Release);
    next.cpu.store(here.id() as u32, Ordering::Relaxed);
    prev.save_user_state();
    if let Some(mm) = next.mm() {
        activate(here, mm);
    }
    next.load_user_state();
    here.current.store(core::ptr::from_ref(next).cast_mut(), Ordering::Relaxed);
    here.switching_from.store(core::ptr::from_ref(prev).cast_mut(), Ordering::Relaxed);
    // SAFETY: interrupts are masked; `next` is off every CPU, and nobody else may pick it: it is in no queue.
    unsafe { context::switch(prev.context(), next.context()) };
    finish_switch();
}

/// The locks that a thread holds while it is off the CPU go with it: sleeping ones only.
fn carry_ranks(here: &PerCpu, prev: &Thread, next: &Thread) {
    let held = here.held_ranks.load(Ordering::Relaxed);
    assert!(held & !SLEEPING == 0, "a spin lock is held over a switch: ranks {held:#x}");
    prev.held_ranks.store(held, Ordering::Relaxed);
    here.held_ranks.store(next.held_ranks.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// The second half of a switch, on the new thread's stack: the old one may now run elsewhere, or end.
pub extern "C" fn finish_switch() {
    let here = cpu::this();
    let prev = here.switching_from.load(Ordering::Relaxed);
    if prev == here.idle.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: `switch_to` put a live thread there, and it lives until its state here is DEAD.
    let prev = unsafe { &*prev };
    match prev.state.fetch_and(!state::RUNNING, Ordering::AcqRel) & !state::RUNNING {
        state::RUNNABLE => requeue(here, prev),
        // SAFETY: a dying thread leaves the count of its running self behind (see `exit`), to be dropped here,
        // where nothing runs on its stack any more.
        state::DEAD => super::exit::bury(unsafe { KArc::from_raw(prev) }),
        // Asleep: whoever wakes it queues it, and may have done so already.
        _ => {}
    }
}

/// Puts an address space into TTBR0, if it is not there.
pub fn activate(here: &'static PerCpu, mm: &KArc<crate::vm::Mm>) {
    // SAFETY: `active_mm` is this CPU's, and interrupts are masked.
    let active = unsafe { &mut *here.active_mm.get() };
    if active.as_ref().is_none_or(|a| !KArc::ptr_eq(a, mm)) {
        let ttbr = mm.activate(here.id());
        regs::set_ttbr0(ttbr.table.get() as u64, ttbr.asid.0);
        // The old one's owner has emptied it if this was its last holder (see `Space`).
        *active = Some(mm.clone());
    }
}

/// Charges the time since the last charge to a thread, or to idling.
fn charge(here: &PerCpu, thread: &Thread) {
    let now = timer::now_ns();
    let spent = now.saturating_sub(here.charged_at.swap(now, Ordering::Relaxed));
    if !core::ptr::eq(thread, here.idle.load(Ordering::Relaxed)) {
        if thread.time.charge(spent) {
            here.system_ns.fetch_add(spent, Ordering::Relaxed);
        }
    } else {
        here.idle_ns.fetch_add(spent, Ordering::Relaxed);
    }
}

/// Charges the running thread up to now.
pub fn charge_current() {
    let irq = cpu::irq_save();
    charge(cpu::this(), current());
    cpu::irq_restore(irq);
}

/// The timer interrupt, which came out of the kernel or a program.
pub fn tick(in_kernel: bool) {
    let here = cpu::this();
    let now = timer::now_ns();
    here.ticks.fetch_add(1, Ordering::Relaxed);
    let due = here.next_tick.load(Ordering::Relaxed);
    if due <= now {
        here.next_tick.store(now + slice(), Ordering::Relaxed);
        end_slice(here, due, now, in_kernel);
    }
    super::timer::wake_due(now);
    super::itimer::expire(now);
    program_timer(here);
}

fn end_slice(here: &PerCpu, due: u64, now: u64, in_kernel: bool) {
    let thread = current();
    here.latency.interrupted(due, now);
    here.latency.want_reschedule(now);
    thread.time.sample(in_kernel);
    charge(here, thread);
    thread.set_work(work::RESCHEDULE);
    here.even_out();
}

/// Sets this CPU's timer to its next tick or deadline. Interrupts are masked.
pub fn program_timer(here: &PerCpu) {
    let deadline = here.timers.lock().next().min(super::itimer::next(here.id()));
    timer::set_deadline(deadline.min(here.next_tick.load(Ordering::Relaxed)));
}

fn set_next_tick(here: &PerCpu, at: u64) {
    here.next_tick.store(at, Ordering::Relaxed);
    program_timer(here);
}

/// What a CPU does when it has nothing to do. Its boot stack is the idle thread's.
pub fn idle_loop() -> ! {
    let here = cpu::this();
    loop {
        cpu::irq_disable();
        balance::set_idle(here, true);
        while !here.find_work() {
            space::let_go(here);
            cpu::wait_for_interrupt();
            cpu::irq_window();
            // Whoever queued a thread here took the bit; another CPU may have taken the thread.
            balance::set_idle(here, true);
        }
        balance::set_idle(here, false);
        set_next_tick(here, timer::now_ns() + slice());
        schedule();
        set_next_tick(here, u64::MAX);
        cpu::irq_enable();
    }
}
