//! A process's children, by what there is to tell of each: `wait4` finds the one that it reports without a look at
//! the others.
//!
//! A child is in a list with all of its [`Kind`] of which there is the same to tell, in the order in which that came about,
//! and in a tree by group. All of it is covered by the table of processes, of which every method wants proof.

use core::cell::UnsafeCell;
use core::sync::atomic::Ordering;

use intrusive_collections::intrusive_adapter;
use intrusive_collections::{Bound, KeyAdapter, LinkedList, LinkedListLink, RBTree, RBTreeLink, UnsafeRef};
use quire_abi::flags::sig;

use super::process::Process;
use super::table::Table;

/// What there is to tell of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum News {
    /// It has ended.
    Ended = 0,
    /// It was stopped.
    Stopped = 1,
    /// It goes on.
    Continued = 2,
    /// Nothing.
    None = 3,
}

const NEWS: usize = 4;

/// Which waits a child is for, by the signal that its parent gets at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// SIGCHLD: for waits without options.
    Usual = 0,
    /// Another signal, or none: for waits with `__WCLONE`.
    Clone = 1,
}

impl Kind {
    /// All kinds, for waits with `__WALL`.
    pub const ALL: &[Self] = &[Self::Usual, Self::Clone];

    fn of(table: &Table, child: &Process) -> Self {
        if table.family(child).exit_signal == sig::CHLD { Self::Usual } else { Self::Clone }
    }
}

impl News {
    /// All news, living children first.
    const ALL: [Self; NEWS] = [Self::None, Self::Continued, Self::Stopped, Self::Ended];

    /// What `news as u32` came from.
    pub fn from_bits(bits: u32) -> Self {
        Self::ALL.into_iter().find(|news| *news as u32 == bits).unwrap_or(Self::None)
    }
}

intrusive_adapter!(Siblings = UnsafeRef<Process>: Process { sibling_link => LinkedListLink });
intrusive_adapter!(ByGroup = UnsafeRef<Process>: Process { parent_link => RBTreeLink });

impl<'a> KeyAdapter<'a> for ByGroup {
    type Key = (u32, u32, u32, u32);
    fn get_key(&self, child: &'a Process) -> Self::Key {
        (child.pgid(), child.kind.load(Ordering::Relaxed), child.news.load(Ordering::Relaxed), child.pid)
    }
}

/// See the module.
pub struct Children(UnsafeCell<Places>);

struct Places {
    lists: [[LinkedList<Siblings>; NEWS]; Kind::ALL.len()],
    by_group: RBTree<ByGroup>,
}

impl Children {
    /// None.
    pub fn new() -> Self {
        let lists = [const { [const { LinkedList::new(Siblings::NEW) }; NEWS] }; Kind::ALL.len()];
        Self(UnsafeCell::new(Places { lists, by_group: RBTree::new(ByGroup::NEW) }))
    }

    /// The one way to the places. `change` is of this file, and calls nothing that comes here again.
    fn with<R>(&self, _proof: &Table, change: impl FnOnce(&mut Places) -> R) -> R {
        // SAFETY: the table is locked, so no other CPU is here, and this is the only reference made on this one.
        change(unsafe { &mut *self.0.get() })
    }

    /// Takes a child in, of which there is `news` to tell.
    ///
    /// # Safety
    /// The child is in no process's children, and lives until it is taken out.
    pub unsafe fn add(&self, table: &Table, child: &Process, news: News) {
        let kind = Kind::of(table, child);
        child.news.store(news as u32, Ordering::Relaxed);
        child.kind.store(kind as u32, Ordering::Relaxed);
        self.with(table, |places| {
            // SAFETY: the caller's promise.
            unsafe {
                places.lists[kind as usize][news as usize].push_back(UnsafeRef::from_raw(child));
                places.by_group.insert(UnsafeRef::from_raw(child));
            }
        });
    }

    /// Takes a child out.
    ///
    /// # Safety
    /// It is one of these.
    pub unsafe fn remove(&self, table: &Table, child: &Process) {
        let (kind, news) = (child.kind.load(Ordering::Relaxed), child.news());
        self.with(table, |places| {
            // SAFETY: a child is in the list of its kind and news, and in the tree.
            unsafe {
                places.lists[kind as usize & 1][news as usize].cursor_mut_from_ptr(child).remove();
                places.by_group.cursor_mut_from_ptr(child).remove();
            }
        });
    }

    /// There is other news of a child, or its group or its exit signal is about to be another: `change` changes that.
    ///
    /// # Safety
    /// As [`Children::remove`].
    pub unsafe fn tell(&self, table: &Table, child: &Process, news: News, change: impl FnOnce()) {
        // SAFETY: the caller's promise.
        unsafe {
            self.remove(table, child);
            change();
            self.add(table, child, news);
        }
    }

    /// A child to give away, the dead ones last, and whether it is one of those.
    pub fn take_any(&self, table: &Table) -> Option<(UnsafeRef<Process>, News)> {
        self.with(table, |places| {
            let (news, child) = News::ALL.into_iter().find_map(|news| {
                let child = places.lists.iter_mut().find_map(|lists| lists[news as usize].pop_front())?;
                Some((news, child))
            })?;
            // SAFETY: a child that was in a list is in the tree.
            unsafe { places.by_group.cursor_mut_from_ptr(&raw const *child).remove() };
            Some((child, news))
        })
    }

    /// The number of the child of a kind of which there was this to tell first, in a group if one is given (there: the
    /// one with the lowest number).
    pub fn with_news(&self, table: &Table, kind: Kind, news: News, group: Option<u32>) -> Option<u32> {
        self.with(table, |places| match group {
            None => places.lists[kind as usize][news as usize].front().get().map(|child| child.pid),
            Some(group) => {
                let found = places.by_group.lower_bound(Bound::Included(&(group, kind as u32, news as u32, 0)));
                let child = found.get()?;
                let is_it =
                    child.pgid() == group && child.kind.load(Ordering::Relaxed) == kind as u32 && child.news() == news;
                is_it.then_some(child.pid)
            }
        })
    }

    /// Whether there are any of a kind, in a group if one is given; `with_ended`: such that have ended count.
    pub fn any(&self, table: &Table, kind: Kind, group: Option<u32>, with_ended: bool) -> bool {
        let first = if with_ended { News::Ended } else { News::Stopped };
        self.with(table, |places| match group {
            None => places.lists[kind as usize][first as usize..].iter().any(|list| !list.is_empty()),
            Some(group) => {
                let found = places.by_group.lower_bound(Bound::Included(&(group, kind as u32, first as u32, 0)));
                let is_it =
                    |child: &Process| child.pgid() == group && child.kind.load(Ordering::Relaxed) == kind as u32;
                found.get().is_some_and(is_it)
            }
        })
    }
}
