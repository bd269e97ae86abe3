//! Which control group gives, and how much.
//!
//! Each gives in proportion to its pages. A round begins with another group each time, so that small ones are not all asked
//! for a page each.

use core::sync::atomic::Ordering::*;

use super::{Lists, Machine, Reclaim, Whose};
use crate::addr::Pfn;
use crate::buddy::PAGEBLOCK_PAGES;
use crate::cgroup::{Event, Group, Limit};
use crate::frame;
use crate::page_alloc::Reclaimer;

/// What a group is protected from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protection {
    /// From reclaim as long as others can give.
    Low,
    /// From reclaim.
    Min,
}

/// Whether reclaim for the group `top`, 0 for the machine, leaves a group below it alone: that, or one in between, has no more than it
/// may keep. What is protected by `Min` always is.
fn is_protected<M: Machine>(group: &Group<M>, top: u16, from: Protection) -> bool {
    let keeps = |group: &Group<M>, limit| group.limit(limit) != 0 && group.usage() <= group.limit(limit);
    let below = group.upwards().take_while(|group| group.key().id() != top);
    let limits = if from == Protection::Low { &[Limit::Min, Limit::Low][..] } else { &[Limit::Min] };
    below.into_iter().any(|group| limits.iter().any(|limit| keeps(group, *limit)))
}

impl<M: Machine> Lists<M> {
    /// Shrinks the lists of all nodes; first those that are known to have pages, since whether another one has any takes a round of its hand.
    fn shrink_all(&self, whose: Whose, target: usize) -> usize {
        let mut freed = 0;
        for is_known in [true, false] {
            for node in self.nodes.iter().filter(|node| node.knows_pages() == is_known) {
                if freed < target {
                    freed += node.shrink(whose, usize::MAX, target - freed);
                }
            }
            if freed != 0 {
                break;
            }
        }
        freed
    }

    fn queue_given_up(&self, node: usize, pages: &[Pfn]) {
        let Some(node) = self.node(node) else { return };
        let mut policy = node.policy.lock();
        policy.try_again();
        pages.iter().for_each(|pfn| policy.queue_given_up(self.machine, *pfn));
    }

    fn shrink(&self, whose: Whose, node: usize, highest: usize, target: usize) -> usize {
        self.node(node).map_or(0, |node| node.shrink(whose, highest, target))
    }
}

impl<M: Machine> Reclaim<M> {
    /// Asks the groups that `asked` accepts until `target` pages are freed: for their share of it by their part of `total`, and then for what is
    /// missing.
    fn shrink_groups(
        &self,
        target: usize,
        total: usize,
        asked: impl Fn(&Group<M>) -> bool,
        shrink: impl Fn(&Group<M>, usize) -> usize,
    ) -> usize {
        let mut freed = 0;
        self.around(&asked, |group, own| {
            freed += shrink(group, (target * own).div_ceil(total.max(1)).clamp(1, target - freed));
            freed < target
        });
        if freed != 0 && freed < target {
            self.around(&asked, |group, _| {
                freed += shrink(group, target - freed);
                freed < target
            });
        }
        freed
    }

    /// Visits groups that have pages, with their number, once around, from where the last round has ended, as long as `visit` says so.
    fn around(&self, asked: impl Fn(&Group<M>) -> bool, mut visit: impl FnMut(&Group<M>, usize) -> bool) {
        let groups = self.machine.groups();
        let start = self.next.load(Relaxed);
        let (mut id, mut is_around) = (start, false);
        while self.machine.resched_point().is_ok() {
            let Some(group) = groups.after(id) else {
                if is_around {
                    break;
                }
                (id, is_around) = (0, true);
                continue;
            };
            id = group.key().id();
            if is_around && id > start {
                break;
            }
            self.next.store(id, Relaxed);
            // (The pages of removed groups below count as its own.)
            let own = if group.has_ghosts() { group.usage() } else { group.numbers().own };
            if own != 0 && asked(&group) && !visit(&group, own) {
                break;
            }
        }
    }

    fn reclaim_unprotected(&self, node: usize, highest: usize, target: usize, from: Protection) -> usize {
        let Some(root) = self.root.get() else { return 0 };
        let asked = |group: &Group<M>| !is_protected(group, 0, from);
        let (_, _, in_root) = self.counts(node);
        let in_groups = self.machine.groups().charged();
        let total = in_root + in_groups;
        let of_root = if in_root == 0 { target } else { (target * in_root).div_ceil(total) };
        let mut freed = root.shrink(Whose::ROOT, node, highest, of_root);
        if freed < target {
            freed += self.shrink_groups(target - freed, in_groups, asked, |group, share| {
                if from == Protection::Min && is_protected(group, 0, Protection::Low) {
                    group.note(Event::Low);
                }
                group.lists().shrink(Whose::of(group), node, highest, share)
            });
        }
        if freed == 0 { root.shrink(Whose::ROOT, node, highest, target) } else { freed }
    }
}

impl<M: Machine> Reclaimer for Reclaim<M> {
    fn reclaim(&self, node: usize, highest: usize, target: usize) -> usize {
        if !self.machine.groups().has_any() {
            return self.root.get().map_or(0, |root| root.shrink(Whose::ROOT, node, highest, target));
        }
        match self.reclaim_unprotected(node, highest, target, Protection::Low) {
            0 => self.reclaim_unprotected(node, highest, target, Protection::Min),
            freed => freed,
        }
    }

    fn note_given_up(&self, pages: &[Pfn]) {
        let Some(root) = self.root.get() else { return };
        // (Whatever has become of the frames, the records are there; a page is looked at before it goes.)
        let group_of = |pfn: Pfn| frame::page(self.machine, pfn).control_group();
        let block_of = |pfn: Pfn| pfn.0 / PAGEBLOCK_PAGES;
        let mut rest = pages;
        while let Some(&first) = rest.first() {
            let (id, block) = (group_of(first), block_of(first));
            let len = rest.iter().take_while(|pfn| block_of(**pfn) == block && group_of(**pfn) == id).count();
            let (run, after) = rest.split_at(len);
            rest = after;
            let node = self.machine.pages().node_of(first);
            let groups = self.machine.groups();
            match if id == 0 { None } else { groups.get(groups.effective(id)) } {
                Some(group) => group.lists().queue_given_up(node, run),
                // (If its group is gone by now, the page counts for the root.)
                None => root.queue_given_up(node, run),
            }
        }
    }

    fn adopt(&self) {
        self.adopt_all();
    }

    fn reclaim_group(&self, id: u16, target: usize) -> usize {
        let Some(top) = self.machine.groups().get(id) else { return 0 };
        if self.root.get().is_none() {
            return 0;
        }
        for from in [Protection::Low, Protection::Min] {
            let asked = |group: &Group<M>| group.is_within(id) && !is_protected(group, id, from);
            let freed = self.shrink_groups(target, top.usage(), asked, |group, share| {
                group.lists().shrink_all(Whose::of(group), share)
            });
            if freed != 0 {
                return freed;
            }
        }
        0
    }
}
