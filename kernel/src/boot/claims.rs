//! Claims on memory when boot begins: first the kernel's own regions, then the device tree's reservations.
//!
//! The image, the boot archive and the tree itself are in use already, so no reservation of the tree can remove them,
//! and the log says so. As on Linux, no-map memory over them is ignored; other reservations apply to the memory around
//! them. A node that would leave the kernel no memory to run in is ignored as well: the kernel runs, so the tree is wrong.

use quire_mm::PhysAddr;
use quire_mm::addr::{PAGE_SIZE, PhysRange};
use quire_mm::memblock::{MemBlock, MemBlockError, RegionKind};
use quire_mm::page::Page;
use quire_mm::page_alloc::{MovableSplit, ZoneBounds};
use quire_platform::tree::{Board, Region, ReservationFlags};

use super::memory::{Error, LEAST_FREE_KIB, dma_limit};
use super::zones;
use crate::layout::KIMAGE;

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
}

/// A region of the tree as a range of the memory manager.
pub fn range(region: &Region) -> PhysRange {
    PhysAddr::new(region.base as usize)..PhysAddr::new(region.end() as usize)
}

/// Where the kernel's image lies, if `image` is the physical address of KIMAGE.
pub fn kernel(image: PhysAddr) -> PhysRange {
    let at = |symbol: &u8| image + (core::ptr::from_ref(symbol).addr() - KIMAGE);
    // SAFETY: the linker script defines the symbols; only their addresses are used.
    unsafe { at(&__image_start)..at(&__image_end) }
}

fn whole_pages(r: PhysRange) -> PhysRange {
    r.start.page_floor()..r.end.page_ceil().unwrap_or(r.end)
}

/// Fills memblock: banks, then the claims on them. Returns the kernel's range, and the split for zone MOVABLE.
pub fn describe(
    board: &Board,
    memory: &mut MemBlock,
    image: PhysAddr,
    fdt: PhysRange,
) -> Result<(PhysRange, MovableSplit), Error> {
    for bank in &board.banks {
        memory.add(range(&bank.region), usize::from(bank.node))?;
    }
    let kernel = kernel(image);
    if !board.is_memory(&Region { base: kernel.start.get() as u64, size: (kernel.end - kernel.start) as u64 }) {
        return Err(Error::KernelOutsideMemory);
    }
    memory.reserve(kernel.clone(), RegionKind::Kernel, "kernel")?;
    memory.reserve(whole_pages(fdt), RegionKind::DeviceTree, "device tree")?;
    if let Some(initrd) = &board.chosen.initrd {
        memory.reserve(whole_pages(range(&initrd.region)), RegionKind::Initrd, "boot archive")?;
    }
    for reserved in &board.reserved {
        reserve(memory, whole_pages(range(&reserved.region)), reserved.flags, &reserved.name)?;
    }
    zones::place_dynamic(board, memory, None)?;
    let split = zones::movable_split(&board.chosen.bootargs, memory);
    let bounds = ZoneBounds::new(memory, dma_limit(board), split);
    zones::place_dynamic(board, memory, Some(&bounds))?;
    zones::reserve_cma(board, memory, &bounds)?;
    Ok((kernel, split))
}

/// Reserves memory as the tree's flags say.
pub fn reserve(
    memory: &mut MemBlock,
    range: PhysRange,
    flags: ReservationFlags,
    name: &str,
) -> Result<(), MemBlockError> {
    let (no_map, lent) = (
        flags.contains(ReservationFlags::NO_MAP),
        flags.contains(ReservationFlags::REUSABLE | ReservationFlags::SHARED_POOL),
    );
    let used = memory.in_use(range.clone());
    // What lies between two reservations says nothing about the two.
    let ignored = no_map && used.is_some() && !flags.contains(ReservationFlags::JOINED);
    if let Some((used, by)) = &used
        && !is_their_own(*by, flags)
    {
        let done = match (no_map, lent) {
            (true, _) if ignored => "so it is ignored",
            (true, _) => "which stays mapped",
            (_, true) => "so none of it is lent",
            _ => "which stays in use",
        };
        let (start, end) = (used.start.get(), used.end.get());
        log::warn!("device tree: {name}: lies over {} at {start:#x}-{:#x}, {done}", named(*by), end - 1);
    }
    if ignored {
        return Ok(());
    }
    // (Each may be small, and all of them together too much. A boot loader's own list is obeyed: what it names is not
    // memory that the kernel could run in.)
    if !flags.contains(ReservationFlags::MEMRESERVE) && !leaves_enough(memory, &range) {
        log::warn!("device tree: {name}: leaves the kernel no memory to run in, so it is ignored");
        return Ok(());
    }
    match no_map {
        true => memory.mark_no_map(range),
        false if lent && used.is_none() => memory.reserve(range, RegionKind::Cma, name),
        false => memory.reserve(range, RegionKind::Reserved, name),
    }
}

/// Whether the kernel can run in what is free outside `range`.
fn leaves_enough(memory: &MemBlock, range: &PhysRange) -> bool {
    let len = |range: PhysRange| range.end.get().saturating_sub(range.start.get());
    let inside = |free: &PhysRange| len(free.start.max(range.start)..free.end.min(range.end));
    let left: usize = memory.free_ranges().map(|free| len(free.clone()) - inside(&free)).sum();
    let frames = memory.memory().map(|region| len(region.range) / PAGE_SIZE).sum::<usize>();
    left >= frames * size_of::<Page>() + LEAST_FREE_KIB * 1024
}

/// Boot loaders list the files that they load in the memory reservation block.
fn is_their_own(by: RegionKind, flags: ReservationFlags) -> bool {
    flags.contains(ReservationFlags::MEMRESERVE) && by != RegionKind::Kernel
}

fn named(kind: RegionKind) -> &'static str {
    match kind {
        RegionKind::Kernel => "the kernel",
        RegionKind::Initrd => "the boot archive",
        _ => "the device tree itself",
    }
}
