//! What signals do to a process: its table of actions, which processes may share (`CLONE_SIGHAND`).
//!
//! Lock order: a process's pointer to its table ([`Rank::Process`]), then the table ([`Rank::Descriptors`]). Each is held for a
//! few words.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_abi::layout::Sigaction;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::signo::{STOPS, bit};
use crate::arch::speculation;
use crate::vm::{Cpu, SpinLock};

const IGNORED_BY_DEFAULT: u64 = bit(sig::CHLD) | bit(sig::CONT) | bit(sig::URG) | bit(sig::WINCH);

/// Signals that end a process with a core dump by default.
const DUMPS: u64 = bit(sig::QUIT)
    | bit(sig::ILL)
    | bit(sig::TRAP)
    | bit(sig::ABRT)
    | bit(sig::BUS)
    | bit(sig::FPE)
    | bit(sig::SEGV)
    | bit(sig::XCPU)
    | bit(sig::XFSZ)
    | bit(sig::SYS);

/// Signals whose default action is fatal, as Linux calls it: they end a process without a core dump.
const FATAL_BY_DEFAULT: u64 = !(IGNORED_BY_DEFAULT | STOPS | DUMPS);

/// `SIG_DFL`.
pub const DEFAULT: u64 = 0;
/// `SIG_IGN`.
pub const IGNORE: u64 = 1;

/// The actions that programs have set. All others are the default.
struct Table {
    /// Signals whose action was set: their places are initialised.
    own: u64,
    actions: [MaybeUninit<Sigaction>; sig::COUNT as usize],
}

impl Table {
    // Not a constant: the compiler writes the whole of one, with zeros for what is not initialised.
    #[inline(always)]
    fn new() -> Self {
        Self { own: 0, actions: [const { MaybeUninit::uninit() }; sig::COUNT as usize] }
    }

    /// The number may come from a program: a number that is no signal has the default action.
    fn get(&self, signal: u32) -> Sigaction {
        match speculation::get(&self.actions, signal as usize) {
            // SAFETY: places of signals in the set are initialised.
            Some(place) if self.own & signal_bit(signal) != 0 => unsafe { place.assume_init() },
            _ => Sigaction::default(),
        }
    }

    fn set(&mut self, signal: u32, action: Sigaction) {
        if let Some(place) = speculation::get_mut(&mut self.actions, signal as usize) {
            place.write(action);
            self.own |= signal_bit(signal);
        }
    }

    /// The signals whose action was set, with their actions.
    fn iter(&self) -> impl Iterator<Item = (u32, Sigaction)> {
        let mut left = self.own;
        core::iter::from_fn(move || {
            let signal = left.trailing_zeros() + 1;
            left &= left.checked_sub(1)?;
            Some((signal, self.get(signal)))
        })
    }
}

/// As [`bit`], but 0 for the number 0.
fn signal_bit(signal: u32) -> u64 {
    signal.checked_sub(1).map_or(0, |n| 1 << (n & 63))
}

/// A table of actions.
pub struct Actions {
    table: SpinLock<Table>,
    /// The signals that have no effect with the present actions, for senders. Written under the table's lock.
    ignored: AtomicU64,
    /// The signals that end a process without a core dump. As above.
    fatal: AtomicU64,
}

impl Actions {
    /// All as by default.
    pub fn new() -> Self {
        Self {
            table: SpinLock::new(Cpu, Rank::Descriptors, Table::new()),
            ignored: AtomicU64::new(IGNORED_BY_DEFAULT),
            fatal: AtomicU64::new(FATAL_BY_DEFAULT),
        }
    }

    /// A copy.
    pub fn copy(&self) -> Result<KArc<Self>, Errno> {
        self.copy_if(|_| true)
    }

    /// exec: caught signals get their default action, ignored ones stay ignored.
    pub fn copy_for_exec(&self) -> Result<KArc<Self>, Errno> {
        self.copy_if(|action| action.handler == IGNORE)
    }

    fn copy_if(&self, keep: impl Fn(&Sigaction) -> bool) -> Result<KArc<Self>, Errno> {
        let mut copy = KArc::try_unshared(Self::new)?;
        let (mut ignored, mut fatal) = (IGNORED_BY_DEFAULT, FATAL_BY_DEFAULT);
        {
            let table = self.table.lock();
            for (signal, action) in table.iter().filter(|(_, action)| keep(action)) {
                copy.table.get_mut().set(signal, action);
                ignored = with_if(ignored, signal, is_ignored(signal, &action));
                fatal = with_if(fatal, signal, is_fatal(signal, &action));
            }
        }
        *copy.ignored.get_mut() = ignored;
        *copy.fatal.get_mut() = fatal;
        Ok(copy.share())
    }

    /// The action on a signal, whose number may come from a program: the default for a number that is no signal.
    pub fn get(&self, signal: u32) -> Sigaction {
        self.table.lock().get(signal)
    }

    /// Changes the action on a signal and returns the former one.
    pub fn set(&self, signal: u32, action: Sigaction) -> Sigaction {
        let mut table = self.table.lock();
        let old = table.get(signal);
        self.change(&mut table, signal, action);
        old
    }

    fn change(&self, table: &mut Table, signal: u32, action: Sigaction) {
        table.set(signal, action);
        let (ignored, fatal) = (self.ignored.load(Ordering::Relaxed), self.fatal.load(Ordering::Relaxed));
        self.ignored.store(with_if(ignored, signal, is_ignored(signal, &action)), Ordering::Relaxed);
        self.fatal.store(with_if(fatal, signal, is_fatal(signal, &action)), Ordering::Relaxed);
    }

    /// Makes the action on a signal the default, and keeps the rest of what was set.
    pub fn reset(&self, signal: u32) {
        let mut table = self.table.lock();
        let old = table.get(signal);
        self.change(&mut table, signal, Sigaction { handler: DEFAULT, ..old });
    }

    /// The signals that end a process without a core dump.
    pub fn fatal(&self) -> u64 {
        self.fatal.load(Ordering::Relaxed)
    }

    /// The signals that programs have set to be ignored, and those that they handle.
    pub fn chosen(&self) -> (u64, u64) {
        let (mut ignored, mut caught) = (0, 0);
        for (signal, action) in self.table.lock().iter() {
            ignored = with_if(ignored, signal, action.handler == IGNORE);
            caught = with_if(caught, signal, action.handler > IGNORE);
        }
        (ignored, caught)
    }

    /// Whether a signal has no effect.
    pub fn ignores(&self, signal: u32) -> bool {
        self.ignored.load(Ordering::Relaxed) & bit(signal) != 0
    }
}

/// A set with a signal, or without it.
fn with_if(set: u64, signal: u32, holds: bool) -> u64 {
    let own = signal_bit(signal);
    if holds { set | own } else { set & !own }
}

fn is_ignored(signal: u32, action: &Sigaction) -> bool {
    matches!(Disposition::of(signal, *action), Disposition::Ignore)
}

fn is_fatal(signal: u32, action: &Sigaction) -> bool {
    action.handler == DEFAULT && FATAL_BY_DEFAULT & signal_bit(signal) != 0
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
