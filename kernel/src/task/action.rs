//! What signals do to a process: its table of actions, which processes may share (`CLONE_SIGHAND`).
//!
//! Lock order: a process's pointer to its table ([`Rank::Process`]), then the table ([`Rank::Descriptors`]). Each is held for a
//! few words.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_abi::layout::Sigaction;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::signal::{STOPS, bit};
use crate::arch::speculation;
use crate::vm::{Cpu, SpinLock};

const IGNORED_BY_DEFAULT: u64 = bit(sig::CHLD) | bit(sig::CONT) | bit(sig::URG) | bit(sig::WINCH);

/// `SIG_DFL`.
pub const DEFAULT: u64 = 0;
/// `SIG_IGN`.
pub const IGNORE: u64 = 1;

type Table = [Sigaction; sig::COUNT as usize];

/// A table of actions.
pub struct Actions {
    table: SpinLock<Table>,
    /// The signals that have no effect with the present actions, for senders. Written under the table's lock.
    ignored: AtomicU64,
}

impl Actions {
    /// All as by default.
    pub fn new() -> Self {
        Self::with([Sigaction::default(); sig::COUNT as usize], IGNORED_BY_DEFAULT)
    }

    fn with(table: Table, ignored: u64) -> Self {
        Self { table: SpinLock::new(Cpu, Rank::Descriptors, table), ignored: AtomicU64::new(ignored) }
    }

    /// A copy.
    pub fn copy(&self) -> Result<KArc<Self>, Errno> {
        let made = KArc::try_unshared(|| {
            let table = self.table.lock();
            Self::with(*table, self.ignored.load(Ordering::Relaxed))
        })?;
        Ok(made.share())
    }

    /// exec: caught signals get their default action, ignored ones stay ignored.
    pub fn copy_for_exec(&self) -> Result<KArc<Self>, Errno> {
        let copy = self.copy()?;
        for signal in 1..sig::COUNT {
            if copy.get(signal).handler != IGNORE {
                copy.set(signal, Sigaction::default());
            }
        }
        Ok(copy)
    }

    /// The action on a signal, whose number may come from a program: the default for a number that is no signal.
    pub fn get(&self, signal: u32) -> Sigaction {
        speculation::get(&*self.table.lock(), signal as usize).copied().unwrap_or_default()
    }

    /// Changes the action on a signal and returns the former one.
    pub fn set(&self, signal: u32, action: Sigaction) -> Sigaction {
        let mut table = self.table.lock();
        let Some(place) = speculation::get_mut(&mut *table, signal as usize) else { return Sigaction::default() };
        let others = self.ignored.load(Ordering::Relaxed) & !bit(signal);
        let own = if Disposition::of(signal, action) == Disposition::Ignore { bit(signal) } else { 0 };
        self.ignored.store(others | own, Ordering::Relaxed);
        core::mem::replace(place, action)
    }

    /// Whether a signal has no effect.
    pub fn ignores(&self, signal: u32) -> bool {
        self.ignored.load(Ordering::Relaxed) & bit(signal) != 0
    }
}

/// The effect of a signal on a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Nothing.
    Ignore,
    /// Ends it.
    Terminate,
    /// Stops it.
    Stop,
    /// Its handler runs.
    Handle(HandlerAction),
}

/// A handler and the fields of its action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandlerAction {
    /// Where it is.
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Where it returns to.
    pub restorer: u64,
    /// Signals blocked while it runs.
    pub mask: u64,
}

impl Disposition {
    /// The effect of an action on a signal.
    pub fn of(signal: u32, action: Sigaction) -> Self {
        match action.handler {
            IGNORE => Self::Ignore,
            DEFAULT if bit(signal) & IGNORED_BY_DEFAULT != 0 => Self::Ignore,
            DEFAULT if bit(signal) & STOPS != 0 => Self::Stop,
            DEFAULT => Self::Terminate,
            handler => Self::Handle(HandlerAction {
                handler,
                flags: action.flags,
                restorer: action.restorer,
                mask: action.mask,
            }),
        }
    }
}
