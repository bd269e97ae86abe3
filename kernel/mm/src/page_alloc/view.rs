//! Frames for people: what the record of one and its page block say at a moment, and all those of a page block.

use crate::addr::Pfn;
use crate::buddy::pageblock::NO_ZONE;
use crate::buddy::{MigrateType, PAGEBLOCK_PAGES};
use crate::page::{Look, PageFlags, PageState};
use crate::page_alloc::Machine;
use crate::zone::ZoneKind;

use super::PageAllocator;

/// See the module. Only a caller that holds the frame knows that all of it is of the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameView {
    /// The frame.
    pub pfn: Pfn,
    /// The head of the block that it lies in; the frame itself if it lies in none.
    pub head: Pfn,
    /// The node.
    pub node: usize,
    /// The zone.
    pub zone: ZoneKind,
    /// The type of the page block.
    pub migrate_type: MigrateType,
    /// What the block is, and its order.
    pub state: PageState,
    /// See [`FrameView::state`].
    pub order: u32,
    /// The head's flags; none unless it is allocated.
    pub flags: PageFlags,
    /// References.
    pub refs: u32,
    /// Of these, pins.
    pub pins: u32,
    /// Of a page of user memory, the control group that it is charged to, by number, and the page's number in its
    /// owner.
    pub group: u16,
    /// See [`FrameView::group`].
    pub index: u64,
}

impl FrameView {
    /// An upper bound of the entries that map a page of user memory: its references, without pins and its object's.
    pub fn mappings(&self) -> u32 {
        let others = self.pins + u32::from(self.state == PageState::Object);
        if self.state.is_user() || self.state == PageState::Whole { self.refs.saturating_sub(others) } else { 0 }
    }
}

impl<M: Machine> PageAllocator<M> {
    /// What is known of a frame; `None` if there is no memory.
    pub fn frame_view(&self, pfn: Pfn) -> Option<FrameView> {
        let block = self.topology().pageblocks.get(pfn).filter(|block| block.zone() != NO_ZONE)?;
        let head = self.frames().head(pfn).unwrap_or(pfn);
        let page = self.frames().page(head);
        let state = page.state();
        // (What the body of a kernel frame's record says is its holder's.)
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

    /// Looks at the frames of the page block with this number, a block of the buddy's (or a frame outside of all) at a
    /// time. Returns whether there is memory. Others change blocks meanwhile: each frame is seen once, but what is said
    /// of neighbours may be of different moments.
    #[inline]
    pub fn look_at_block(&self, number: usize, mut each: impl FnMut(FrameRun)) -> bool {
        let Some(start) = self.block_start(number) else { return false };
        let frames = self.frames();
        let mut at = 0;
        // A block of the buddy's may have begun before; further on, each begins where the last one has ended.
        let mut head = frames.head(start).unwrap_or(start);
        while at < PAGEBLOCK_PAGES {
            let look = frames.page(head).look();
            let pfn = start.0 + at;
            // (Of a frame that is absent it is 0. A head may have changed since it was found.)
            let end = (head.0 + (1 << look.order()) - start.0).clamp(at + 1, PAGEBLOCK_PAGES);
            each(FrameRun { at, len: end - at, is_first: head.0 == pfn, look });
            at = end;
            head = Pfn(start.0 + at);
        }
        true
    }

    /// How many frames of a page block there are of each state, by its number; `None` if there is no memory. As
    /// [`PageAllocator::look_at_block`] would count them, with a few instructions for each.
    pub fn count_block(&self, number: usize) -> Option<[u16; PageState::NUMBERS]> {
        let start = self.block_start(number)?;
        let frames = self.frames();
        let mut counts = [0_u32; PageState::NUMBERS];
        let mut head = frames.head(start).unwrap_or(start);
        let end = start.0 + PAGEBLOCK_PAGES;
        // What of the first block lies before, and of the last one behind, is no part of this.
        let mut surplus = start.0 - head.0;
        let mut state = 0;
        while head.0 < end {
            let look = frames.page(head).look();
            let len = 1_usize << look.order();
            state = look.number();
            // (If the first one has ended meanwhile, at least one frame is counted.)
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

/// Frames of a page block, of one block of the buddy's, or one outside of all: see [`PageAllocator::look_at_block`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRun {
    /// The first one's place in the page block.
    pub at: usize,
    /// How many.
    pub len: usize,
    /// The block of frames begins here, not before the page block.
    pub is_first: bool,
    /// What the head says.
    pub look: Look,
}
