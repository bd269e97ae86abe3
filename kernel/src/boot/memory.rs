//! Physical memory at boot: from the device tree to a running page allocator.

use core::fmt;
use core::sync::atomic::Ordering;

use quire_abi::flags::setting;
use quire_mm::Machine;
use quire_mm::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr};
use quire_mm::buddy::ORDERS;
use quire_mm::kernel_table::{Granularity, KernelAttrs, KernelTable, MapError, TableMemory};
use quire_mm::machine::MAX_CPUS;
use quire_mm::memblock::{MemBlock, MemBlockError, RegionKind};
use quire_mm::mm::Mover;
use quire_mm::page::Page;
use quire_mm::page_alloc::{Config, InitError, MovableSplit, Summary, mem_map_ranges};
use quire_mm::pte::MemoryType;
use quire_platform::bootargs;
use quire_platform::tree::Board;

use super::early_table::BootTables;
use super::{claims, info, zones};
use crate::arch::{barrier, smp, timer};
use crate::archive;
use crate::arguments::argument;
use crate::layout::{KIMAGE, PAGE_OFFSET, VMEMMAP};
use crate::task::percpu::PERCPU;
use crate::vm::{Cpu, GROUPS, MEMORY, PAGES, RECLAIM, SPACES, events, heap, kernel_map, percpu, random};

/// Free memory that suffices for 4 CPUs to reach the shell and for small programs to run.
pub const LEAST_FREE_KIB: usize = 2048;

/// Bytes of the boot heap, and what it grows by for each entry of the boot archive.
const BOOT_HEAP: usize = 32 << 10;
const BOOT_HEAP_ENTRY: usize = 1 << 10;

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
    static __boot_stack_bottom: u8;
}

/// Why memory could not be set up.
#[derive(Debug)]
pub enum Error {
    /// A table could not be made.
    Map(MapError),
    /// Memblock is full or has no room.
    MemBlock(MemBlockError),
    /// The page allocator refused.
    Pages(InitError),
    /// The kernel is not in memory that the tree describes.
    KernelOutsideMemory,
    /// There are no pages for per-CPU variables.
    PerCpu,
    /// Pages that should have been handed out, and pages on the buddy's lists.
    Lost(usize, usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(e) => write!(f, "its tables: {e:?}"),
            Self::MemBlock(e) => write!(f, "the boot allocator: {e:?}"),
            Self::Pages(e) => write!(f, "the page allocator: {e:?}"),
            Self::PerCpu => write!(f, "no pages"),
            Self::Lost(managed, listed) => write!(f, "of {managed} free pages only {listed} are available"),
            Self::KernelOutsideMemory => write!(f, "the kernel does not lie in memory of the tree"),
        }
    }
}

/// The error, with the free and the required memory, for the user who has to provide more.
pub struct Shortage(pub Error);

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = MEMORY.get();
        let kib = |ranges: &mut dyn Iterator<Item = PhysRange>| ranges.map(|r| r.end - r.start).sum::<usize>() / 1024;
        let all = kib(&mut memory.memory().map(|region| region.range));
        let free = kib(&mut memory.free_ranges());
        let Self(error) = self;
        write!(f, "{error}: of {all} KiB {free} are free; {LEAST_FREE_KIB} have to be, beside kernel and boot archive")
    }
}

impl From<MapError> for Error {
    fn from(e: MapError) -> Self {
        Self::Map(e)
    }
}
impl From<MemBlockError> for Error {
    fn from(e: MemBlockError) -> Self {
        Self::MemBlock(e)
    }
}
impl From<InitError> for Error {
    fn from(e: InitError) -> Self {
        Self::Pages(e)
    }
}

/// Everything up to the boot heap and the page allocator. `image` is the physical address of KIMAGE; `fdt` and
/// `fdt_size` are the device tree's.
pub fn init(board: &Board, image: PhysAddr, fdt: PhysAddr, fdt_size: usize) -> Result<Summary, Error> {
    // SAFETY: boot, on one CPU.
    let memory = unsafe { MEMORY.boot_mut() };
    let (kernel, split) = claims::describe(board, memory, image, fdt..fdt + fdt_size)?;
    let (table, near) = first_tables(memory, image, &kernel)?;
    let table = all_memory(table, memory, image, &near)?;
    kernel_map::adopt(table);
    let size = (BOOT_HEAP + archive::count(archive::range(board)) * BOOT_HEAP_ENTRY).next_multiple_of(PAGE_SIZE);
    let anywhere = PhysAddr::new(0)..PhysAddr::new(usize::MAX);
    let start = memory
        .alloc(size, PAGE_SIZE, near, None, RegionKind::Boot)
        .or_else(|_| memory.alloc(size, PAGE_SIZE, anywhere, None, RegionKind::Boot))?;
    // SAFETY: memblock has just given the range, and the direct map covers it.
    unsafe { heap::init_boot_heap(start..start + size) };
    page_allocator(board, memory, split)
}

/// The first address that the weakest device cannot reach.
pub fn dma_limit(board: &Board) -> Option<PhysAddr> {
    board.dma_limit.map(|limit| PhysAddr::new(limit as usize))
}

/// Builds tables from the pool: the image, the tree's window, and the memory near the kernel. They are live on return.
fn first_tables(memory: &MemBlock, image: PhysAddr, kernel: &PhysRange) -> Result<(KernelTable, PhysRange), Error> {
    let mut pool = BootTables::from_pool(image);
    let root = pool.alloc().map_err(MapError::from)?;
    // SAFETY: the root is a fresh page of zeros, and boot is alone.
    let mut table = unsafe { KernelTable::new(root) };
    map_image(&mut table, &mut pool, image)?;
    let near = near_memory(memory, kernel).ok_or(Error::KernelOutsideMemory)?;
    map_direct(&mut table, &mut pool, &near)?;
    barrier::dsb_ishst();
    smp::replace_tables(root);
    Ok((table, near))
}

/// A range of memory within one GiB, so that few tables cover it: around the kernel if there is room, else where most
/// memory is free. The tree may forbid mapping the whole neighbourhood of the kernel.
fn near_memory(memory: &MemBlock, kernel: &PhysRange) -> Option<PhysRange> {
    const GIB: usize = 1 << 30;
    /// Bytes that the tables and the boot heap of most machines fit in.
    const ENOUGH: usize = 1 << 20;
    let within_gib = |piece: PhysRange, at: PhysAddr| {
        let window = PhysAddr::new(at.get() & !(GIB - 1));
        piece.start.max(window)..piece.end.min(window + GIB)
    };
    let free_bytes = |piece: &PhysRange| {
        let overlap = |free: PhysRange| free.end.min(piece.end).get().saturating_sub(free.start.max(piece.start).get());
        memory.free_ranges().map(overlap).sum::<usize>()
    };
    let mapped = || memory.memory().filter(|region| !region.no_map).map(|region| region.range);
    let home = mapped().find(|piece| piece.contains(&kernel.start)).map(|piece| within_gib(piece, kernel.start));
    let last_gib = |piece: PhysRange| within_gib(piece.clone(), piece.end - 1);
    home.filter(|home| free_bytes(home) >= ENOUGH).or_else(|| mapped().map(last_gib).max_by_key(free_bytes))
}

fn map_image(table: &mut KernelTable, pool: &mut BootTables<'_>, image: PhysAddr) -> Result<(), MapError> {
    let symbols: [*const u8; 5] = [
        &raw const __image_start,
        &raw const __text_end,
        &raw const __rodata_end,
        &raw const __boot_stack_bottom,
        &raw const __image_end,
    ];
    let [start, text_end, rodata_end, guard_end, end] = symbols.map(|s| s.addr());
    // The page below the boot stack stays unmapped.
    let guard = guard_end - PAGE_SIZE;
    let parts = [
        (start, text_end, KernelAttrs::TEXT),
        (text_end, rodata_end, KernelAttrs::RODATA),
        (rodata_end, guard, KernelAttrs::DATA),
        (guard_end, end, KernelAttrs::DATA),
    ];
    for (from, to, attrs) in parts {
        let pa = image + (from - KIMAGE);
        table.map(pool, VirtAddr::new(from), pa, to - from, attrs, Granularity::Pages)?;
    }
    Ok(())
}

fn map_direct(table: &mut KernelTable, tables: &mut BootTables<'_>, range: &PhysRange) -> Result<(), MapError> {
    let va = VirtAddr::new(PAGE_OFFSET + range.start.get());
    table.map(
        tables,
        va,
        range.start,
        range.end - range.start,
        KernelAttrs::data(MemoryType::Normal),
        Granularity::Blocks,
    )
}

/// The rest of the direct map, and the records of all page frames.
fn all_memory(
    mut table: KernelTable,
    memory: &mut MemBlock,
    image: PhysAddr,
    near: &PhysRange,
) -> Result<KernelTable, Error> {
    let mut at = PhysAddr::new(0);
    loop {
        let next = memory.memory().find(|m| !m.no_map && m.range.end > at);
        let Some(region) = next else { break };
        let whole = region.range.start.max(at)..region.range.end;
        at = region.range.end;
        // The near memory is mapped already.
        let before = whole.start..whole.end.min(near.start.max(whole.start));
        let after = whole.start.max(near.end.min(whole.end))..whole.end;
        for part in [before, after] {
            if part.start < part.end {
                let mut tables = BootTables::from_memblock(image, memory, near.clone());
                map_direct(&mut table, &mut tables, &part)?;
            }
        }
    }
    barrier::dsb_ishst();
    barrier::isb();
    let mut next = Pfn(0);
    loop {
        let frames = mem_map_ranges(memory).find(|r| r.start >= next);
        let Some(frames) = frames else { break };
        next = frames.end;
        map_records(&mut table, memory, image, near, frames.start..frames.end)?;
    }
    Ok(table)
}

/// Memory for the records of `frames`, near the frames if it can be, zeroed and mapped into the vmemmap. It is one piece
/// where memory has one, else as few and large pieces as it has: blocks of 2 MiB, then less, down to a page.
fn map_records(
    table: &mut KernelTable,
    memory: &mut MemBlock,
    image: PhysAddr,
    near: &PhysRange,
    frames: core::ops::Range<Pfn>,
) -> Result<(), Error> {
    const BLOCK: usize = 2 << 20;
    let bytes = ((frames.end.0 - frames.start.0) * size_of::<Page>()).next_multiple_of(PAGE_SIZE);
    let own = frames.start.addr()..frames.end.addr();
    let anywhere = PhysAddr::new(0)..PhysAddr::new(usize::MAX);
    let start = VirtAddr::new(VMEMMAP + frames.start.0 * size_of::<Page>());
    let (mut done, mut piece) = (0, bytes);
    while done < bytes {
        piece = piece.min(bytes - done);
        let align = if piece >= BLOCK { BLOCK } else { PAGE_SIZE };
        let found = memory
            .alloc(piece, align, own.clone(), None, RegionKind::MemMap)
            .or_else(|_| memory.alloc(piece, align, anywhere.clone(), None, RegionKind::MemMap));
        let at = match found {
            Ok(at) => at,
            Err(MemBlockError::NoSpace) if piece > PAGE_SIZE => {
                // Whole blocks, so that the pieces after this one can be blocks too.
                let unit = if piece > BLOCK { BLOCK } else { PAGE_SIZE };
                piece = (piece / 2).next_multiple_of(unit);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for page in 0..piece / PAGE_SIZE {
            Cpu.clear_page(at + page * PAGE_SIZE);
        }
        let mut tables = BootTables::from_memblock(image, memory, near.clone());
        table.map(&mut tables, start + done, at, piece, KernelAttrs::DATA, Granularity::Blocks)?;
        done += piece;
    }
    barrier::dsb_ishst();
    barrier::isb();
    Ok(())
}

/// Per-CPU variables for the CPUs of the tree.
pub fn init_per_cpu(board: &Board) -> Result<(), Error> {
    percpu::init(board.cpus.len().clamp(1, MAX_CPUS))
        .and_then(|()| events::init(PERCPU.iter().map(|cpu| &**cpu)))
        .map_err(|_| Error::PerCpu)
}

fn page_allocator(board: &Board, memory: &mut MemBlock, split: MovableSplit) -> Result<Summary, Error> {
    let args = board.chosen.bootargs.as_str();
    let mut node_of_cpu = [0; MAX_CPUS];
    for (cpu, node) in smp::in_order(board).zip(&mut node_of_cpu) {
        *node = cpu.node;
    }
    let config = Config {
        dma_limit: dma_limit(board),
        movable: split,
        min_free_kbytes: argument(args, "min_free_kbytes", "a number", bootargs::number).map(|n| n as usize),
        node_of_cpu,
        cpus: board.cpus.len(),
        poison: argument(args, "page_poison", "on or off", bootargs::boolean).unwrap_or(false),
        distance: &|a, b| u32::from(board.distances.get(a, b)),
    };
    // SAFETY: the direct map covers all memory and the records of all its frames are mapped and zero.
    let summary = unsafe { PAGES.init(memory, &config) }?;
    let listed =
        |blocks: [u64; ORDERS]| blocks.iter().enumerate().map(|(order, n)| (*n as usize) << order).sum::<usize>();
    let listed = PAGES.zones().map(|zone| listed(zone.free_blocks())).sum();
    if listed != summary.managed {
        return Err(Error::Lost(summary.managed, listed));
    }
    info::HANDED_OUT_NS.store(timer::now_ns(), Ordering::Relaxed);
    // SAFETY: called once, right after `init`; memory reserved for CMA is unused.
    unsafe { PAGES.init_cma(memory, &config, &mut zones::report_refused) };
    zones::set_min_free(config.min_free_kbytes);
    Ok(summary)
}

/// The most pages that swap may be said to hold, for each page of memory: no program's data becomes so small.
const MOST_SWAP: usize = 64;

/// Swap holds twice as many pages as there are, unless `swap=` says otherwise, and takes four fifths of memory at most.
pub fn init_swap(args: &str, board: &Board) {
    let managed = PAGES.total_managed();
    let is_sane = |size: &u64| size >> PAGE_SHIFT <= (managed * MOST_SWAP) as u64;
    let size = |text: &str| if text == "off" { Some(0) } else { bootargs::size(text).filter(is_sane) };
    let slots = match argument(args, "swap", "SIZE of at most 64 times memory, or off", size) {
        None => managed * 2,
        Some(size) => usize::try_from(size >> PAGE_SHIFT).unwrap_or(usize::MAX),
    };
    // (Without swap, pages of files can be taken.)
    match RECLAIM.init() {
        Ok(()) => PAGES.set_reclaimer(&RECLAIM),
        Err(_) => return log::warn!("no memory for reclaim"),
    }
    if slots != 0 && SPACES.init_swap(slots, managed / 5 * 4, board.cpus.len()).is_err() {
        log::warn!("no memory for swap");
    }
}

/// Names of control groups lie in buckets that nobody can foretell.
pub fn init_groups() {
    GROUPS.set_seed(random::number());
}

/// From now on pages in use are moved for requests of high orders.
pub fn init_compaction() {
    static MOVER: Mover<Cpu> = Mover(Cpu);
    PAGES.set_mover(&MOVER);
}

/// Where programs get huge pages (`transparent_hugepage=`).
pub fn init_huge_pages(args: &str) {
    let number = |text: &str| setting::HUGE_PAGES_NAMES.iter().position(|name| *name == text);
    let set = |text: &str| SPACES.huge_pages().set_number(number(text)?).ok();
    let _ = argument(args, "transparent_hugepage", "always, madvise or never", set);
}

/// How much memory is promised to processes (`vm.overcommit_*=`).
pub fn init_overcommit(args: &str) {
    for (key, which) in [
        ("vm.overcommit_memory", setting::OVERCOMMIT_MEMORY),
        ("vm.overcommit_ratio", setting::OVERCOMMIT_RATIO),
        ("vm.overcommit_kbytes", setting::OVERCOMMIT_KBYTES),
    ] {
        let Some(text) = bootargs::find(args, key) else { continue };
        let set = bootargs::number(text).is_some_and(|value| SPACES.commit().set(which, value as usize).is_ok());
        if !set {
            log::warn!("{key}={text}: no such value");
        }
    }
}
