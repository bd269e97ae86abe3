//! The scheduler: docs/scheduling.md. On each CPU a [queue](quire_sched::Queue) decides which thread is next; [`balance`] decides in which
//! CPU's queue a thread waits.
//!
//! [`Entity::state`] says whether a thread is runnable and whether it is on a CPU (RUNNING, until the CPU has
//! completely switched away from it). This one word decides who queues a thread, so no CPU ever waits for a thread to
//! leave another:
//!
//! - A waker that finds a sleeping thread off every CPU makes it runnable and queues it.
//! - A waker that finds it RUNNING only makes it runnable. Either it continues, or the CPU that switches away from it
//!   finds it runnable in [`finish_switch`], and queues it.
//! - [`finish_switch`] also queues a thread that is preempted, yields or may not stay on its CPU.
//!
//! So a queued thread is on no CPU, its registers are saved, and any CPU may take it.
//!
//! The kernel is not preemptible: a thread leaves the CPU in [`block`], [`yield_now`], at a
//! [point](super::point::resched_point) of long work, and on the way back to user mode. A CPU that runs a program gets
//! a tick every slice; an idle one gets none.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use quire_mm::event::Event;
use quire_mm::machine::MAX_CPUS;
use quire_mm::sync::SLEEPING;
use quire_platform::bootargs;
use quire_sched::Former;

use super::active;
use super::balance::{self, Contended, enqueue, may_run, requeue};
use super::cputime::{self, Faults};
use super::entity::{Entity, current, state, work};
use super::load;
use super::percpu::{self, PerCpu};
use crate::arch::trap::TrapFrame;
use crate::arch::{context, cpu, timer};
use crate::interrupts;
use crate::vm::{GROUPS, events};

/// What a thread is besides, the floors above know. They define these functions: the linker finds them, so each is a plain
/// call, and the scheduler needs none of their types.
mod above {
    use crate::task::entity::Entity;

    unsafe extern "Rust" {
        /// The running thread was charged at the end of a slice: something may be due by its CPU time.
        pub safe fn thread_was_charged(thread: &Entity);
        /// It is to run on another CPU than before.
        pub safe fn thread_has_moved(thread: &Entity);
        /// Drops the reference that a running thread has to itself. It has run for the last time, and its stack is not in use.
        pub fn thread_has_ended(thread: *const Entity);
    }
}

/// The time slice in nanoseconds.
static SLICE: AtomicU64 = AtomicU64::new(4_000_000);

/// The range of `slice=`, in microseconds.
const SLICES: core::ops::RangeInclusive<u64> = 10..=1_000_000;

/// How often an idle CPU looks for work in queues that others have locked, before it waits to be told.
const LOOKS: u32 = 16;

/// Reads the slice from the kernel argument `slice=`, in microseconds.
pub fn init(args: &str) {
    let Some(text) = bootargs::find(args, "slice") else { return };
    match text.parse() {
        Ok(microseconds) if SLICES.contains(&microseconds) => SLICE.store(microseconds * 1000, Ordering::Relaxed),
        _ => log::warn!("slice={text}: not a number of microseconds from {} to {}", SLICES.start(), SLICES.end()),
    }
}

/// The time slice in nanoseconds.
pub fn slice() -> u64 {
    SLICE.load(Ordering::Relaxed)
}

/// Makes a sleeping thread runnable. Nothing happens if it is not asleep.
pub fn wake(thread: &Entity) -> bool {
    wake_from(thread, state::SLEEPING) || wake_from(thread, state::KILLABLE)
}

/// Wakes a thread from one kind of sleep.
pub fn wake_from(thread: &Entity, from: u32) -> bool {
    // With the fence in `prepare`: either the thread sees the caller's earlier stores, or the announced sleep is seen here.
    fence(Ordering::SeqCst);
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

/// Takes a sleeping thread for a direct switch: afterwards it is runnable, in no queue, and the caller's to
/// [switch to](switch_directly) or to [give back](unclaim). `false` if it does not sleep, is not yet off its CPU, or may not
/// run here: then nothing has happened.
pub fn claim(thread: &Entity) -> bool {
    let was = thread.state.load(Ordering::Relaxed);
    let sleeps = was == state::SLEEPING || was == state::KILLABLE;
    // Acquire: the registers that it has saved are seen.
    let claimed = state::RUNNABLE | state::RUNNING;
    sleeps
        && may_run(thread, cpu::this().id())
        && thread.state.compare_exchange(was, claimed, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Queues a thread that was claimed.
pub fn unclaim(thread: &Entity) {
    thread.state.store(state::RUNNABLE, Ordering::Release);
    enqueue(thread);
}

/// Runs a thread that was claimed in place of this one, which has announced its sleep; returns when this one runs again. The
/// slice goes on. If this thread was woken meanwhile, or another one is to run first, the claimed one is queued.
pub fn switch_directly(next: &'static Entity) {
    let irq = cpu::irq_save();
    let (here, prev) = (percpu::this(), current());
    let is_awake = prev.is_awake();
    if is_awake || prev.work.load(Ordering::Relaxed) & work::RESCHEDULE != 0 || !may_run(next, here.id()) {
        unclaim(next);
        if !is_awake {
            schedule();
        }
    } else {
        charge(here, prev, timer::now_ns());
        switch_to(here, prev, next);
    }
    cpu::irq_restore(irq);
}

/// Starts a new thread on the least loaded CPU.
pub fn start(thread: &Entity) {
    let best = balance::least_loaded(thread.affinity.load(Ordering::Relaxed));
    thread.cpu.store(best.id() as u32, Ordering::Relaxed);
    wake(thread);
}

/// Interrupts the CPU that a thread runs on, so that the thread checks its work bits.
pub fn kick(thread: &Entity) {
    if thread.state.load(Ordering::SeqCst) & state::RUNNING != 0 && !core::ptr::eq(thread, current()) {
        interrupts::send_reschedule(thread.cpu.load(Ordering::Relaxed) as usize);
    }
}

/// Sleeps in the state that the caller has set with [`prepare`], until this thread is woken.
pub fn block() {
    schedule();
}

/// Announces a sleep: from here on a wake-up is not lost. The caller checks its condition next, then blocks or calls
/// [`cancel`].
pub fn prepare(kind: u32) {
    current().state.store(kind | state::RUNNING, Ordering::SeqCst);
    // Before all loads of the condition, however they are ordered: an acquire or a plain load may pass the store.
    fence(Ordering::SeqCst);
}

/// Takes back what [`prepare`] announced.
pub fn cancel() {
    current().state.store(state::RUNNABLE | state::RUNNING, Ordering::SeqCst);
}

/// Lets other threads run first.
pub fn yield_now() {
    run_next(true);
}

/// Ends the current thread, which nothing refers to any more.
pub fn leave() -> ! {
    current().state.store(state::DEAD | state::RUNNING, Ordering::SeqCst);
    schedule();
    unreachable!("a dead thread ran")
}

/// Runs the thread that is next; returns when this one runs again. If this thread is runnable and no other is to run before it, it
/// continues at once.
pub fn schedule() {
    run_next(false);
}

fn run_next(yields: bool) {
    let irq = cpu::irq_save();
    let here = percpu::this();
    let prev = current();
    // A request that comes after this look stays, and costs another turn.
    if prev.work.load(Ordering::Relaxed) & work::RESCHEDULE != 0 {
        prev.clear_work(work::RESCHEDULE);
    }
    here.latency.rescheduled(timer::now_ns);
    // SAFETY: the idle thread lives for ever.
    let idle = unsafe { &*here.idle.load(Ordering::Relaxed) };
    let goes_on = || {
        let is_runnable = prev.state.load(Ordering::SeqCst) == state::RUNNABLE | state::RUNNING;
        is_runnable && may_run(prev, here.id())
    };
    if yields && !here.has_waiting() && goes_on() {
        // Nobody is there who could go first.
        cpu::irq_restore(irq);
        return;
    }
    let now = timer::now_ns();
    charge(here, prev, now);
    loop {
        let former = match () {
            () if core::ptr::eq(prev, idle) => Former::Nothing,
            () if !goes_on() => Former::Leaves(&prev.share),
            () if yields => {
                prev.share.yields(slice());
                Former::Yields(&prev.share)
            }
            () => Former::Ready(&prev.share),
        };
        match here.pick(&former, now) {
            Some(next) => switch_to(here, prev, next),
            // It may have been woken meanwhile.
            None if matches!(former, Former::Leaves(_)) && goes_on() => continue,
            None if matches!(former, Former::Leaves(_)) => switch_to(here, prev, idle),
            None => {}
        }
        break;
    }
    cpu::irq_restore(irq);
}

fn switch_to(here: &'static PerCpu, prev: &Entity, next: &'static Entity) {
    exchange(here, prev, next);
    // SAFETY: interrupts are masked; `next` is on no CPU and in no queue, so no other CPU can pick it.
    unsafe { context::switch(prev.context(), next.context()) };
    finish();
}

/// Leaves this CPU to a thread that was claimed. This one will resume with its frame alone, so nothing that it has on its stack below
/// is needed. If the next one is to go on in the same way (`is_parked`), the answer is its frame, to leave the kernel with on its
/// stack, where [`finish_switch`] is called first; otherwise this does not return. Interrupts are masked, this thread has announced its
/// sleep, and it has no work to do.
#[inline(always)]
pub fn hand_over(prev: &Entity, next: &'static Entity, is_parked: bool, frame: *mut TrapFrame) -> *mut TrapFrame {
    let here = percpu::this();
    charge(here, prev, timer::now_ns());
    exchange(here, prev, next);
    // SAFETY: each context is that of a thread that runs nowhere else, and this CPU is the one to run it.
    unsafe {
        (*prev.context()).resume_with(frame);
        if !is_parked {
            context::resume(next.context());
        }
        (*next.context()).frame()
    }
}

/// Makes `next` the current thread in all but its kernel stack. The former one has been charged.
#[inline(always)]
fn exchange(here: &'static PerCpu, prev: &Entity, next: &'static Entity) {
    if cfg!(debug_assertions) {
        carry_ranks(here, prev, next);
    }
    cputime::add(&here.switches, 1);
    next.state.store(state::RUNNABLE | state::RUNNING, Ordering::Release);
    if next.cpu.load(Ordering::Relaxed) != here.id() as u32 {
        note_move(here, next);
    }
    if next.work.load(Ordering::Relaxed) & work::RESCHEDULE != 0 {
        forget_reschedule(here, next);
    }
    prev.save_user_state();
    if let Some(mm) = next.mm() {
        active::activate(here, mm);
    }
    next.load_user_state();
    GROUPS.runs(here.id(), next.runs(), timer::now_ns);
    here.current.store(core::ptr::from_ref(next).cast_mut().cast(), Ordering::Relaxed);
    here.switching_from.store(core::ptr::from_ref(prev).cast_mut(), Ordering::Relaxed);
}

#[cold]
fn note_move(here: &PerCpu, thread: &Entity) {
    thread.cpu.store(here.id() as u32, Ordering::Relaxed);
    above::thread_has_moved(thread);
}

/// Drops reschedules that were requested of a thread while it waited, now that its turn begins: otherwise requests that
/// come more often than its turns would keep it from its program for ever. A request made because the thread may not run
/// on this CPU stays.
#[cold]
fn forget_reschedule(here: &PerCpu, next: &Entity) {
    // After this, an affinity that was set before the bit is visible.
    next.clear_work(work::RESCHEDULE);
    if !may_run(next, here.id()) {
        next.set_work(work::RESCHEDULE);
    }
}

/// Moves the ranks of held locks with the thread: only sleeping locks may be held over a switch.
fn carry_ranks(here: &PerCpu, prev: &Entity, next: &Entity) {
    let held = here.held_ranks.load(Ordering::Relaxed);
    assert!(held & !SLEEPING == 0, "a spin lock is held over a switch: ranks {held:#x}");
    prev.held_ranks.store(held, Ordering::Relaxed);
    here.held_ranks.store(next.held_ranks.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// The second half of a switch, on the new thread's stack: from here on the old thread may run elsewhere, or be freed.
#[unsafe(export_name = "trap_switched")]
pub extern "C" fn finish_switch() {
    finish();
}

#[inline(always)]
fn finish() {
    let here = percpu::this();
    let prev = here.switching_from.load(Ordering::Relaxed);
    if prev == here.idle.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: `switch_to` put a live thread there, and it lives until its state here is DEAD.
    let prev = unsafe { &*prev };
    match prev.state.fetch_and(!state::RUNNING, Ordering::AcqRel) & !state::RUNNING {
        state::RUNNABLE => requeue(here, prev),
        // SAFETY: the thread has run for the last time, and its stack is no longer in use.
        state::DEAD => unsafe { above::thread_has_ended(prev) },
        // Asleep: the waker queues it, and may have done so already.
        _ => {}
    }
}

/// Charges the time since the last charge, and the faults, to a thread, or to idling. Interrupts are masked.
fn charge(here: &PerCpu, thread: &Entity, now: u64) {
    let spent = now.saturating_sub(here.charged_at.load(Ordering::Relaxed));
    here.charged_at.store(now, Ordering::Relaxed);
    charge_faults(here, thread);
    if !core::ptr::eq(thread, here.idle.load(Ordering::Relaxed)) {
        thread.share.charge(spent);
        let in_kernel = thread.time.charge(spent);
        if in_kernel {
            cputime::add(&here.system_ns, spent);
        }
        if let Some(whole) = thread.whole() {
            whole.time.add_to(in_kernel, spent);
        }
    } else {
        cputime::add(&here.idle_ns, spent);
    }
}

/// Charges the faults that this CPU has counted since the last charge.
#[inline(always)]
fn charge_faults(here: &PerCpu, thread: &Entity) {
    // SAFETY: this CPU's, with interrupts masked.
    let charged = unsafe { &mut *here.charged_faults.get() };
    if events::here(Event::Fault) != charged.all {
        charge_new_faults(charged, thread);
    }
}

#[inline(never)]
fn charge_new_faults(charged: &mut Faults, thread: &Entity) {
    let counted = Faults::here();
    let handled = counted.handled_since(core::mem::replace(charged, counted));
    thread.time.add_faults(handled);
    if let Some(whole) = thread.whole() {
        whole.time.add_faults(handled);
    }
}

/// Charges the running thread up to now.
pub fn charge_current() {
    let irq = cpu::irq_save();
    charge(percpu::this(), current(), timer::now_ns());
    cpu::irq_restore(irq);
}

/// The timer interrupt, taken from the kernel or from a program.
pub fn tick(in_kernel: bool) {
    let here = percpu::this();
    let now = timer::now_ns();
    here.ticks.fetch_add(1, Ordering::Relaxed);
    let due = here.next_tick.load(Ordering::Relaxed);
    if due <= now {
        here.next_tick.store(now + slice(), Ordering::Relaxed);
        end_slice(here, due, now, in_kernel);
    }
    load::tick(now);
    super::timer::wake_due(now);
    super::alarm::expire(now);
    // What was interrupted goes on for as long as this took, but for no more than a slice: however slow a CPU is, or a host makes it, programs run.
    let end = timer::now_ns();
    here.next_tick.fetch_max(end + (end - now).min(slice()), Ordering::Relaxed);
    program_timer(here);
}

fn end_slice(here: &PerCpu, due: u64, now: u64, in_kernel: bool) {
    let thread = current();
    here.latency.interrupted(due, now);
    here.latency.want_reschedule(now);
    thread.time.sample(in_kernel);
    charge(here, thread, now);
    above::thread_was_charged(thread);
    thread.set_work(work::RESCHEDULE);
    here.even_out(now);
}

/// Sets this CPU's timer to its next tick or deadline. Interrupts are masked.
pub fn program_timer(here: &PerCpu) {
    let deadline = here.timers.lock().next().min(super::alarm::next(here.id()));
    set_timer(here, deadline.min(here.next_tick.load(Ordering::Relaxed)));
}

fn set_timer(here: &PerCpu, at: u64) {
    here.timer_at.store(at, Ordering::Relaxed);
    timer::set_deadline(at);
}

/// The running thread is to be preempted when it has run for an eighth of a slice, so that threads that wake each other do not switch
/// at each word. On its own CPU, with interrupts masked.
pub fn preempt_soon(here: &PerCpu) {
    let (now, at) = (timer::now_ns(), here.charged_at.load(Ordering::Relaxed) + slice() / 8);
    if at <= now {
        current().set_work(work::RESCHEDULE);
    } else if at < here.next_tick.load(Ordering::Relaxed) {
        here.next_tick.store(at, Ordering::Relaxed);
        // Not by `program_timer`: whoever wakes a thread may hold the lock of the timers.
        if at < here.timer_at.load(Ordering::Relaxed) {
            set_timer(here, at);
        }
    }
}

/// The first tick after `now` of a CPU that idled until then. Ticks come at the same times whether it idled or not: else threads that run for a
/// short time would never see one. The CPUs' ticks are spread over a slice, so that not all look at each other at once.
fn tick_after(now: u64, cpu: u64) -> u64 {
    let (slice, since) = (slice(), now + cpu * slice() / MAX_CPUS as u64);
    now + slice - since % slice
}

fn set_next_tick(here: &PerCpu, at: u64) {
    here.next_tick.store(at, Ordering::Relaxed);
    program_timer(here);
}

/// The idle thread of a CPU. It runs on the CPU's boot stack.
pub fn idle_loop() -> ! {
    let here = percpu::this();
    loop {
        cpu::irq_disable();
        balance::set_idle(here, true);
        // Where another CPU had its queue locked, there may be something in a moment. If not now, that CPU tells at the end of its slice.
        let mut looks = 0;
        loop {
            match here.find_work() {
                Ok(true) => break,
                Err(Contended) if looks < LOOKS => {
                    looks += 1;
                    cpu::relax();
                }
                _ => {
                    looks = 0;
                    active::let_go(here);
                    cpu::wait_for_interrupt();
                }
            }
            cpu::irq_window();
            if interrupts::has_unowned() {
                cpu::irq_enable();
                interrupts::name_unowned();
                cpu::irq_disable();
            }
            // The CPU that queued a thread here cleared the bit, and another CPU may have taken the thread.
            balance::set_idle(here, true);
        }
        balance::set_idle(here, false);
        set_next_tick(here, tick_after(timer::now_ns(), here.id() as u64));
        schedule();
        set_next_tick(here, u64::MAX);
        cpu::irq_enable();
    }
}
