//! A frame for people: what its record and its page block say at a moment.

use crate::addr::Pfn;
use crate::buddy::MigrateType;
use crate::buddy::pageblock::NO_ZONE;
use crate::page::{PageFlags, PageState};
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
    /// Of a page of user memory, the control group that it is charged to, by number, and the page's number in its owner.
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
}
