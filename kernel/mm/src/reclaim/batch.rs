//! Pages leave in batches: chosen under the node's turn, taken out without it, and what became of them is noted with the
//! next choice.
//!
//! Taking a page out, with its compression, is nine tenths of the work, and has no lock of the node. A page of a batch is in
//! no queue, though its record says that it is watched: whatever becomes of it, [`Node::requeue`] puts it on another list, from which it
//! is found again.

use super::policy::{FRESH, GIVEN_UP, KEPT, NEW, WATCHED};
use super::{Choice, Machine, Node, Whose};
use crate::addr::Pfn;
use crate::frame;
use crate::mm::Stays;
use crate::mm::page_out::{Out, isolated_out};

/// Pages in a batch.
const BATCH: usize = 16;

/// Pages that are tried for each one that is asked for.
const TRIES: usize = 8;

/// A page that was chosen.
#[derive(Clone, Copy)]
struct Chosen {
    pfn: Pfn,
    /// What its entries remember.
    shadow: u16,
    /// What became of it: nothing yet, or it is no longer where it was.
    done: Option<Result<(), Stays>>,
}

/// See the module.
struct Batch {
    pages: [Chosen; BATCH],
    len: usize,
    /// Choices that were no page.
    looked: usize,
    /// How often areas had been unlocked before any of them was tried.
    unlocks: usize,
}

impl<M: Machine> Node<M> {
    /// Takes `target` pages of a control group out of memory, that are in zones of the node up to `highest`; returns how many it could.
    pub(super) fn shrink(&self, whose: Whose, highest: usize, target: usize) -> usize {
        let mut freed = self.drop_given_up(highest, target);
        if freed >= target || self.has_no_place(whose) || whose.id == 0 && self.is_barren() {
            return freed;
        }
        let mut batch =
            Batch { pages: [Chosen { pfn: Pfn(0), shadow: 0, done: None }; BATCH], len: 0, looked: 0, unlocks: 0 };
        let mut tries = 0;
        // (What was freed counts, even if the thread is killed.)
        while freed < target && self.fill(whose, &mut batch, target - freed) {
            for chosen in &mut batch.pages[..batch.len] {
                if self.machine.resched_point().is_err() {
                    break;
                }
                self.try_out(highest, chosen);
                match chosen.done {
                    Some(Ok(())) => freed += 1,
                    _ => tries += 1,
                }
            }
            tries += batch.looked;
            let is_full = batch.pages[..batch.len].iter().any(|chosen| chosen.done == Some(Err(Stays::NoSwap)));
            if is_full && self.has_no_place(whose) {
                break;
            }
            // It is hopeless when all pages were tried twice: the first time may only have made them old.
            if tries >= TRIES * target && (freed != 0 || tries >= 2 * self.policy.lock().counts().2) {
                break;
            }
        }
        self.requeue(whose, &mut batch);
        freed
    }

    /// Frees pages that their programs have given up, at most `target`: nothing is lost with them, and no room in swap is needed. Whoever
    /// needs memory takes one after the other, without the turn, since none has to be chosen.
    pub(super) fn drop_given_up(&self, highest: usize, target: usize) -> usize {
        let out = Out { if_given_up: true, ..Out::default() };
        let mut freed = 0;
        while freed < target && self.machine.resched_point().is_ok() {
            let next = self.policy.lock().take_given_up(self.machine);
            let Some(pfn) = next else { break };
            let helps = self.machine.pages().zone_kind_of(pfn) <= highest;
            let is_gone = helps
                && self.isolated(pfn, GIVEN_UP, |page| {
                    let is_gone = isolated_out(self.machine, page, pfn, out).is_ok();
                    (is_gone, is_gone)
                }) == Some(true);
            if is_gone {
                freed += 1;
            } else {
                // It was written meanwhile, or must stay for now: from now on it is as any other.
                frame::page(self.machine, pfn).change_list(GIVEN_UP, NEW);
            }
        }
        freed
    }

    /// Notes what became of the batch, and fills it with at most `wanted` pages; `false` if there are none, or the thread is
    /// killed.
    fn fill(&self, whose: Whose, batch: &mut Batch, wanted: usize) -> bool {
        let Ok(_turn) = self.turn.intend_killable() else { return false };
        self.requeue(whose, batch);
        batch.unlocks = self.machine.spaces().unlocks();
        let wanted = wanted.min(BATCH);
        while batch.len < wanted && batch.looked < TRIES * wanted {
            if self.machine.resched_point().is_err() {
                return false;
            }
            match self.choose(whose) {
                Choice::Page(pfn, shadow) => {
                    batch.pages[batch.len] = Chosen { pfn, shadow, done: None };
                    batch.len += 1;
                }
                Choice::Looked => batch.looked += 1,
                // The queues become shorter with each.
                Choice::Gone => {}
                Choice::End => break,
            }
        }
        batch.len + batch.looked != 0
    }

    /// Takes the page out, if it is still watched and helps.
    fn try_out(&self, highest: usize, chosen: &mut Chosen) {
        let (pfn, shadow) = (chosen.pfn, chosen.shadow);
        chosen.done = self.isolated(pfn, WATCHED, |page| {
            let helps = self.machine.pages().zone_kind_of(pfn) <= highest;
            let out = Out { shadow, if_unused: true, ..Out::default() };
            let done = if helps { isolated_out(self.machine, page, pfn, out) } else { Err(Stays::Held) };
            (done, done.is_ok())
        });
    }

    /// Puts the pages of the batch where they belong by what became of them, and empties it.
    fn requeue(&self, whose: Whose, batch: &mut Batch) {
        for chosen in &batch.pages[..batch.len] {
            let pfn = chosen.pfn;
            match chosen.done {
                Some(Ok(())) => self.policy.lock().note_left(),
                // It can go when it is written back; until then others are cold.
                Some(Err(Stays::Marked)) => self.policy.lock().heat(self.machine, pfn, WATCHED),
                Some(Err(Stays::Used)) => _ = self.test(pfn, WATCHED, u64::MAX, whose),
                // (The group may have room for more slots soon.)
                Some(Err(Stays::NoSwap)) if whose.id != 0 => self.policy.lock().cool(self.machine, pfn, WATCHED, FRESH),
                Some(Err(Stays::Locked)) => self.set_aside(pfn, WATCHED, batch.unlocks),
                Some(Err(Stays::Incompressible | Stays::NoSwap)) => {
                    frame::page(self.machine, pfn).change_list(WATCHED, KEPT);
                }
                Some(Err(_)) => self.policy.lock().cool(self.machine, pfn, WATCHED, FRESH),
                // Nobody has tried it, or somebody has it isolated.
                None => _ = frame::page(self.machine, pfn).change_list(WATCHED, NEW),
            }
        }
        (batch.len, batch.looked) = (0, 0);
    }
}
