//! Load balancing: run queues, the placement of threads, and threads that CPUs take from each other.
//!
//! A thread that wakes goes to the CPU where it last ran, unless that is busy and another allowed CPU is idle; a new
//! thread goes to the least loaded CPU. An idle CPU takes threads from the most loaded one. A busy CPU does the same at
//! the end of its slices, as long as the other stays at least as loaded as itself. Two run queues are never locked at
//! once.

use core::sync::atomic::{AtomicU64, Ordering};

use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};

use super::entity::{Entity, current, work};
use super::percpu::{self, PERCPU, PerCpu};
use crate::arch::cpu;
use crate::interrupts;

/// Threads of another CPU's queue that a CPU examines for one that it may run, since it holds that queue's lock. A
/// queue advances with every slice, so threads further back are examined later.
const LOOKED_AT: usize = 32;

intrusive_adapter!(pub InQueue = UnsafeRef<Entity>: Entity { queue_link => LinkedListLink });

/// The ready threads of a CPU. The queue holds a reference to each, and none of them is on a CPU.
pub struct RunQueue {
    list: LinkedList<InQueue>,
}

// SAFETY: the links are only touched under the lock that this lives in.
unsafe impl Send for RunQueue {}

impl RunQueue {
    /// Empty.
    pub const fn new() -> Self {
        Self { list: LinkedList::new(InQueue::NEW) }
    }

    /// The first thread that may run on `cpu`, of those at the front.
    fn steal(&mut self, cpu: usize) -> Option<UnsafeRef<Entity>> {
        let mut at = self.list.front_mut();
        for _ in 0..LOOKED_AT {
            if may_run(at.get()?, cpu) {
                return at.remove();
            }
            at.move_next();
        }
        None
    }
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

/// Puts a thread that is runnable and on no CPU into a queue. The code that made it so calls this, once.
pub fn enqueue(thread: &Entity) {
    let irq = cpu::irq_save();
    let target = place(thread);
    target.push(thread);
    if target.idling.load(Ordering::SeqCst) {
        IDLE.fetch_and(!(1 << target.id()), Ordering::Relaxed);
        if target.id() == cpu::this().id() {
            current().set_work(work::RESCHEDULE);
        } else {
            interrupts::send_reschedule(target.id());
        }
    }
    cpu::irq_restore(irq);
}

/// As [`enqueue`], for a thread that this CPU has just left, with interrupts masked: at the end of its own queue unless
/// it may not stay or another CPU idles.
pub fn requeue(here: &PerCpu, thread: &Entity) {
    let allowed = thread.affinity.load(Ordering::Relaxed);
    if allowed >> here.id() & 1 == 1 && IDLE.load(Ordering::Relaxed) & allowed == 0 {
        here.push(thread);
    } else {
        enqueue(thread);
    }
}

/// The CPU for a thread that wakes: its last one if that is idle or no other allowed CPU is.
fn place(thread: &Entity) -> &'static PerCpu {
    let allowed = thread.affinity.load(Ordering::Relaxed);
    let last = thread.cpu.load(Ordering::Relaxed) as usize;
    let idle = IDLE.load(Ordering::Relaxed) & allowed;
    if allowed >> last & 1 == 1 && (idle == 0 || idle >> last & 1 == 1) {
        &PERCPU[last]
    } else if idle != 0 {
        &PERCPU[idle.trailing_zeros() as usize]
    } else {
        least_loaded(allowed)
    }
}

/// The least loaded of the allowed CPUs; this one in case of a tie. O(CPUs).
pub fn least_loaded(allowed: u64) -> &'static PerCpu {
    let here = percpu::this();
    let candidates = percpu::online().filter(|cpu| allowed >> cpu.id() & 1 == 1);
    candidates.min_by_key(|cpu| (cpu.load(), !core::ptr::eq(*cpu, here))).unwrap_or(here)
}

impl PerCpu {
    fn push(&self, thread: &Entity) {
        let mut queue = self.run_queue.lock();
        // SAFETY: a thread lives until it has been switched away from for the last time, in state DEAD; this one is
        // runnable.
        queue.list.push_back(unsafe { UnsafeRef::from_raw(thread) });
        // Ordered before the following load of `idling`; `find_work` accesses the two in the opposite order.
        self.waiting.store(self.waiting.load(Ordering::Relaxed) + 1, Ordering::SeqCst);
    }

    fn take(&self, find: impl FnOnce(&mut RunQueue) -> Option<UnsafeRef<Entity>>) -> Option<UnsafeRef<Entity>> {
        let mut queue = self.run_queue.lock();
        let thread = find(&mut queue)?;
        self.waiting.store(self.waiting.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        Some(thread)
    }

    /// Whether threads wait in this CPU's queue.
    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) != 0
    }

    /// How many threads share this CPU.
    fn load(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed) + u32::from(!self.idling.load(Ordering::Relaxed))
    }

    /// Takes the first thread of this CPU's queue. Threads whose affinity changed while they waited are moved: a few at
    /// a time, since interrupts are masked. So `None` does not mean that the queue is empty.
    pub fn pick(&self) -> Option<&'static Entity> {
        for _ in 0..LOOKED_AT {
            let next = self.take(|queue| queue.list.pop_front())?;
            if may_run(&next, self.id()) {
                // SAFETY: a thread from a queue lives until it has run.
                return Some(unsafe { &*UnsafeRef::into_raw(next) });
            }
            enqueue(&next);
        }
        None
    }

    /// Takes a thread from a CPU with more than `than` waiting, trying the most loaded first; false if no thread may
    /// run here. O(CPUs).
    fn pull(&self, than: u32) -> bool {
        let mut tried = 0u64;
        loop {
            let others = percpu::online().filter(|cpu| cpu.id() != self.id() && tried >> cpu.id() & 1 == 0);
            let waiting = |cpu: &&PerCpu| cpu.waiting.load(Ordering::Relaxed);
            let Some(busiest) = others.max_by_key(waiting).filter(|cpu| waiting(cpu) > than) else { return false };
            if let Some(thread) = busiest.take(|queue| queue.steal(self.id())) {
                self.push(&thread);
                return true;
            }
            tried |= 1 << busiest.id();
        }
    }

    /// Looks for a thread for this CPU, which has none.
    pub fn find_work(&self) -> bool {
        self.has_waiting() || self.pull(0)
    }

    /// The end of a slice on this busy CPU: takes a thread from a CPU with two more, and tells an idle CPU about
    /// threads that wait here, since it may have gone idle while they were queued.
    pub fn even_out(&self) {
        self.pull(self.waiting.load(Ordering::Relaxed) + 1);
        if self.has_waiting() {
            let allowed = self.run_queue.lock().list.front().get().map_or(0, |t| t.affinity.load(Ordering::Relaxed));
            let idle = IDLE.load(Ordering::Relaxed) & allowed & !(1 << self.id());
            if idle != 0 {
                interrupts::send_reschedule(idle.trailing_zeros() as usize);
            }
        }
    }
}
