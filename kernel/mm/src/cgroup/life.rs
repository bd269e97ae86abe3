//! Making and removing groups.
//!
//! A group that is removed while it has charges is a ghost: it has no name and no members, and its charges count for
//! the group above. Its number becomes free when its last charge is gone ([`Groups::bury`]).

use alloc::boxed::Box;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU16, Ordering::*};

use super::group::Group;
use super::{Chunk, Groups, Key, Machine, POINT_EVERY, STEP, Tree};
use crate::fallible::{AllocError, KArc, try_box_with};

/// Ghosts are dissolved when there are more than this, and more than one for every [`FRAMES_A_GHOST`] frames.
const GHOSTS: usize = 64;

/// See [`GHOSTS`]: dissolving ghosts examines all records, so each removed group costs about this many.
const FRAMES_A_GHOST: usize = 4096;

/// The maximum depth of groups: a charge visits all levels.
pub(super) const MAX_DEPTH: usize = 32;

/// Why a group was not made or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such group.
    Gone,
    /// The parent has a group of this name.
    Exists,
    /// It has members or children.
    Busy,
    /// There are too many groups, the depth is too large, or the name is too long.
    TooMany,
    /// There is no memory.
    NoMemory,
}

impl From<AllocError> for Refused {
    fn from(_: AllocError) -> Self {
        Self::NoMemory
    }
}

impl<M: Machine> Groups<M> {
    /// Makes a group below `parent`.
    pub fn make(&self, parent: Key, name: &[u8]) -> Result<KArc<Group<M>>, Refused> {
        if self.has_many_ghosts() {
            self.machine.pages().adopt_pages();
            self.bury();
            let mut tree = self.tree.lock();
            tree.kept = tree.ghosts;
        }
        let parent = match parent {
            Key::ROOT => None,
            key => Some(self.find(key).ok_or(Refused::Gone)?),
        };
        let lists = self.machine.make_lists()?;
        let group = Group::new(self.machine, parent.clone(), name, lists).filter(|group| group.depth() <= MAX_DEPTH);
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
            if parent.as_ref().is_some_and(|parent| !parent.may_have_child()) {
                return Err(Refused::TooMany);
            }
            let Some(id) = tree.taken.next_free(1) else { return Err(Refused::TooMany) };
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
            group.begin_state();
            let group = group.share();
            let bucket = &mut tree.buckets[self.bucket(parent_key, name)];
            chunk.chain[id % STEP].store(core::mem::replace(bucket, id as u16), Relaxed);
            chunk.forward[id % STEP].store(id as u16, Relaxed);
            chunk.groups[id % STEP].store(KArc::into_raw(group.clone()).cast_mut(), Release);
            tree.taken.insert(id);
            tree.named.insert(id);
            return Ok(group);
        }
    }

    fn add_chunk(&self, id: usize) -> Result<(), AllocError> {
        let chunk = try_box_with(|| Chunk {
            groups: [const { AtomicPtr::new(ptr::null_mut()) }; STEP],
            forward: [const { AtomicU16::new(0) }; STEP],
            chain: [const { AtomicU16::new(0) }; STEP],
        })?;
        let new = Box::into_raw(chunk);
        if self.chunks[id / STEP].compare_exchange(ptr::null_mut(), new, AcqRel, Relaxed).is_err() {
            // SAFETY: another thread has installed its own, and nobody else knows this one.
            drop(unsafe { Box::from_raw(new) });
        }
        Ok(())
    }

    /// Removes a group without members and children. Its charges count for its parent from now on.
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
            tree.named.remove(key.id().into());
            tree.ghostly.insert(key.id().into());
            tree.ghosts += 1;
        }
        M::end_lists(group.lists());
        self.drain_stocks(&group);
        drop(group);
        self.bury();
        Ok(())
    }

    fn unchain(&self, tree: &mut Tree, parent: Key, group: &Group<M>) {
        let id = group.key().id();
        let next = |id: u16| self.chunk(id.into()).map(|chunk| &chunk.chain[usize::from(id) % STEP]);
        let Some(behind) = next(id).map(|link| link.load(Relaxed)) else { return };
        let first = &mut tree.buckets[self.bucket(parent, group.name())];
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

    /// Frees the numbers of ghosts without charges.
    fn bury(&self) {
        let mut id = 1;
        loop {
            // (This may have been the last reference to the group above.)
            let gone = {
                let mut tree = self.tree.lock();
                let looked =
                    core::iter::successors(tree.ghostly.next(id), |id| tree.ghostly.next(id + 1)).take(POINT_EVERY);
                let mut last = None;
                let mut looked = looked.inspect(|ghost| last = Some(*ghost));
                let found = looked.find(|ghost| self.at(*ghost as u16).is_some_and(Group::is_done));
                let Some(last) = last else { return };
                if found.is_none() {
                    id = last + 1;
                    drop(tree);
                    let _ = self.machine.resched_point();
                    continue;
                }
                id = last;
                let Some(chunk) = self.chunk(id) else { return };
                let group = chunk.groups[id % STEP].swap(ptr::null_mut(), AcqRel);
                tree.ghosts -= 1;
                tree.taken.remove(id);
                tree.ghostly.remove(id);
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

    /// Whether so many groups were removed with charges that it is time to move the charges to other groups.
    fn has_many_ghosts(&self) -> bool {
        let (ghosts, kept) = {
            let tree = self.tree.lock();
            (tree.ghosts, tree.kept.min(tree.ghosts))
        };
        // (A table, a stack or a slot keeps its ghost: searching again for only a few more ghosts would cost the same
        // each time.)
        ghosts > kept + GHOSTS && ghosts > self.machine.pages().total_managed() / FRAMES_A_GHOST
    }
}
