//! Control groups: which processes' memory is counted together, and how much each group may use.
//!
//! docs/control-groups.md describes the design. [`Groups`] is the tree; [`group`] has the counts of one group; [`life`]
//! makes and removes groups; [`charge`] charges and uncharges pages; [`stock`] holds a CPU's charges in advance;
//! [`stalls`] tracks whose threads wait for memory; [`tasks`] counts tasks; [`state`] tracks whether a group is
//! populated, whether it is frozen, and who kills it.
//!
//! The record of a frame of user memory has the number of its group, 0 for none ([`Page::control_group`]); charge and
//! record change together in `crate::frame` and `crate::rmap::Release`, and nowhere else. The same holds for a
//! translation table and a swap slot; a thread stores the number for its kernel stack itself.
//!
//! # Invariants
//! - `own` of a group is the number of frames whose records have its number, plus its threads' stacks, and its pages in
//!   stocks; `own_swap` is the same for slots. While one of them, or its number of tasks, is not 0, the number belongs
//!   to the group.
//! - `usage` is the sum of `own` over the group and all below it, ghosts too; `swap` is that of `own_swap`.
//! - A group with members or children is no ghost; a group's parent exists for as long as the group.
//!
//! Lock order: the tree's lock (`Rank::Groups`) may be taken while any lock of a lower rank is held; under it only the
//! lock of a group's pressure is taken. Charges take no lock.
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
    /// Reclaim's lists for a group; defined by a higher floor.
    type Lists: Send + Sync;

    /// The lists of a new group.
    fn make_lists(self) -> Result<Self::Lists, AllocError>;

    /// Called when the group has ended; others may still use the lists.
    fn end_lists(lists: &Self::Lists);

    /// The groups.
    fn groups(self) -> &'static Groups<Self>;

    /// The number of the calling thread's group, 0 for the root. The thread's process is a member of that group.
    fn group(self) -> u16;

    /// Notes that the calling thread has charged a page above the `high` of its group, and must call
    /// [`Groups::make_room_above_high`] when it holds no lock.
    fn is_above_high(self) {}

    /// Called when the [state](Group::changes) of a watched group has changed. The table of processes may be locked.
    fn group_changed(self) {}
}

/// The number of groups behind one entry of the first table, and the number of its entries.
const STEP: usize = 256;

/// The number of groups between two points at which others may run.
pub(crate) const POINT_EVERY: usize = 64;

/// The number of hash chains, by parent and name.
const BUCKETS: usize = 512;

/// Identifies a group for good: its number, and above it the number of groups made before it. 0 is the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u64);

impl Key {
    /// The group of processes that are in no other one.
    pub const ROOT: Key = Key(0);

    /// The number in records.
    pub fn id(self) -> u16 {
        self.0 as u16
    }
}

/// The second level of the table.
struct Chunk<M: Machine> {
    /// Each group, with an owner's reference; null for a free number.
    groups: [AtomicPtr<Group<M>>; STEP],
    /// The number of the nearest group that is no ghost: its own, or the parent's. That group may be a ghost by now.
    forward: [AtomicU16; STEP],
    /// The next group in its bucket; 0 at the end. Under the tree's lock.
    chain: [AtomicU16; STEP],
}

/// Under the lock.
struct Tree {
    buckets: [u16; BUCKETS],
    /// The number of groups made so far.
    made: u64,
    ghosts: usize,
    /// The numbers of all groups, of those that are no ghosts, and of ghosts.
    taken: Ids,
    named: Ids,
    ghostly: Ids,
    /// The number of ghosts that remained after their pages had been moved to other groups.
    kept: usize,
}

/// All groups except the root. A `static` in the kernel.
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

    /// Sets the seed, without which nobody can choose names that all hash to one bucket. There is no group yet.
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

    /// The group with this number, which the caller knows not to end meanwhile: it is a member, holds a page or a slot
    /// of the group, or holds the tree's lock. `None` for the root.
    #[inline]
    fn at(&self, id: u16) -> Option<&Group<M>> {
        if id == 0 {
            return None;
        }
        let group = self.chunk(id.into())?.groups[usize::from(id) % STEP].load(Acquire);
        // SAFETY: the caller's promise.
        unsafe { group.as_ref() }
    }

    /// The group that pages with this number count for: itself, or the nearest group above it that is no ghost. 0 is
    /// the root. If the caller does not know that the number is in use, the result is only a hint.
    pub fn effective(&self, id: u16) -> u16 {
        let mut at = id;
        // (If a number is reused meanwhile, it may lead elsewhere, even in a circle.)
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

    /// A reference to the group with this number, if it exists and is no ghost.
    pub fn get(&self, id: u16) -> Option<KArc<Group<M>>> {
        let _tree = self.tree.lock();
        self.hold(id).filter(|group| !group.is_ghost())
    }

    /// The group with this key. `None` for the root, and for a group that was removed.
    pub fn find(&self, key: Key) -> Option<KArc<Group<M>>> {
        self.get(key.id()).filter(|group| group.key() == key)
    }

    /// A reference to the group, even if it is a ghost. Under the tree's lock.
    fn hold(&self, id: u16) -> Option<KArc<Group<M>>> {
        let group = ptr::from_ref(self.at(id)?);
        // SAFETY: the table has a reference, which is only dropped under the lock.
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

    /// All groups that are no ghosts, by number. Groups that are made or removed meanwhile may be included.
    pub fn all(&self) -> impl Iterator<Item = KArc<Group<M>>> {
        let mut id = 0;
        core::iter::from_fn(move || self.after(id).inspect(|group| id = group.key().id()))
    }

    /// Whether there is any group that is no ghost.
    pub fn has_any(&self) -> bool {
        let tree = self.tree.lock();
        tree.named.next(1).is_some()
    }

    /// The child group with this name.
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
                // (If the thread is killed, the sum is incomplete.)
                let _ = self.machine.resched_point();
            }
        }
        pages
    }

    /// Makes a process enter a group other than the root; returns the group's number. As with all changes of members,
    /// the caller ensures that they are made one at a time.
    pub fn enter(&self, key: Key) -> Option<u16> {
        let tree = self.tree.lock();
        let group = self.at(key.id()).filter(|group| group.key() == key && !group.is_ghost())?;
        group.add_member(1);
        drop(tree);
        // (The member keeps it.)
        group.count_processes(1);
        Some(key.id())
    }

    /// Makes a second process enter the group of a process that cannot leave it meanwhile.
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
