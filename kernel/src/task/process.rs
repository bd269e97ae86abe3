//! A process: an address space, descriptors, signals and threads under one number.
//!
//! The lock of the [table](super::table) of processes covers its [`Family`] and its links.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use intrusive_collections::{LinkedListLink, RBTreeLink};
use quire_abi::Errno;
use quire_abi::layout::{Rlimit, rlimit};
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::KArc;
use quire_mm::hash::fnv1a;
use quire_mm::sync::Rank;

use super::children::News;
use super::cpu_alarm::Slot;
use super::cputime::CpuTime;
use super::credentials::Credentials;
use super::directory::Directory;
use super::entity::Whole;
use super::freezer::Freezer;
use super::itimer::RealTimer;
use super::membership::Charges;
use super::memory_limits::MemoryLimits;
use super::pending::Pending;
use super::posix_timer::Timers;
use super::signal::Actions;
use super::stop::Stop;
pub use super::table::{Family, TABLE, Table};
use super::wait::WaitQueue;
use crate::arch::timer;
use crate::ipc::handles::Handles;
use crate::ipc::signalfd::SignalSource;
use crate::ipc::source::Source;
use crate::ipc::table::{Descriptors, Used};
use crate::layout::STACK_SIZE;
use crate::task::space::Space;
use crate::vm::{self, Cpu, SpinLock};

/// Length of a name, a NUL included.
pub const NAME_LEN: usize = 16;

/// A process.
pub struct Process {
    /// Its number, also that of its first thread.
    pub pid: u32,
    /// Its parent's number, for reading without the table's lock.
    pub ppid: AtomicU32,
    /// Address space, shared with a vfork child; `None` after exit.
    pub space: SpinLock<Option<KArc<Space>>>,
    /// Descriptors; `None` after exit. Only its own threads access them.
    descriptors: SpinLock<Option<Used>>,
    /// Where those are, for [`Process::own_descriptors`].
    own_descriptors: AtomicPtr<Descriptors>,
    /// What it holds of other objects.
    pub handles: Handles,
    /// Handlers of signals, shared after CLONE_SIGHAND.
    pub actions: SpinLock<KArc<Actions>>,
    /// Signals for the process as a whole.
    pub pending: Pending,
    /// Its threads that wait for a child.
    pub child_wait: WaitQueue,
    /// Its stopped threads, and a thread in exec or exit that waits for the others to leave.
    pub stop_wait: WaitQueue,
    /// Its end, for those who watch it by a pidfd.
    pub end: Source,
    /// It was waited for. Written under the table.
    pub is_reaped: AtomicBool,
    /// For threads that wait for signals by a signalfd.
    pub signal_source: SignalSource,
    /// Job control: stops and continuations.
    pub stop: Stop,
    /// Whether its group is to be frozen, and it is.
    pub freezer: Freezer,
    /// To whom its tasks are charged.
    pub charges: Charges,
    /// It belongs to a user that has more tasks than it may: its next exec fails, if that is so still.
    pub has_too_many: AtomicBool,
    /// The timer of `setitimer` and `alarm`.
    pub real_timer: RealTimer,
    /// The timers of `timer_create`.
    pub timers: Timers,
    /// Identifies the program: a hash of the path that was last executed.
    pub program: AtomicU64,
    /// It has called exec: its parent cannot put it into another group any more.
    pub has_execed: AtomicBool,
    /// Set once the process is ending: [`EXITING`] and the wait status.
    pub exiting: AtomicU64,
    /// The number of the thread that execs, which all others leave to itself; 0 while none does. Written under the table.
    pub survivor: AtomicU32,
    /// `MEMBARRIER_CMD_REGISTER_*` that it has asked for.
    pub barriers: AtomicU32,
    /// The signal that it gets when its parent ends; 0 for none.
    pub parent_death_signal: AtomicU32,
    /// Descendants whose parent ends become its children.
    pub is_subreaper: AtomicBool,
    /// Whether others of its user may inspect it. exec sets it.
    pub is_dumpable: AtomicBool,
    /// exec gives it no privileges, ever. (There are no such programs.)
    pub no_new_privileges: AtomicBool,
    /// Process group. Written under the table.
    pub pgid: AtomicU32,
    /// A vfork parent waits until this is set: the child has its own memory, or none.
    pub mm_released: AtomicBool,
    /// Limits, see `rlimit`.
    pub limits: SpinLock<[Rlimit; rlimit::COUNT]>,
    /// What follows from limits and credentials for its memory.
    pub memory_limits: MemoryLimits,
    /// The name in `ps`, NUL-padded.
    pub name: SpinLock<[u8; NAME_LEN]>,
    /// When it began, in nanoseconds since power-on.
    pub started: u64,
    /// What its threads have together for the scheduler: their CPU time, and its control group ([`membership`](super::membership)).
    pub whole: Whole,
    /// What waits for it.
    pub cpu_alarms: Slot,
    /// CPU time of children that were waited for.
    pub children_time: CpuTime,
    /// User and group ids.
    pub credentials: SpinLock<Credentials>,
    /// Working directory.
    pub directory: Directory,
    /// The adjustment of its badness for the OOM killer, in thousandths of memory.
    pub oom_score_adj: AtomicI32,
    /// The least that somebody privileged has set that to: others of its user do not set it lower.
    pub oom_score_adj_min: AtomicI32,
    /// The OOM killer has picked it, and its memory is not free yet.
    pub is_oom_victim: AtomicBool,
    /// What there is to tell its parent, a [`News`]. As the links below it belongs to the table.
    pub news: AtomicU32,
    /// Which waits it is for, a [`Kind`](super::children::Kind).
    pub kind: AtomicU32,
    /// Among the children of its parent of which there is the same to tell.
    pub sibling_link: LinkedListLink,
    /// Among the children of its parent, by group.
    pub parent_link: RBTreeLink,
    /// Among all processes, by group.
    pub group_link: RBTreeLink,
    /// Among those with threads that are to be marked.
    pub mark_link: LinkedListLink,
    /// What [`Table::family`] answers.
    pub family: UnsafeCell<Family>,
}

/// Bit of [`Process::exiting`]: the process ends.
pub const EXITING: u64 = 1 << 32;

// SAFETY: `family` is only accessed under the table's lock, of which `Table::family` requires proof; so are the links;
// the rest is atomic or locked.
unsafe impl Sync for Process {}
// SAFETY: as above.
unsafe impl Send for Process {}

impl Process {
    /// A process with no thread yet.
    pub fn new(
        pid: u32,
        space: KArc<Space>,
        descriptors: KArc<Descriptors>,
        actions: KArc<Actions>,
        directory: Directory,
        template: Option<&Process>,
    ) -> Result<KArc<Self>, Errno> {
        let credentials = template.map_or_else(Credentials::default, |p| p.credentials.lock().clone());
        let limits = template.map_or_else(first_limits, |p| *p.limits.lock());
        let cpu_alarms = Slot::with_limit(limits[rlimit::CPU])?;
        let mut made = KArc::try_unshared(|| Self {
            pid,
            ppid: AtomicU32::new(0),
            space: SpinLock::new(Cpu, Rank::Process, Some(space)),
            own_descriptors: AtomicPtr::new(KArc::as_ptr(&descriptors).cast_mut()),
            descriptors: SpinLock::new(Cpu, Rank::Process, Some(Used::new(descriptors))),
            handles: Handles::new(),
            actions: SpinLock::new(Cpu, Rank::Process, actions),
            pending: Pending::new(),
            child_wait: WaitQueue::new(),
            stop_wait: WaitQueue::new(),
            end: Source::new(),
            is_reaped: AtomicBool::new(false),
            signal_source: SignalSource::new(),
            stop: Stop::default(),
            freezer: Freezer::default(),
            charges: Charges::default(),
            has_too_many: AtomicBool::new(false),
            real_timer: RealTimer::new(),
            timers: Timers::new(),
            program: AtomicU64::new(template.map_or(0, |p| p.program.load(Ordering::Relaxed))),
            has_execed: AtomicBool::new(false),
            exiting: AtomicU64::new(0),
            survivor: AtomicU32::new(0),
            barriers: AtomicU32::new(template.map_or(0, |p| p.barriers.load(Ordering::Relaxed))),
            parent_death_signal: AtomicU32::new(0),
            is_subreaper: AtomicBool::new(false),
            is_dumpable: AtomicBool::new(template.is_none_or(|p| p.is_dumpable.load(Ordering::Relaxed))),
            no_new_privileges: AtomicBool::new(template.is_some_and(|p| p.no_new_privileges.load(Ordering::Relaxed))),
            pgid: AtomicU32::new(template.map_or(pid, Process::pgid)),
            mm_released: AtomicBool::new(false),
            limits: SpinLock::new(Cpu, Rank::Process, limits),
            memory_limits: MemoryLimits::new(),
            name: SpinLock::new(Cpu, Rank::Process, template.map_or([0; NAME_LEN], |p| *p.name.lock())),
            started: timer::now_ns(),
            whole: Whole::new(),
            cpu_alarms,
            children_time: CpuTime::new(),
            credentials: SpinLock::new(Cpu, Rank::Process, credentials),
            directory,
            oom_score_adj: AtomicI32::new(template.map_or(0, |p| p.oom_score_adj.load(Ordering::Relaxed))),
            oom_score_adj_min: AtomicI32::new(template.map_or(0, |p| p.oom_score_adj_min.load(Ordering::Relaxed))),
            is_oom_victim: AtomicBool::new(false),
            news: AtomicU32::new(News::None as u32),
            kind: AtomicU32::new(0),
            sibling_link: LinkedListLink::new(),
            parent_link: RBTreeLink::new(),
            group_link: RBTreeLink::new(),
            mark_link: LinkedListLink::new(),
            family: UnsafeCell::new(Family::new(pid)),
        })?;
        // From where they are now: reading single limits in between would take their copy to pieces.
        let process = &mut *made;
        process.memory_limits.apply(process.limits.get_mut());
        process.memory_limits.apply_privilege(process.credentials.get_mut());
        Ok(made.share())
    }

    /// exec: the name becomes the last component of the program's path.
    pub fn set_name(&self, path: &[u8]) {
        self.program.store(fnv1a(path), Ordering::Relaxed);
        let last = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        let mut name = [0; NAME_LEN];
        let n = last.len().min(NAME_LEN - 1);
        name[..n].copy_from_slice(&last[..n]);
        *self.name.lock() = name;
    }

    /// Its process group.
    pub fn pgid(&self) -> u32 {
        self.pgid.load(Ordering::Relaxed)
    }

    /// What there is to tell its parent.
    pub fn news(&self) -> News {
        News::from_bits(self.news.load(Ordering::Relaxed))
    }

    /// Its real user id.
    pub fn uid(&self) -> u32 {
        self.credentials.lock().user.real
    }

    /// A limit's current (soft) value.
    pub fn limit(&self, which: usize) -> u64 {
        self.limits.lock()[which].cur
    }

    /// The wait status if the process is ending.
    pub fn exit_status(&self) -> Option<u32> {
        let v = self.exiting.load(Ordering::Acquire);
        (v & EXITING != 0).then_some(v as u32)
    }

    /// The descriptors, if the process still has them.
    pub fn descriptors(&self) -> Result<KArc<Descriptors>, Errno> {
        self.descriptors.lock().as_ref().map(Used::share).ok_or(Errno::ESRCH)
    }

    /// The same, without an owner of their own.
    ///
    /// # Safety
    /// The caller is a thread of this process, and does not use the result after it calls [`Process::set_descriptors`].
    #[inline]
    pub unsafe fn own_descriptors(&self) -> Result<&Descriptors, Errno> {
        // SAFETY: the process owns them until its only thread, in exec, or its last one, in exit, sets others: the caller, then.
        unsafe { self.own_descriptors.load(Ordering::Relaxed).as_ref() }.ok_or(Errno::ESRCH)
    }

    /// exec and exit: other descriptors, or none; returns the old ones. The caller is the only thread.
    pub fn set_descriptors(&self, new: Option<KArc<Descriptors>>) -> Option<Used> {
        let new = new.map(Used::new);
        if let (Some(new), Some(old)) = (&new, &*self.descriptors.lock()) {
            new.replaces(old);
        }
        let at = new.as_ref().map_or(core::ptr::null(), |new| KArc::as_ptr(new));
        self.own_descriptors.store(at.cast_mut(), Ordering::Relaxed);
        core::mem::replace(&mut *self.descriptors.lock(), new)
    }
}

/// init's limits: Linux's defaults where they are fixed numbers (`include/asm-generic/resource.h`).
pub static FIRST_LIMITS: [Rlimit; rlimit::COUNT] = {
    let mut limits = [Rlimit { cur: rlimit::INFINITY, max: rlimit::INFINITY }; rlimit::COUNT];
    limits[rlimit::STACK].cur = 8 << 20;
    limits[rlimit::NOFILE] = Rlimit { cur: 1024, max: 4096 };
    (limits[rlimit::NICE], limits[rlimit::RTPRIO]) = (Rlimit { cur: 0, max: 0 }, Rlimit { cur: 0, max: 0 });
    limits[rlimit::MEMLOCK] = Rlimit { cur: 8 << 20, max: 8 << 20 };
    limits
};

/// [`FIRST_LIMITS`], and what follows from the size of memory.
fn first_limits() -> [Rlimit; rlimit::COUNT] {
    let mut limits = FIRST_LIMITS;
    // Half as many as there may be threads on Linux, whose stacks take an eighth of memory.
    let half = (vm::PAGES.total_managed() * PAGE_SIZE / (8 * STACK_SIZE) / 2) as u64;
    for which in [rlimit::SIGPENDING, rlimit::NPROC] {
        limits[which] = Rlimit { cur: half, max: half };
    }
    limits
}
