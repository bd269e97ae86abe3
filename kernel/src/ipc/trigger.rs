//! Triggers of memory pressure: a program may write a threshold to a server's file, and then wait in poll until it is
//! exceeded (docs/pressure.md). The same mechanism serves files that return the state of a control group: poll reports
//! when the state is no longer the one that was read.
//!
//! The server parses what was written. The kernel stores it for the open file, and a thread of its own
//! [evaluates](Window::look) the pressure of each trigger's group, ten times per window while there are stalls. It
//! sleeps while there are none: the first stall in a group with a [resting](quire_mm::cgroup::Groups::look) trigger
//! wakes it, so that on a machine without triggers a stall only costs the check of a flag.
//!
//! A thread that changes the state of a watched group also wakes that thread. As on Linux, such a file is ready from
//! the change until it is read again, and before it was read for the first time.
//!
//! Lock order: the lock of the list of triggers and that of a trigger's window ([`Rank::Triggers`]) are never held
//! together; no other lock is taken under them.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_abi::layout::poll;
use quire_abi::pressure::trigger;
use quire_mm::cgroup::Key;
use quire_mm::fallible::KArc;
use quire_mm::psi::window::Window;
use quire_mm::sync::Rank;

use super::source::Source;
use crate::arch::{cpu, timer};
use crate::task::point::resched_point;
use crate::task::thread;
use crate::task::wait::{self, Sleep, WaitQueue};
use crate::vm::{Cpu, GROUPS, SpinLock};

/// States that poll reports.
mod state {
    /// Nothing has been written yet: an error, as on Linux.
    pub const UNSET: u8 = 0;
    /// Nothing has happened.
    pub const QUIET: u8 = 1;
    /// The threshold was exceeded, and that was not reported yet.
    pub const TOLD: u8 = 2;
    /// The group is no more.
    pub const GONE: u8 = 3;
    /// The group's state is no longer the one that was read.
    pub const CHANGED: u8 = 4;
}

/// The condition that is awaited.
#[derive(Clone, Copy)]
enum Watch {
    Pressure {
        group: Key,
        is_full: bool,
        window: Window,
    },
    /// How often the group's state had changed before it was read.
    State {
        group: Key,
        changes: u64,
    },
}

/// See the module.
pub struct Trigger {
    watch: SpinLock<Option<Watch>>,
    state: AtomicU8,
    /// The waiters.
    pub source: Source,
    /// Belongs to the list.
    link: RBTreeLink,
}

// SAFETY: the link is only touched under the list's lock; the rest is `Sync`.
unsafe impl Sync for Trigger {}
// SAFETY: as above.
unsafe impl Send for Trigger {}

intrusive_adapter!(InList = UnsafeRef<Trigger>: Trigger { link => RBTreeLink });

impl KeyAdapter<'_> for InList {
    type Key = usize;
    fn get_key(&self, trigger: &Trigger) -> usize {
        core::ptr::from_ref(trigger).addr()
    }
}

struct List(RBTree<InList>);

// SAFETY: links are only touched under the lock.
unsafe impl Send for List {}

/// All triggers that were set, by their addresses. The list owns no references: triggers leave it when they end.
static LIST: SpinLock<List> = SpinLock::new(Cpu, Rank::Triggers, List(RBTree::new(InList::NEW)));
static WORK: WaitQueue = WaitQueue::new();
static IS_ASKED: AtomicBool = AtomicBool::new(false);

impl Trigger {
    /// One that is not set.
    pub fn new() -> Result<KArc<Self>, Errno> {
        Ok(KArc::try_new(Self {
            watch: SpinLock::new(Cpu, Rank::Triggers, None),
            state: AtomicU8::new(state::UNSET),
            source: Source::new(),
            link: RBTreeLink::new(),
        })?)
    }

    /// Whether it was set, which is possible only once.
    pub fn is_set(&self) -> bool {
        self.state.load(Ordering::Acquire) != state::UNSET
    }

    /// Sets the trigger to the values that a server has parsed. EBUSY if it was set before, ENODEV if the group no
    /// longer exists, EIO for values that no server should return.
    pub fn set(&self, group: u64, is_full: bool, threshold: u64, size: u64) -> Result<(), Errno> {
        const NANOSECONDS: u64 = 1000;
        if !trigger::is_sound(threshold, size) {
            return Err(Errno::EIO);
        }
        let group = Key(group);
        let (totals, _) = GROUPS.look(group, timer::now_ns(), false).ok_or(Errno::ENODEV)?;
        let window = Window::new(threshold * NANOSECONDS, size * NANOSECONDS, totals[usize::from(is_full)]);
        {
            let mut watch = self.watch.lock();
            if watch.is_some() {
                return Err(Errno::EBUSY);
            }
            *watch = Some(Watch::Pressure { group, is_full, window });
            self.state.store(state::QUIET, Ordering::Release);
        }
        self.enter();
        ask();
        Ok(())
    }

    fn enter(&self) {
        // SAFETY: `drop` takes it out.
        LIST.lock().0.insert(unsafe { UnsafeRef::from_raw(self) });
    }

    /// Notes that the state of a group was read after it had changed this often.
    pub fn saw(&self, group: u64, changes: u64) {
        let group = Key(group);
        let watch = Watch::State { group, changes };
        let former = {
            let mut former = self.watch.lock();
            if matches!(*former, Some(Watch::Pressure { .. })) {
                return;
            }
            self.state.store(state::QUIET, Ordering::Release);
            former.replace(watch)
        };
        if former.is_none() {
            self.enter();
        }
        // (The thread is notified of changes from here on.)
        self.compare(group, changes);
    }

    /// Compares the state of a group with the one that was read.
    fn compare(&self, group: Key, changes: u64) {
        match GROUPS.watch(group) {
            None => self.tell(state::GONE, poll::PRI | poll::ERR),
            Some(now) if now != changes => self.tell(state::CHANGED, poll::PRI | poll::ERR),
            Some(_) => {}
        }
    }

    /// Its events, in addition to those that such a file always has.
    pub fn ready(&self) -> u16 {
        match self.state.load(Ordering::Acquire) {
            state::QUIET => 0,
            state::TOLD => poll::PRI,
            _ => poll::PRI | poll::ERR,
        }
    }

    /// Claims an event before it is reported to a program: returns whether this caller may report it.
    pub fn take(&self) -> bool {
        let taken = self.state.compare_exchange(state::TOLD, state::QUIET, Ordering::AcqRel, Ordering::Acquire);
        !matches!(taken, Err(state::QUIET))
    }

    /// Evaluates the group's pressure, if that is due; returns when it is due again.
    fn look(&self) -> Option<u64> {
        let state = self.state.load(Ordering::Relaxed);
        let watch = (*self.watch.lock()).filter(|_| !matches!(state, state::GONE | state::CHANGED))?;
        let (group, is_full, mut window) = match watch {
            Watch::Pressure { group, is_full, window } => (group, is_full, window),
            Watch::State { group, changes } => {
                self.compare(group, changes);
                return None;
            }
        };
        let now = timer::now_ns();
        if window.due().is_some_and(|due| now < due) {
            return window.due();
        }
        let Some((totals, is_stalled)) = GROUPS.look(group, now, window.is_quiet()) else {
            self.tell(state::GONE, poll::PRI | poll::ERR);
            return None;
        };
        if window.look(now, totals[usize::from(is_full)], is_stalled) {
            self.tell(state::TOLD, poll::PRI);
        }
        // (Nobody else changes it once it is set.)
        *self.watch.lock() = Some(Watch::Pressure { group, is_full, window });
        window.due()
    }

    fn tell(&self, state: u8, events: u16) {
        self.state.store(state, Ordering::Release);
        self.source.wake(events);
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        let mut list = LIST.lock();
        if self.link.is_linked() {
            // SAFETY: a linked trigger is in this list, whose lock is held.
            let _ = unsafe { list.0.cursor_mut_from_ptr(self).remove() };
        }
    }
}

/// Wakes the thread to evaluate all triggers, since an awaited stall has begun, or a group is gone. Called under any
/// lock below those of wait queues.
pub fn ask() {
    IS_ASKED.store(true, Ordering::Relaxed);
    WORK.wake_one();
}

/// Starts the thread that looks.
pub fn start() -> Result<(), Errno> {
    thread::start_kernel(serve)
}

/// The minimum time between two evaluations, in nanoseconds: less than a tenth of the shortest window.
const LEAST: u64 = 10_000_000;

extern "C" fn serve(_: usize) -> ! {
    cpu::irq_enable();
    let mut due = None;
    loop {
        // (A thread without a process is neither killed nor sent signals.)
        let is_asked = || IS_ASKED.swap(false, Ordering::Relaxed).then_some(());
        let _ = WORK.wait_until(Sleep::Killable, due, is_asked);
        due = look_at_all();
        let _ = wait::sleep_until(timer::now_ns() + LEAST);
    }
}

/// Evaluates each trigger; returns when the next one is due.
fn look_at_all() -> Option<u64> {
    let (mut due, mut last) = (None, 0);
    while let Some(trigger) = next(last) {
        last = KArc::as_ptr(&trigger).addr();
        due = [due, trigger.look()].into_iter().flatten().min();
        drop(trigger);
        let _ = resched_point(Sleep::Killable);
    }
    due
}

/// The first trigger after an address that is not about to end.
fn next(last: usize) -> Option<KArc<Trigger>> {
    let list = LIST.lock();
    let mut cursor = list.0.lower_bound(Bound::Excluded(&last));
    while let Some(trigger) = cursor.get() {
        // SAFETY: it is in the list, whose lock is held, and leaves it before its memory is freed.
        if let Some(trigger) = unsafe { KArc::upgrade(trigger) } {
            return Some(trigger);
        }
        cursor.move_next();
    }
    None
}
