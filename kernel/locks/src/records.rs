//! The record locks of a file (fcntl).
//!
//! An owner's locks do not overlap, and two of the same kind are not adjacent: a new lock replaces the locks that it
//! covers, splits a lock that reaches beyond it, and merges with adjacent locks of its kind. Each lock is in two trees:
//!
//! - by owner, then place: an owner's own locks in a range are neighbours.
//! - by place, then owner: a node knows the farthest end of the locks below it, and the farthest end of those that have
//!   any *other* owner than that lock; both for all locks, and for exclusive ones. So a search for the first
//!   conflicting lock never has to visit the locks of its own owner, and goes down once.

use alloc::boxed::Box;

use quire_mm::fallible::AllocError;

use crate::range::{Kind, Lock, Owner, Range};
use crate::tree::{Item, Node, Tree};

/// The ends of locks: the farthest one, and the farthest one of another owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reach {
    first: Option<(u64, Owner)>,
    second: Option<(u64, Owner)>,
}

impl Reach {
    fn add(&mut self, other: Option<(u64, Owner)>) {
        let Some((end, owner)) = other else { return };
        match self.first {
            Some((most, farthest)) if farthest == owner => self.first = Some((most.max(end), owner)),
            Some((most, _)) if most >= end => {
                if self.second.is_none_or(|(second, _)| second < end) {
                    self.second = other;
                }
            }
            former => {
                // (The former second may have the same owner as the new first; the former first has another owner, and
                // reaches at least as far.)
                self.second = former;
                self.first = other;
            }
        }
    }

    fn with(mut self, other: Option<&Self>) -> Self {
        if let Some(other) = other {
            self.add(other.first);
            self.add(other.second);
        }
        self
    }

    /// Whether a lock of an owner other than `me` reaches `place`.
    fn is_met(&self, place: u64, me: Owner) -> bool {
        [self.first, self.second].into_iter().flatten().any(|(end, owner)| owner != me && end >= place)
    }
}

/// The summary in a node of the tree by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    all: Reach,
    exclusive: Reach,
}

impl Sum {
    /// Whether a lock that conflicts with `lock` reaches its beginning.
    fn is_met(&self, lock: &Lock) -> bool {
        let reach = if lock.kind == Kind::Exclusive { &self.all } else { &self.exclusive };
        reach.is_met(lock.range.start, lock.owner)
    }
}

struct ByPlace(Lock);

impl Item for ByPlace {
    type Key = (u64, Owner);
    type Sum = Sum;
    fn key(&self) -> (u64, Owner) {
        (self.0.range.start, self.0.owner)
    }
    fn sum(&self, left: Option<&Sum>, right: Option<&Sum>) -> Sum {
        let own = Some((self.0.range.end, self.0.owner));
        let all = Reach { first: own, second: None };
        let exclusive = Reach { first: own.filter(|_| self.0.kind == Kind::Exclusive), second: None };
        let [left_all, right_all] = [left, right].map(|sum| sum.map(|sum| &sum.all));
        let [left_exclusive, right_exclusive] = [left, right].map(|sum| sum.map(|sum| &sum.exclusive));
        Sum { all: all.with(left_all).with(right_all), exclusive: exclusive.with(left_exclusive).with(right_exclusive) }
    }
}

struct ByOwner(Lock);

impl Item for ByOwner {
    type Key = (Owner, u64);
    type Sum = ();
    fn key(&self) -> (Owner, u64) {
        (self.0.owner, self.0.range.start)
    }
    fn sum(&self, _: Option<&()>, _: Option<&()>) {}
}

/// The size of a pool: the nodes that an operation needs, and one that it takes out before it inserts the parts.
const PLACES: usize = 3;

/// Nodes for an operation, which adds at most two locks. Nodes that it removes are added here, up to a limit.
#[derive(Default)]
pub struct Spare {
    by_place: [Option<Box<Node<ByPlace>>>; PLACES],
    by_owner: [Option<Box<Node<ByOwner>>>; PLACES],
}

impl Spare {
    /// Enough for any operation.
    pub fn new() -> Result<Self, AllocError> {
        const NOTHING: Lock = Lock { owner: Owner(0), range: Range { start: 0, end: 0 }, kind: Kind::Shared, pid: 0 };
        let mut spare = Self::default();
        for place in 0..2 {
            spare.by_place[place] = Some(Node::new(ByPlace(NOTHING))?);
            spare.by_owner[place] = Some(Node::new(ByOwner(NOTHING))?);
        }
        Ok(spare)
    }
}

fn give<T>(pool: &mut [Option<T>], node: T) {
    if let Some(place) = pool.iter_mut().find(|place| place.is_none()) {
        *place = Some(node);
    }
}

/// The record locks of a file.
#[derive(Default)]
pub struct Records {
    by_place: Tree<ByPlace>,
    by_owner: Tree<ByOwner>,
}

impl Records {
    /// None.
    pub const fn new() -> Self {
        Self { by_place: Tree::new(), by_owner: Tree::new() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_owner.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_owner.len()
    }

    /// The first lock that conflicts with `lock`.
    pub fn conflict(&self, lock: &Lock) -> Option<&Lock> {
        let mut node = self.by_place.root();
        while let Some(at) = node {
            let is_before_end = at.item().0.range.start <= lock.range.end;
            if let Some(left) = at.left()
                && left.sum().is_met(lock)
            {
                // (All locks there begin before this one. So if this one begins early enough, the lock is found there.)
                node = Some(left);
            } else if !is_before_end {
                return None;
            } else if at.item().0.conflicts(lock) {
                return Some(&at.item().0);
            } else {
                node = at.right();
            }
        }
        None
    }

    /// The first lock of an owner in a range.
    pub fn own(&self, owner: Owner, range: Range) -> Option<&Lock> {
        let before = self.by_owner.below(&(owner, range.start));
        let next = || self.by_owner.at_or_above(&(owner, range.start));
        let overlaps = |lock: &&Lock| lock.owner == owner && lock.range.overlaps(&range);
        before.map(|item| &item.0).filter(overlaps).or_else(|| next().map(|item| &item.0).filter(overlaps))
    }

    /// Sets a lock. `Err` with a conflicting lock. Calls `point` after each lock that is replaced; returns whether less
    /// is excluded than before, so that waiters may continue.
    pub fn set(&mut self, mut lock: Lock, spare: &mut Spare, point: impl FnMut()) -> Result<bool, Lock> {
        if let Some(other) = self.conflict(&lock) {
            return Err(*other);
        }
        let (released, joined) = self.clear(lock.owner, lock.range, Some(lock.kind), spare, point);
        lock.range = joined;
        self.insert(lock, spare);
        Ok(released)
    }

    /// Unlocks a range of an owner; otherwise as [`Records::set`].
    pub fn release(&mut self, owner: Owner, range: Range, spare: &mut Spare, point: impl FnMut()) -> bool {
        self.clear(owner, range, None, spare, point).0
    }

    /// Makes room for an owner's lock of this kind: removes the locks that it covers or merges with. Returns whether
    /// less is excluded than before, and the range including the merged locks.
    fn clear(
        &mut self,
        owner: Owner,
        range: Range,
        kind: Option<Kind>,
        spare: &mut Spare,
        mut point: impl FnMut(),
    ) -> (bool, Range) {
        let mut joined = range;
        let mut released = false;
        let reach = Range { start: range.start.saturating_sub(1), end: range.end.saturating_add(1) };
        // Locks that overlap or adjoin the range are visited in order, beginning with one that begins before it.
        let first = self.by_owner.below(&(owner, range.start)).map(|item| item.0);
        let mut next = first.filter(|lock| lock.owner == owner && lock.range.touches(&range));
        let mut from = range.start;
        loop {
            let found = next.take().or_else(|| self.by_owner.at_or_above(&(owner, from)).map(|item| item.0));
            let Some(lock) = found.filter(|lock| lock.owner == owner && lock.range.start <= reach.end) else { break };
            from = lock.range.end.saturating_add(1).max(from);
            if Some(lock.kind) == kind {
                self.remove(&lock, spare);
                joined.start = joined.start.min(lock.range.start);
                joined.end = joined.end.max(lock.range.end);
            } else if lock.range.overlaps(&range) {
                released |= lock.kind == Kind::Exclusive || kind.is_none();
                self.remove(&lock, spare);
                let left = lock.range.start < range.start;
                let right = lock.range.end > range.end;
                if left {
                    let range = Range { start: lock.range.start, end: range.start - 1 };
                    self.insert(Lock { range, ..lock }, spare);
                }
                if right {
                    let range = Range { start: range.end + 1, end: lock.range.end };
                    self.insert(Lock { range, ..lock }, spare);
                }
            }
            if from > reach.end {
                break;
            }
            point();
        }
        (released, joined)
    }

    fn insert(&mut self, lock: Lock, spare: &mut Spare) {
        let by_place = spare.by_place.iter_mut().find_map(Option::take);
        let by_owner = spare.by_owner.iter_mut().find_map(Option::take);
        debug_assert!(by_place.is_some() && by_owner.is_some(), "an operation adds two locks at most");
        if let (Some(mut by_place), Some(mut by_owner)) = (by_place, by_owner) {
            by_place.set(ByPlace(lock));
            by_owner.set(ByOwner(lock));
            self.by_place.insert(by_place);
            self.by_owner.insert(by_owner);
        }
    }

    fn remove(&mut self, lock: &Lock, spare: &mut Spare) {
        if let Some(node) = self.by_place.remove(&(lock.range.start, lock.owner)) {
            give(&mut spare.by_place, node);
        }
        if let Some(node) = self.by_owner.remove(&(lock.owner, lock.range.start)) {
            give(&mut spare.by_owner, node);
        }
    }

    /// Panics unless the invariants hold.
    #[cfg(test)]
    pub fn validate(&self) {
        self.by_place.validate();
        self.by_owner.validate();
        assert_eq!(self.by_place.len(), self.by_owner.len());
    }
}
