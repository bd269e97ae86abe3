//! Pages of control groups that were removed become those of the group that they count for.
//!
//! Their records have the old number, and a place on lists that are no more. The hand of the group above finds them; or all are looked for, when
//! there are too many such groups ([`Reclaim::adopt_all`]).

use super::policy::NEW;
use super::{Machine, Node, Reclaim};
use crate::addr::Pfn;
use crate::buddy::PAGEBLOCK_PAGES;
use crate::frame;
use crate::page::PageState;
use crate::rmap::{Release, whole};

#[cfg(test)]
std::thread_local! {
    static LOOKS: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// How often the calling thread has looked at all frames.
#[cfg(test)]
pub(crate) fn looks_for_strangers() -> usize {
    LOOKS.get()
}

/// Records that are passed between two points at which others may run.
const POINT_EVERY: usize = 64;

/// Gives a page whose group was removed to the group that it counts for, if nobody takes it elsewhere at the moment. No lock is held.
fn adopt<M: Machine>(machine: M, pfn: Pfn) {
    let page = frame::page(machine, pfn);
    let state = page.state();
    if !state.is_user() || !page.isolate(state) {
        return;
    }
    if page.try_lock() {
        let id = page.control_group();
        let to = machine.groups().effective(id);
        if id != to {
            // Whoever has it isolated changes its list.
            page.change_list(page.list(), NEW);
            page.set_control_group(to);
            machine.pages().note_group(pfn, to);
            machine.groups().hand_over(id, to, (state == PageState::Object).then(|| page.flags()));
        }
        page.unlock();
    }
    Release::new(machine).isolated(pfn);
}

impl<M: Machine> Node<M> {
    /// Adopts what the hand has found. No spin lock is held.
    pub(super) fn adopt_strangers(&self) {
        loop {
            let found = self.policy.lock().take_stranger(self.machine);
            let Some(pfn) = found else { break };
            adopt(self.machine, pfn);
        }
    }
}

impl<M: Machine> Reclaim<M> {
    /// Looks at all frames for pages of groups that were removed. The caller holds no lock.
    pub(super) fn adopt_all(&self) {
        let (machine, groups) = (self.machine, self.machine.groups());
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        let blocks = machine.pages().pageblocks().len();
        for block in 0..blocks {
            let first = Pfn(block * PAGEBLOCK_PAGES);
            if !machine.pages().zones().any(|zone| machine.pages().has(zone.node(), first)) {
                continue;
            }
            for n in 0..PAGEBLOCK_PAGES {
                let pfn = Pfn(first.0 + n);
                let id = frame::page(machine, pfn).control_group();
                if n == 0 && groups.effective(id) != id {
                    whole::take_apart(machine, pfn);
                }
                if frame::page(machine, pfn).state().is_user() && groups.effective(id) != id {
                    adopt(machine, pfn);
                }
                if n % POINT_EVERY == 0 && machine.resched_point().is_err() {
                    return;
                }
            }
        }
    }
}
