//! Pending signals: sent but not yet taken, each with its record [`Info`].
//!
//! A signal below [`RT_MIN`] is pending at most once: a second one is lost. The others queue, each signal's in the order in
//! which they were sent. The first record of a queue is stored in place, so that the common case allocates nothing. Each record is
//! charged to the receiver's user, whose limit alone says how many there may be. If there is no memory for a record, or its user has
//! too many, a signal without a value from its sender is pending without a record, as on Linux, and a signal with a value is refused.
//! (Records may use the reserves of memory, and a fault's needs none if nothing else is pending.)
//!
//! Signals of expired timers have [places of their own](super::expired): each is pending once, whatever its number.
//!
//! A thread's queue is covered by the lock of its signals; a process's has a lock of [`Rank::Process`], and its set can be
//! read without. Work under these locks does not depend on how many records there are: [`Queue::remove`] returns them, to be
//! released without a lock.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use intrusive_collections::{LinkedList, LinkedListLink, intrusive_adapter};
use quire_abi::Errno;
use quire_abi::flags::{si, sig};
use quire_abi::layout::Siginfo;
use quire_mm::fallible::{AllocError, KArc};
use quire_mm::sync::Rank;

use super::expired::{Expired, Place};
use super::signo::bit;
use super::users::{Gone, Uncharged, charge};
use crate::vm::{Cpu, SpinLock, heap};

/// The first signal that queues.
pub const RT_MIN: u32 = 32;

/// A signal's record: the part of `siginfo_t` that may be nonzero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The signal.
    pub signal: u32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    /// Of an expired timer of `timer_create`, which is told when it is delivered.
    pub is_timer: bool,
    /// Fields that depend on the code.
    pub fields: [u64; 4],
}

impl Info {
    fn new(signal: u32, code: i32, fields: [u64; 4]) -> Self {
        Self { signal, errno: 0, code, is_timer: false, fields }
    }

    /// From the kernel itself.
    pub fn of_kernel(signal: u32) -> Self {
        Self::new(signal, si::KERNEL, [0; 4])
    }

    /// From a process: `code` is `SI_USER` or `SI_TKILL`.
    pub fn of_user(signal: u32, code: i32, pid: u32, uid: u32) -> Self {
        Self::new(signal, code, [u64::from(pid) | u64::from(uid) << 32, 0, 0, 0])
    }

    /// Of an expired timer.
    fn of_timer(signal: u32, id: u32, value: u64) -> Self {
        Self { is_timer: true, ..Self::new(signal, si::TIMER, [u64::from(id), value, 0, 0]) }
    }

    /// From a fault at `addr`.
    pub fn of_fault(signal: u32, code: i32, addr: u64) -> Self {
        Self::new(signal, code, [addr, 0, 0, 0])
    }

    /// Of a child: `status` is an exit status or a signal, the times are in clock ticks.
    pub fn of_child(signal: u32, code: i32, pid: u32, uid: u32, status: u32, times: [u64; 2]) -> Self {
        let [user, system] = times;
        Self::new(signal, code, [u64::from(pid) | u64::from(uid) << 32, u64::from(status), user, system])
    }

    /// From a program's record: `rt_sigqueueinfo`. E2BIG for a record with contents that the kernel does not know.
    pub fn from_user(signal: u32, record: &Siginfo) -> Result<Self, Errno> {
        // A known kind of record may have anything in its last bytes; in an unknown kind they could have a meaning.
        let is_known = matches!(record.code, si::USER | si::QUEUE | si::TIMER | si::MESGQ | si::ASYNCIO | si::TKILL);
        if !is_known && record.rest.iter().any(|word| *word != 0) {
            return Err(Errno::E2BIG);
        }
        Ok(Self { signal, errno: record.errno, code: record.code, is_timer: false, fields: record.fields })
    }

    /// In the layout for programs.
    pub fn to_user(self) -> Siginfo {
        let signo = self.signal as i32;
        Siginfo { signo, errno: self.errno, code: self.code, pad: 0, fields: self.fields, rest: [0; 10] }
    }

    /// Whether the record is kept whatever its user's limit: it is of a signal that does not queue, and no program chose its
    /// contents.
    pub fn is_exempt(&self) -> bool {
        self.signal < RT_MIN && self.code >= 0
    }

    /// Whether the sender must be told if the record cannot be kept.
    fn must_be_kept(&self) -> bool {
        self.signal >= RT_MIN && self.code != si::USER && self.code != si::KERNEL
    }
}

/// Who pays for a record.
#[derive(Clone, Copy, Debug)]
pub struct Payer {
    /// The receiver's user.
    pub user: u32,
    /// The most records that this user may have.
    pub limit: u64,
}

struct Record {
    info: Info,
    /// The user to whom it is charged, if it is.
    user: Option<u32>,
    /// The low part of [`Queue::sent`].
    sent: u32,
}

struct Node {
    record: Record,
    link: LinkedListLink,
}

intrusive_adapter!(InOrder = Box<Node>: Node { link => LinkedListLink });

type List = LinkedList<InOrder>;

/// The records of one signal, oldest first; at least one.
struct Lane {
    signal: u32,
    records: List,
}

/// Signals that wait.
pub struct Queue {
    set: u64,
    /// Older than those of its signal in `lanes`.
    first: Option<Record>,
    /// At most one for each signal.
    lanes: Vec<Lane>,
    /// Counts what was sent, for the order.
    sent: u64,
    /// Those of timers, if there ever was a timer for this queue.
    expired: Option<KArc<Expired>>,
}

impl Queue {
    /// None.
    pub const fn new() -> Self {
        Self { set: 0, first: None, lanes: Vec::new(), sent: 0, expired: None }
    }

    /// The set.
    pub fn set(&self) -> u64 {
        self.set
    }

    /// Adds a signal. False if its record must be kept and cannot.
    pub fn add(&mut self, info: &Info, payer: Payer) -> bool {
        if info.signal < RT_MIN && self.set & bit(info.signal) != 0 {
            return true;
        }
        let kept = self.keep(info, payer);
        if kept || !info.must_be_kept() {
            self.set |= bit(info.signal);
            return true;
        }
        false
    }

    fn keep(&mut self, info: &Info, payer: Payer) -> bool {
        let limit = if info.is_exempt() { u64::MAX } else { payer.limit };
        let has_place = self.first.is_none() && self.lanes.is_empty();
        let user = match charge(payer.user, limit) {
            Ok(()) => Some(payer.user),
            Err(Uncharged::NoMemory) if has_place && info.is_exempt() => None,
            Err(_) => return false,
        };
        self.sent += 1;
        let record = Record { info: *info, user, sent: self.sent as u32 };
        if has_place {
            self.first = Some(record);
            return true;
        }
        let kept = self.append(record).is_ok();
        if !kept {
            Gone::default().add(user);
        }
        kept
    }

    fn append(&mut self, record: Record) -> Result<(), AllocError> {
        let signal = record.info.signal;
        let node = heap::box_urgent(Node { record, link: LinkedListLink::new() })?;
        let at = match self.lane(signal) {
            Some(at) => at,
            None => {
                heap::push_urgent(&mut self.lanes, Lane { signal, records: List::new(InOrder::NEW) })?;
                self.lanes.len() - 1
            }
        };
        self.lanes[at].records.push_back(node);
        Ok(())
    }

    fn lane(&self, signal: u32) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.signal == signal)
    }

    /// Takes the oldest `signal`, which is in the set.
    pub fn take(&mut self, signal: u32) -> Info {
        if self.expired.is_some() {
            return self.take_of_all(signal);
        }
        let info = self.unlink(signal).unwrap_or(Info::of_user(signal, si::USER, 0, 0));
        let has_more = signal >= RT_MIN && self.lane(signal).is_some();
        if !has_more {
            self.set &= !bit(signal);
        }
        info
    }

    /// The same with signals of timers.
    #[cold]
    fn take_of_all(&mut self, signal: u32) -> Info {
        let is_first = match (self.oldest_record(signal), self.oldest_expired(signal)) {
            (Some(record), Some(timer)) => (timer as u32).wrapping_sub(record) as i32 <= 0,
            (record, _) => record.is_none(),
        };
        let expired = self.expired.as_ref().filter(|_| is_first).and_then(|expired| expired.take(signal));
        let info = match expired {
            Some((id, value)) => Info::of_timer(signal, id, value),
            None => self.unlink(signal).unwrap_or(Info::of_user(signal, si::USER, 0, 0)),
        };
        self.clear_if_none(signal);
        info
    }

    fn oldest_record(&self, signal: u32) -> Option<u32> {
        let first = self.first.as_ref().filter(|record| record.info.signal == signal);
        let next = || Some(&self.lanes[self.lane(signal)?].records.front().get()?.record);
        first.or_else(next).map(|record| record.sent)
    }

    fn oldest_expired(&self, signal: u32) -> Option<u64> {
        self.expired.as_ref()?.oldest(signal)
    }

    fn clear_if_none(&mut self, signal: u32) {
        if self.oldest_record(signal).is_none() && self.oldest_expired(signal).is_none() {
            self.set &= !bit(signal);
        }
    }

    /// Where signals of timers go. `new` is for the first of them.
    pub fn expired(&mut self, new: &KArc<Expired>) -> KArc<Expired> {
        self.expired.get_or_insert_with(|| new.clone()).clone()
    }

    /// Adds the signal of a timer whose target this queue is. False if it is pending already; `None` if the queue is not the one
    /// that the timer was made for.
    ///
    /// # Safety
    /// As [`Expired::add`].
    pub unsafe fn add_expired(&mut self, expired: &KArc<Expired>, place: &Place) -> Option<bool> {
        self.expired.as_ref().filter(|own| KArc::ptr_eq(own, expired))?;
        self.sent += 1;
        self.set |= bit(place.signal);
        // SAFETY: the caller's promise.
        Some(unsafe { expired.add(place, self.sent) })
    }

    /// Drops the signal of a timer that goes. False if the queue is not the one that the timer was made for.
    pub fn forget(&mut self, expired: &KArc<Expired>, place: &Place) -> bool {
        let is_own = self.expired.as_ref().is_some_and(|own| KArc::ptr_eq(own, expired));
        if is_own && expired.remove(place) {
            self.clear_if_none(place.signal);
        }
        is_own
    }

    /// Takes out the oldest record of a signal.
    fn unlink(&mut self, signal: u32) -> Option<Info> {
        let record = match self.first.take_if(|record| record.info.signal == signal) {
            Some(first) => first,
            None => {
                let at = self.lane(signal)?;
                let node = self.lanes[at].records.pop_front()?;
                if self.lanes[at].records.is_empty() {
                    self.lanes.swap_remove(at);
                    self.keep_no_room();
                }
                node.record
            }
        };
        Gone::default().add(record.user);
        Some(record.info)
    }

    fn keep_no_room(&mut self) {
        if self.lanes.is_empty() {
            self.lanes = Vec::new();
        }
    }

    /// Removes a set of signals. Returns their records, which the caller releases without a lock: there may be many of a signal
    /// from [`RT_MIN`] on.
    #[must_use]
    pub fn remove(&mut self, set: u64) -> Records {
        let mut records = Records::none();
        if self.set & set != 0 {
            self.set &= !set;
            if let Some(first) = self.first.take_if(|record| set & bit(record.info.signal) != 0) {
                Gone::default().add(first.user);
            }
            for lane in self.lanes.extract_if(.., |lane| set & bit(lane.signal) != 0) {
                records.append(Records(lane.records));
            }
            self.keep_no_room();
            if let Some(expired) = &self.expired {
                expired.drop_all(set, self.sent);
            }
        }
        records
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        drop(self.remove(!0));
    }
}

/// Records that are in no queue any more, still charged.
pub struct Records(List);

impl Records {
    /// None.
    pub fn none() -> Self {
        Self(List::new(InOrder::NEW))
    }

    /// Appends others.
    pub fn append(&mut self, mut others: Self) {
        self.0.back_mut().splice_after(others.0.take());
    }

    /// Drops the first `most` of them; returns whether there are more.
    pub fn drop_some(&mut self, most: usize) -> bool {
        let mut gone = Gone::default();
        for _ in 0..most {
            let Some(node) = self.0.pop_front() else { return false };
            gone.add(node.record.user);
        }
        !self.0.is_empty()
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.drop_some(usize::MAX);
    }
}

/// A process's signals.
pub struct Pending {
    /// The queue's set, for reading without the lock.
    set: AtomicU64,
    queue: SpinLock<Queue>,
}

impl Pending {
    /// None.
    pub fn new() -> Self {
        Self { set: AtomicU64::new(0), queue: SpinLock::new(Cpu, Rank::Process, Queue::new()) }
    }

    /// The set.
    pub fn get(&self) -> u64 {
        self.set.load(Ordering::Acquire)
    }

    /// Changes the queue.
    pub fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock();
        let result = change(&mut queue);
        self.set.store(queue.set(), Ordering::Release);
        result
    }

    /// Adds a signal, see [`Queue::add`].
    pub fn add(&self, info: &Info, payer: Payer) -> bool {
        self.change(|queue| queue.add(info, payer))
    }

    /// Takes a signal, unless another thread has taken it.
    pub fn take(&self, signal: u32) -> Option<Info> {
        self.change(|queue| (queue.set() & bit(signal) != 0).then(|| queue.take(signal)))
    }

    /// Removes a set of signals, see [`Queue::remove`].
    #[must_use]
    pub fn remove(&self, set: u64) -> Records {
        if self.get() & set == 0 {
            return Records::none();
        }
        self.change(|queue| queue.remove(set))
    }
}

const _: () = assert!(sig::COUNT == 65, "a set is one word");
