//! Control groups: which processes' memory is counted together, and how much they may have.
//!
//! The design is docs/control-groups.md. [`Groups`] has the tree; [`group`] one group's numbers; [`charge`] is charging and
//! uncharging; [`stock`] what a CPU has charged in advance.
//!
//! A frame of user memory has the number of its group in its record, 0 for none ([`Page::control_group`]); charge and record
//! change together in `crate::frame` and `crate::rmap::Release`, and nowhere else. A slot of swap has one too.
//!
//! # Invariants
//! - `own` of a group is the number of frames whose records have its number, plus what stocks have of it; `own_swap` is
//!   the same of slots. While one of them is not 0, the number belongs to the group.
//! - `usage` is the sum of `own` over the group and all below it, ghosts too; `swap` that of `own_swap`.
//! - A group with members or children is no ghost; a group's parent is there as long as the group is.
//!
//! Lock order: the tree's lock (`Rank::Groups`) is taken with any lock below it held, and nothing is taken under it. Charges
//! take none.
//!
//! [`Page::control_group`]: crate::page::Page::control_group

mod charge;
mod group;
mod stock;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU16, Ordering::*};

use crate::fallible::{AllocError, KArc, try_box_with};
use crate::machine::MAX_CPUS;
use crate::sync::{Rank, SpinLock};

pub use group::{Event, Group, Limit, MAX_NAME, Numbers};
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

    /// The calling thread has charged a page above the `high` of its group, and is to call [`Groups::make_room_above_high`] when it holds no lock.
    fn is_above_high(self) {}
}

/// Groups behind one entry of the first table, and entries of it.
const STEP: usize = 256;

/// Chains by the hash of parent and name.
const BUCKETS: usize = 512;

/// Ghosts are given up when there are more than this, and more than one for [`FRAMES_A_GHOST`] frames.
const GHOSTS: usize = 64;

/// See [`GHOSTS`]: so a group that was removed costs a look at this many records.
const FRAMES_A_GHOST: usize = 4096;

/// How deep groups may lie in each other: a charge passes them all.
const MAX_DEPTH: usize = 32;

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

/// Why a group was not made or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such group.
    Gone,
    /// The parent has a group of this name.
    Exists,
    /// It has members or children.
    Busy,
    /// There are too many, they lie too deep, or the name is too long.
    TooMany,
    /// There is no memory.
    NoMemory,
}

impl From<AllocError> for Refused {
    fn from(_: AllocError) -> Self {
        Self::NoMemory
    }
}

/// The second step of the table.
struct Chunk<M: Machine> {
    /// Each has an owner's reference; null for a free number.
    groups: [AtomicPtr<Group<M>>; STEP],
    /// The number of the nearest group that is no ghost: its own, or the parent's. What it leads to may be a ghost by now.
    forward: [AtomicU16; STEP],
    /// The next one in its bucket; 0 ends it. Under the tree's lock.
    chain: [AtomicU16; STEP],
}

/// Under the lock.
struct Tree {
    buckets: [u16; BUCKETS],
    /// Groups that were made so far.
    made: u64,
    groups: usize,
    ghosts: usize,
    /// All numbers from here on are free.
    end: usize,
    /// No number below this one is free.
    free: usize,
}

/// All groups but the root. A `static` in the kernel.
pub struct Groups<M: Machine> {
    machine: M,
    chunks: [AtomicPtr<Chunk<M>>; STEP],
    stocks: [Stock; MAX_CPUS],
    tree: SpinLock<Tree, M>,
}

impl<M: Machine> Groups<M> {
    /// None.
    pub const fn new(machine: M) -> Self {
        let tree = Tree { buckets: [0; BUCKETS], made: 0, groups: 0, ghosts: 0, end: 1, free: 1 };
        Self {
            machine,
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; STEP],
            stocks: [const { Stock::new() }; MAX_CPUS],
            tree: SpinLock::new(machine, Rank::Groups, tree),
        }
    }

    fn chunk(&self, id: usize) -> Option<&Chunk<M>> {
        let chunk = self.chunks.get(id / STEP)?.load(Acquire);
        // SAFETY: chunks are never freed.
        unsafe { chunk.as_ref() }
    }

    /// The group with a number, which the caller knows not to end meanwhile: it is a member, holds a page or a slot of
    /// the group, or the tree's lock.
    #[inline]
    fn at(&self, id: u16) -> Option<&Group<M>> {
        let group = self.chunk(id.into())?.groups[usize::from(id) % STEP].load(Acquire);
        // SAFETY: the caller's promise.
        unsafe { group.as_ref() }
    }

    /// The group that pages with this number count for now: itself, or the nearest one above it that is no ghost. 0 is the root.
    /// A hint for a number that the caller does not know to be taken.
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
        (usize::from(id) + 1..tree.end).find_map(|id| self.hold(id as u16).filter(|group| !group.is_ghost()))
    }

    /// Whether there is any group, ghosts not counted.
    pub fn has_any(&self) -> bool {
        let tree = self.tree.lock();
        tree.groups > tree.ghosts
    }

    /// The child of a group with this name.
    pub fn child(&self, parent: Key, name: &[u8]) -> Option<KArc<Group<M>>> {
        let tree = self.tree.lock();
        self.search(&tree, parent, name)
    }

    fn search(&self, tree: &Tree, parent: Key, name: &[u8]) -> Option<KArc<Group<M>>> {
        let mut id = tree.buckets[bucket(parent, name)];
        while let Some(group) = self.at(id) {
            if group.parent_key() == parent && group.name() == name && !group.is_ghost() {
                return self.hold(id);
            }
            id = self.chunk(id.into())?.chain[usize::from(id) % STEP].load(Relaxed);
        }
        None
    }

    /// Makes a group below `parent`.
    pub fn make(&self, parent: Key, name: &[u8]) -> Result<KArc<Group<M>>, Refused> {
        if self.has_many_ghosts() {
            self.machine.pages().adopt_pages();
            self.bury();
        }
        let parent = match parent {
            Key::ROOT => None,
            key => Some(self.find(key).ok_or(Refused::Gone)?),
        };
        let lists = self.machine.make_lists()?;
        let group = Group::new(parent.clone(), name, lists).filter(|group| group.depth() <= MAX_DEPTH);
        let group = group.ok_or(Refused::TooMany)?;
        let mut group = KArc::try_unshared(|| group)?;
        loop {
            let mut tree = self.tree.lock();
            if parent.as_ref().is_some_and(|parent| parent.is_ghost()) {
                return Err(Refused::Gone);
            }
            let parent_key = parent.as_ref().map_or(Key::ROOT, |parent| parent.key());
            if self.search(&tree, parent_key, name).is_some() {
                return Err(Refused::Exists);
            }
            let Some(id) = self.lowest_free(&tree) else { return Err(Refused::TooMany) };
            let Some(chunk) = self.chunk(id) else {
                drop(tree);
                self.add_chunk(id)?;
                continue;
            };
            tree.made += 1;
            group.set_key(Key(tree.made << 16 | id as u64));
            if let Some(parent) = &parent {
                parent.add_child(1);
                parent.add_named_child(1);
            }
            let group = group.share();
            let bucket = &mut tree.buckets[bucket(parent_key, name)];
            chunk.chain[id % STEP].store(core::mem::replace(bucket, id as u16), Relaxed);
            chunk.forward[id % STEP].store(id as u16, Relaxed);
            chunk.groups[id % STEP].store(KArc::into_raw(group.clone()).cast_mut(), Release);
            tree.end = tree.end.max(id + 1);
            tree.free = id + 1;
            tree.groups += 1;
            return Ok(group);
        }
    }

    fn lowest_free(&self, tree: &Tree) -> Option<usize> {
        (tree.free..=tree.end.min(usize::from(u16::MAX))).find(|id| self.at(*id as u16).is_none())
    }

    fn add_chunk(&self, id: usize) -> Result<(), AllocError> {
        let chunk = try_box_with(|| Chunk {
            groups: [const { AtomicPtr::new(ptr::null_mut()) }; STEP],
            forward: [const { AtomicU16::new(0) }; STEP],
            chain: [const { AtomicU16::new(0) }; STEP],
        })?;
        let new = Box::into_raw(chunk);
        if self.chunks[id / STEP].compare_exchange(ptr::null_mut(), new, AcqRel, Relaxed).is_err() {
            // SAFETY: another thread was faster, and nobody knows this one.
            drop(unsafe { Box::from_raw(new) });
        }
        Ok(())
    }

    /// Removes a group without members and children. What is charged to it counts for its parent from now on.
    pub fn remove(&self, key: Key) -> Result<(), Refused> {
        let group = self.find(key).ok_or(Refused::Gone)?;
        {
            let mut tree = self.tree.lock();
            if group.is_ghost() {
                return Err(Refused::Gone);
            }
            if group.is_busy() {
                return Err(Refused::Busy);
            }
            group.make_ghost();
            group.parent().inspect(|parent| parent.add_named_child(-1));
            let parent = group.parent_key();
            if let Some(chunk) = self.chunk(key.id().into()) {
                chunk.forward[usize::from(key.id()) % STEP].store(parent.id(), Relaxed);
            }
            self.unchain(&mut tree, parent, &group);
            tree.ghosts += 1;
        }
        M::end_lists(group.lists());
        drop(group);
        self.empty_stocks();
        self.bury();
        Ok(())
    }

    fn unchain(&self, tree: &mut Tree, parent: Key, group: &Group<M>) {
        let id = group.key().id();
        let next = |id: u16| self.chunk(id.into()).map(|chunk| &chunk.chain[usize::from(id) % STEP]);
        let Some(behind) = next(id).map(|link| link.load(Relaxed)) else { return };
        let first = &mut tree.buckets[bucket(parent, group.name())];
        if *first == id {
            *first = behind;
            return;
        }
        let mut at = *first;
        while let Some(link) = next(at) {
            at = link.load(Relaxed);
            if at == id {
                link.store(behind, Relaxed);
                return;
            }
        }
    }

    /// Frees the numbers of ghosts that nothing is charged to.
    fn bury(&self) {
        let mut id = 1;
        loop {
            // (The group above may be done with it.)
            let gone = {
                let mut tree = self.tree.lock();
                if tree.ghosts == 0 {
                    return;
                }
                let last = tree.end.min(id + STEP);
                let found = (id..last).find(|id| self.at(*id as u16).is_some_and(Group::is_done));
                let Some(found) = found else {
                    id = last;
                    if id >= tree.end {
                        return;
                    }
                    continue;
                };
                id = found;
                let Some(chunk) = self.chunk(id) else { return };
                let group = chunk.groups[id % STEP].swap(ptr::null_mut(), AcqRel);
                tree.ghosts -= 1;
                tree.groups -= 1;
                tree.free = tree.free.min(id);
                // SAFETY: the table's reference.
                let group = unsafe { KArc::from_raw(group) };
                if let Some(parent) = group.parent() {
                    parent.add_child(-1);
                    if parent.is_done() {
                        id = id.min(parent.key().id().into());
                    }
                }
                group
            };
            drop(gone);
        }
    }

    /// Pages that are charged to groups.
    pub fn charged(&self) -> usize {
        let (mut id, mut pages) = (0, 0);
        while let Some(group) = self.after(id) {
            id = group.key().id();
            if group.parent().is_none() {
                pages += group.usage();
            }
        }
        pages
    }

    /// Whether so many groups were removed while something was charged to them that it is time to charge it to others.
    fn has_many_ghosts(&self) -> bool {
        let ghosts = self.tree.lock().ghosts;
        ghosts > GHOSTS && ghosts > self.machine.pages().total_managed() / FRAMES_A_GHOST
    }

    /// A process enters a group that is not the root: its number.
    pub fn enter(&self, key: Key) -> Option<u16> {
        let tree = self.tree.lock();
        let group = self.at(key.id()).filter(|group| group.key() == key && !group.is_ghost())?;
        group.add_member(1);
        drop(tree);
        Some(key.id())
    }

    /// A second process enters the group of one that cannot leave it meanwhile.
    pub fn enter_too(&self, id: u16) {
        if let Some(group) = self.at(id) {
            group.add_member(1);
        }
    }

    /// A process leaves its group.
    pub fn leave(&self, id: u16) {
        if let Some(group) = self.at(id) {
            group.add_member(-1);
        }
    }
}

/// FNV-1a.
fn bucket(parent: Key, name: &[u8]) -> usize {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = parent.0.to_le_bytes().iter().chain(name).fold(0xcbf2_9ce4_8422_2325, |hash, byte| step(hash, *byte));
    (hash >> 32) as usize % BUCKETS
}
