//! Pending signals: sent but not yet taken, each with its record [`Info`].
//!
//! A signal below [`RT_MIN`] is pending at most once: a second one is lost. The others queue in the order in which they
//! were sent. The first record of a queue is stored in place, so that the common case allocates nothing; there are at
//! most [`MOST`] further ones, and each is charged to the receiver's user. If there is no room for a record, or its user has too
//! many, a signal without a value from its sender is pending without a record, as on Linux, and a signal with a value is refused.
//!
//! A thread's queue is covered by the lock of its signals; a process's has a lock of [`Rank::Process`], and its set can be
//! read without.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::flags::{si, sig};
use quire_abi::layout::Siginfo;
use quire_mm::fallible::TryVec;
use quire_mm::sync::Rank;

use super::signo::bit;
use super::users::{Gone, charge};
use crate::vm::{Cpu, SpinLock};

/// The first signal that queues.
pub const RT_MIN: u32 = 32;

/// The most further records of one queue. It bounds the work under the queue's lock: a search, or dropping all.
pub const MOST: usize = 512;

/// A signal's record: the part of `siginfo_t` that may be nonzero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The signal.
    pub signal: u32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    /// Fields that depend on the code.
    pub fields: [u64; 4],
}

impl Info {
    fn new(signal: u32, code: i32, fields: [u64; 4]) -> Self {
        Self { signal, errno: 0, code, fields }
    }

    /// From the kernel itself.
    pub fn of_kernel(signal: u32) -> Self {
        Self::new(signal, si::KERNEL, [0; 4])
    }

    /// From a process: `code` is `SI_USER` or `SI_TKILL`.
    pub fn of_user(signal: u32, code: i32, pid: u32, uid: u32) -> Self {
        Self::new(signal, code, [u64::from(pid) | u64::from(uid) << 32, 0, 0, 0])
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
        Ok(Self { signal, errno: record.errno, code: record.code, fields: record.fields })
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
    /// The user to whom it is charged.
    user: u32,
}

impl Record {
    fn is_of(&self, set: u64) -> bool {
        set & bit(self.info.signal) != 0
    }
}

/// Signals that wait, oldest first.
pub struct Queue {
    set: u64,
    /// Older than all of `rest`.
    first: Option<Record>,
    rest: Vec<Record>,
}

impl Queue {
    /// None.
    pub const fn new() -> Self {
        Self { set: 0, first: None, rest: Vec::new() }
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
        let kept = self.keep(info, payer).is_some();
        if kept || !info.must_be_kept() {
            self.set |= bit(info.signal);
            return true;
        }
        false
    }

    fn keep(&mut self, info: &Info, payer: Payer) -> Option<()> {
        if self.rest.len() == MOST {
            return None;
        }
        let limit = if info.is_exempt() { u64::MAX } else { payer.limit };
        if !charge(payer.user, limit) {
            return None;
        }
        let record = Record { info: *info, user: payer.user };
        if self.first.is_none() && self.rest.is_empty() {
            self.first = Some(record);
            return Some(());
        }
        let kept = self.rest.try_push(record);
        if kept.is_err() {
            Gone::default().add(payer.user);
        }
        kept.ok()
    }

    /// Takes the oldest `signal`, which is in the set.
    pub fn take(&mut self, signal: u32) -> Info {
        let info = self.unlink(bit(signal)).unwrap_or(Info::of_user(signal, si::USER, 0, 0));
        let has_more = signal >= RT_MIN && self.rest.iter().any(|record| record.info.signal == signal);
        if !has_more {
            self.set &= !bit(signal);
        }
        info
    }

    /// Takes out the oldest record of one of a set of signals.
    fn unlink(&mut self, set: u64) -> Option<Info> {
        let record = match self.first.take_if(|record| record.is_of(set)) {
            Some(first) => first,
            None => {
                let at = self.rest.iter().position(|record| record.is_of(set))?;
                let record = self.rest.remove(at);
                if self.rest.is_empty() {
                    self.rest = Vec::new();
                }
                record
            }
        };
        Gone::default().add(record.user);
        Some(record.info)
    }

    /// Takes all.
    pub fn take_all(&mut self) -> Self {
        core::mem::replace(self, Self::new())
    }

    /// Drops a set of signals.
    pub fn remove(&mut self, set: u64) {
        if self.set & set != 0 {
            self.set &= !set;
            let mut gone = Gone::default();
            let mut stays = |record: &Record| {
                if record.is_of(set) {
                    gone.add(record.user);
                }
                !record.is_of(set)
            };
            self.first.take_if(|record| !stays(record));
            self.rest.retain(stays);
            if self.rest.is_empty() {
                self.rest = Vec::new();
            }
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut gone = Gone::default();
        self.first.iter().chain(&self.rest).for_each(|record| gone.add(record.user));
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

    fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
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

    /// Takes all, to be dropped where there is no lock: there may be many.
    pub fn take_all(&self) -> Queue {
        self.change(Queue::take_all)
    }

    /// Drops a set of signals.
    pub fn remove(&self, set: u64) {
        if self.get() & set != 0 {
            self.change(|queue| queue.remove(set));
        }
    }
}

const _: () = assert!(sig::COUNT == 65, "a set is one word");
