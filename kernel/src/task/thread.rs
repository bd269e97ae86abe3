//! A thread: a kernel stack, registers, and scheduling state.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use alloc::boxed::Box;
use intrusive_collections::{LinkedListLink, RBTreeLink};
use quire_abi::Errno;
use quire_mm::fallible::{KArc, try_box};

use super::cpu_alarm::Slot;
use super::cputime::CpuTime;
use super::process::{NAME_LEN, Process};
use super::rseq::Registration;
use super::sched::finish_switch;
use super::signal::ThreadSignals;
use crate::arch::context::Context;
use crate::arch::fp::{self, FpState};
use crate::arch::trap::{TrapFrame, return_to_user};
use crate::arch::{cpu, regs};
use crate::ipc::handover::Messaging;
use crate::ipc::message::Reply;
use crate::vm::stack::Stack;
use crate::vm::{Mm, SpinLock};

/// Bits of [`Thread::work`]: work to do before the thread returns to user mode.
pub mod work {
    /// Another thread should run.
    pub const RESCHEDULE: u32 = 1;
    /// A signal may be deliverable, or the process is ending.
    pub const SIGNAL: u32 = 2;
    /// The thread's record for restartable sequences is to be written, and an interrupted section left.
    pub const RSEQ: u32 = 4;
    /// Something may be due by CPU time.
    pub const CPU_TIME: u32 = 8;
}

/// Values of [`Thread::state`]: whether a thread is runnable or asleep, and whether a CPU is still on it.
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

/// [`Thread::timer_slack`] of init, as on Linux.
pub const DEFAULT_SLACK: u64 = 50_000;

/// A thread. Its process holds one reference; the CPU or queue that it is on holds another.
#[repr(C)]
pub struct Thread {
    /// [`work`] bits. Assembly reads them.
    pub work: AtomicU32,
    /// [`state`].
    pub state: AtomicU32,
    /// See [`Thread::tid`].
    tid: AtomicU32,
    /// Where it runs, or ran last.
    pub cpu: AtomicU32,
    /// CPUs that it may run on, a bit each.
    pub affinity: AtomicU64,
    context: UnsafeCell<Context>,
    stack: Option<Stack>,
    /// The process; `None` for kernel threads.
    pub process: Option<KArc<Process>>,
    mm: UnsafeCell<Option<KArc<Mm>>>,
    fp: UnsafeCell<Option<Box<FpState>>>,
    tls: AtomicU64,
    /// In a run queue.
    pub queue_link: LinkedListLink,
    /// Among the threads of its process.
    pub sibling_link: RBTreeLink,
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
    /// What waits for it.
    pub cpu_alarms: Slot,
    /// Blocked and pending signals.
    pub signals: SpinLock<ThreadSignals>,
    /// Where the kernel stores its number before its first instruction; 0 for nowhere.
    pub set_child_tid: AtomicUsize,
    /// Nonzero if an allocation of this thread failed for lack of memory: state for the OOM killer.
    pub starved: AtomicU32,
    /// Countdown to an allocation that must fail; 0 for none (see [`super::inject`]).
    pub fail_nth: AtomicU32,
    /// See [`Thread::name`].
    name: [AtomicU64; NAME_LEN / 8],
    /// It is in [`exit_thread`](super::exit::exit_thread), and takes no signals any more.
    pub is_leaving: AtomicBool,
    /// The word to clear, and whose futex to wake, at exit; 0 for none.
    pub clear_child_tid: AtomicUsize,
    /// The number of its last unknown system call; `usize::MAX` for none.
    pub unknown_call: AtomicUsize,
    /// Nanoseconds that its sleeps may be late, as it says: none of them is.
    pub timer_slack: AtomicU64,
    /// Its record for restartable sequences.
    pub rseq: Registration,
    /// The head of its list of robust futexes; 0 for none.
    pub robust_list: AtomicUsize,
    /// The slot: the call that it has received and not answered yet.
    reply: UnsafeCell<Option<Reply>>,
    messaging: UnsafeCell<Option<Box<Messaging>>>,
}

// A CPU's record names its thread by this word.
const _: () = assert!(offset_of!(Thread, work) == 0);

// SAFETY: the cells are touched by the thread itself, or by the scheduler while the thread is off its CPU
// (RUNNING in `state` orders the two); the links belong to the locks of the queues; the rest is atomic or locked.
unsafe impl Sync for Thread {}
// SAFETY: as above; nothing in it is bound to the CPU that made it.
unsafe impl Send for Thread {}

impl Thread {
    #[inline]
    fn new(tid: u32, process: Option<KArc<Process>>, stack: Option<Stack>) -> Self {
        Self {
            // A user thread checks its process's signals before its first instruction.
            work: AtomicU32::new(0),
            state: AtomicU32::new(state::RUNNABLE),
            tid: AtomicU32::new(tid),
            cpu: AtomicU32::new(cpu::this().id() as u32),
            affinity: AtomicU64::new(u64::MAX),
            context: UnsafeCell::new(Context::default()),
            stack,
            process,
            mm: UnsafeCell::new(None),
            fp: UnsafeCell::new(None),
            tls: AtomicU64::new(0),
            queue_link: LinkedListLink::new(),
            sibling_link: RBTreeLink::new(),
            timer_link: RBTreeLink::new(),
            deadline: AtomicU64::new(0),
            timer_cpu: AtomicU32::new(0),
            held_ranks: AtomicU64::new(0),
            time: CpuTime::new(),
            cpu_alarms: Slot::new(),
            signals: ThreadSignals::lock(),
            set_child_tid: AtomicUsize::new(0),
            starved: AtomicU32::new(0),
            fail_nth: AtomicU32::new(0),
            name: [const { AtomicU64::new(0) }; NAME_LEN / 8],
            is_leaving: AtomicBool::new(false),
            clear_child_tid: AtomicUsize::new(0),
            unknown_call: AtomicUsize::new(usize::MAX),
            timer_slack: AtomicU64::new(DEFAULT_SLACK),
            rseq: Registration::new(),
            robust_list: AtomicUsize::new(0),
            reply: UnsafeCell::new(None),
            messaging: UnsafeCell::new(None),
        }
    }

    /// The idle thread of a CPU, on the CPU's boot stack.
    pub fn new_idle() -> Result<KArc<Self>, Errno> {
        let thread = Self::new(0, None, None);
        thread.state.store(state::RUNNABLE | state::RUNNING, Ordering::Relaxed);
        Ok(KArc::try_new(thread)?)
    }

    /// A thread that starts in user mode with `frame`, changed by `change`. It does not run before it is woken.
    pub fn new_user(
        tid: u32,
        process: KArc<Process>,
        mm: KArc<Mm>,
        frame: &TrapFrame,
        change: impl FnOnce(&mut TrapFrame),
    ) -> Result<KArc<Self>, Errno> {
        let stack = Stack::new()?;
        let top = stack.top() - size_of::<TrapFrame>();
        let place = core::ptr::with_exposed_provenance_mut::<TrapFrame>(top);
        // SAFETY: the stack is new and has room for a frame at its top.
        unsafe {
            place.write(*frame);
            change(&mut *place);
        }
        let mut thread = KArc::try_unshared(|| Self::new(tid, Some(process), Some(stack)))?;
        thread.state = AtomicU32::new(state::KILLABLE);
        thread.context = UnsafeCell::new(Context::entering(top, finish_switch, return_to_user, 0));
        thread.mm = UnsafeCell::new(Some(mm));
        Ok(thread.share())
    }

    /// A kernel thread, which never returns from `entry` and starts with interrupts masked. It does not run before it
    /// is woken.
    pub fn new_kernel(entry: extern "C" fn(usize) -> !) -> Result<KArc<Self>, Errno> {
        let stack = Stack::new()?;
        let top = stack.top();
        let mut thread = KArc::try_unshared(|| Self::new(0, None, Some(stack)))?;
        thread.state = AtomicU32::new(state::KILLABLE);
        thread.context = UnsafeCell::new(Context::entering(top, finish_switch, entry, 0));
        Ok(thread.share())
    }

    /// Its thread id; 0 for kernel threads.
    pub fn tid(&self) -> u32 {
        self.tid.load(Ordering::Relaxed)
    }

    /// exec: the only thread left takes its process's number.
    pub fn take_number_of(&self, process: &Process) {
        self.tid.store(process.pid, Ordering::Relaxed);
    }

    /// Its name. That of a process's first thread is the process's. (Who looks while it is changed may see half of each.)
    pub fn name(&self) -> [u8; NAME_LEN] {
        let process = self.process();
        if self.tid() == process.pid {
            return *process.name.lock();
        }
        let halves = self.name.each_ref().map(|half| half.load(Ordering::Relaxed).to_ne_bytes());
        let mut name = [0; NAME_LEN];
        name.iter_mut().zip(halves.as_flattened()).for_each(|(to, from)| *to = *from);
        name
    }

    /// Gives this thread another name.
    pub fn set_name(&self, name: &[u8; NAME_LEN]) {
        let process = self.process();
        if self.tid() == process.pid {
            *process.name.lock() = *name;
            return;
        }
        let (halves, _) = name.as_chunks::<8>();
        for (to, from) in self.name.iter().zip(halves) {
            to.store(u64::from_ne_bytes(*from), Ordering::Relaxed);
        }
    }

    /// The saved registers.
    pub fn context(&self) -> *mut Context {
        self.context.get()
    }

    /// The process of a user thread.
    pub fn process(&self) -> &KArc<Process> {
        // Only kernel threads have no process, and they make no system calls and take no user faults.
        #[allow(clippy::expect_used)]
        self.process.as_ref().expect("a user thread has a process")
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
        let irq = cpu::irq_save();
        // SAFETY: the thread is current.
        let slot = unsafe { &mut *self.fp.get() };
        let result = match slot {
            Some(_) => Ok(()),
            None => try_box(FpState::NEW).map(|state| *slot = Some(state)),
        };
        if let Some(state) = slot {
            fp::set_enabled(true);
            // SAFETY: the registers are enabled, and the state is this thread's.
            unsafe { fp::load(&raw const **state) };
        }
        cpu::irq_restore(irq);
        Ok(result?)
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
    pub fn inherit_fp(&self, parent: &Thread) -> Result<(), Errno> {
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
    pub fn save_user_state(&self) {
        if self.process.is_some() {
            self.tls.store(regs::tls(), Ordering::Relaxed);
            // SAFETY: the thread is current and interrupts are masked.
            if let Some(state) = unsafe { (*self.fp.get()).as_deref_mut() } {
                // SAFETY: a thread with a state runs with the registers enabled.
                unsafe { fp::save(state) };
                fp::set_enabled(false);
            }
        }
    }

    /// Restores the registers that [`Thread::save_user_state`] saved.
    pub fn load_user_state(&self) {
        if self.process.is_some() {
            regs::set_tls(self.tls.load(Ordering::Relaxed));
            // SAFETY: the thread is about to be current and interrupts are masked.
            if let Some(state) = unsafe { (*self.fp.get()).as_deref() } {
                fp::set_enabled(true);
                // SAFETY: just enabled.
                unsafe { fp::load(state) };
            }
        }
    }

    /// What this thread, which is current, needs for messages: made at its first one.
    #[inline]
    pub fn messaging(&self) -> Result<&Messaging, Errno> {
        // SAFETY: only the thread itself fills the cell, and once it is filled it stays so.
        let slot = unsafe { &mut *self.messaging.get() };
        match slot {
            Some(messaging) => Ok(messaging),
            None => Ok(slot.insert(try_box(Messaging::new()?)?)),
        }
    }

    /// The same of a thread that is current, or claimed by the caller, if it has sent or received before.
    #[inline]
    pub fn former_messaging(&self) -> Option<&Messaging> {
        // SAFETY: as in `messaging`; a claimed thread does not run.
        unsafe { (*self.messaging.get()).as_deref() }
    }

    /// Takes the reply out of the slot of this thread, which is current.
    #[inline]
    pub fn take_reply(&self) -> Option<Reply> {
        // SAFETY: only the thread itself touches the slot.
        unsafe { (*self.reply.get()).take() }
    }

    /// Whether there is a reply in the slot of this thread, which is current.
    #[inline]
    pub fn has_reply(&self) -> bool {
        self.reply(|_| ()).is_some()
    }

    /// Looks at the reply in the slot of this thread, which is current.
    #[inline]
    pub fn reply<R>(&self, see: impl FnOnce(&Reply) -> R) -> Option<R> {
        // SAFETY: as in `take_reply`; `see` cannot get at the slot.
        unsafe { (*self.reply.get()).as_ref() }.map(see)
    }

    /// Puts a reply into the slot of this thread, which is current or claimed by the caller, and has none there.
    #[inline]
    pub fn put_reply(&self, reply: Reply) {
        // SAFETY: as in `take_reply`.
        let former = unsafe { (*self.reply.get()).replace(reply) };
        debug_assert!(former.is_none(), "a reply that nobody took");
    }

    /// Whether the thread, which is current, has announced no sleep.
    pub fn is_awake(&self) -> bool {
        self.state.load(Ordering::Relaxed) == state::RUNNABLE | state::RUNNING
    }

    /// Sets a [`work`] bit. Ordered before a look at what the thread does, as [`Thread::has_work`] is ordered behind what
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

/// The thread that runs here.
#[inline(always)]
pub fn current() -> &'static Thread {
    // SAFETY: from the first thread on, `current` is a live thread, and it stays alive while it runs; a reference
    // to it is used by the thread itself, which cannot outlive itself.
    unsafe { &*cpu::this().current.load(Ordering::Relaxed).cast::<Thread>() }
}
