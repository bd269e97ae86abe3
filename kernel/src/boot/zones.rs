//! Zones and contiguous memory areas (each lies in one zone), as the command line and the tree configure them.
//!
//! An invalid argument is named in the log and ignored. One that would leave the kernel too little memory to boot is
//! reduced, and the log gives the value used.

use quire_mm::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use quire_mm::cma::{AreaError, MAX_AREAS};
use quire_mm::memblock::{CAPACITY, MemBlock, MemBlockError, RegionKind};
use quire_mm::page_alloc::{MovableSplit, ZoneBounds};
use quire_mm::zone::MAX_NODES;
use quire_platform::bootargs;
use quire_platform::tree::{self, Board, DynamicReservation, ReservationFlags};

use super::claims::{range, reserve};
use crate::arguments::argument;
use crate::vm::PAGES;

// All that a tree may have, and `cma=`.
const _: () = assert!(MAX_AREAS > tree::MAX_RESERVATIONS + tree::MAX_DYNAMIC);
const _: () = assert!(MAX_NODES == tree::MAX_NODES);
// Each reservation may cut a bank into three regions, and is itself cut by the kernel's own: image, archive and tree.
// Boot's other reservations are far fewer than the banks.
const _: () = assert!(CAPACITY >= tree::MAX_BANKS + 2 * (tree::MAX_RESERVATIONS + tree::MAX_DYNAMIC + 3));
const _: () = assert!(tree::MEMORY_LIMIT as usize / PAGE_SIZE <= u32::MAX as usize);

/// `kernelcore=` and `movablecore=`, each a size or percents of memory. Memory reserved by now belongs to the kernel's
/// part.
pub fn movable_split(args: &str, memory: &MemBlock) -> MovableSplit {
    let total = memory.memory().map(|region| (region.range.end - region.range.start) / PAGE_SIZE).sum();
    let pages = |key| argument(args, key, "a size or a percentage", |text| amount(text, total));
    let asked = MovableSplit::from_args(pages("kernelcore"), pages("movablecore"), memory);
    let bootable = asked.bootable(memory);
    for key in ["kernelcore", "movablecore"] {
        match (bootargs::find(args, key), bootable) {
            (Some(_), bootable) if bootable == asked => {}
            (Some(text), MovableSplit::KernelCore(pages)) => {
                log::warn!("{key}={text}: too little for the kernel, which keeps {} KiB", pages * (PAGE_SIZE / 1024));
            }
            (Some(text), _) => log::warn!("{key}={text}: leaves no zone MOVABLE"),
            (None, _) => {}
        }
    }
    bootable
}

/// Pages of a size, or of a share of `total`.
fn amount(text: &str, total: usize) -> Option<usize> {
    match text.strip_suffix('%') {
        Some(percents) => Some(total * bootargs::number(percents).filter(|&percents| percents <= 100)? as usize / 100),
        None => Some(bootargs::size(text)? as usize / PAGE_SIZE),
    }
}

/// Sets the watermarks as requested, or to the maximum.
pub fn set_min_free(kbytes: Option<usize>) {
    let Some(asked) = kbytes else { return };
    let set = PAGES.set_min_free(asked);
    if set < asked / (PAGE_SIZE / 1024) * (PAGE_SIZE / 1024) {
        log::warn!("min_free_kbytes={asked}: more than a quarter of the kernel's memory, taken as {set}");
    }
}

/// Size and alignment of CMA areas are multiples of this.
const CMA_ALIGN: usize = 4 << 20;

/// Whether a reservation that the kernel has to place is an area to lend.
pub fn is_area(wish: &DynamicReservation) -> bool {
    wish.flags.contains(ReservationFlags::REUSABLE)
}

/// Places the reservations that the tree leaves to the kernel: either the areas among them or the others.
pub fn place_dynamic(board: &Board, memory: &mut MemBlock, bounds: Option<&ZoneBounds>) -> Result<(), MemBlockError> {
    for wish in board.dynamic.iter().filter(|wish| is_area(wish) == bounds.is_some()) {
        match place(memory, wish, bounds) {
            Some(at) => reserve(memory, at..at + wish.size as usize, wish.flags, &wish.name)?,
            None => log::warn!("no room for reserved memory {} of {:#x} bytes", wish.name, wish.size),
        }
    }
    Ok(())
}

fn place(memory: &MemBlock, wish: &DynamicReservation, bounds: Option<&ZoneBounds>) -> Option<PhysAddr> {
    // A CMA area is lent out in page blocks.
    let block = if is_area(wish) { CMA_ALIGN } else { PAGE_SIZE };
    let align = block.max(wish.alignment as usize);
    let find = |within: PhysRange| match bounds {
        Some(bounds) => bounds.find(memory, wish.size as usize, align, within),
        None => memory.find(wish.size as usize, align, within, None).ok(),
    };
    if wish.ranges.is_empty() {
        return find(PhysAddr::new(0)..PhysAddr::new(usize::MAX));
    }
    wish.ranges.iter().find_map(|r| find(range(r)))
}

/// Reserves the area of `cma=`, in addition to those of the tree. Without a given place it is where every device can
/// reach it.
pub fn reserve_cma(board: &Board, memory: &mut MemBlock, bounds: &ZoneBounds) -> Result<(), MemBlockError> {
    let args = board.chosen.bootargs.as_str();
    let Some(wish) = argument(args, "cma", "SIZE[@BASE[-END]]", bootargs::wish) else { return Ok(()) };
    if wish.size == 0 {
        return Ok(());
    }
    let (base, end) = wish.within.unwrap_or((0, board.dma_limit.unwrap_or(u64::MAX)));
    let within = PhysAddr::new(base as usize)..PhysAddr::new(end as usize);
    let size = (wish.size as usize).checked_next_multiple_of(CMA_ALIGN);
    match size.and_then(|size| Some((size, bounds.find(memory, size, CMA_ALIGN, within)?))) {
        Some((size, at)) => memory.reserve(at..at + size, RegionKind::Cma, "cma="),
        None => {
            let text = bootargs::find(args, "cma").unwrap_or_default();
            log::warn!("cma={text}: no room in one zone");
            Ok(())
        }
    }
}

/// Logs that memory reserved for an area is used as ordinary memory.
pub fn report_refused(range: PhysRange, why: AreaError) {
    let (start, kib) = (range.start.get(), (range.end - range.start) >> 10);
    log::warn!("contiguous memory area of {kib} KiB at {start:#x}: {why}: used as other memory");
}
