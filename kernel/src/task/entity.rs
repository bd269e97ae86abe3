//! What the scheduler runs: registers, the space and the floating-point registers of a thread, and where it stands.
//!
//! An [`Entity`] is the head of a [`Thread`](super::thread::Thread), which the floors below do not know: it has what a
//! switch, a sleep and a queue need, and nothing of processes. What the scheduler has to say to the floors above it says
//! by functions that they define ([`sched::above`](super::sched), [`wait::interrupts`](super::wait)).

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use alloc::boxed::Box;
use intrusive_collections::RBTreeLink;
use quire_abi::Errno;
use quire_mm::cgroup::Runs;
use quire_mm::fallible::{KArc, try_box};
use quire_sched::Share;

use super::cputime::CpuTime;
use crate::arch::context::Context;
use crate::arch::fp::{self, FpState};
use crate::arch::{cpu, regs};
use crate::vm::Mm;

/// Bits of [`Entity::work`]: work to do before the thread returns to user mode.
pub mod work {
    /// Another thread should run.
    pub const RESCHEDULE: u32 = 1;
    /// A signal may be deliverable, or the process is ending.
    pub const SIGNAL: u32 = 2;
    /// The thread's record for restartable sequences is to be written, and an interrupted section left.
    pub const RSEQ: u32 = 4;
    /// Something may be due by CPU time.
    pub const CPU_TIME: u32 = 8;
    /// Its control group has more memory than is good for it.
    pub const ABOVE_HIGH: u32 = 16;
}

/// Values of [`Entity::state`]: whether a thread is runnable or asleep, and whether a CPU is still on it.
pub mod state {
    /// Waits in a run queue; with [`RUNNING`], runs.
    pub const RUNNABLE: u32 = 0;
    /// Sleeps; a signal wakes it.
    pub const SLEEPING: u32 = 1;
    /// Sleeps; only the awaited event or a kill wakes it.
    pub const KILLABLE: u32 = 2;
    /// Has run for the last time.
    pub const DEAD: u32 = 3;
    /// Bit: it is the current thread of a CPU, or the CPU has not yet completely switched away from it. The CPU that
    /// takes the thread from a queue sets the bit and clears it after the switch away
    /// ([`finish_switch`](crate::task::sched::finish_switch)).
    pub const RUNNING: u32 = 4;
}

/// What all threads of a process have together.
pub struct Whole {
    /// CPU time, of those that ended too.
    pub time: CpuTime,
    /// The number of the process's control group, 0 for the root. Written under the table of processes.
    pub control_group: AtomicU16,
}

impl Whole {
    /// No time, in the root.
    pub const fn new() -> Self {
        Self { time: CpuTime::new(), control_group: AtomicU16::new(0) }
    }
}

/// What the scheduler runs.
#[repr(C)]
pub struct Entity {
    /// [`work`] bits. Assembly reads them.
    pub work: AtomicU32,
    /// [`state`].
    pub state: AtomicU32,
    /// Where it runs, or ran last.
    pub cpu: AtomicU32,
    /// CPUs that it may run on, a bit each.
    pub affinity: AtomicU64,
    context: UnsafeCell<Context>,
    mm: UnsafeCell<Option<KArc<Mm>>>,
    fp: UnsafeCell<Option<Box<FpState>>>,
    tls: AtomicU64,
    /// Its part of its CPU, and its place in a run queue.
    pub share: Share,
    /// Among a CPU's sleepers.
    pub timer_link: RBTreeLink,
    /// When to wake, in nanoseconds.
    pub deadline: AtomicU64,
    /// The CPU whose timers contain it.
    pub timer_cpu: AtomicU32,
    /// Debug builds: the sleeping locks that it holds while it is off the CPU, one bit per rank.
    pub held_ranks: AtomicU64,
    /// CPU time.
    pub time: CpuTime,
    /// Countdown to an allocation that must fail; 0 for none (see [`super::inject`]).
    pub fail_nth: AtomicU32,
    /// Why it makes no progress while it runs, if so: [`STALLED`](quire_mm::cgroup::STALLED), or [`NOTHING`](quire_mm::cgroup::NOTHING) of an idle thread.
    pub hindrance: AtomicU32,
    /// What all threads of its process have together, which lives as long as it does; `None` for the kernel's own threads.
    whole: Option<NonNull<Whole>>,
}

// A CPU's record names its thread by this word.
const _: () = assert!(offset_of!(Entity, work) == 0);

// SAFETY: the cells are touched by the thread itself, or by the scheduler while the thread is off its CPU
// (RUNNING in `state` orders the two); the links belong to the locks of the queues; the rest is atomic.
unsafe impl Sync for Entity {}
// SAFETY: as above; nothing in it is bound to the CPU that made it.
unsafe impl Send for Entity {}

impl Entity {
    /// The head of a new thread in a state.
    ///
    /// # Safety
    /// It is the first field of a [`Thread`](super::thread::Thread), where alone it is used: `thread::current` casts back. `whole`
    /// lives as long as it does.
    #[inline]
    pub unsafe fn new(state: u32, context: Context, mm: Option<KArc<Mm>>, whole: Option<NonNull<Whole>>) -> Self {
        Self {
            // A user thread checks its process's signals before its first instruction.
            work: AtomicU32::new(0),
            state: AtomicU32::new(state),
            cpu: AtomicU32::new(cpu::this().id() as u32),
            affinity: AtomicU64::new(u64::MAX),
            context: UnsafeCell::new(context),
            mm: UnsafeCell::new(mm),
            fp: UnsafeCell::new(None),
            tls: AtomicU64::new(0),
            share: Share::new(),
            timer_link: RBTreeLink::new(),
            deadline: AtomicU64::new(0),
            timer_cpu: AtomicU32::new(0),
            held_ranks: AtomicU64::new(0),
            time: CpuTime::new(),
            fail_nth: AtomicU32::new(0),
            hindrance: AtomicU32::new(0),
            whole,
        }
    }

    /// Whether it runs a program: it has a process.
    #[inline]
    pub fn is_user(&self) -> bool {
        self.whole.is_some()
    }

    /// What all threads of its process have together.
    #[inline]
    pub fn whole(&self) -> Option<&Whole> {
        // SAFETY: `new`'s caller says that it lives.
        self.whole.map(|whole| unsafe { whole.as_ref() })
    }

    /// The number of its process's control group; 0, the root, for the kernel's own threads.
    #[inline(always)]
    pub fn control_group(&self) -> u16 {
        self.whole().map_or(0, |whole| whole.control_group.load(Ordering::Relaxed))
    }

    /// What a CPU runs that runs it.
    #[inline(always)]
    pub fn runs(&self) -> Runs {
        self.hindrance.load(Ordering::Relaxed) | Runs::from(self.control_group())
    }

    /// The saved registers.
    pub fn context(&self) -> *mut Context {
        self.context.get()
    }

    /// The address space of this thread, which is current (or not yet running).
    pub fn mm(&self) -> Option<&KArc<Mm>> {
        // SAFETY: only the thread itself changes it.
        unsafe { (*self.mm.get()).as_ref() }
    }

    /// Gives the current thread another address space, or none; returns the old one.
    pub fn set_mm(&self, mm: Option<KArc<Mm>>) -> Option<KArc<Mm>> {
        let irq = cpu::irq_save();
        // SAFETY: only the thread itself changes it, and with interrupts masked the scheduler does not read it.
        let old = unsafe { core::mem::replace(&mut *self.mm.get(), mm) };
        cpu::irq_restore(irq);
        old
    }

    /// The program's first use of FP or SIMD: it gets FP state of its own.
    pub fn enable_fp(&self) -> Result<(), Errno> {
        // SAFETY: the thread is current, so nothing else accesses its state, here and below.
        let is_first = unsafe { (*self.fp.get()).is_none() };
        let state = if is_first { Some(try_box(FpState::NEW)?) } else { None };
        let irq = cpu::irq_save();
        // SAFETY: as above.
        let slot = unsafe { &mut *self.fp.get() };
        if is_first {
            *slot = state;
        }
        if let Some(state) = slot {
            fp::set_enabled(true);
            // SAFETY: the registers are enabled, and the state is this thread's.
            unsafe { fp::load(&raw const **state) };
        }
        cpu::irq_restore(irq);
        Ok(())
    }

    /// The FP registers of this thread, which is current; `None` if it never used them.
    pub fn fp_state(&self) -> Option<FpState> {
        let irq = cpu::irq_save();
        // SAFETY: the thread is current, so nothing else accesses its state.
        let state = unsafe { (*self.fp.get()).as_deref_mut() }.map(|state| {
            // SAFETY: a thread with a state runs with the registers enabled.
            unsafe { fp::save(state) };
            *state
        });
        cpu::irq_restore(irq);
        state
    }

    /// Sets the FP registers of this thread, which is current, if it uses them.
    pub fn set_fp_state(&self, new: &FpState) {
        let irq = cpu::irq_save();
        // SAFETY: as in `fp_state`.
        if let Some(state) = unsafe { (*self.fp.get()).as_deref_mut() } {
            *state = *new;
            // SAFETY: as in `fp_state`.
            unsafe { fp::load(state) };
        }
        cpu::irq_restore(irq);
    }

    /// Gives a child the FP registers of its parent, which is current.
    pub fn inherit_fp(&self, parent: &Entity) -> Result<(), Errno> {
        if let Some(state) = parent.fp_state() {
            // SAFETY: the child does not run yet.
            unsafe { *self.fp.get() = Some(try_box(state)?) };
        }
        Ok(())
    }

    /// exec: resets the FP registers to those of a new program.
    pub fn drop_fp(&self) {
        let irq = cpu::irq_save();
        fp::set_enabled(false);
        // SAFETY: the thread is current.
        let old = unsafe { (*self.fp.get()).take() };
        cpu::irq_restore(irq);
        drop(old);
    }

    /// Sets the thread pointer with which it starts.
    pub fn set_tls(&self, tls: u64) {
        self.tls.store(tls, Ordering::Relaxed);
    }

    /// Saves the user registers in the CPU of a thread that is switched out.
    #[inline]
    pub fn save_user_state(&self) {
        if self.is_user() {
            self.tls.store(regs::tls(), Ordering::Relaxed);
            // SAFETY: the thread is current and interrupts are masked.
            if let Some(state) = unsafe { (*self.fp.get()).as_deref_mut() } {
                // SAFETY: a thread with a state runs with the registers enabled.
                unsafe { fp::save(state) };
                fp::set_enabled(false);
            }
        }
    }

    /// Restores the registers that [`Entity::save_user_state`] saved.
    #[inline]
    pub fn load_user_state(&self) {
        if self.is_user() {
            regs::set_tls(self.tls.load(Ordering::Relaxed));
            // SAFETY: the thread is about to be current and interrupts are masked.
            if let Some(state) = unsafe { (*self.fp.get()).as_deref() } {
                fp::set_enabled(true);
                // SAFETY: just enabled.
                unsafe { fp::load(state) };
            }
        }
    }

    /// Whether the thread, which is current, has announced no sleep.
    pub fn is_awake(&self) -> bool {
        self.state.load(Ordering::Relaxed) == state::RUNNABLE | state::RUNNING
    }

    /// Sets a [`work`] bit. Ordered before a look at what the thread does, as [`Entity::has_work`] is ordered behind what
    /// the thread has announced: one of the two sees the other.
    pub fn set_work(&self, bit: u32) {
        self.work.fetch_or(bit, Ordering::SeqCst);
    }

    /// Whether a [`work`] bit is set.
    pub fn has_work(&self, bit: u32) -> bool {
        self.work.load(Ordering::SeqCst) & bit != 0
    }

    /// Clears a [`work`] bit.
    pub fn clear_work(&self, bit: u32) {
        self.work.fetch_and(!bit, Ordering::Acquire);
    }
}

/// The head of the thread that runs here.
#[inline(always)]
pub fn current() -> &'static Entity {
    // SAFETY: from the first thread on, `current` is a live thread, and it stays alive while it runs; a reference
    // to it is used by the thread itself, which cannot outlive itself.
    unsafe { &*cpu::this().current.load(Ordering::Relaxed).cast::<Entity>() }
}
