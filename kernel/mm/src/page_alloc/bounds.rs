//! Zone boundaries: the rules for `kernelcore=` and `movablecore=`, and ranges within one zone.

use core::ops::Range;

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, PhysRange};
use crate::buddy::MAX_ORDER_PAGES;
use crate::memblock::MemBlock;
use crate::zone::{MAX_NODES, ZoneKind};

/// How much memory is for movable pages only, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MovableSplit {
    /// Nothing.
    None,
    /// All except this many pages, which are spread evenly over the nodes. As on Linux, it has no effect if that is 0
    /// or all of memory.
    KernelCore(usize),
    /// This many pages. As on Linux, it has no effect if that is all of memory.
    MovableCore(usize),
}

/// The kernel's minimum for pages that cannot move, in addition to reserved memory: a 16th of memory, plus this.
const KERNEL_PAGES: usize = (16 << 20) / PAGE_SIZE;

impl MovableSplit {
    /// Linux's rule if both are given: the one that leaves the kernel more.
    pub fn from_args(kernelcore: Option<usize>, movablecore: Option<usize>, memory: &MemBlock) -> Self {
        let given = |pages: Option<usize>| pages.filter(|&pages| pages != 0);
        match (given(kernelcore), given(movablecore)) {
            (None, None) => Self::None,
            (Some(kernel), None) => Self::KernelCore(kernel),
            (None, Some(movable)) => Self::MovableCore(movable),
            (Some(kernel), Some(movable)) => {
                Self::KernelCore(kernel.max(Self::MovableCore(movable).kernel_pages(whole_pages(memory))))
            }
        }
    }

    /// The same split, or the closest one that leaves the kernel enough to boot, given the memory reserved so far.
    /// (Linux follows the command line literally, and then does not boot.)
    pub fn bootable(self, memory: &MemBlock) -> Self {
        let total = whole_pages(memory);
        let asked = self.kernel_pages(total);
        let reserved: usize = memory.reserved().map(|(range, _)| (range.end - range.start).div_ceil(PAGE_SIZE)).sum();
        let needed = reserved.saturating_add(KERNEL_PAGES.max(total / 16));
        match asked {
            0 => Self::None,
            _ if asked.max(needed) >= total => Self::None,
            _ if asked < needed => Self::KernelCore(needed),
            _ => self,
        }
    }

    /// The kernel's part of `total` pages; 0 if there is no part for movable pages only.
    fn kernel_pages(self, total: usize) -> usize {
        match self {
            Self::None => 0,
            Self::KernelCore(kernel) if kernel >= total => 0,
            Self::KernelCore(kernel) => kernel,
            Self::MovableCore(movable) => {
                let movable = movable.checked_next_multiple_of(MAX_ORDER_PAGES).unwrap_or(usize::MAX);
                total.saturating_sub(movable)
            }
        }
    }
}

/// All frames of a machine.
fn whole_pages(memory: &MemBlock) -> usize {
    memory.memory().map(|region| whole_frames(&region.range).len()).sum()
}

/// The whole frames in a range of addresses.
pub(super) fn whole_frames(range: &Range<PhysAddr>) -> Range<usize> {
    let start = range.start.get().div_ceil(PAGE_SIZE);
    start..(range.end.get() >> PAGE_SHIFT).max(start)
}

/// Where zones begin, as frame numbers.
pub struct ZoneBounds {
    dma32: usize,
    normal: usize,
    movable: [usize; MAX_NODES],
}

impl ZoneBounds {
    /// Computed from the limit of the most restricted device (`None` if all devices reach all memory), and the split.
    /// Nodes are below [`MAX_NODES`].
    pub fn new(memory: &MemBlock, dma_limit: Option<PhysAddr>, split: MovableSplit) -> Self {
        let block = |addr: usize| (addr >> PAGE_SHIFT) & !(MAX_ORDER_PAGES - 1);
        let dma32 = dma_limit.map_or(0, |limit| block(limit.get()));
        let mut bounds = Self { dma32, normal: block(1 << 32).max(dma32), movable: [usize::MAX; MAX_NODES] };
        bounds.split_movable(memory, split);
        bounds
    }

    pub(super) fn kind(&self, node: usize, pfn: usize) -> ZoneKind {
        if pfn >= self.movable[node] {
            ZoneKind::Movable
        } else if pfn >= self.normal {
            ZoneKind::Normal
        } else if pfn >= self.dma32 {
            ZoneKind::Dma32
        } else {
            ZoneKind::Dma
        }
    }

    /// As [`MemBlock::find`]: the highest range that lies completely in one zone.
    pub fn find(&self, memory: &MemBlock, size: usize, align: usize, within: PhysRange) -> Option<PhysAddr> {
        let address = |pfn: usize| PhysAddr::new(pfn.saturating_mul(PAGE_SIZE));
        let places = (0..MAX_NODES).flat_map(|node| {
            let movable = self.movable[node];
            let edges = [0, self.dma32.min(movable), self.normal.min(movable), movable, usize::MAX];
            let zones = [0, 1, 2, 3].map(|kind| address(edges[kind])..address(edges[kind + 1]));
            let within = within.clone();
            zones.into_iter().filter_map(move |zone| {
                let part = zone.start.max(within.start)..zone.end.min(within.end);
                memory.find(size, align, part, Some(node)).ok()
            })
        });
        places.max()
    }

    /// Zone MOVABLE is the top of each node that has memory in the highest zone of all.
    fn split_movable(&mut self, memory: &MemBlock, split: MovableSplit) {
        let mut pages = [0; MAX_NODES];
        let mut highest = 0;
        for region in memory.memory() {
            let frames = whole_frames(&region.range);
            pages[region.node] += frames.len();
            highest = highest.max(frames.end);
        }
        let kernel = split.kernel_pages(pages.iter().sum());
        if kernel == 0 {
            return;
        }
        let floor = [self.normal, self.dma32, 0].into_iter().find(|&start| start < highest).unwrap_or(0);
        let share = even_shares(&pages, kernel);
        self.movable = core::array::from_fn(|node| movable_start(memory, node, share[node], floor));
    }
}

/// Spreads `wanted` evenly over the nodes; the excess of a small node goes to the others.
fn even_shares(pages: &[usize; MAX_NODES], wanted: usize) -> [usize; MAX_NODES] {
    let mut share = [0; MAX_NODES];
    let mut left = wanted;
    loop {
        let open = (0..MAX_NODES).filter(|&node| share[node] < pages[node]).count();
        if open == 0 || left == 0 {
            return share;
        }
        let each = left.div_ceil(open);
        for (share, &pages) in share.iter_mut().zip(pages) {
            let more = each.min(pages - *share).min(left);
            *share += more;
            left -= more;
        }
    }
}

/// The frame of a node that has `kernel` pages below it, at a block boundary at or above `floor`.
fn movable_start(memory: &MemBlock, node: usize, kernel: usize, floor: usize) -> usize {
    let mut left = kernel;
    for region in memory.memory().filter(|region| region.node == node) {
        let frames = whole_frames(&region.range);
        if frames.len() > left {
            return (frames.start + left).next_multiple_of(MAX_ORDER_PAGES).max(floor);
        }
        left -= frames.len();
    }
    usize::MAX
}
