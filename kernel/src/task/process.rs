//! A process: an address space, descriptors, signals and threads under one number; and the table of all of them.
//!
//! The table's lock ([`Rank::Processes`]) covers the numbers and the family: parents, children, groups, exit statuses.
//! Work under it is O(log n) or bounded by the size of one family.

use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use alloc::vec::Vec;
use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_abi::layout::{Rlimit, rlimit};
use quire_mm::fallible::{KArc, TryVec};
use quire_mm::sync::Rank;

use super::cputime::{CpuTime, Spent};
use super::credentials::Credentials;
use super::itimer::RealTimer;
use super::pending::{MOST, Pending};
use super::signal::{self, Actions};
use super::stop::Stop;
use super::thread::Thread;
use super::wait::WaitQueue;
use crate::arch::speculation;
use crate::ipc::table::Descriptors;
use crate::task::space::Space;
use crate::vm::{Cpu, SpinLock};

/// One more than the highest process or thread number.
pub const PID_MAX: u32 = 32768;

/// How many threads of an ending process are woken at once.
const ROUSED_AT_ONCE: usize = 16;
/// How many more each leaving thread wakes; see [`ROUSED_AT_ONCE`].
pub const ROUSED_BY_EACH: usize = 2;

/// Length of a name, a NUL included.
pub const NAME_LEN: usize = 16;

intrusive_adapter!(pub Siblings = UnsafeRef<Process>: Process { sibling_link => LinkedListLink });
intrusive_adapter!(pub Threads = UnsafeRef<Thread>: Thread { sibling_link => LinkedListLink });

/// A process.
pub struct Process {
    /// Its number, also that of its first thread.
    pub pid: u32,
    /// Its parent's number, for reading without the table's lock.
    pub ppid: AtomicU32,
    /// Address space, shared with a vfork child; `None` after exit.
    pub space: SpinLock<Option<KArc<Space>>>,
    /// Descriptors; `None` after exit.
    pub descriptors: SpinLock<Option<KArc<Descriptors>>>,
    /// Handlers of signals, shared after CLONE_SIGHAND.
    pub actions: SpinLock<KArc<Actions>>,
    /// Signals for the process as a whole.
    pub pending: Pending,
    /// Its threads that wait for a child.
    pub child_wait: WaitQueue,
    /// Its stopped threads, and a thread in exec or exit that waits for the others to leave.
    pub stop_wait: WaitQueue,
    /// Job control: stops and continuations.
    pub stop: Stop,
    /// The timer of `setitimer` and `alarm`.
    pub real_timer: RealTimer,
    /// Identifies the program: a hash of the path that was last executed.
    pub program: AtomicU64,
    /// Set once the process is ending: [`EXITING`] and the wait status.
    pub exiting: AtomicU64,
    /// A vfork parent waits until this is set: the child has its own memory, or none.
    pub mm_released: AtomicBool,
    /// Limits, see `rlimit`.
    pub limits: SpinLock<[Rlimit; rlimit::COUNT]>,
    /// The name in `ps`, NUL-padded.
    pub name: SpinLock<[u8; NAME_LEN]>,
    /// CPU time of threads that ended.
    pub time: CpuTime,
    /// CPU time of children that were waited for.
    pub children_time: CpuTime,
    /// User and group ids.
    pub credentials: SpinLock<Credentials>,
    /// Working directory: an index into the boot archive.
    pub cwd: AtomicU32,
    /// The adjustment of its badness for the OOM killer, in thousandths of memory.
    pub oom_score_adj: AtomicI32,
    /// The OOM killer has picked it, and its memory is not free yet.
    pub is_oom_victim: AtomicBool,
    sibling_link: LinkedListLink,
    family: UnsafeCell<Family>,
}

/// Bit of [`Process::exiting`]: the process ends.
pub const EXITING: u64 = 1 << 32;

/// The part of a process that the table's lock covers.
pub struct Family {
    /// Null for init alone.
    pub parent: *const Process,
    /// Children that live.
    pub children: LinkedList<Siblings>,
    /// Children that ended and were not waited for.
    pub zombies: LinkedList<Siblings>,
    /// Threads.
    pub threads: LinkedList<Threads>,
    /// How many.
    pub thread_count: u32,
    /// The next thread to wake; null if there is none.
    to_rouse: Cell<*const Thread>,
    /// Process group.
    pub pgid: u32,
    /// Session.
    pub sid: u32,
    /// The signal that the parent gets at the end; 0 for none.
    pub exit_signal: u32,
    /// It has ended; only the number and the status are left.
    pub is_zombie: bool,
}

// SAFETY: `family` is only accessed under the table's lock, of which `Table::family` requires proof; so is the link;
// the rest is atomic or locked.
unsafe impl Sync for Process {}
// SAFETY: as above.
unsafe impl Send for Process {}

/// The owner of a number.
pub enum Entry {
    /// A process, owned by the table until it has been waited for.
    Process(KArc<Process>),
    /// A thread other than a process's first.
    Thread(KArc<Thread>),
    /// A process or thread under construction.
    Reserved,
}

/// All numbers in use.
pub struct Table {
    /// By number.
    entries: Vec<Option<Entry>>,
    last: u32,
    processes: u32,
    threads: u32,
}

/// The one table.
pub static TABLE: SpinLock<Table> =
    SpinLock::new(Cpu, Rank::Processes, Table { entries: Vec::new(), last: 0, processes: 0, threads: 0 });

impl Table {
    /// A free number, chosen round-robin so that a number is reused as late as possible. The search skips runs of used
    /// numbers: O(1) amortised while half of all are free.
    pub fn new_number(&mut self) -> Result<u32, Errno> {
        for step in 1..=PID_MAX {
            let n = (self.last + step) % PID_MAX;
            let is_free = self.entries.get(n as usize).is_none_or(Option::is_none);
            if n != 0 && is_free {
                while self.entries.len() <= n as usize {
                    self.entries.try_push(None).map_err(Errno::from)?;
                }
                self.last = n;
                return Ok(n);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Inserts an owner under its number, which came from [`Table::new_number`] under the same lock.
    pub fn insert(&mut self, number: u32, entry: Entry) {
        if let Entry::Process(_) = entry {
            self.processes += 1;
        }
        if let Some(slot) = self.entries.get_mut(number as usize) {
            *slot = Some(entry);
        }
    }

    /// Frees a number. Its owner is returned, to be dropped without the lock.
    pub fn remove(&mut self, number: u32) -> Option<Entry> {
        let entry = self.entries.get_mut(number as usize)?.take();
        if let Some(Entry::Process(_)) = entry {
            self.processes -= 1;
        }
        entry
    }

    /// The process with a number.
    pub fn process(&self, pid: u32) -> Option<&KArc<Process>> {
        match speculation::get(&self.entries, pid as usize)?.as_ref()? {
            Entry::Process(p) => Some(p),
            _ => None,
        }
    }

    /// All processes by number, zombies too.
    pub fn processes(&self) -> impl Iterator<Item = &KArc<Process>> {
        self.entries.iter().flatten().filter_map(|e| match e {
            Entry::Process(p) => Some(p),
            _ => None,
        })
    }

    /// The thread with a number, a process's first thread too.
    pub fn thread(&self, tid: u32) -> Option<&Thread> {
        match speculation::get(&self.entries, tid as usize)?.as_ref()? {
            Entry::Thread(t) => Some(t),
            Entry::Process(p) => self.family(p).threads.iter().find(|t| t.tid() == tid),
            Entry::Reserved => None,
        }
    }

    /// The numbers of processes and threads.
    pub fn counts(&self) -> (u32, u32) {
        (self.processes, self.threads)
    }

    /// CPU time of a process, all threads.
    pub fn cpu_time(&self, process: &Process) -> Spent {
        process.time.spent() + self.family(process).threads.iter().map(|t| t.time.spent()).sum()
    }

    /// The family of a process.
    pub fn family<'a>(&'a self, process: &'a Process) -> &'a Family {
        // SAFETY: `&self` is proof of the lock, and no `&mut self` exists.
        unsafe { &*process.family.get() }
    }

    /// The family of a process, to change.
    pub fn family_mut<'a>(&'a mut self, process: &'a Process) -> &'a mut Family {
        // SAFETY: `&mut self` is proof of the lock, and borrowed for as long as the result.
        unsafe { &mut *process.family.get() }
    }

    /// Adds a thread to its process.
    pub fn add_thread(&mut self, process: &Process, thread: &KArc<Thread>) {
        let family = self.family_mut(process);
        // SAFETY: `remove_thread` takes it out before its last owner goes.
        family.threads.push_back(unsafe { UnsafeRef::from_raw(KArc::as_ptr(thread)) });
        family.thread_count += 1;
        self.threads += 1;
    }

    /// Removes a thread from its process; returns how many are left.
    pub fn remove_thread(&mut self, process: &Process, thread: &Thread) -> u32 {
        let family = self.family_mut(process);
        // SAFETY: a thread is in its process's list from `add_thread` until here.
        let mut at = unsafe { family.threads.cursor_mut_from_ptr(thread) };
        at.remove();
        if core::ptr::eq(family.to_rouse.get(), thread) {
            family.to_rouse.set(at.get().map_or(core::ptr::null(), core::ptr::from_ref));
        }
        family.thread_count -= 1;
        let left = family.thread_count;
        self.threads -= 1;
        left
    }

    /// Makes all threads of an ending process leave: the first few are woken at once, and each that leaves [wakes
    /// others](Table::rouse_some). There may be thousands, and the table is locked.
    pub fn rouse_all(&self, process: &Process) {
        let family = self.family(process);
        family.to_rouse.set(family.threads.front().get().map_or(core::ptr::null(), core::ptr::from_ref));
        self.rouse_some(process, ROUSED_AT_ONCE);
    }

    /// Wakes some of the remaining threads.
    pub fn rouse_some(&self, process: &Process, count: usize) {
        let family = self.family(process);
        for _ in 0..count {
            let next = family.to_rouse.get();
            if next.is_null() {
                return;
            }
            // SAFETY: it is in the list: `remove_thread` advances `to_rouse` if it removes that thread.
            let mut at = unsafe { family.threads.cursor_from_ptr(next) };
            if let Some(thread) = at.get() {
                signal::rouse(thread);
            }
            at.move_next();
            family.to_rouse.set(at.get().map_or(core::ptr::null(), core::ptr::from_ref));
        }
    }

    /// Makes `child` a child of `parent`.
    pub fn adopt(&mut self, parent: &Process, child: &Process) {
        self.family_mut(child).parent = parent;
        child.ppid.store(parent.pid, Ordering::Relaxed);
        // SAFETY: a process is in one of its parent's lists until `disown` or `bury`, while the table owns it.
        self.family_mut(parent).children.push_back(unsafe { UnsafeRef::from_raw(child) });
    }

    /// Moves a child that has ended to the zombies.
    pub fn make_zombie(&mut self, child: &Process) {
        let parent = self.family(child).parent;
        self.family_mut(child).is_zombie = true;
        if parent.is_null() {
            return;
        }
        // SAFETY: a parent outlives its children's membership: they are given to init when it ends.
        let family = self.family_mut(unsafe { &*parent });
        // SAFETY: a child that is no zombie is in `children`.
        if let Some(child) = unsafe { family.children.cursor_mut_from_ptr(child).remove() } {
            family.zombies.push_back(child);
        }
    }

    /// Takes a zombie out of its parent's list and out of the table.
    pub fn reap(&mut self, zombie: &Process) -> Option<Entry> {
        let parent = self.family(zombie).parent;
        if !parent.is_null() {
            // SAFETY: as in `make_zombie`.
            let family = self.family_mut(unsafe { &*parent });
            // SAFETY: a zombie is in `zombies` of its parent.
            unsafe { family.zombies.cursor_mut_from_ptr(zombie).remove() };
        }
        self.remove(zombie.pid)
    }

    /// Gives some children of an ending process to `heir`, zombies last; returns whether none are left, and whether
    /// zombies were among them.
    pub fn give_children(&mut self, from: &Process, heir: &Process, most: usize) -> (bool, bool) {
        let mut zombies = false;
        for _ in 0..most {
            let family = self.family_mut(from);
            let (child, is_zombie) = match family.children.pop_front() {
                Some(c) => (c, false),
                None => match family.zombies.pop_front() {
                    Some(z) => (z, true),
                    None => return (true, zombies),
                },
            };
            self.family_mut(&child).parent = heir;
            child.ppid.store(heir.pid, Ordering::Relaxed);
            let heir = self.family_mut(heir);
            if is_zombie {
                heir.zombies.push_back(child)
            } else {
                heir.children.push_back(child)
            }
            zombies |= is_zombie;
        }
        (false, zombies)
    }
}

impl Process {
    /// A process with no thread yet.
    pub fn new(
        pid: u32,
        space: KArc<Space>,
        descriptors: KArc<Descriptors>,
        actions: KArc<Actions>,
        template: Option<&Process>,
    ) -> Result<KArc<Self>, Errno> {
        let (limits, name, cwd, credentials) = match template {
            Some(p) => {
                let limits = *p.limits.lock();
                let name = *p.name.lock();
                let credentials = p.credentials.lock().clone();
                (limits, name, p.cwd.load(Ordering::Relaxed), credentials)
            }
            None => (first_limits(), [0; NAME_LEN], 0, Credentials::default()),
        };
        let made = KArc::try_unshared(|| Self {
            pid,
            ppid: AtomicU32::new(0),
            space: SpinLock::new(Cpu, Rank::Process, Some(space)),
            descriptors: SpinLock::new(Cpu, Rank::Process, Some(descriptors)),
            actions: SpinLock::new(Cpu, Rank::Process, actions),
            pending: Pending::new(),
            child_wait: WaitQueue::new(),
            stop_wait: WaitQueue::new(),
            stop: Stop::default(),
            real_timer: RealTimer::new(),
            program: AtomicU64::new(template.map_or(0, |p| p.program.load(Ordering::Relaxed))),
            exiting: AtomicU64::new(0),
            mm_released: AtomicBool::new(false),
            limits: SpinLock::new(Cpu, Rank::Process, limits),
            name: SpinLock::new(Cpu, Rank::Process, name),
            time: CpuTime::new(),
            children_time: CpuTime::new(),
            credentials: SpinLock::new(Cpu, Rank::Process, credentials),
            cwd: AtomicU32::new(cwd),
            oom_score_adj: AtomicI32::new(template.map_or(0, |p| p.oom_score_adj.load(Ordering::Relaxed))),
            is_oom_victim: AtomicBool::new(false),
            sibling_link: LinkedListLink::new(),
            family: UnsafeCell::new(Family {
                parent: core::ptr::null(),
                children: LinkedList::new(Siblings::NEW),
                zombies: LinkedList::new(Siblings::NEW),
                threads: LinkedList::new(Threads::NEW),
                thread_count: 0,
                to_rouse: Cell::new(core::ptr::null()),
                pgid: pid,
                sid: pid,
                exit_signal: 0,
                is_zombie: false,
            }),
        })?;
        Ok(made.share())
    }

    /// exec: the name becomes the last component of the program's path.
    pub fn set_name(&self, path: &[u8]) {
        // FNV-1a.
        let hash =
            path.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
        self.program.store(hash, Ordering::Relaxed);
        let last = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        let mut name = [0; NAME_LEN];
        let n = last.len().min(NAME_LEN - 1);
        name[..n].copy_from_slice(&last[..n]);
        *self.name.lock() = name;
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
        self.descriptors.lock().clone().ok_or(Errno::ESRCH)
    }
}

/// init's limits: Linux's defaults where they are fixed numbers (`include/asm-generic/resource.h`).
pub fn first_limits() -> [Rlimit; rlimit::COUNT] {
    let mut limits = [Rlimit { cur: rlimit::INFINITY, max: rlimit::INFINITY }; rlimit::COUNT];
    limits[rlimit::STACK].cur = 8 << 20;
    limits[rlimit::NOFILE] = Rlimit { cur: 1024, max: 4096 };
    limits[rlimit::SIGPENDING] = Rlimit { cur: MOST as u64, max: MOST as u64 };
    limits[rlimit::MEMLOCK] = Rlimit { cur: 8 << 20, max: 8 << 20 };
    limits
}
