//! The timers of `timer_create`.
//!
//! A timer is an [alarm](super::alarm) that sends a signal. One with an interval is armed again when its signal is delivered, not
//! when it is sent, as on Linux: a process that does not take its signals costs no interrupts, and what has expired meanwhile is
//! its overrun. The same holds while the process ignores the signal; it is armed again when the process does so no more.
//!
//! The memory of a timer is charged to its process's user as that of a record of a pending signal is, since it is the place of one.
//!
//! Lock order: the table of processes; a process's timers, the list of the clock's watchers ([`Rank::Process`]); a timer's state
//! ([`Rank::Object`]); a tree of alarms. No signal is sent under a timer's state.

use core::sync::atomic::{AtomicU32, Ordering};

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_abi::layout::rlimit;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::alarm::{Alarm, Ring};
use super::clock::{Base, Watch, Watcher};
use super::expired::{Expired, Place};
use super::pending::Info;
use super::point::resched_point;
use super::process::{Process, TABLE};
use super::signal::{self, Posted};
use super::thread::{Thread, current};
use super::users::{Gone, charge};
use super::wait::Sleep;
use crate::vm::{Cpu, SpinLock};

/// Who hears of an expiration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Nobody.
    Nobody,
    /// The process, by a signal.
    Process,
    /// One of its threads, by a signal.
    Thread(u32),
}

/// What a new timer is to do. The number of a signal is valid, unless nobody hears of it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Its clock.
    pub base: Base,
    /// Who hears.
    pub notify: Notify,
    /// The signal.
    pub signal: u32,
    /// The value that goes with the signal; `None` for the timer's number.
    pub value: Option<u64>,
}

/// What a timer is set to, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// When it expires first; 0 for never.
    pub first: u64,
    /// Whether that is a point of time, and not a span from now on.
    pub is_absolute: bool,
    /// Time between expirations; 0 for one.
    pub interval: u64,
}

struct State {
    base: Base,
    /// When it expires next, or has last, by the base; 0 if it was not set.
    at: u64,
    interval: u64,
    /// It will ring.
    is_armed: bool,
    /// It has an interval, has expired, and is armed again when its signal is delivered.
    is_waiting: bool,
    /// Expirations since the last delivery, as far as they were counted.
    overrun: i64,
    /// Expirations while the signal of a former setting was pending.
    merged: u32,
    /// The overrun at the last delivery.
    delivered: i64,
    is_deleted: bool,
}

/// A timer.
pub struct Timer {
    plan: Plan,
    process: KArc<Process>,
    state: SpinLock<State>,
    alarm: Alarm,
    watcher: Watcher,
    place: Place,
    /// Where its signals wait.
    expired: Option<KArc<Expired>>,
    _charge: Charge,
    link: RBTreeLink,
}

// SAFETY: the link belongs to the lock of the tree; the rest is locked, atomic or does not change.
unsafe impl Sync for Timer {}
// SAFETY: as above.
unsafe impl Send for Timer {}

intrusive_adapter!(ById = UnsafeRef<Timer>: Timer { link => RBTreeLink });

impl<'a> KeyAdapter<'a> for ById {
    type Key = u32;
    fn get_key(&self, timer: &'a Timer) -> u32 {
        timer.place.id
    }
}

struct Tree {
    timers: RBTree<ById>,
    next_id: u32,
}

// SAFETY: links are touched under the lock that this lives in, and the tree owns a count of each timer.
unsafe impl Send for Tree {}

impl Tree {
    /// A number that is not in use, each later than the last. EAGAIN if the next ones are all in use.
    fn free_id(&mut self) -> Result<u32, Errno> {
        const TRIES: usize = 64;
        for _ in 0..TRIES {
            let id = self.next_id;
            self.next_id = (id + 1) & i32::MAX as u32;
            if self.timers.find(&id).is_null() {
                return Ok(id);
            }
        }
        Err(Errno::EAGAIN)
    }
}

/// A process's timers.
pub struct Timers {
    tree: SpinLock<Tree>,
    count: AtomicU32,
}

impl Timers {
    /// None.
    pub fn new() -> Self {
        let tree = Tree { timers: RBTree::new(ById::NEW), next_id: 0 };
        Self { tree: SpinLock::new(Cpu, Rank::Process, tree), count: AtomicU32::new(0) }
    }

    fn get(&self, id: u32) -> Option<KArc<Timer>> {
        let tree = self.tree.lock();
        let timer = tree.timers.find(&id).get()?;
        // SAFETY: the tree owns a count, and is locked.
        unsafe { KArc::upgrade(timer) }
    }

    /// Takes out a timer: that with a number, or any.
    fn remove(&self, id: Option<u32>) -> Option<KArc<Timer>> {
        let mut tree = self.tree.lock();
        let mut at = match id {
            Some(id) => tree.timers.find_mut(&id),
            None => tree.timers.front_mut(),
        };
        let timer = at.remove()?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: `create` put it in with a count, which comes back.
        Some(unsafe { KArc::from_raw(UnsafeRef::into_raw(timer)) })
    }
}

impl State {
    /// Moves an interval on behind `now`; returns how often it has expired up to then.
    fn forward(&mut self, now: u64) -> i64 {
        if self.interval == 0 || now < self.at {
            return 0;
        }
        let count = (now - self.at) / self.interval + 1;
        self.at = self.at.saturating_add(count.saturating_mul(self.interval));
        count as i64
    }

    /// What is left, and the interval.
    fn left(&mut self, is_silent: bool) -> (u64, u64) {
        const LEAST: u64 = 1;
        if self.at == 0 || self.interval == 0 && !self.is_armed && !is_silent {
            return (0, 0);
        }
        let now = self.base.now();
        if self.is_waiting || is_silent {
            self.overrun += self.forward(now);
        }
        let left = self.at.saturating_sub(now);
        // What rings has not expired before it does.
        (if is_silent { left } else { left.max(LEAST) }, self.interval)
    }
}

/// A charge to a user, for as long as this is there.
struct Charge(u32);

impl Charge {
    fn new(process: &Process) -> Result<Self, Errno> {
        let user = process.uid();
        if charge(user, process.limit(rlimit::SIGPENDING)) { Ok(Self(user)) } else { Err(Errno::EAGAIN) }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        Gone::default().add(self.0);
    }
}

/// Makes a timer of the calling process; returns its number. EINVAL for a thread of another process, EAGAIN if its user has too many.
pub fn create(plan: Plan) -> Result<u32, Errno> {
    let process = current().process();
    let charge = Charge::new(process)?;
    let expired = queue_of(process, plan.notify)?;
    let id = process.timers.tree.lock().free_id()?;
    let state = State {
        base: plan.base,
        at: 0,
        interval: 0,
        is_armed: false,
        is_waiting: false,
        overrun: 0,
        merged: 0,
        delivered: 0,
        is_deleted: false,
    };
    let timer = KArc::try_new(Timer {
        plan,
        process: process.clone(),
        state: SpinLock::new(Cpu, Rank::Object, state),
        alarm: Alarm::new(),
        watcher: Watcher::new(),
        place: Place::new(plan.signal, id, plan.value.unwrap_or(u64::from(id))),
        expired,
        _charge: charge,
        link: RBTreeLink::new(),
    })?;
    let mut tree = process.timers.tree.lock();
    if !tree.timers.find(&id).is_null() {
        // All numbers have come round meanwhile.
        drop(tree);
        return Err(Errno::EAGAIN);
    }
    process.timers.count.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the tree owns this count, which `remove` gives back.
    tree.timers.insert(unsafe { UnsafeRef::from_raw(KArc::into_raw(timer)) });
    Ok(id)
}

/// Where signals to somebody wait.
fn queue_of(process: &Process, notify: Notify) -> Result<Option<KArc<Expired>>, Errno> {
    if notify == Notify::Nobody {
        return Ok(None);
    }
    let new = Expired::new()?;
    let Notify::Thread(tid) = notify else {
        return Ok(Some(process.pending.change(|queue| queue.expired(&new))));
    };
    let table = TABLE.lock();
    let thread =
        table.thread(tid).filter(|t| t.process.as_ref().is_some_and(|p| core::ptr::eq(&raw const **p, process)));
    let queue = thread.ok_or(Errno::EINVAL)?.signals.lock().pending.expired(&new);
    Ok(Some(queue))
}

fn find(id: u32) -> Result<KArc<Timer>, Errno> {
    current().process().timers.get(id).ok_or(Errno::EINVAL)
}

/// Sets a timer of the calling process; returns what was left, and the interval.
pub fn set(id: u32, new: Setting) -> Result<(u64, u64), Errno> {
    let timer = find(id)?;
    let watches = timer.plan.base == Base::Real && new.is_absolute && new.first != 0;
    if watches {
        // SAFETY: `retire` leaves, and `Watch` looks whether it has been.
        unsafe { timer.watcher.enter(&*timer) };
    }
    let mut state = timer.state.lock();
    if state.is_deleted {
        drop(state);
        timer.watcher.leave();
        return Err(Errno::EINVAL);
    }
    let old = state.left(timer.is_silent());
    timer.alarm.disarm();
    // A span is not affected by a change of the clock.
    let base = if new.is_absolute { timer.plan.base } else { Base::Monotonic };
    let begin = if new.is_absolute { 0 } else { base.now() };
    let (at, interval) = if new.first == 0 { (0, 0) } else { (begin.saturating_add(new.first), new.interval) };
    *state = State { base, at, interval, is_armed: false, is_waiting: false, overrun: 0, delivered: 0, ..*state };
    if at != 0 {
        timer.arm(&mut state);
    }
    Ok(old)
}

/// What is left of a timer of the calling process, and its interval.
pub fn get(id: u32) -> Result<(u64, u64), Errno> {
    let timer = find(id)?;
    let left = timer.state.lock().left(timer.is_silent());
    Ok(left)
}

/// The overrun of a timer of the calling process when its signal was delivered last.
pub fn overrun(id: u32) -> Result<i32, Errno> {
    let delivered = find(id)?.state.lock().delivered;
    Ok(clamp(delivered))
}

fn clamp(count: i64) -> i32 {
    count.clamp(0, i64::from(i32::MAX)) as i32
}

/// Deletes a timer of the calling process, with its signal if that is pending.
pub fn delete(id: u32) -> Result<(), Errno> {
    let timer = current().process().timers.remove(Some(id)).ok_or(Errno::EINVAL)?;
    timer.retire();
    Ok(())
}

/// exec and exit: the process, whose only thread calls this, has no timers any more. The caller holds no lock.
pub fn delete_all(process: &Process) {
    while process.timers.count.load(Ordering::Relaxed) > 0
        && let Some(timer) = process.timers.remove(None)
    {
        timer.retire();
        drop(timer);
        let _ = resched_point(Sleep::Killable);
    }
}

/// A timer's signal, which was taken from its queue, is about to be delivered: its record gets the overrun, and an interval goes on.
/// False if the timer is gone. The caller holds no lock.
pub fn deliver(process: &Process, info: &mut Info) -> bool {
    let id = info.fields[0] as u32;
    let Some(timer) = process.timers.get(id) else { return false };
    let mut state = timer.state.lock();
    if state.is_deleted {
        return false;
    }
    let merged = i64::from(core::mem::take(&mut state.merged));
    let overrun = if state.is_waiting { timer.proceed(&mut state) } else { 0 };
    info.fields[0] = u64::from(id) | (clamp(merged + overrun) as u64) << 32;
    true
}

/// A signal that the calling process has ignored has an effect now: timers that wait for that go on.
pub fn heed(process: &Process, signal: u32) {
    const AT_ONCE: usize = 16;
    if process.timers.count.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut from = 0;
    loop {
        {
            let tree = process.timers.tree.lock();
            let mut at = tree.timers.lower_bound(Bound::Included(&from));
            for _ in 0..AT_ONCE {
                let Some(timer) = at.get() else { return };
                if timer.place.signal == signal {
                    timer.go_on();
                }
                from = timer.place.id + 1;
                at.move_next();
            }
        }
        let _ = resched_point(Sleep::Killable);
    }
}

impl Timer {
    fn is_silent(&self) -> bool {
        self.plan.notify == Notify::Nobody
    }

    /// The caller holds the state. The alarm is not armed.
    fn arm(&self, state: &mut State) {
        if self.is_silent() || state.is_deleted {
            return;
        }
        state.is_armed = true;
        // SAFETY: `retire` cancels it, and nothing arms it afterwards; the state's lock is held.
        unsafe { self.alarm.arm(self, state.base.power_on_ns(state.at)) };
    }

    /// Arms an interval that waits for its signal to be delivered; returns the overrun. The caller holds the state.
    fn proceed(&self, state: &mut State) -> i64 {
        let now = state.base.now();
        state.overrun += state.forward(now);
        state.is_waiting = false;
        // The expiration that the signal is of is no overrun.
        state.delivered = core::mem::take(&mut state.overrun) - 1;
        self.arm(state);
        state.delivered
    }

    /// Arms an interval whose signal will not be delivered, if it has waited for that. What has expired so far is overrun.
    fn go_on(&self) {
        if self.expired.as_ref().is_some_and(|expired| expired.holds(&self.place)) {
            return;
        }
        let mut state = self.state.lock();
        if state.is_waiting {
            let now = state.base.now();
            state.overrun += state.forward(now);
            state.is_waiting = false;
            self.arm(&mut state);
        }
    }

    /// It is out of the tree: nothing is to find it from its alarm, the clock or a queue any more. The caller holds no lock.
    fn retire(&self) {
        {
            let mut state = self.state.lock();
            *state = State { is_deleted: true, is_armed: false, is_waiting: false, ..*state };
            self.alarm.disarm();
        }
        self.watcher.leave();
        self.alarm.cancel();
        // It does not ring any more.
        let Some(expired) = &self.expired else { return };
        match self.plan.notify {
            Notify::Thread(tid) => {
                let table = TABLE.lock();
                let forget = |thread: &Thread| thread.signals.lock().pending.forget(expired, &self.place);
                if !table.thread(tid).is_some_and(forget) {
                    // That thread has ended.
                    expired.remove(&self.place);
                }
            }
            _ => _ = self.process.pending.change(|queue| queue.forget(expired, &self.place)),
        }
    }
}

impl Ring for Timer {
    fn ring(&self, now: u64) {
        let Some(expired) = &self.expired else { return };
        let table = TABLE.lock();
        let is_repeated = {
            let mut state = self.state.lock();
            if !state.is_armed || state.base.power_on_ns(state.at) > now {
                return;
            }
            state.is_armed = false;
            state.is_waiting = state.interval != 0;
            state.is_waiting
        };
        let thread = if let Notify::Thread(tid) = self.plan.notify { Some(tid) } else { None };
        // SAFETY: `retire` takes it out, after it has waited for this ring.
        match unsafe { signal::post(&table, &self.process, thread, expired, &self.place) } {
            Posted::Pending => {
                let mut state = self.state.lock();
                state.merged = state.merged.saturating_add(1);
            }
            // Ignored no more, meanwhile: whoever has changed that may have come too early to see that this waits.
            Posted::Ignored if is_repeated && !signal::is_ignored(&self.process, self.plan.signal) => self.go_on(),
            Posted::Sent | Posted::Ignored | Posted::Gone => {}
        }
    }
}

impl Watch for Timer {
    fn clock_was_set(&self) {
        let mut state = self.state.lock();
        if state.is_armed && state.base == Base::Real {
            self.alarm.disarm();
            self.arm(&mut state);
        }
    }
}
