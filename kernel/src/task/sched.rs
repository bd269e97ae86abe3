//! The scheduler: a round-robin queue a CPU, idle CPUs take work from busy ones.
//!
//! A thread is in at most one run queue: whoever makes it runnable when it is neither that nor running queues it, and
//! its state word decides who that is ([`state`]). Whoever wakes it while it is on its way off a CPU waits until it is
//! (`on_cpu`), which with interrupts masked is soon. A CPU that runs a program gets a tick every [`SLICE`]; an idle one gets none.
//!
//! The kernel is not preempted: a thread leaves the CPU in [`block`], [`yield_now`] and on the way back to user
//! mode.

use core::sync::atomic::{AtomicU64, Ordering};

use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_mm::fallible::KArc;

use super::percpu::{self, PERCPU, PerCpu};
use super::thread::{Thread, current, state, work};
use crate::arch::{context, cpu, regs, timer};
use crate::trap::irq;
use crate::vm::space;

/// Nanoseconds that a thread runs while others wait.
pub const SLICE: u64 = 4_000_000;

intrusive_adapter!(pub InQueue = UnsafeRef<Thread>: Thread { queue_link => LinkedListLink });

/// The ready threads of a CPU. Each is owned once by the queue.
pub struct RunQueue {
    list: LinkedList<InQueue>,
    len: usize,
    /// The tick that is due next; `u64::MAX` while the CPU idles.
    next_tick: u64,
}

// SAFETY: the links are only touched under the lock that this lives in.
unsafe impl Send for RunQueue {}

impl RunQueue {
    /// Empty.
    pub const fn new() -> Self {
        Self { list: LinkedList::new(InQueue::NEW), len: 0, next_tick: u64::MAX }
    }

    fn push(&mut self, thread: UnsafeRef<Thread>) {
        self.list.push_back(thread);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<UnsafeRef<Thread>> {
        let thread = self.list.pop_front()?;
        self.len -= 1;
        Some(thread)
    }

    /// The first thread that may run on `cpu` and is not the one that its own CPU is just leaving.
    fn steal(&mut self, cpu: usize) -> Option<UnsafeRef<Thread>> {
        let mut at = self.list.front_mut();
        while let Some(thread) = at.get() {
            if may_run(thread, cpu) && !thread.on_cpu.load(Ordering::Acquire) {
                self.len -= 1;
                return at.remove();
            }
            at.move_next();
        }
        None
    }
}

/// CPUs that idle, a bit each: a hint for placing threads.
static IDLE: AtomicU64 = AtomicU64::new(0);

/// Makes a sleeping thread runnable. Nothing happens if it is not asleep.
pub fn wake(thread: &Thread) -> bool {
    wake_from(thread, state::SLEEPING) || wake_from(thread, state::KILLABLE)
}

/// Wakes a thread from one kind of sleep.
pub fn wake_from(thread: &Thread, from: u32) -> bool {
    let became =
        |from: u32, to: u32| thread.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    // Only announced: it goes on where it is.
    if became(from | state::RUNNING, state::RUNNABLE | state::RUNNING) {
        return true;
    }
    let woken = became(from, state::RUNNABLE);
    if woken {
        enqueue(thread);
    }
    // Between the two looks it may have gone to sleep for good.
    woken || became(from | state::RUNNING, state::RUNNABLE | state::RUNNING)
}

/// Puts a thread that is runnable and not running into a queue. Whoever made it so calls this, once.
///
/// A thread that is still on its way off a CPU is waited for here, before any queue has it, and not by the CPU that
/// picks it: that one would be on its own way, and two could wait for each other.
fn enqueue(thread: &Thread) {
    let irq = cpu::irq_save();
    while thread.on_cpu.load(Ordering::Acquire) {
        cpu::relax();
    }
    let target = place(thread);
    // SAFETY: a thread lives until it has been switched away from for the last time, in state DEAD; this one is
    // runnable.
    target.run_queue.lock().push(unsafe { UnsafeRef::from_raw(thread) });
    if target.idling.load(Ordering::SeqCst) {
        if target.id() == cpu::this().id() {
            current().set_work(work::RESCHEDULE);
        } else {
            irq::send_reschedule(target.id());
        }
    }
    cpu::irq_restore(irq);
}

/// Interrupts the CPU that a thread runs on, so that it looks at its work.
pub fn kick(thread: &Thread) {
    if thread.on_cpu.load(Ordering::SeqCst) && !core::ptr::eq(thread, current()) {
        irq::send_reschedule(thread.cpu.load(Ordering::Relaxed) as usize);
    }
}

fn may_run(thread: &Thread, cpu: usize) -> bool {
    thread.affinity.load(Ordering::Relaxed) >> cpu & 1 == 1
}

/// Where a thread that wakes should run: where it ran, if that CPU idles or nobody else does.
fn place(thread: &Thread) -> &'static PerCpu {
    let allowed = thread.affinity.load(Ordering::Relaxed);
    let last = thread.cpu.load(Ordering::Relaxed) as usize;
    let idle = IDLE.load(Ordering::Relaxed) & allowed;
    let pick = if allowed >> last & 1 == 1 && (idle == 0 || idle >> last & 1 == 1) {
        last
    } else if idle != 0 {
        idle.trailing_zeros() as usize
    } else {
        percpu::online().map(PerCpu::id).find(|id| allowed >> id & 1 == 1).unwrap_or(0)
    };
    &PERCPU[pick]
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

/// Makes an announced sleep one; false if the thread is to go on.
fn goes_to_sleep(thread: &Thread) -> bool {
    let now = thread.state.load(Ordering::SeqCst);
    match now & !state::RUNNING {
        state::RUNNABLE => false,
        state::DEAD => true,
        // A waker may be faster.
        kind => thread.state.compare_exchange(now, kind, Ordering::SeqCst, Ordering::Relaxed).is_ok(),
    }
}

/// Runs the next ready thread; returns when this one runs again.
pub fn schedule() {
    let irq = cpu::irq_save();
    let here = cpu::this();
    let prev = current();
    prev.clear_work(work::RESCHEDULE);
    let idle = here.idle.load(Ordering::Relaxed).cast_const();
    if !core::ptr::eq(prev, idle) && !goes_to_sleep(prev) {
        if may_run(prev, here.id()) {
            let mut queue = here.run_queue.lock();
            if queue.len == 0 {
                // Alone: it goes on.
                drop(queue);
                cpu::irq_restore(irq);
                return;
            }
            prev.state.store(state::RUNNABLE, Ordering::Release);
            // SAFETY: as in `enqueue`.
            queue.push(unsafe { UnsafeRef::from_raw(prev) });
        } else {
            // It is queued elsewhere once it is off this CPU.
            prev.state.store(state::RUNNABLE, Ordering::Release);
            here.migrating.store(true, Ordering::Relaxed);
        }
    }
    let next = pick(here).unwrap_or(idle);
    // SAFETY: a thread from a queue lives, and so does the idle thread.
    let next = unsafe { &*next };
    next.state.store(state::RUNNABLE | state::RUNNING, Ordering::Release);
    if !core::ptr::eq(prev, next) {
        switch_to(here, prev, next);
    }
    cpu::irq_restore(irq);
}

/// Takes the first thread of this CPU's queue. Those whose affinity changed while they waited move on.
fn pick(here: &PerCpu) -> Option<*const Thread> {
    loop {
        let next = here.run_queue.lock().pop()?;
        if may_run(&next, here.id()) {
            return Some(UnsafeRef::into_raw(next).cast_const());
        }
        enqueue(&next);
    }
}

fn switch_to(here: &'static PerCpu, prev: &Thread, next: &'static Thread) {
    charge(here, prev);
    here.switches.fetch_add(1, Ordering::Relaxed);
    next.on_cpu.store(true, Ordering::Relaxed);
    next.cpu.store(here.id() as u32, Ordering::Relaxed);
    prev.save_user_state();
    if let Some(mm) = next.mm() {
        activate(here, mm);
    }
    next.load_user_state();
    here.current.store(core::ptr::from_ref(next).cast_mut(), Ordering::Relaxed);
    here.switching_from.store(core::ptr::from_ref(prev).cast_mut(), Ordering::Relaxed);
    // SAFETY: interrupts are masked; `next` is off its former CPU, and nobody else may pick it: it is in no queue.
    unsafe { context::switch(prev.context(), next.context()) };
    finish_switch();
}

/// The second half of a switch, on the new thread's stack: the old one may now run elsewhere, or end.
pub extern "C" fn finish_switch() {
    let here = cpu::this();
    let prev = here.switching_from.load(Ordering::Relaxed);
    // SAFETY: `switch_to` put a live thread there.
    let prev = unsafe { &*prev };
    let dead = prev.state.load(Ordering::Relaxed) & !state::RUNNING == state::DEAD;
    prev.on_cpu.store(false, Ordering::Release);
    if here.migrating.swap(false, Ordering::Relaxed) {
        enqueue(prev);
    }
    if dead {
        // SAFETY: a dying thread leaves the count of its running self behind (see `exit`), to be dropped here,
        // where nothing runs on its stack any more.
        super::exit::bury(unsafe { KArc::from_raw(prev) });
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
    if thread.process.is_some() {
        thread.cpu_ns.fetch_add(spent, Ordering::Relaxed);
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

/// The timer interrupt.
pub fn tick() {
    let here = cpu::this();
    let now = timer::now_ns();
    here.ticks.fetch_add(1, Ordering::Relaxed);
    super::timer::wake_due(now);
    let thread = current();
    let is_idle = core::ptr::eq(thread, here.idle.load(Ordering::Relaxed));
    let mut waits = false;
    {
        let mut queue = here.run_queue.lock();
        if queue.next_tick <= now {
            queue.next_tick = if is_idle { u64::MAX } else { now + SLICE };
            waits = queue.len > 0;
        }
    }
    if waits {
        thread.set_work(work::RESCHEDULE);
        // A CPU that went idle as the thread was queued has not seen it.
        let idle = IDLE.load(Ordering::Relaxed) & !(1 << here.id());
        if idle != 0 {
            irq::send_reschedule(idle.trailing_zeros() as usize);
        }
    }
    program_timer(here);
}

/// Sets this CPU's timer to its next tick or deadline. Interrupts are masked.
pub fn program_timer(here: &PerCpu) {
    let deadline = here.timers.lock().next();
    let tick = here.run_queue.lock().next_tick;
    timer::set_deadline(deadline.min(tick));
}

/// What a CPU does when it has nothing to do. Its boot stack is the idle thread's.
pub fn idle_loop() -> ! {
    let here = cpu::this();
    let bit = 1 << here.id();
    loop {
        cpu::irq_disable();
        here.idling.store(true, Ordering::SeqCst);
        IDLE.fetch_or(bit, Ordering::SeqCst);
        while here.run_queue.lock().len == 0 && !pull(here) {
            space::let_go(here);
            cpu::wait_for_interrupt();
            cpu::irq_window();
        }
        IDLE.fetch_and(!bit, Ordering::SeqCst);
        here.idling.store(false, Ordering::SeqCst);
        here.run_queue.lock().next_tick = timer::now_ns() + SLICE;
        program_timer(here);
        schedule();
        here.run_queue.lock().next_tick = u64::MAX;
        program_timer(here);
        cpu::irq_enable();
    }
}

/// Takes a waiting thread from the CPU that has most. O(CPUs).
fn pull(here: &'static PerCpu) -> bool {
    let busiest = percpu::online()
        .filter(|c| !core::ptr::eq(*c, here) && !c.idling.load(Ordering::Relaxed))
        .max_by_key(|c| c.run_queue.lock().len);
    let Some(thread) = busiest.and_then(|c| c.run_queue.lock().steal(here.id())) else { return false };
    here.run_queue.lock().push(thread);
    true
}
