//! Control groups: which processes' memory is counted together, and how much they may have.
//!
//! The design is docs/control-groups.md. [`Groups`] has the tree; [`group`] one group's numbers; [`life`] is making and
//! removing them; [`charge`] charging and uncharging; [`stock`] what a CPU has charged in advance; [`stalls`] whose
//! threads wait for memory; [`tasks`] how many tasks there are; [`state`] whether anybody is in a group, whether all
//! are frozen, and who kills them.
//!
//! A frame of user memory has the number of its group in its record, 0 for none ([`Page::control_group`]); charge and
//! record change together in `crate::frame` and `crate::rmap::Release`, and nowhere else. So has a table, and a slot of
//! swap; a thread's kernel stack keeps it itself.
//!
//! # Invariants
//! - `own` of a group is the number of frames whose records have its number, plus its threads' stacks, and what stocks
//!   have of it; `own_swap` is the same of slots. While one of them, or its number of tasks, is not 0, the number
//!   belongs to the group.
//! - `usage` is the sum of `own` over the group and all below it, ghosts too; `swap` that of `own_swap`.
//! - A group with members or children is no ghost; a group's parent is there as long as the group is.
//!
//! Lock order: the tree's lock (`Rank::Groups`) is taken with any lock below it held, and under it the pressure of a
//! group alone. Charges take none.
//!
//! [`Page::control_group`]: crate::page::Page::control_group

mod charge;
mod group;
mod ids;
mod life;
mod stalls;
mod state;
mod stock;
mod tasks;
#[cfg(test)]
mod tests;

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU16, AtomicU64, Ordering::*};

use crate::fallible::{AllocError, KArc};
use crate::hash::keyed;
use crate::machine::MAX_CPUS;
use crate::sync::{Rank, SpinLock};

pub use group::{Event, Group, Kernel, Limit, MAX_NAME, Numbers, Stat};
use ids::Ids;
use life::MAX_DEPTH;
pub use life::Refused;
use stalls::Stalls;
pub use stalls::{NOTHING, Runs, STALLED};
pub use state::Killing;
use stock::Stock;

/// The machine with its control groups.
pub trait Machine: crate::page_alloc::Machine {
    /// What reclaim has of a group: a higher floor's.
    type Lists: Send + Sync;

    /// That of a new group.
    fn make_lists(self) -> Result<Self::Lists, AllocError>;

    /// The group is no more; others may still use them.
    fn end_lists(lists: &Self::Lists);

    /// The groups.
    fn groups(self) -> &'static Groups<Self>;

    /// The number of the calling thread's group, 0 for the root. The group has it as a member.
    fn group(self) -> u16;

    /// The calling thread has charged a page above the `high` of its group, and is to call
    /// [`Groups::make_room_above_high`] when it holds no lock.
    fn is_above_high(self) {}

    /// The [state](Group::changes) of a group has changed that somebody watches. The table of processes may be locked.
    fn group_changed(self) {}
}

/// Groups behind one entry of the first table, and entries of it.
const STEP: usize = 256;

/// Groups between two points at which others may run.
pub(crate) const POINT_EVERY: usize = 64;

/// Chains by the hash of parent and name.
const BUCKETS: usize = 512;

/// What names a group for good: its number, and above it how many groups were made before. 0 is the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u64);

impl Key {
    /// The group of processes that are in no other.
    pub const ROOT: Key = Key(0);

    /// The number in records.
    pub fn id(self) -> u16 {
        self.0 as u16
    }
}

/// The second step of the table.
struct Chunk<M: Machine> {
    /// Each has an owner's reference; null for a free number.
    groups: [AtomicPtr<Group<M>>; STEP],
    /// The number of the nearest group that is no ghost: its own, or the parent's. What it leads to may be a ghost by
    /// now.
    forward: [AtomicU16; STEP],
    /// The next one in its bucket; 0 ends it. Under the tree's lock.
    chain: [AtomicU16; STEP],
}

/// Under the lock.
struct Tree {
    buckets: [u16; BUCKETS],
    /// Groups that were made so far.
    made: u64,
    ghosts: usize,
    /// The numbers of all groups, of those that are no ghosts, and of ghosts.
    taken: Ids,
    named: Ids,
    ghostly: Ids,
    /// Ghosts that were still there when their pages had been given to others.
    kept: usize,
}

/// All groups but the root. A `static` in the kernel.
pub struct Groups<M: Machine> {
    machine: M,
    chunks: [AtomicPtr<Chunk<M>>; STEP],
    stocks: [Stock; MAX_CPUS],
    tree: SpinLock<Tree, M>,
    stalls: Stalls<M>,
    /// Mixed into hashes of names.
    seed: AtomicU64,
}

impl<M: Machine> Groups<M> {
    /// None.
    pub const fn new(machine: M) -> Self {
        let tree = Tree {
            buckets: [0; BUCKETS],
            made: 0,
            ghosts: 0,
            taken: Ids::new(),
            named: Ids::new(),
            ghostly: Ids::new(),
            kept: 0,
        };
        Self {
            machine,
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; STEP],
            stocks: [const { Stock::new() }; MAX_CPUS],
            tree: SpinLock::new(machine, Rank::Groups, tree),
            stalls: Stalls::new(machine),
            seed: AtomicU64::new(0),
        }
    }

    /// From now on nobody who does not know this number can choose names that all lie in one bucket. There is no group
    /// yet.
    pub fn set_seed(&self, seed: u64) {
        self.seed.store(seed, Relaxed);
    }

    fn bucket(&self, parent: Key, name: &[u8]) -> usize {
        (keyed(self.seed.load(Relaxed), parent.0, name) >> 32) as usize % BUCKETS
    }

    fn chunk(&self, id: usize) -> Option<&Chunk<M>> {
        let chunk = self.chunks.get(id / STEP)?.load(Acquire);
        // SAFETY: chunks are never freed.
        unsafe { chunk.as_ref() }
    }

    /// The group with a number, which the caller knows not to end meanwhile: it is a member, holds a page or a slot of
    /// the group, or the tree's lock. `None` for the root.
    #[inline]
    fn at(&self, id: u16) -> Option<&Group<M>> {
        if id == 0 {
            return None;
        }
        let group = self.chunk(id.into())?.groups[usize::from(id) % STEP].load(Acquire);
        // SAFETY: the caller's promise.
        unsafe { group.as_ref() }
    }

    /// The group that pages with this number count for now: itself, or the nearest one above it that is no ghost. 0 is
    /// the root. A hint for a number that the caller does not know to be taken.
    pub fn effective(&self, id: u16) -> u16 {
        let mut at = id;
        // (A number that is given anew meanwhile may lead elsewhere, even around.)
        for _ in 0..2 * MAX_DEPTH {
            let Some(chunk) = self.chunk(at.into()) else { return 0 };
            let to = chunk.forward[usize::from(at) % STEP].load(Relaxed);
            if to == at {
                return at;
            }
            at = to;
        }
        0
    }

    /// A reference to the group with a number, if it is one, and no ghost.
    pub fn get(&self, id: u16) -> Option<KArc<Group<M>>> {
        let _tree = self.tree.lock();
        self.hold(id).filter(|group| !group.is_ghost())
    }

    /// The group with this key. `None` for the root, and one that was removed.
    pub fn find(&self, key: Key) -> Option<KArc<Group<M>>> {
        self.get(key.id()).filter(|group| group.key() == key)
    }

    /// A reference, ghost or not. Under the tree's lock.
    fn hold(&self, id: u16) -> Option<KArc<Group<M>>> {
        let group = ptr::from_ref(self.at(id)?);
        // SAFETY: the table has a reference, which only goes under the lock.
        unsafe {
            KArc::add_owners(&core::mem::ManuallyDrop::new(KArc::from_raw(group)), 1);
            Some(KArc::from_raw(group))
        }
    }

    /// The first group with a number above `id` that is no ghost.
    pub fn after(&self, id: u16) -> Option<KArc<Group<M>>> {
        let tree = self.tree.lock();
        tree.named.next(usize::from(id) + 1).and_then(|id| self.hold(id as u16))
    }

    /// All groups that are no ghosts, by number. Those that are made or removed meanwhile may be among them.
    pub fn all(&self) -> impl Iterator<Item = KArc<Group<M>>> {
        let mut id = 0;
        core::iter::from_fn(move || self.after(id).inspect(|group| id = group.key().id()))
    }

    /// Whether there is any group, ghosts not counted.
    pub fn has_any(&self) -> bool {
        let tree = self.tree.lock();
        tree.named.next(1).is_some()
    }

    /// The child of a group with this name.
    pub fn child(&self, parent: Key, name: &[u8]) -> Option<KArc<Group<M>>> {
        let tree = self.tree.lock();
        self.search(&tree, parent, name)
    }

    fn search(&self, tree: &Tree, parent: Key, name: &[u8]) -> Option<KArc<Group<M>>> {
        let mut id = tree.buckets[self.bucket(parent, name)];
        while let Some(group) = self.at(id) {
            if group.parent_key() == parent && group.name() == name && !group.is_ghost() {
                return self.hold(id);
            }
            id = self.chunk(id.into())?.chain[usize::from(id) % STEP].load(Relaxed);
        }
        None
    }

    /// Pages that are charged to groups. No spin lock is held.
    pub fn charged(&self) -> usize {
        let mut pages = 0;
        for (n, group) in self.all().enumerate() {
            pages += if group.parent().is_none() { group.usage() } else { 0 };
            if n % POINT_EVERY == POINT_EVERY - 1 {
                // (A thread that is killed gets a part.)
                let _ = self.machine.resched_point();
            }
        }
        pages
    }

    /// A process enters a group that is not the root: its number. As for all changes of members, the caller sees to it
    /// that they come one after the other.
    pub fn enter(&self, key: Key) -> Option<u16> {
        let tree = self.tree.lock();
        let group = self.at(key.id()).filter(|group| group.key() == key && !group.is_ghost())?;
        group.add_member(1);
        drop(tree);
        // (The member keeps it.)
        group.count_processes(1);
        Some(key.id())
    }

    /// A second process enters the group of one that cannot leave it meanwhile.
    pub fn enter_too(&self, id: u16) {
        if let Some(group) = self.at(id) {
            group.add_member(1);
            group.count_processes(1);
        }
    }

    /// A process leaves its group.
    pub fn leave(&self, id: u16) {
        if let Some(group) = self.at(id) {
            group.count_processes(-1);
            group.add_member(-1);
        }
    }
}
