//! [`VmSpace`]: areas from their reservation to their purge.

use core::ops::Range;
use core::panic::Location;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::event::Event;
use crate::fallible::{AllocError, try_box};
use crate::kernel_table::{Alias, KernelAttrs, MapError};
use crate::page_alloc::Machine;
use crate::page_alloc::{Gfp, PageList, Shrinker};
use crate::sync::{Rank, SpinLock};
use crate::vmalloc::tree::{AreaTree, Node};
use crate::vmalloc::{KernelMapper, LAZY_MAX_PAGES};

/// The kind of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AreaKind {
    /// Frames of the area's own.
    Vmalloc,
    /// Frames with another owner.
    Vmap,
    /// Physical addresses of a device.
    Ioremap,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmError {
    /// No memory for frames, tables or the area's node.
    NoMemory,
    /// No free range of addresses is large enough.
    NoSpace,
    /// An empty range, one that wraps around, or an address where no area of this kind starts.
    Invalid,
}

impl From<AllocError> for VmError {
    fn from(_: AllocError) -> Self {
        VmError::NoMemory
    }
}

impl From<MapError> for VmError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::NoMemory => VmError::NoMemory,
            MapError::Occupied(_) | MapError::Misaligned => VmError::Invalid,
        }
    }
}

/// The state of an area between its reservation and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// In use.
    Live,
    /// It is being freed: its entries are being removed.
    Unmapping,
    /// Waits for a purge, on the list that starts at [`Inner::lazy`].
    Lazy,
}

/// The data of an area's node in the tree.
struct Area {
    kind: AreaKind,
    life: Life,
    /// The first frame, of areas that are physically contiguous.
    phys: Option<PhysAddr>,
    /// The caller that allocated it.
    caller: &'static Location<'static>,
    /// Frames of the area's own.
    frames: PageList,
    /// It is mapped with other attributes than the direct map's.
    is_mismatched: bool,
    /// The start of the next area on the lazy list.
    next_lazy: Option<usize>,
}

/// A line of vmallocinfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaInfo {
    /// The first byte.
    pub start: VirtAddr,
    /// Pages, without the guard.
    pub pages: usize,
    /// The purpose of the area.
    pub kind: AreaKind,
    /// The first frame, of areas that are physically contiguous.
    pub phys: Option<PhysAddr>,
    /// The caller that allocated it.
    pub caller: &'static Location<'static>,
    /// Freed, and waiting for its purge.
    pub is_lazy: bool,
}

impl AreaInfo {
    fn of(node: &Node<Area>) -> Self {
        let (range, area) = (node.range(), &node.value);
        Self {
            start: VirtAddr::new(range.start),
            pages: range.len() / PAGE_SIZE - 1,
            kind: area.kind,
            phys: area.phys,
            caller: area.caller,
            is_lazy: area.life != Life::Live,
        }
    }
}

/// The state that the lock protects.
struct Inner {
    tree: AreaTree<Area>,
    /// The area that was freed last.
    lazy: Option<usize>,
}

/// A range of kernel addresses for areas.
pub struct VmSpace<M: Machine, K> {
    machine: M,
    mapper: K,
    inner: SpinLock<Inner, M>,
    /// Pages, without guards, of lazily freed areas.
    lazy_pages: AtomicUsize,
    /// Frames of areas' own, those that wait for a purge included.
    frames: AtomicUsize,
}

impl<M: Machine, K: KernelMapper> VmSpace<M, K> {
    /// A space in which all of `range` is free. It is at least a page long; its bounds are multiples of the page size.
    pub const fn new(machine: M, mapper: K, range: Range<VirtAddr>) -> Self {
        let tree = AreaTree::new(range.start.get() + PAGE_SIZE..range.end.get());
        Self {
            machine,
            mapper,
            inner: SpinLock::new(machine, Rank::Vmalloc, Inner { tree, lazy: None }),
            lazy_pages: AtomicUsize::new(0),
            frames: AtomicUsize::new(0),
        }
    }

    /// Allocates at least `size` bytes in frames that need not be contiguous, zeroed if `gfp` says so. May sleep if
    /// `gfp` allows it.
    #[track_caller]
    pub fn vmalloc(&self, size: usize, gfp: Gfp) -> Result<VirtAddr, VmError> {
        let pages = size.div_ceil(PAGE_SIZE);
        // A request that can never be met must not first take all memory and trigger the OOM killer.
        if pages > self.machine.pages().total_managed() {
            return Err(AllocError.into());
        }
        let start = self.reserve(pages, AreaKind::Vmalloc, None)?;
        let mut frames = PageList::new();
        let mapped = self.fill(start, pages, gfp, &mut frames);
        self.frames.fetch_add(frames.len(), Ordering::Relaxed);
        if let Some(node) = self.inner.lock().tree.find_mut(start.get()) {
            node.value.frames = frames;
        }
        if let Err(error) = mapped {
            self.release(start, AreaKind::Vmalloc)?;
            return Err(error);
        }
        Ok(start)
    }

    /// Maps new frames to `pages` pages from `start` on. On an error, `frames` has those allocated so far.
    fn fill(&self, start: VirtAddr, pages: usize, gfp: Gfp, frames: &mut PageList) -> Result<(), VmError> {
        // Adjacent frames are mapped together.
        let (mut first, mut run, mut at) = (Pfn(0), 0, start);
        for _ in 0..pages {
            let pfn = self.machine.pages().alloc_raw(0, gfp)?;
            // SAFETY: the frame was just allocated and has no other owner.
            unsafe { frames.push(self.machine, pfn) };
            if run != 0 && pfn.0 != first.0 + run {
                self.mapper.map(at, first.addr(), run, KernelAttrs::DATA)?;
                at = at + run * PAGE_SIZE;
                run = 0;
            }
            if run == 0 {
                first = pfn;
            }
            run += 1;
        }
        Ok(self.mapper.map(at, first.addr(), run, KernelAttrs::DATA)?)
    }

    /// Frees an area of [`VmSpace::vmalloc`].
    ///
    /// # Safety
    /// The area is no longer used.
    pub unsafe fn vfree(&self, start: VirtAddr) -> Result<(), VmError> {
        self.release(start, AreaKind::Vmalloc)
    }

    /// Maps frames that belong to the caller, in this order. If the mapping is not write-back, the frames must not be
    /// accessed through the direct map until the area has been unmapped; Device memory is refused.
    #[track_caller]
    pub fn vmap(&self, frames: &[Pfn], attrs: KernelAttrs) -> Result<VirtAddr, VmError> {
        let alias = attrs.alias();
        if alias == Alias::Device {
            return Err(VmError::Invalid);
        }
        let start = self.reserve(frames.len(), AreaKind::Vmap, None)?;
        let mut done = 0;
        while let Some(&first) = frames.get(done) {
            let run = frames[done..].iter().enumerate().take_while(|&(i, pfn)| pfn.0 == first.0 + i).count();
            if let Err(error) = self.mapper.map(start + done * PAGE_SIZE, first.addr(), run, attrs) {
                self.release(start, AreaKind::Vmap)?;
                return Err(error.into());
            }
            done += run;
        }
        if alias == Alias::Mismatched {
            self.mapper.flush_caches(start, frames.len());
            if let Some(node) = self.inner.lock().tree.find_mut(start.get()) {
                node.value.is_mismatched = true;
            }
        }
        Ok(start)
    }

    /// Removes a mapping of [`VmSpace::vmap`]. The caller owns the frames, and may reuse them once [`VmSpace::purge`]
    /// has run.
    ///
    /// # Safety
    /// The area is no longer used.
    pub unsafe fn vunmap(&self, start: VirtAddr) -> Result<(), VmError> {
        self.release(start, AreaKind::Vmap)
    }

    /// Maps `size` bytes of physical addresses, which may start at any offset in a page.
    #[track_caller]
    pub fn ioremap(&self, phys: PhysAddr, size: usize, attrs: KernelAttrs) -> Result<VirtAddr, VmError> {
        if size == 0 {
            return Err(VmError::Invalid);
        }
        let end = phys.checked_add(size).and_then(PhysAddr::page_ceil).ok_or(VmError::Invalid)?;
        let first = phys.page_floor();
        let pages = (end - first) / PAGE_SIZE;
        let start = self.reserve(pages, AreaKind::Ioremap, Some(first))?;
        if let Err(error) = self.mapper.map(start, first, pages, attrs) {
            self.release(start, AreaKind::Ioremap)?;
            return Err(error.into());
        }
        Ok(start + phys.page_offset())
    }

    /// Removes a mapping of [`VmSpace::ioremap`].
    ///
    /// # Safety
    /// The area is no longer used.
    pub unsafe fn iounmap(&self, address: VirtAddr) -> Result<(), VmError> {
        self.release(address.page_floor(), AreaKind::Ioremap)
    }

    /// The area that contains an address, its guard page included.
    pub fn area_of(&self, address: VirtAddr) -> Option<AreaInfo> {
        self.inner.lock().tree.find(address.get()).map(AreaInfo::of)
    }

    /// The first area that ends after an address; to list all areas, continue from the end of the last one.
    pub fn next_area(&self, address: VirtAddr) -> Option<AreaInfo> {
        self.inner.lock().tree.first_ending_after(address.get()).map(AreaInfo::of)
    }

    /// The number of areas, including those that wait for a purge.
    pub fn areas(&self) -> usize {
        self.inner.lock().tree.len()
    }

    /// Pages that wait for a purge.
    pub fn lazy_pages(&self) -> usize {
        self.lazy_pages.load(Ordering::Relaxed)
    }

    /// Frames owned by areas, including those that wait for a purge, since they are only freed then.
    pub fn frames(&self) -> usize {
        self.frames.load(Ordering::Relaxed)
    }

    /// Reserves addresses for an area of `pages` pages and its guard.
    #[track_caller]
    pub(super) fn reserve(&self, pages: usize, kind: AreaKind, phys: Option<PhysAddr>) -> Result<VirtAddr, VmError> {
        let size = pages.checked_add(1).and_then(|all| all.checked_mul(PAGE_SIZE)).ok_or(VmError::Invalid)?;
        if pages == 0 {
            return Err(VmError::Invalid);
        }
        let (life, caller, frames) = (Life::Live, Location::caller(), PageList::new());
        let area = Area { kind, life, phys, caller, frames, is_mismatched: false, next_lazy: None };
        let mut node = try_box(Node::new(area))?;
        for purged in [false, true] {
            let placed = self.inner.lock().tree.insert(node, size, PAGE_SIZE, PAGE_SIZE);
            match placed {
                Ok(start) => return Ok(VirtAddr::new(start)),
                Err(back) => node = back,
            }
            if !purged {
                self.purge();
            }
        }
        Err(VmError::NoSpace)
    }

    /// Releases an area: its entries are removed now, its addresses are freed by the next purge.
    fn release(&self, start: VirtAddr, kind: AreaKind) -> Result<(), VmError> {
        let (pages, is_mismatched) = {
            let mut inner = self.inner.lock();
            let node = inner.tree.find_mut(start.get()).ok_or(VmError::Invalid)?;
            let pages = node.range().len() / PAGE_SIZE - 1;
            let is_it = node.range().start == start.get() && node.value.kind == kind && node.value.life == Life::Live;
            if !is_it {
                return Err(VmError::Invalid);
            }
            node.value.life = Life::Unmapping;
            (pages, node.value.is_mismatched)
        };
        if is_mismatched {
            self.mapper.flush_caches(start, pages);
        }
        self.mapper.unmap(start, pages);
        {
            let mut inner = self.inner.lock();
            let next_lazy = inner.lazy.replace(start.get());
            if let Some(node) = inner.tree.find_mut(start.get()) {
                (node.value.life, node.value.next_lazy) = (Life::Lazy, next_lazy);
            }
        }
        if self.lazy_pages.fetch_add(pages, Ordering::Relaxed) + pages >= LAZY_MAX_PAGES {
            self.purge();
        }
        Ok(())
    }

    /// Invalidates lazily freed areas on all CPUs, and frees their addresses and frames. Returns the number of pages.
    pub fn purge(&self) -> usize {
        // From here on this caller owns the list: no other thread removes its areas from the tree.
        let first = self.inner.lock().lazy.take();
        let mut span: Option<Range<usize>> = None;
        let mut at = first;
        while let Some(start) = at {
            let inner = self.inner.lock();
            let Some(node) = inner.tree.find(start) else { break };
            let end = node.range().end - PAGE_SIZE;
            span = Some(span.map_or(start..end, |span| span.start.min(start)..span.end.max(end)));
            at = node.value.next_lazy;
        }
        let Some(span) = span else { return 0 };
        self.machine.count(Event::VmallocPurge, 1);
        // Invalidating page by page is cheaper only if they are close together.
        let pages = span.len() / PAGE_SIZE;
        if pages <= 2 * LAZY_MAX_PAGES {
            self.machine.tlb_flush_kernel(VirtAddr::new(span.start), pages);
        } else {
            self.machine.tlb_flush_all();
        }

        let (mut at, mut purged) = (first, 0);
        while let Some(start) = at {
            let removed = self.inner.lock().tree.remove(start);
            let Some(mut node) = removed else { break };
            if !node.value.frames.is_empty() {
                self.frames.fetch_sub(node.value.frames.len(), Ordering::Relaxed);
                // SAFETY: the area owns the frames; its entries are removed, and no TLB has them.
                unsafe { self.machine.pages().free_batch(&mut node.value.frames) };
            }
            purged += node.range().len() / PAGE_SIZE - 1;
            at = node.value.next_lazy;
        }
        self.lazy_pages.fetch_sub(purged, Ordering::Relaxed);
        purged
    }
}

/// Under memory pressure, a purge frees the frames of freed areas.
impl<M: Machine, K: KernelMapper> Shrinker for VmSpace<M, K> {
    fn count(&self) -> usize {
        self.lazy_pages()
    }

    fn scan(&self, _target: usize, _gfp: Gfp) -> usize {
        self.purge()
    }
}
