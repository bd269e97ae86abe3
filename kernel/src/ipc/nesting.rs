//! Epolls that watch epolls must not form circles or long chains, since wake-ups recurse along them.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::Errno;
use quire_mm::fallible::KArc;

use super::epoll::Epoll;
use crate::task::mutex::{Mutex, MutexGuard};
use crate::task::wait::Sleep;

/// The maximum number of epolls in a chain (Linux's `EP_MAX_NESTS` plus one).
const DEEPEST: u64 = 5;

/// Held from the check until the item has been added.
static NESTING: Mutex = Mutex::new();

/// Counts the walks. Changed while [`NESTING`] is held.
static WALKS: AtomicU64 = AtomicU64::new(0);

/// The result of the last walk through an epoll: the walk's number, and in the last byte the length of the longest
/// chain from here. A walk visits each epoll once.
pub struct Checked(AtomicU64);

impl Checked {
    /// No walk.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn get(&self, walk: u64) -> Option<u64> {
        let last = self.0.load(Ordering::Relaxed);
        (last >> 8 == walk).then_some(last & 0xff)
    }

    fn set(&self, walk: u64, length: u64) {
        self.0.store(walk << 8 | length, Ordering::Relaxed);
    }
}

/// Permits `above` to watch `below`, as long as the guard lives. ELOOP; EINTR if the thread is killed.
pub fn check(above: &KArc<Epoll>, below: &KArc<Epoll>) -> Result<MutexGuard<'static>, Errno> {
    let guard = NESTING.lock(Sleep::Killable)?;
    let walk = || WALKS.fetch_add(1, Ordering::Relaxed) + 1;
    let down = chain(below, walk(), 1, above, |epoll, visit| epoll.each_below(visit))?;
    let up = chain(above, walk(), 1, below, |epoll, visit| epoll.source.each_owner(visit))?;
    if up + down > DEEPEST { Err(Errno::ELOOP) } else { Ok(guard) }
}

/// Calls the second argument for the neighbours of the first one.
type Neighbours = fn(&Epoll, &mut dyn FnMut(&KArc<Epoll>) -> Result<(), Errno>) -> Result<(), Errno>;

/// The length of the longest chain that starts at `epoll`. ELOOP if it leads to `other`, or is too long.
fn chain(
    epoll: &KArc<Epoll>,
    walk: u64,
    level: u64,
    other: &KArc<Epoll>,
    neighbours: Neighbours,
) -> Result<u64, Errno> {
    if KArc::ptr_eq(epoll, other) || level > DEEPEST {
        return Err(Errno::ELOOP);
    }
    if let Some(length) = epoll.checked.get(walk) {
        return Ok(length);
    }
    let mut longest = 0;
    neighbours(epoll, &mut |next| {
        longest = longest.max(chain(next, walk, level + 1, other, neighbours)?);
        Ok(())
    })?;
    epoll.checked.set(walk, longest + 1);
    Ok(longest + 1)
}
