//! `ITIMER_REAL`: SIGALRM after a time, once or periodically.
//!
//! An armed timer is in the tree of the CPU that armed it, whose timer interrupt sends the signal. A timer with an interval is
//! armed again when its signal is taken, not when it is sent, as on Linux: a process that does not take its signals
//! costs no interrupts.
//!
//! The lock order is the table of processes, a timer's state ([`Rank::Process`]), a tree ([`Rank::Timers`]). An
//! interrupt takes a timer out of the tree first and then looks its process up by number, under the table's lock: by
//! then the timer may have been set again, or the number may belong to another process. The state shows both.
//!
//! Timers of CPU time (`ITIMER_VIRTUAL`, `ITIMER_PROF`) do not exist: CPU time is charged at switches and sampled, not
//! measured as it passes.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use intrusive_collections::{KeyAdapter, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter};
use quire_abi::flags::sig;
use quire_mm::machine::MAX_CPUS;
use quire_mm::sync::Rank;

use super::process::{Process, TABLE};
use super::signal::{self, Info};
use super::{percpu, sched};
use crate::arch::{cpu, timer};
use crate::vm::{Cpu, SpinLock};

/// A process's timer.
pub struct RealTimer {
    state: SpinLock<State>,
    node: Node,
}

/// When it expires, and the interval that it restarts with, in nanoseconds.
#[derive(Clone, Copy, Default)]
struct State {
    /// 0 if it does not run.
    deadline: u64,
    /// 0 for once.
    interval: u64,
}

/// A timer's node in a tree. The deadline and the CPU change only while the node is in no tree.
struct Node {
    link: RBTreeLink,
    deadline: AtomicU64,
    cpu: AtomicU32,
    pid: AtomicU32,
}

intrusive_adapter!(ByDeadline = UnsafeRef<Node>: Node { link => RBTreeLink });

impl<'a> KeyAdapter<'a> for ByDeadline {
    type Key = u64;
    fn get_key(&self, node: &'a Node) -> u64 {
        node.deadline.load(Ordering::Relaxed)
    }
}

struct Tree(RBTree<ByDeadline>);

// SAFETY: the links are only touched under the lock that this lives in, and a node is taken out before its process goes.
unsafe impl Send for Tree {}

static TREES: [SpinLock<Tree>; MAX_CPUS] =
    [const { SpinLock::new(Cpu, Rank::Timers, Tree(RBTree::new(ByDeadline::NEW))) }; MAX_CPUS];

/// The earliest deadline of each tree, `u64::MAX` for an empty one. Changed under the tree's lock.
static NEXT: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(u64::MAX) }; MAX_CPUS];

/// No interrupt for a CPU's timers before this.
static NOT_BEFORE: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

// SAFETY: the link belongs to the tree's lock; the rest is atomic.
unsafe impl Sync for Node {}
// SAFETY: as above.
unsafe impl Send for Node {}

impl RealTimer {
    /// A timer that is not armed.
    pub fn new() -> Self {
        Self {
            state: SpinLock::new(Cpu, Rank::Process, State::default()),
            node: Node {
                link: RBTreeLink::new(),
                deadline: AtomicU64::new(0),
                cpu: AtomicU32::new(0),
                pid: AtomicU32::new(0),
            },
        }
    }

    /// The remaining time, and the interval. An armed timer always has some time left.
    pub fn get(&self) -> (u64, u64) {
        let state = *self.state.lock();
        (left(state), state.interval)
    }
}

fn left(state: State) -> u64 {
    const LEAST: u64 = 1000;
    if state.deadline == 0 { 0 } else { state.deadline.saturating_sub(timer::now_ns()).max(LEAST) }
}

/// Sets a process's timer: SIGALRM after `value` nanoseconds, then every `interval`; a `value` of 0 stops it. Returns
/// the old values, as [`RealTimer::get`] does.
pub fn set(process: &Process, value: u64, interval: u64) -> (u64, u64) {
    let timer = &process.real_timer;
    let mut state = timer.state.lock();
    let old = (left(*state), state.interval);
    disarm(&timer.node);
    *state = State::default();
    if value != 0 {
        *state = State { deadline: timer::now_ns().saturating_add(value), interval };
        arm(&timer.node, process.pid, state.deadline);
    }
    old
}

/// SIGALRM has been taken: a timer with an interval is armed again. Expirations that have passed meanwhile are skipped.
pub fn restart(process: &Process) {
    let timer = &process.real_timer;
    let mut state = timer.state.lock();
    if state.interval == 0 || state.deadline != 0 {
        return;
    }
    let (last, now) = (timer.node.deadline.load(Ordering::Relaxed), timer::now_ns());
    let missed = now.saturating_sub(last) / state.interval;
    state.deadline = last.saturating_add((missed + 1).saturating_mul(state.interval));
    arm(&timer.node, process.pid, state.deadline);
}

/// The process ends: nothing can set its timer any more.
pub fn stop(process: &Process) {
    if process.real_timer.state.lock().deadline != 0 {
        set(process, 0, 0);
    }
}

/// Inserts a node that is in no tree into this CPU's. The caller holds the timer's state, so interrupts are masked.
fn arm(node: &Node, pid: u32, deadline: u64) {
    let here = percpu::this();
    {
        let mut tree = TREES[here.id()].lock();
        node.deadline.store(deadline, Ordering::Relaxed);
        node.cpu.store(here.id() as u32, Ordering::Relaxed);
        node.pid.store(pid, Ordering::Relaxed);
        // SAFETY: the process stops its timer before it can end.
        tree.0.insert(unsafe { UnsafeRef::from_raw(node) });
        note_next(here.id(), &tree);
    }
    sched::program_timer(here);
}

/// Takes a node out of its tree, if it is in one. The caller holds the timer's state.
fn disarm(node: &Node) {
    let cpu = node.cpu.load(Ordering::Relaxed) as usize;
    let mut tree = TREES[cpu].lock();
    if node.link.is_linked() {
        // SAFETY: a linked node is in the tree of `cpu`, whose lock is held.
        unsafe { tree.0.cursor_mut_from_ptr(node).remove() };
        note_next(cpu, &tree);
    }
}

fn note_next(cpu: usize, tree: &Tree) {
    let next = tree.0.front().get().map_or(u64::MAX, |n| n.deadline.load(Ordering::Relaxed));
    NEXT[cpu].store(next, Ordering::Relaxed);
}

/// When a CPU's timers need an interrupt next; `u64::MAX` for never.
#[inline]
pub fn next(cpu: usize) -> u64 {
    NEXT[cpu].load(Ordering::Relaxed).max(NOT_BEFORE[cpu].load(Ordering::Relaxed))
}

/// Sends the signals of this CPU's expired timers, at most `BATCH` at a time. In the timer interrupt, with no lock held. For
/// the rest the interrupt fires again after a pause as long as this took, so that the interrupted code proceeds too.
pub fn expire(now: u64) {
    const BATCH: usize = 4;
    let cpu = cpu::this().id();
    for _ in 0..BATCH {
        if NEXT[cpu].load(Ordering::Relaxed) > now {
            return;
        }
        let pid = {
            let mut tree = TREES[cpu].lock();
            let pid = tree.0.front_mut().remove().map(|node| node.pid.load(Ordering::Relaxed));
            note_next(cpu, &tree);
            pid
        };
        if let Some(pid) = pid {
            ring(pid, now);
        }
    }
    let end = timer::now_ns();
    NOT_BEFORE[cpu].store(end + (end - now), Ordering::Relaxed);
}

fn ring(pid: u32, now: u64) {
    let table = TABLE.lock();
    let Some(process) = table.process(pid) else { return };
    let is_due = {
        let mut state = process.real_timer.state.lock();
        let is_due = state.deadline != 0 && state.deadline <= now;
        if is_due {
            state.deadline = 0;
        }
        is_due
    };
    if is_due {
        signal::send_to_process(&table, process, &Info::of_kernel(sig::ALRM));
    }
}
