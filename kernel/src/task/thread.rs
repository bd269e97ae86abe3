//! A thread: what the scheduler runs (its [`Entity`]), a kernel stack, and what a process, its signals and its messages
//! need.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use alloc::boxed::Box;
use intrusive_collections::RBTreeLink;
use quire_abi::Errno;
use quire_mm::cgroup::NOTHING;
use quire_mm::fallible::{KArc, try_box};

use super::cpu_alarm::Slot;
use super::entity::{self, Entity, state};
use super::process::{NAME_LEN, Process};
use super::rseq::Registration;
use super::sched::{self, finish_switch};
use super::signal::ThreadSignals;
use crate::arch::context::Context;
use crate::arch::trap::{TrapFrame, return_to_user};
use crate::ipc::handover::Messaging;
use crate::ipc::message::Reply;
use crate::vm::stack::Stack;
use crate::vm::{Mm, SpinLock};

/// [`Thread::timer_slack`] of init, as on Linux.
pub const DEFAULT_SLACK: u64 = 50_000;

/// A thread. Its process holds one reference; the CPU or queue that it is on holds another.
#[repr(C)]
pub struct Thread {
    entity: Entity,
    /// See [`Thread::tid`].
    tid: AtomicU32,
    stack: Option<Stack>,
    /// The process; `None` for kernel threads.
    pub process: Option<KArc<Process>>,
    /// Among the threads of its process.
    pub sibling_link: RBTreeLink,
    /// What waits for it.
    pub cpu_alarms: Slot,
    /// Blocked and pending signals.
    pub signals: SpinLock<ThreadSignals>,
    /// Where the kernel stores its number before its first instruction; 0 for nowhere.
    pub set_child_tid: AtomicUsize,
    /// Nonzero if an allocation of this thread failed for lack of memory: state for the OOM killer.
    pub starved: AtomicU32,
    /// The control group that had no memory, 0 if the machine had none.
    pub starved_group: AtomicU16,
    /// See [`Thread::name`].
    name: [AtomicU64; NAME_LEN / 8],
    /// It is in [`exit_thread`](super::exit::exit_thread), and takes no signals any more.
    pub is_leaving: AtomicBool,
    /// The word to clear, and whose futex to wake, at exit; 0 for none.
    pub clear_child_tid: AtomicUsize,
    /// The number of its last unknown system call; `usize::MAX` for none.
    pub unknown_call: AtomicUsize,
    /// Its children begin with the usual policy, and without a priority.
    pub resets_on_fork: AtomicBool,
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

// `current` takes the head of a thread for the thread.
const _: () = assert!(offset_of!(Thread, entity) == 0);

// SAFETY: the cells are touched by the thread itself; the link belongs to its process's list of threads; the rest is atomic or locked.
unsafe impl Sync for Thread {}
// SAFETY: as above; nothing in it is bound to the CPU that made it.
unsafe impl Send for Thread {}

impl Thread {
    #[inline]
    fn new(
        tid: u32,
        state: u32,
        context: Context,
        user: Option<(KArc<Process>, KArc<Mm>)>,
        stack: Option<Stack>,
    ) -> Self {
        let (process, mm) = user.unzip();
        let whole = process.as_deref().map(|process| NonNull::from(&process.whole));
        Self {
            // SAFETY: here is the thread that it is the head of, which holds the process.
            entity: unsafe { Entity::new(state, context, mm, whole) },
            tid: AtomicU32::new(tid),
            stack,
            process,
            sibling_link: RBTreeLink::new(),
            cpu_alarms: Slot::new(),
            signals: ThreadSignals::lock(),
            set_child_tid: AtomicUsize::new(0),
            starved: AtomicU32::new(0),
            starved_group: AtomicU16::new(0),
            name: [const { AtomicU64::new(0) }; NAME_LEN / 8],
            is_leaving: AtomicBool::new(false),
            clear_child_tid: AtomicUsize::new(0),
            unknown_call: AtomicUsize::new(usize::MAX),
            resets_on_fork: AtomicBool::new(false),
            timer_slack: AtomicU64::new(DEFAULT_SLACK),
            rseq: Registration::new(),
            robust_list: AtomicUsize::new(0),
            reply: UnsafeCell::new(None),
            messaging: UnsafeCell::new(None),
        }
    }

    /// The idle thread of a CPU, on the CPU's boot stack. It lives for ever.
    pub fn new_idle() -> Result<&'static Self, Errno> {
        let thread = KArc::try_new(Self::new(0, state::RUNNABLE | state::RUNNING, Context::default(), None, None))?;
        thread.hindrance.store(NOTHING, Ordering::Relaxed);
        // SAFETY: the count is never dropped.
        Ok(unsafe { &*KArc::into_raw(thread) })
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
        let context = Context::entering(top, finish_switch, return_to_user, 0);
        let make = || Self::new(tid, state::KILLABLE, context, Some((process, mm)), Some(stack));
        Ok(KArc::try_unshared(make)?.share())
    }

    /// A kernel thread, which never returns from `entry` and starts with interrupts masked. It does not run before it
    /// is woken.
    pub fn new_kernel(entry: extern "C" fn(usize) -> !) -> Result<KArc<Self>, Errno> {
        let stack = Stack::new()?;
        let context = Context::entering(stack.top(), finish_switch, entry, 0);
        Ok(KArc::try_unshared(|| Self::new(0, state::KILLABLE, context, None, Some(stack)))?.share())
    }

    /// Its thread id; 0 for kernel threads.
    pub fn tid(&self) -> u32 {
        self.tid.load(Ordering::Relaxed)
    }

    /// exec: the only thread left takes its process's number.
    pub fn take_number_of(&self, process: &Process) {
        self.tid.store(process.pid, Ordering::Relaxed);
    }

    /// Its name. That of a process's first thread is the process's. (A reader may see half of each while it is changed.)
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

    /// The process of a user thread.
    pub fn process(&self) -> &KArc<Process> {
        // Only kernel threads have no process, and they make no system calls and take no user faults.
        #[allow(clippy::expect_used)]
        self.process.as_ref().expect("a user thread has a process")
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
}

impl Deref for Thread {
    type Target = Entity;

    #[inline(always)]
    fn deref(&self) -> &Entity {
        &self.entity
    }
}

/// The thread of which this is the head.
#[inline(always)]
pub fn of(entity: &Entity) -> &Thread {
    // SAFETY: each entity is the first field of a thread (`Entity::new`), which lives as long.
    unsafe { &*core::ptr::from_ref(entity).cast() }
}

/// The thread that runs here.
#[inline(always)]
pub fn current() -> &'static Thread {
    of(entity::current())
}

/// Starts a thread of the kernel's own, which runs for ever.
pub fn start_kernel(entry: extern "C" fn(usize) -> !) -> Result<(), Errno> {
    let thread = Thread::new_kernel(entry)?;
    // SAFETY: its running self holds the count, for ever.
    sched::start(unsafe { &*KArc::into_raw(thread) });
    Ok(())
}
