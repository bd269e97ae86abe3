//! Reclaim: pages of programs that are not used go to swap, so that others get their frames.
//!
//! [`policy`] says which page goes, [`page_out()`](crate::mm::page_out()) moves it. A machine without pressure never comes
//! here: faults and frees do nothing for reclaim, and it costs them nothing.
//!
//! Threads that wait for memory reclaim it themselves, in the [`PageAllocator`]'s slow path. They hold no lock that reclaim
//! takes, and between two pages others may run. One at a time chooses pages, a batch; all take theirs out beside each
//! other ([`batch`]).
//!
//! [`PageAllocator`]: crate::page_alloc::PageAllocator

mod adopt;
#[cfg(test)]
pub(crate) use adopt::looks_for_strangers;
mod batch;
mod passed;
mod policy;
mod ring;
mod share;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, Ordering::*};

use spin::Once;

use crate::addr::Pfn;
use crate::cgroup::Group;
use crate::fallible::{AllocError, TryVec};
use crate::frame;
use crate::machine::Killed;
use crate::mm::look::{Seen, look};
use crate::page::PageFlags;
use crate::rmap::Release;
use crate::sync::{Rank, SharedLock, SpinLock};
use crate::zone::MAX_NODES;

use policy::{FRESH, LOCKED, NEW, Oldest, Policy, WATCHED};
pub use policy::{GENERATIONS, View};

/// The most hot pages that a test looks at.
const LOOKS: usize = 32;

/// Strides that the hand takes at most to find a page of the oldest generation.
const STRIDES: usize = 16;

/// Pages that have come back that are tested for each page that is tried.
const RETURNED: usize = 4;

/// Hot pages that are looked at for each page that is tried, while there are too few cold ones.
const COOLED: usize = 8;

/// The machine, whose control groups have these lists.
pub trait Machine: crate::mm::Machine + crate::cgroup::Machine<Lists = Lists<Self>> {}

/// The state of reclaim: a `static` in the kernel. Control groups have lists of their own.
pub struct Reclaim<M: Machine> {
    machine: M,
    /// Those of the root group; there are none until it is switched on.
    root: Once<Lists<M>>,
    /// The control group with which the next round begins.
    next: AtomicU16,
}

/// The lists of a control group, one for each node that has memory.
pub struct Lists<M: Machine> {
    machine: M,
    nodes: Vec<Node<M>>,
}

/// Whose pages the hand is to find.
#[derive(Clone, Copy)]
struct Whose {
    /// The control group's number.
    id: u16,
    /// It passes all page blocks, not only those that are said to have pages of the group.
    everywhere: bool,
}

impl Whose {
    /// Pages of no group. (Blocks do not say whether they have any.)
    const ROOT: Whose = Whose { id: 0, everywhere: true };

    /// Pages of a group, and of those below it that were removed, which blocks know by other numbers.
    fn of<M: Machine>(group: &Group<M>) -> Self {
        Whose { id: group.key().id(), everywhere: group.has_ghosts() }
    }
}

/// The state of a node.
struct Node<M: Machine> {
    machine: M,
    node: usize,
    policy: SpinLock<Policy, M>,
    /// Held while pages are chosen: others who need some sleep, and do not spin on the policy's lock.
    turn: SharedLock<(), M>,
}

/// The next page to try.
enum Choice {
    /// It, and what its entries remember.
    Page(Pfn, u16),
    /// None yet: others were looked at.
    Looked,
    /// None yet: those that were queued are gone.
    Gone,
    /// There is none.
    End,
}

impl<M: Machine> Reclaim<M> {
    /// Reclaims nothing yet.
    pub const fn new(machine: M) -> Self {
        Self { machine, root: Once::new(), next: AtomicU16::new(0) }
    }

    /// Switches reclaim on, once, for the nodes that have memory. There is swap.
    pub fn init(&self) -> Result<(), AllocError> {
        let lists = Lists::new(self.machine)?;
        self.root.call_once(|| lists);
        Ok(())
    }

    /// Cold pages of a node, hot ones, and all pages of programs, as far as the hand has seen them; those of control groups are not among
    /// them.
    pub fn counts(&self, node: usize) -> (usize, usize, usize) {
        self.root.get().map_or((0, 0, 0), |lists| lists.counts(node))
    }

    /// The same in detail. `None` before reclaim is on, and for a node without memory.
    pub fn view(&self, node: usize) -> Option<View> {
        self.root.get()?.view(node)
    }

    /// Frames that all queues have. O(groups); no spin lock is held.
    pub fn frames(&self) -> usize {
        let mut frames = self.root.get().map_or(0, Lists::frames);
        for group in self.machine.groups().all() {
            frames += group.lists().frames();
            // (A thread that is killed gets the whole sum, too.)
            let _ = self.machine.resched_point();
        }
        frames
    }
}

impl<M: Machine> Lists<M> {
    /// Of a group without pages.
    pub fn new(machine: M) -> Result<Self, AllocError> {
        let mut nodes: Vec<Node<M>> = TryVec::try_with_capacity(MAX_NODES)?;
        for node in 0..MAX_NODES {
            let of_node = machine.pages().zones().filter(|zone| zone.node() == node);
            let pages: usize = of_node.map(|zone| zone.managed()).sum();
            if pages != 0 {
                nodes.try_push(Node::new(machine, node, pages)?)?;
            }
        }
        Ok(Self { machine, nodes })
    }

    fn node(&self, number: usize) -> Option<&Node<M>> {
        self.nodes.iter().find(|node| node.node == number)
    }

    /// As [`Reclaim::counts`].
    pub fn counts(&self, node: usize) -> (usize, usize, usize) {
        self.node(node).map_or((0, 0, 0), |node| node.policy.lock().counts())
    }

    /// As [`Reclaim::view`].
    pub fn view(&self, node: usize) -> Option<View> {
        self.node(node).map(|node| node.policy.lock().view())
    }

    fn frames(&self) -> usize {
        self.nodes.iter().map(|node| node.policy.lock().frames()).sum()
    }

    /// Frees the queues' frames: the group is no more, and its pages are found by others.
    pub fn end(&self) {
        // (Whoever ends it goes on.)
        self.forget(|| _ = self.machine.resched_point());
    }

    fn forget(&self, between: impl Fn()) {
        for node in &self.nodes {
            while node.policy.lock().forget_some(self.machine) {
                between();
            }
        }
    }
}

impl<M: Machine> Drop for Lists<M> {
    /// A last holder may have a lock of a table, so no other thread runs meanwhile. Since [`Lists::end`] only what was being reclaimed then was queued.
    fn drop(&mut self) {
        self.forget(|| ());
    }
}

impl<M: Machine> Node<M> {
    fn new(machine: M, node: usize, pages: usize) -> Result<Self, AllocError> {
        Ok(Self {
            machine,
            node,
            policy: SpinLock::new(machine, Rank::Reclaim, Policy::new(pages)?),
            turn: SharedLock::new(machine, Rank::ReclaimTurn, ()),
        })
    }

    fn sweep(&self, whose: Whose) {
        let unlocks = self.machine.spaces().unlocks();
        self.policy.lock().sweep(self.machine, self.node, whose, unlocks);
        self.adopt_strangers();
    }

    /// Whether no page of the group can go anywhere.
    fn has_no_place(&self, whose: Whose) -> bool {
        let spaces = self.machine.spaces();
        spaces.cached() == 0 && (spaces.swap().is_full() || self.machine.groups().is_swap_full(whose.id))
    }

    /// Chooses the next page to try. The caller has the turn.
    fn choose(&self, whose: Whose) -> Choice {
        if !self.policy.lock().is_ready() && self.find_any(whose).is_err() {
            return Choice::End;
        }
        // So the hand finds a new page for each one that is tried, if one page in 64 is new.
        let mut wants_cold = {
            let unlocks = self.machine.spaces().unlocks();
            let mut policy = self.policy.lock();
            policy.sweep(self.machine, self.node, whose, unlocks);
            policy.wants_cold()
        };
        self.adopt_strangers();
        self.test_returned(RETURNED, whose);
        for _ in 0..COOLED {
            if !wants_cold || self.look_at_oldest(u64::MAX, whose).is_none() {
                break;
            }
            wants_cold = self.policy.lock().wants_cold();
        }
        for _ in 0..2 {
            let fresh = self.policy.lock().take_fresh(self.machine);
            let Some(pfn) = fresh else { break };
            self.watch(pfn);
        }
        {
            let mut policy = self.policy.lock();
            if let Some(pfn) = policy.take_watched(self.machine) {
                return Choice::Page(pfn, policy.shadow());
            }
            if policy.cold_pages() != 0 {
                return Choice::Gone;
            }
        }
        // All pages are new, or hot.
        match self.look_at_oldest(u64::MAX, whose) {
            Some(_) => Choice::Looked,
            None if self.find_any(whose) == Ok(true) => Choice::Looked,
            None => Choice::End,
        }
    }

    /// Whether there were pages as the hand came around.
    fn knows_pages(&self) -> bool {
        self.policy.lock().counts() != (0, 0, 0)
    }

    /// Whether the hand has met no page of a program, and none was allocated since.
    fn is_barren(&self) -> bool {
        let now = self.sources();
        now.is_some() && self.policy.lock().barren == now
    }

    /// What changes whenever there may be a page more that can leave: what was allocated to programs, and how often areas were
    /// unlocked.
    fn sources(&self) -> Option<(u64, usize)> {
        self.machine.user_allocs().map(|allocs| (allocs, self.machine.spaces().unlocks()))
    }

    /// Lets the hand go on until it knows a page to work on, at most to the end of its round and once around; whether it does.
    /// The caller has the turn.
    fn find_any(&self, whose: Whose) -> Result<bool, Killed> {
        let now = self.sources();
        // Before the first round has ended there is nothing to find.
        let first = self.policy.lock().round();
        let last = if first == 0 { 1 } else { first + 2 };
        loop {
            let has_returned = {
                let mut policy = self.policy.lock();
                if policy.knows_any() {
                    return Ok(true);
                }
                if policy.round() >= last {
                    policy.barren = now.filter(|_| last > 1 && policy.counts() == (0, 0, 0));
                    return Ok(false);
                }
                // (It is not given up on the word of page blocks.)
                let everywhere = whose.everywhere || first == 0 || policy.round() > first;
                policy.sweep(self.machine, self.node, Whose { everywhere, ..whose }, self.machine.spaces().unlocks());
                policy.has_returned()
            };
            self.adopt_strangers();
            if has_returned {
                self.test_returned(usize::MAX, whose);
            }
            self.machine.resched_point()?;
        }
    }

    /// Does `work` with the page isolated, if it is still on this list.
    fn isolated<R>(&self, pfn: Pfn, list: u8, work: impl FnOnce(&'static crate::page::Page) -> (R, bool)) -> Option<R> {
        let page = frame::page(self.machine, pfn);
        let state = page.state();
        if page.list() != list || !state.is_user() || !page.isolate(state) {
            return None;
        }
        let (done, is_gone) = if page.list() == list {
            let (done, gone) = work(page);
            (Some(done), gone)
        } else {
            (None, false)
        };
        if !is_gone {
            Release::new(self.machine).isolated(pfn);
        }
        done
    }

    /// The page on list `from` is mapped by a locked area, or was when areas had been unlocked so many times.
    fn set_aside(&self, pfn: Pfn, from: u8, unlocks: usize) {
        let page = frame::page(self.machine, pfn);
        // (Whoever unlocks an area later is noticed by the hand.)
        if page.change_list(from, LOCKED) && self.machine.spaces().unlocks() != unlocks {
            page.change_list(LOCKED, NEW);
        }
    }

    /// From now on the page's access flag says whether it is used.
    fn watch(&self, pfn: Pfn) {
        let unlocks = self.machine.spaces().unlocks();
        self.isolated(pfn, FRESH, |page| {
            match look(self.machine, page, pfn) {
                Seen::Locked => self.set_aside(pfn, FRESH, unlocks),
                Seen::Used | Seen::Unused => self.policy.lock().cool(self.machine, pfn, FRESH, WATCHED),
            }
            ((), false)
        });
    }

    /// A page on list `from` that was last used at this time becomes hot, if it takes the place of a hot page; else it is
    /// fresh. Returns whether it is hot.
    fn test(&self, pfn: Pfn, from: u8, used: u64, whose: Whose) -> bool {
        let mut passes = false;
        for _ in 0..LOOKS {
            match self.look_at_oldest(used, whose) {
                Some(true) => {
                    passes = true;
                    break;
                }
                Some(false) => {}
                None => break,
            }
        }
        let mut policy = self.policy.lock();
        if passes {
            policy.heat(self.machine, pfn, from);
        } else {
            policy.cool(self.machine, pfn, from, FRESH);
        }
        passes
    }

    /// Tests pages that have come back, at most so many.
    fn test_returned(&self, most: usize, whose: Whose) {
        for _ in 0..most {
            let returned = self.policy.lock().take_returned(self.machine);
            let Some(pfn) = returned else { break };
            self.isolated(pfn, NEW, |page| {
                if page.clear_flags(PageFlags::RETURNED).contains(PageFlags::RETURNED) {
                    let shadow = page.next().load(Relaxed) as u16;
                    let used = self.policy.lock().time_of(shadow);
                    let passes = self.test(pfn, NEW, used, whose);
                    self.policy.lock().adapt(passes);
                }
                ((), false)
            });
        }
    }

    /// Looks at the hot page that was not seen used for longest, if that is since before `used`: it is seen, or becomes
    /// cold, which is `true`. `None` if there is none, or it is not known.
    fn look_at_oldest(&self, used: u64, whose: Whose) -> Option<bool> {
        for _ in 0..STRIDES {
            // (Whoever looks at a page completes its work even if the thread is killed.)
            let _ = self.machine.resched_point();
            let oldest = self.policy.lock().take_oldest(self.machine, used);
            match oldest {
                Oldest::NotOlder => return None,
                Oldest::Unknown => self.sweep(whose),
                Oldest::Page(pfn, list) => {
                    let unlocks = self.machine.spaces().unlocks();
                    let seen = self.isolated(pfn, list, |page| {
                        let seen = look(self.machine, page, pfn);
                        match seen {
                            Seen::Used => self.policy.lock().heat(self.machine, pfn, list),
                            Seen::Unused => self.policy.lock().cool(self.machine, pfn, list, WATCHED),
                            Seen::Locked => self.set_aside(pfn, list, unlocks),
                        }
                        (seen, false)
                    });
                    match seen {
                        Some(Seen::Used) => return Some(false),
                        Some(Seen::Unused) => return Some(true),
                        Some(Seen::Locked) | None => {}
                    }
                }
            }
        }
        None
    }
}
