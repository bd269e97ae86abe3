//! Load balancing: run queues, the placement of threads, and threads that CPUs take from each other.
//!
//! A thread that wakes goes to the CPU where it last ran, unless that is busy and another allowed CPU is idle; a new
//! thread goes to the least loaded CPU, and a real-time thread to one that runs a thread of lower priority. An idle CPU takes threads from the most
//! loaded one. A busy CPU does the same at the end of some of its slices, as long as the other stays at least as loaded as itself; and now and
//! then, so that threads take turns where they are no multiple of the CPUs ([`quire_sched::spread`]). Loads are sums of weights.
//!
//! Two run queues are never locked at once. A CPU waits for another one's queue only to enter a thread that it has woken or moved there. To take one
//! from there it tries the lock, and comes again later: at the end of a slice all CPUs may want the same queue, and where they run on fewer CPUs of
//! a host, each turn of a lock in which they wait in line takes as long as the host lets the others spin.
//!
//! A thread that goes from one queue to another is in neither for a moment, in which it belongs to the CPU that moves it, whose interrupts are
//! masked. Wake-ups do not concern it (it is runnable, and not RUNNING); a class or an affinity that is set meanwhile is seen when it enters, or is
//! picked.

use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use quire_mm::sync::SpinGuard;
use quire_sched::spread::{Pace, may_move, may_take_turn};
use quire_sched::{Enters, Former, Preempts, Queue, Share};

use super::entity::{Entity, current, work};
use super::percpu::{self, PERCPU, PerCpu};
use super::sched;
use crate::arch::{cpu, timer};
use crate::interrupts;
use crate::vm::Cpu;

/// Threads of another CPU's queue that a CPU examines for one that it may run, since it holds that queue's lock. A
/// queue advances with every slice, so threads further back are examined later.
const LOOKED_AT: usize = 32;

/// Slices after which a thread that has moved may be taken from its new CPU, if both CPUs are busy.
const SETTLES: u64 = 2;

/// Another CPU has a queue's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contended;

/// The thread that a queue knows by its share.
fn of(share: NonNull<Share>) -> &'static Entity {
    // SAFETY: queues contain shares of entities only, by pointers that are of the whole entity (`push`). A thread from a queue lives until it
    // has run.
    unsafe { share.byte_sub(offset_of!(Entity, share)).cast().as_ref() }
}

/// The idle CPUs, a bit each: a hint for placing threads. The CPU that gives one of them a thread clears its bit.
static IDLE: AtomicU64 = AtomicU64::new(0);

/// Marks this CPU as idle or busy.
pub fn set_idle(here: &PerCpu, idle: bool) {
    here.idling.store(idle, Ordering::SeqCst);
    if idle {
        IDLE.fetch_or(1 << here.id(), Ordering::SeqCst);
    } else {
        IDLE.fetch_and(!(1 << here.id()), Ordering::SeqCst);
    }
}

/// Whether a thread's affinity allows a CPU.
pub fn may_run(thread: &Entity, cpu: usize) -> bool {
    thread.affinity.load(Ordering::Relaxed) >> cpu & 1 == 1
}

/// Puts a thread that has become runnable, and is on no CPU, into a queue. The code that made it so calls this, once.
pub fn enqueue(thread: &Entity) {
    let irq = cpu::irq_save();
    enter(place(thread), thread, Enters::Woken);
    cpu::irq_restore(irq);
}

/// As [`enqueue`], for a thread that this CPU has just left, with interrupts masked: in its own queue unless
/// it may not stay or another CPU idles.
pub fn requeue(here: &'static PerCpu, thread: &Entity) {
    let allowed = thread.affinity.load(Ordering::Relaxed);
    if allowed >> here.id() & 1 == 1 && IDLE.load(Ordering::Relaxed) & allowed == 0 {
        here.push(thread, Enters::Preempted);
    } else {
        enter(place(thread), thread, Enters::Moved);
    }
}

/// Puts a thread into a CPU's queue, and tells that CPU if it should look. Interrupts are masked.
fn enter(target: &PerCpu, thread: &Entity, how: Enters) {
    let preempts = target.push(thread, how);
    let is_here = target.id() == cpu::this().id();
    if target.idling.load(Ordering::SeqCst) {
        IDLE.fetch_and(!(1 << target.id()), Ordering::Relaxed);
    } else if preempts == Preempts::No {
        return;
    } else if preempts == Preempts::Soon && is_here {
        return sched::preempt_soon(target);
    }
    look_again(target);
}

/// The CPU for a thread that wakes: its last one if that is idle or no other allowed CPU is. A real-time thread goes where it runs at
/// once, if there is such a CPU.
fn place(thread: &Entity) -> &'static PerCpu {
    let allowed = thread.affinity.load(Ordering::Relaxed);
    let last = thread.cpu.load(Ordering::Relaxed) as usize;
    let idle = IDLE.load(Ordering::Relaxed) & allowed;
    if allowed >> last & 1 == 1 && (idle == 0 || idle >> last & 1 == 1) {
        match thread.share.rank() {
            rank if rank != 0 && idle == 0 => least_urgent(allowed, last, rank),
            _ => &PERCPU[last],
        }
    } else if idle != 0 {
        &PERCPU[idle.trailing_zeros() as usize]
    } else {
        least_loaded(allowed)
    }
}

/// The last CPU of a real-time thread, or one of those that run what it goes before. O(CPUs).
#[cold]
fn least_urgent(allowed: u64, last: usize, own: u32) -> &'static PerCpu {
    let rank = |cpu: &PerCpu| cpu.rank.load(Ordering::Relaxed);
    if rank(&PERCPU[last]) <= own {
        return &PERCPU[last];
    }
    let candidates = percpu::online().filter(|cpu| allowed >> cpu.id() & 1 == 1);
    candidates.min_by_key(|cpu| rank(cpu)).unwrap_or(&PERCPU[last])
}

/// A thread has another class: if it waits in a queue it gets another place there, and whoever runs looks whether it still should.
pub fn place_anew(thread: &Entity) {
    // It may go from one queue to another meanwhile.
    while let Some(number) = thread.share.queue_after_change() {
        let Some(target) = PERCPU.get(number) else { break };
        let irq = cpu::irq_save();
        let mut queue = target.run_queue.lock();
        let preempts = queue.has(&thread.share).then(|| queue.reenter(&thread.share, sched::slice(), timer::now_ns()));
        target.show(&queue);
        drop(queue);
        if preempts.is_some_and(|preempts| preempts != Preempts::No) {
            look_again(target);
        }
        cpu::irq_restore(irq);
        if preempts.is_some() {
            break;
        }
    }
    thread.set_work(work::RESCHEDULE);
    sched::kick(thread);
}

/// Has a CPU look which thread is next.
fn look_again(target: &PerCpu) {
    if target.id() == cpu::this().id() {
        current().set_work(work::RESCHEDULE);
    } else {
        interrupts::send_reschedule(target.id());
    }
}

/// The least loaded of the allowed CPUs; this one in case of a tie. O(CPUs).
pub fn least_loaded(allowed: u64) -> &'static PerCpu {
    let here = percpu::this();
    let candidates = percpu::online().filter(|cpu| allowed >> cpu.id() & 1 == 1);
    candidates.min_by_key(|cpu| (cpu.load.load(Ordering::Relaxed), !core::ptr::eq(*cpu, here))).unwrap_or(here)
}

impl PerCpu {
    /// Shows others what the queue has.
    #[inline(always)]
    fn show(&self, queue: &SpinGuard<'_, Queue, Cpu>) {
        self.load.store(queue.load(), Ordering::Relaxed);
        self.rank.store(queue.rank(), Ordering::Relaxed);
    }

    #[inline(always)]
    fn push(&self, thread: &Entity, how: Enters) -> Preempts {
        // A pointer to the share that is good for all of the entity: `of` goes back.
        let share = NonNull::from(thread).cast::<Share>();
        // SAFETY: the field is inside of the entity.
        let share = unsafe { share.byte_add(offset_of!(Entity, share)) };
        // (A thread that has just made way for another one enters at that time.)
        let now = if how == Enters::Preempted { 0 } else { timer::now_ns() };
        let mut queue = self.run_queue.lock();
        // SAFETY: a thread lives until it has been switched away from for the last time, in state DEAD; this one is
        // runnable, and whoever made it so enters it once.
        let preempts = unsafe { queue.enter(share, how, sched::slice(), now) };
        self.show(&queue);
        // Ordered before the following load of `idling`; `find_work` accesses the two in the opposite order.
        self.waiting.store(self.waiting.load(Ordering::Relaxed) + 1, Ordering::SeqCst);
        preempts
    }

    #[inline(always)]
    fn take(&self, find: impl FnOnce(&mut Queue) -> Option<NonNull<Share>>) -> Option<&'static Entity> {
        self.take_from(self.run_queue.lock(), find)
    }

    #[inline(always)]
    fn take_from(
        &self,
        mut queue: SpinGuard<'_, Queue, Cpu>,
        find: impl FnOnce(&mut Queue) -> Option<NonNull<Share>>,
    ) -> Option<&'static Entity> {
        let share = find(&mut queue);
        self.show(&queue);
        let thread = of(share?);
        self.waiting.store(self.waiting.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        Some(thread)
    }

    /// Whether threads wait in this CPU's queue.
    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) != 0
    }

    /// Takes the thread that is to run at `now`, after or instead of the former one. Threads whose affinity changed while they waited are
    /// moved: a few at a time, since interrupts are masked. So `None` does not mean that the queue is empty.
    #[inline(always)]
    pub fn pick(&self, former: &Former<'_>, now: u64) -> Option<&'static Entity> {
        for _ in 0..LOOKED_AT {
            let next = self.take(|queue| queue.pick(former, sched::slice(), now))?;
            if may_run(next, self.id()) {
                return Some(next);
            }
            enter(place(next), next, Enters::Moved);
        }
        None
    }

    /// As [`PerCpu::take`] for another CPU: `Err` if the lock is not free. A CPU that compares itself with others waits for none of them.
    fn try_take(
        &self,
        find: impl FnOnce(&mut Queue) -> Option<NonNull<Share>>,
    ) -> Result<Option<&'static Entity>, Contended> {
        let queue = self.run_queue.try_lock().ok_or(Contended)?;
        Ok(self.take_from(queue, find))
    }

    /// Takes any thread that may run here, from the most loaded CPU that has one. This CPU has nothing to do. O(CPUs²).
    fn take_any(&self) -> Result<bool, Contended> {
        let mut tried = 1u64 << self.id();
        let mut result = Ok(false);
        loop {
            let others = percpu::online().filter(|cpu| tried >> cpu.id() & 1 == 0 && cpu.has_waiting());
            let Some(busiest) = others.max_by_key(|cpu| cpu.load.load(Ordering::Relaxed)) else { return result };
            match busiest.try_take(|queue| queue.take_for_another(LOOKED_AT, |share| may_run(of(share), self.id()))) {
                Ok(Some(thread)) => {
                    self.push(thread, Enters::Moved);
                    return Ok(true);
                }
                Ok(None) => {}
                Err(contended) => result = Err(contended),
            }
            tried |= 1 << busiest.id();
        }
    }

    /// Looks for a thread for this CPU, which has none. Not an answer if another CPU's queue was locked.
    pub fn find_work(&self) -> Result<bool, Contended> {
        if self.has_waiting() { Ok(true) } else { self.take_any() }
    }

    /// The end of a slice on this busy CPU: takes a thread from a CPU that has more to do, and tells an idle CPU about
    /// threads that wait here, since it may have gone idle while they were queued. Interrupts are masked, and it waits for no lock. O(CPUs).
    pub fn even_out(&self, now: u64) {
        // SAFETY: this CPU's, with interrupts masked.
        let pace = unsafe { &mut *self.pace.get() };
        self.take_if_uneven(pace, now);
        let idle = IDLE.load(Ordering::Relaxed) & !(1 << self.id());
        if idle != 0 && self.has_waiting() {
            let Some(queue) = self.run_queue.try_lock() else { return };
            let allowed = queue.front().map_or(0, |share| of(share).affinity.load(Ordering::Relaxed));
            drop(queue);
            if idle & allowed != 0 {
                interrupts::send_reschedule((idle & allowed).trailing_zeros() as usize);
            }
        }
    }

    fn take_if_uneven(&self, pace: &mut Pace, now: u64) {
        let own = self.load.load(Ordering::Relaxed);
        let others = percpu::online().filter(|cpu| cpu.id() != self.id() && cpu.has_waiting());
        let loads = others.map(|cpu| (cpu.id(), cpu.load.load(Ordering::Relaxed)));
        let Some(source) = pace.source(self.id(), now, sched::slice(), own, loads).and_then(|cpu| PERCPU.get(cpu))
        else {
            return;
        };
        let mut load = 0;
        let taken = source.try_take(|queue| {
            load = queue.load();
            let fits = |share| {
                let thread = of(share);
                let weight = thread.share.weight();
                may_run(thread, self.id())
                    && (may_move(weight, own, load) || pace.is_rare() && may_take_turn(weight, own, load))
                    && !thread.share.has_moved_within(SETTLES * sched::slice(), now)
            };
            queue.take_for_another(LOOKED_AT, fits)
        });
        if let Ok(Some(thread)) = taken {
            let is_turn = !may_move(thread.share.weight(), own, load);
            self.push(thread, Enters::Moved);
            if !is_turn {
                pace.took_one(now, sched::slice());
            }
        }
    }
}
