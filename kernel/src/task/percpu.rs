//! The per-CPU record.

use core::cell::UnsafeCell;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use quire_mm::fallible::KArc;
use quire_mm::machine::MAX_CPUS;
use quire_mm::sync::Rank;
use quire_sched::Queue;
use quire_sched::spread::Pace;

use super::cputime::Faults;
use super::entity::Entity;
use super::latency::Latency;
use super::timer::Timers;
use crate::arch::cpu::{self, Head};
use crate::vm::events::EARLY;
use crate::vm::{Cpu, Mm, SpinLock};

/// One CPU's data, on cache lines of its own.
#[repr(C, align(128))]
pub struct PerCpu {
    head: Head,
    /// Whether it runs its idle thread, waiting for work.
    pub idling: AtomicBool,
    /// Affinity fields of MPIDR_EL1.
    pub mpidr: AtomicU64,
    /// MIDR_EL1.
    pub midr: AtomicU64,
    /// Features of its MMU ([`cpu_feature`](quire_abi::info::cpu_feature)).
    pub features: AtomicU32,
    /// NUMA node.
    pub node: AtomicU32,
    /// The thread that runs when no other can.
    pub idle: AtomicPtr<Entity>,
    /// The thread that was switched away from, until the switch is finished.
    pub switching_from: AtomicPtr<Entity>,
    /// Ready threads.
    pub run_queue: SpinLock<Queue>,
    /// How many they are. Written under the queue's lock.
    pub waiting: AtomicU32,
    /// The weights of these and of the one that runs, and what that one goes before ([`Queue::rank`]). Written under the queue's lock;
    /// hints for others.
    pub load: AtomicU64,
    /// As above.
    pub rank: AtomicU32,
    /// The end of the slice; `u64::MAX` while the CPU idles. Its own CPU's, with interrupts masked.
    pub next_tick: AtomicU64,
    /// When it compares itself with others. Its own CPU's, with interrupts masked.
    pub pace: UnsafeCell<Pace>,
    /// When its timer interrupts. Its own CPU's, with interrupts masked.
    pub timer_at: AtomicU64,
    /// Latency measurements.
    pub latency: Latency,
    /// Sleepers with a deadline.
    pub timers: SpinLock<Timers>,
    /// The address space in TTBR0, kept alive: an idle CPU leaves it there.
    pub active_mm: UnsafeCell<Option<KArc<Mm>>>,
    /// A space has ended that this CPU may still have loaded: when idle, the CPU unloads its space.
    pub let_go: AtomicBool,
    /// Nanoseconds spent idle.
    pub idle_ns: AtomicU64,
    /// Nanoseconds of threads' system time.
    pub system_ns: AtomicU64,
    /// Context switches.
    pub switches: AtomicU64,
    /// Timer interrupts.
    pub ticks: AtomicU64,
    /// When the current thread was last charged for its time.
    pub charged_at: AtomicU64,
    /// The faults that threads were charged with. Its own CPU's, with interrupts masked.
    pub charged_faults: UnsafeCell<Faults>,
}

// SAFETY: `active_mm`, `charged_faults` and `pace` are touched by their own CPU alone, with interrupts masked; the rest is atomic or locked.
unsafe impl Sync for PerCpu {}

impl PerCpu {
    const fn new(id: u32) -> Self {
        Self {
            head: Head::new(id, (&raw const EARLY).cast_mut().cast()),
            idling: AtomicBool::new(false),
            mpidr: AtomicU64::new(0),
            midr: AtomicU64::new(0),
            features: AtomicU32::new(0),
            node: AtomicU32::new(0),
            idle: AtomicPtr::new(core::ptr::null_mut()),
            switching_from: AtomicPtr::new(core::ptr::null_mut()),
            run_queue: SpinLock::new(Cpu, Rank::RunQueue, Queue::new()),
            waiting: AtomicU32::new(0),
            load: AtomicU64::new(0),
            rank: AtomicU32::new(0),
            next_tick: AtomicU64::new(u64::MAX),
            pace: UnsafeCell::new(Pace::new()),
            timer_at: AtomicU64::new(u64::MAX),
            latency: Latency::new(),
            timers: SpinLock::new(Cpu, Rank::Timers, Timers::new()),
            active_mm: UnsafeCell::new(None),
            let_go: AtomicBool::new(false),
            idle_ns: AtomicU64::new(0),
            system_ns: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            charged_at: AtomicU64::new(0),
            charged_faults: UnsafeCell::new(Faults::NONE),
        }
    }

    /// Whether the CPU schedules.
    pub fn is_online(&self) -> bool {
        ONLINE.load(Ordering::Acquire) >> self.id() & 1 == 1
    }

    /// Says whether the CPU schedules.
    pub fn set_online(&self, online: bool) {
        if online {
            ONLINE.fetch_or(1 << self.id(), Ordering::Release);
        } else {
            ONLINE.fetch_and(!(1 << self.id()), Ordering::Release);
        }
    }
}

impl Deref for PerCpu {
    type Target = Head;

    #[inline(always)]
    fn deref(&self) -> &Head {
        &self.head
    }
}

/// The CPUs that schedule, a bit each.
static ONLINE: AtomicU64 = AtomicU64::new(0);

/// All CPUs that there may be.
pub static PERCPU: [PerCpu; MAX_CPUS] = {
    // `PerCpu` is not `Copy`; a constant block makes each element anew.
    let mut id = 0;
    let mut all = [const { PerCpu::new(0) }; MAX_CPUS];
    while id < MAX_CPUS {
        all[id].head = Head::new(id as u32, (&raw const EARLY).cast_mut().cast());
        id += 1;
    }
    all
};

/// This CPU's data.
#[inline(always)]
pub fn this() -> &'static PerCpu {
    // SAFETY: boot gives each CPU an element of `PERCPU` for its record (`take_first`, `boot::secondaries`), of which the
    // head is the first field.
    unsafe { &*cpu::record().cast() }
}

/// Gives this CPU, the one that boots, the first record.
pub fn take_first() {
    // SAFETY: a whole element of `PERCPU`.
    unsafe { cpu::set_record((&raw const PERCPU[0]).cast()) }
}

/// The CPUs that schedule.
pub fn online() -> impl Iterator<Item = &'static PerCpu> {
    let mut left = ONLINE.load(Ordering::Acquire);
    core::iter::from_fn(move || {
        let first = PERCPU.get(left.trailing_zeros() as usize)?;
        left &= left - 1;
        Some(first)
    })
}

/// The longest stretch with interrupts masked on any CPU, in nanoseconds.
pub fn longest_masked() -> u64 {
    online().map(|cpu| cpu.latency.longest_masked()).max().unwrap_or(0)
}

/// The longest time on any CPU from a request to reschedule to the scheduler's run, in nanoseconds.
pub fn longest_unpreempted() -> u64 {
    online().map(|cpu| cpu.latency.longest_unpreempted()).max().unwrap_or(0)
}
