//! Changing the type of page blocks together with their free blocks, and taking ranges out of the free lists, for CMA
//! and contiguous allocation. This is the only code here whose cost depends on the size of a range.

use core::ops::Range;

use crate::addr::Pfn;
use crate::page::Machine;

use super::pageblock::{MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES};
use super::{Frames, FreeArea, MAX_ORDER};

impl FreeArea {
    /// Moves the free blocks of `pfn`'s page block to the lists of `list`; a larger block that spans it is split
    /// into page blocks first.
    pub(crate) fn move_free_blocks<M: Machine>(&mut self, frames: Frames<M>, pfn: Pfn, list: MigrateType) {
        let start = pfn.0 & !(PAGEBLOCK_PAGES - 1);
        self.split_at_pageblocks(frames, Pfn(start));
        let end = start + PAGEBLOCK_PAGES;
        let mut at = start;
        while at < end {
            match free_order(frames, Pfn(at)) {
                Some(order) => {
                    self.remove(frames, Pfn(at), order);
                    self.insert(frames, Pfn(at), order, list);
                    at += 1 << order;
                }
                None => at += 1,
            }
        }
    }

    /// Splits the free block that spans more than the page block at `start`, if there is one.
    fn split_at_pageblocks<M: Machine>(&mut self, frames: Frames<M>, start: Pfn) {
        for order in PAGEBLOCK_ORDER + 1..=MAX_ORDER {
            let head = Pfn(start.0 & !((1 << order) - 1));
            if head.0 == 0 || !frames.page(head).is_free_block(order) {
                continue;
            }
            self.remove(frames, head, order);
            for part in 0..1 << (order - PAGEBLOCK_ORDER) {
                let pfn = Pfn(head.0 + part * PAGEBLOCK_PAGES);
                self.insert(frames, pfn, PAGEBLOCK_ORDER, frames.pageblocks.of(pfn).migrate_type());
            }
        }
    }

    /// The last frame of `start..end` that is in no free block. The range lies in isolated page blocks.
    pub(crate) fn last_busy<M: Machine>(&self, frames: Frames<M>, start: Pfn, end: Pfn) -> Option<Pfn> {
        let mut at = free_block_around(frames, start).map_or(start.0, |(head, order)| head.0 + (1 << order));
        let mut last = None;
        while at < end.0 {
            match free_order(frames, Pfn(at)) {
                Some(order) => at += 1 << order,
                None => {
                    last = Some(Pfn(at));
                    at += 1;
                }
            }
        }
        last
    }

    /// Takes all frames of `start..end`, which are free, off the lists. The parts of blocks that extend beyond the ends
    /// go back to the lists. The frames' heads become `Absent`.
    pub(crate) fn take_range<M: Machine>(&mut self, frames: Frames<M>, start: Pfn, end: Pfn) {
        let mut at = start.0;
        while at < end.0 {
            let Some((head, order)) = free_block_around(frames, Pfn(at)) else {
                debug_assert!(false, "{:?} is not free", Pfn(at));
                return;
            };
            self.remove(frames, head, order);
            frames.page(head).make_absent();
            let after = head.0 + (1 << order);
            self.insert_range(frames, head.0, start.0);
            self.insert_range(frames, end.0, after);
            at = after;
        }
    }

    /// Takes at most `most` free frames of a range within a page block off the lists, each as an allocated one. Returns
    /// where to continue.
    pub(crate) fn take_singles<M: Machine>(
        &mut self,
        frames: Frames<M>,
        range: Range<Pfn>,
        most: usize,
        mut take: impl FnMut(Pfn),
    ) -> Pfn {
        let (mut at, mut left) = (range.start.0, most);
        while at < range.end.0 && left != 0 {
            let Some(order) = free_order(frames, Pfn(at)).filter(|order| *order < PAGEBLOCK_ORDER) else {
                at += 1;
                continue;
            };
            self.remove(frames, Pfn(at), order);
            let (taken, end) = (left.min(1 << order), at + (1 << order));
            for pfn in (at..at + taken).map(Pfn) {
                frames.page(pfn).make_allocated(0);
                take(pfn);
            }
            self.insert_range(frames, at + taken, end);
            left -= taken;
            at += taken;
        }
        Pfn(at)
    }

    /// Inserts `from..to` (nothing if it is empty) as the largest blocks that fit, unmerged.
    fn insert_range<M: Machine>(&mut self, frames: Frames<M>, from: usize, to: usize) {
        let mut at = from;
        while at < to {
            let order = at.trailing_zeros().min((to - at).ilog2()).min(MAX_ORDER);
            self.insert(frames, Pfn(at), order, frames.pageblocks.of(Pfn(at)).migrate_type());
            at += 1 << order;
        }
    }
}

/// The order of the free block that `pfn` heads.
pub(super) fn free_order<M: Machine>(frames: Frames<M>, pfn: Pfn) -> Option<u32> {
    let page = frames.page(pfn);
    let order = page.order();
    page.is_free_block(order).then_some(order)
}

/// Head and order of the free block that contains `pfn`.
fn free_block_around<M: Machine>(frames: Frames<M>, pfn: Pfn) -> Option<(Pfn, u32)> {
    let head = frames.head(pfn)?;
    Some((head, free_order(frames, head)?))
}
