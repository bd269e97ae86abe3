//! Frames for display: the state of a frame's record and its page block at one moment, and of all frames of a page
//! block.

use crate::addr::Pfn;
use crate::buddy::pageblock::NO_ZONE;
use crate::buddy::{MigrateType, PAGEBLOCK_PAGES};
use crate::page::{Look, PageFlags, PageState};
use crate::page_alloc::Machine;
use crate::zone::ZoneKind;

use super::PageAllocator;

/// See the module. Only if the caller holds the frame are all fields from the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameView {
    /// The frame.
    pub pfn: Pfn,
    /// The head of the block that contains it; the frame itself if there is none.
    pub head: Pfn,
    /// The node.
    pub node: usize,
    /// The zone.
    pub zone: ZoneKind,
    /// The type of the page block.
    pub migrate_type: MigrateType,
    /// The state of the block, and its order.
    pub state: PageState,
    /// See [`FrameView::state`].
    pub order: u32,
    /// The head's flags; empty unless the block is allocated.
    pub flags: PageFlags,
    /// References.
    pub refs: u32,
    /// Of these, pins.
    pub pins: u32,
    /// For a page of user memory, the number of the control group that it is charged to, and the page's index in its
    /// owner.
    pub group: u16,
    /// See [`FrameView::group`].
    pub index: u64,
}

impl FrameView {
    /// An upper bound for the number of entries that map a page of user memory: its references, without pins and
    /// without its object's.
    pub fn mappings(&self) -> u32 {
        let others = self.pins + u32::from(self.state == PageState::Object);
        if self.state.is_user() || self.state == PageState::Whole { self.refs.saturating_sub(others) } else { 0 }
    }
}

impl<M: Machine> PageAllocator<M> {
    /// The state of a frame; `None` if there is no memory.
    pub fn frame_view(&self, pfn: Pfn) -> Option<FrameView> {
        let block = self.topology().pageblocks.get(pfn).filter(|block| block.zone() != NO_ZONE)?;
        let head = self.frames().head(pfn).unwrap_or(pfn);
        let page = self.frames().page(head);
        let state = page.state();
        // (The body of a kernel frame's record belongs to its holder.)
        let is_user = state.is_user() || state == PageState::Whole;
        Some(FrameView {
            pfn,
            head,
            node: super::init::node_of(block.zone().into()),
            zone: ZoneKind::ALL[usize::from(block.zone()) % ZoneKind::COUNT],
            migrate_type: block.migrate_type(),
            state,
            order: page.order(),
            flags: if state.is_allocated() { page.flags() } else { PageFlags::empty() },
            refs: page.refs(),
            pins: if is_user { page.pins() } else { 0 },
            group: if is_user { page.control_group() } else { 0 },
            index: if is_user { page.index() } else { 0 },
        })
    }

    /// Visits the frames of the page block with this number, one block of the buddy's (or one frame outside of all
    /// blocks) at a time. Returns whether there is memory. Others change blocks meanwhile: each frame is visited once,
    /// but the states of neighbours may be from different moments.
    #[inline]
    pub fn look_at_block(&self, number: usize, mut each: impl FnMut(FrameRun)) -> bool {
        let Some(start) = self.block_start(number) else { return false };
        let frames = self.frames();
        let mut at = 0;
        // The first block may begin before the page block; after that, each begins where the last one has ended.
        let mut head = frames.head(start).unwrap_or(start);
        while at < PAGEBLOCK_PAGES {
            let look = frames.page(head).look();
            let pfn = start.0 + at;
            // (For an absent frame it is 0. A head may have changed since it was found.)
            let end = (head.0 + (1 << look.order()) - start.0).clamp(at + 1, PAGEBLOCK_PAGES);
            each(FrameRun { at, len: end - at, is_first: head.0 == pfn, look });
            at = end;
            head = Pfn(start.0 + at);
        }
        true
    }

    /// How many frames of a page block are in each state, by its number; `None` if there is no memory. The result is
    /// that of [`PageAllocator::look_at_block`], at the cost of a few instructions per frame.
    pub fn count_block(&self, number: usize) -> Option<[u16; PageState::NUMBERS]> {
        let start = self.block_start(number)?;
        let frames = self.frames();
        let mut counts = [0_u32; PageState::NUMBERS];
        let mut head = frames.head(start).unwrap_or(start);
        let end = start.0 + PAGEBLOCK_PAGES;
        // The parts of the first and the last block that are outside of the page block do not count.
        let mut surplus = start.0 - head.0;
        let mut state = 0;
        while head.0 < end {
            let look = frames.page(head).look();
            let len = 1_usize << look.order();
            state = look.number();
            // (Even if the first block has ended meanwhile, at least one frame is counted.)
            let counted = if surplus == 0 { len } else { len.saturating_sub(surplus).max(1) };
            counts[state] += counted as u32;
            head.0 += surplus + counted;
            surplus = 0;
        }
        counts[state] -= (head.0 - end) as u32;
        Some(counts.map(|count| count as u16))
    }

    /// The first frame of the page block with this number, if there is memory.
    fn block_start(&self, number: usize) -> Option<Pfn> {
        let start = number.checked_mul(PAGEBLOCK_PAGES).map(Pfn)?;
        self.topology().pageblocks.get(start).is_some_and(|block| block.zone() != NO_ZONE).then_some(start)
    }
}

/// Frames of a page block that are in one block of the buddy's, or one frame outside of all: see
/// [`PageAllocator::look_at_block`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRun {
    /// The index of the first one in the page block.
    pub at: usize,
    /// How many.
    pub len: usize,
    /// Whether the block of frames begins here, and not before the page block.
    pub is_first: bool,
    /// The information in the head's record.
    pub look: Look,
}
