//! The records behind pagetypeinfo, fraginfo, slabinfo, vmallocinfo, vmstat, cmainfo and pressure.
//!
//! vmstat's gauges account for all memory: `nr_managed_pages` is the sum of the others except `nr_free_cma`,
//! `nr_vmalloc_lazy` and `nr_cma_pages`, which are parts of others.

use core::fmt::Write;

use quire_abi::Errno;
use quire_abi::statistics::{
    BLOCK_PAGES, BlockFrames, BlockUse, CmaInfo, Counter, GENERATIONS, ListsInfo, PageBlocks, PageTypeInfo,
    SlabCacheInfo, SwapInfo, VmallocInfo, area, frame_use,
};
use quire_mm::addr::VirtAddr;
use quire_mm::buddy::{MigrateType, PAGEBLOCK_PAGES};
use quire_mm::cgroup::Key;
use quire_mm::cma::MAX_AREAS;
use quire_mm::event::Event;
use quire_mm::page::PageState;
use quire_mm::reclaim;
use quire_mm::vmalloc::AreaKind;

use super::translation::frame_flags;
use crate::arch::speculation;
use crate::task::percpu;
use crate::task::point::resched_point;
use crate::task::wait::Sleep;
use crate::vm::heap::SLAB;
use crate::vm::percpu::AREAS;
use crate::vm::vmalloc::VMALLOC;
use crate::vm::{GROUPS, PAGES, RECLAIM, SPACES, events, kernel_map, stack};

const _: () = assert!(BLOCK_PAGES == PAGEBLOCK_PAGES as u64 && PAGEBLOCK_PAGES <= PageBlocks::FREE as usize);

/// The record of a migrate type of a zone, in the order of the zones.
pub fn page_type(index: usize) -> Option<PageTypeInfo> {
    let kind = MigrateType::ALL[index % MigrateType::COUNT];
    let zone = PAGES.zones().nth(index / MigrateType::COUNT)?;
    Some(PageTypeInfo {
        node: zone.node() as u32,
        migrate_type: kind as u32,
        zone: name(zone.kind().name()),
        name: name(kind.name()),
        page_blocks: PAGES.pageblock_types(&zone)[kind as usize] as u64,
        free: zone.free_blocks_of(kind),
    })
}

/// Page blocks of a zone, from the number `from` on.
pub fn page_blocks(zone: usize, from: usize) -> Option<PageBlocks> {
    let zone = PAGES.zones().nth(zone)?;
    let numbers = zone.block_numbers();
    let numbers = numbers.start.max(from)..numbers.end;
    if numbers.is_empty() {
        return None;
    }
    let count = numbers.len().min(PageBlocks::ROOM);
    let mut record = PageBlocks { first: numbers.start as u64, count: count as u32, ..PageBlocks::default() };
    for (to, number) in record.blocks.iter_mut().zip(numbers).take(count) {
        if let Some(block) = zone.block(number) {
            *to = (block.migrate_type() as u16) << PageBlocks::TYPE_SHIFT | block.free() as u16;
        }
    }
    Some(record)
}

/// How many page blocks are examined between two points: a frame takes about ten instructions.
const BLOCKS: usize = 8;

/// What the frames of a zone's page blocks are used for, from the number `from` on.
pub fn block_use(zone: usize, from: usize) -> Result<Option<BlockUse>, Errno> {
    let Some(zone) = PAGES.zones().nth(zone) else { return Ok(None) };
    let numbers = zone.block_numbers();
    let numbers = numbers.start.max(from)..numbers.end;
    if numbers.is_empty() {
        return Ok(None);
    }
    let count = numbers.len().min(BlockUse::ROOM);
    let mut record = BlockUse { first: numbers.start as u64, count: count as u32, ..BlockUse::default() };
    for (at, (counts, number)) in record.counts.iter_mut().zip(numbers).take(count).enumerate() {
        if at % BLOCKS == BLOCKS - 1 {
            resched_point(Sleep::Killable)?;
        }
        if zone.block(number).is_some()
            && let Some(found) = PAGES.count_block(number)
        {
            PageState::ALL.iter().for_each(|state| counts[use_of(*state)] += found[*state as usize]);
        }
    }
    Ok(Some(record))
}

/// Every frame of a page block.
pub fn block_frames(number: usize) -> Option<BlockFrames> {
    let mut record = BlockFrames { number: number as u64, ..BlockFrames::default() };
    let exists = PAGES.look_at_block(number, |run| {
        let word = use_of(run.look.state()) as u32
            | run.look.order() << BlockFrames::ORDER_SHIFT
            | frame_flags(run.look.flags()) << BlockFrames::FLAGS_SHIFT
            | run.look.refs().min(u8::MAX.into()) << BlockFrames::REFERENCES_SHIFT;
        record.frames[run.at..run.at + run.len].fill(word);
        if run.is_first {
            record.frames[run.at] |= BlockFrames::FIRST;
        }
    });
    exists.then_some(record)
}

fn use_of(state: PageState) -> usize {
    match state {
        PageState::Absent => frame_use::RESERVED,
        PageState::Free => frame_use::FREE,
        PageState::Cached => frame_use::PER_CPU,
        PageState::Slab => frame_use::SLAB,
        PageState::Kernel => frame_use::KERNEL,
        PageState::Table => frame_use::TABLE,
        PageState::Anon | PageState::Whole => frame_use::ANON,
        PageState::Object => frame_use::OBJECT,
    }
}

/// A slab cache; after the last one, a record for memory that is in no cache.
pub fn slab(index: usize) -> Option<SlabCacheInfo> {
    if let Some(info) = SLAB.slab_info(index) {
        return Some(SlabCacheInfo {
            name: name(info.name),
            object_size: info.object_size as u32,
            stride: info.stride as u32,
            active: info.active as u64,
            total: info.total as u64,
            slabs: info.slabs as u64,
            pages: info.pages as u64,
        });
    }
    let pages = (SLAB.pages_outside_caches() + SLAB.array_pages()) as u64;
    let is_behind_last = index.checked_sub(1).is_none_or(|last| SLAB.slab_info(last).is_some());
    is_behind_last.then(|| SlabCacheInfo { name: name("(no slabs)"), pages, ..SlabCacheInfo::default() })
}

/// The first area that ends after an address.
pub fn vmalloc(from: usize) -> Option<VmallocInfo> {
    let found = VMALLOC.next_area(VirtAddr::new(from))?;
    let mut caller = Text([0; 64], 0);
    // The end of a long path is more informative than its beginning.
    let file = found.caller.file();
    let shown = file.char_indices().map(|(at, _)| at).find(|at| file.len() - at <= 56).unwrap_or(0);
    let _ = write!(caller, "{}:{}", &file[shown..], found.caller.line());
    Some(VmallocInfo {
        start: found.start.get() as u64,
        end: (found.start + (found.pages + 1) * quire_mm::addr::PAGE_SIZE).get() as u64,
        phys: found.phys.map_or(u64::MAX, |phys| phys.get() as u64),
        pages: found.pages as u64,
        kind: match found.kind {
            AreaKind::Vmalloc => area::VMALLOC,
            AreaKind::Vmap => area::VMAP,
            AreaKind::Ioremap => area::IOREMAP,
        },
        lazy: found.is_lazy.into(),
        caller: caller.0,
    })
}

/// The number of objects that one event creates and another one ends. (The CPUs' counts are read one after the other.)
fn held(made: Event, ended: Event) -> usize {
    let ended = events::sum(ended);
    events::sum(made).saturating_sub(ended) as usize
}

/// Pages of shared memory and of files in memory.
pub fn shared() -> usize {
    held(Event::ObjectAlloc, Event::ObjectFree).saturating_sub(SPACES.cached())
}

/// A name, and the function that returns its value.
type Source<T> = (&'static str, fn() -> T);

/// Current numbers of pages.
const GAUGES: &[Source<usize>] = &[
    ("nr_managed_pages", || PAGES.total_managed()),
    ("nr_free_pages", || PAGES.zones().map(|zone| zone.free()).sum()),
    ("nr_free_cma", || PAGES.zones().map(|zone| zone.free_cma()).sum()),
    ("nr_free_per_cpu", || PAGES.zones().map(|zone| zone.per_cpu()).sum()),
    ("nr_user_pages", || held(Event::UserAlloc, Event::UserFree)),
    ("nr_anon_pages", || {
        held(Event::UserAlloc, Event::UserFree).saturating_sub(held(Event::ObjectAlloc, Event::ObjectFree))
    }),
    ("nr_anon_transparent_hugepages", || {
        held(Event::HugeFault, Event::HugeFree).saturating_sub(events::sum(Event::HugeApart) as usize)
    }),
    ("nr_shmem", shared),
    ("nr_file_pages", || SPACES.cached()),
    ("nr_dirty", || SPACES.marked()),
    ("nr_page_tables", || SPACES.tables()),
    ("nr_kernel_page_tables", kernel_map::table_pages),
    ("nr_kernel_stacks", || stack::pages().0),
    ("nr_spare_stacks", || stack::pages().1),
    ("nr_slab", || SLAB.pages()),
    ("nr_vmalloc", || VMALLOC.frames()),
    ("nr_vmalloc_lazy", || VMALLOC.lazy_pages()),
    ("nr_per_cpu_areas", || AREAS.pages()),
    ("nr_cma_pages", || cma_sum(|info| info.pages)),
    ("nr_cma_used", || cma_sum(|info| info.used)),
    ("nr_cma_bitmaps", || PAGES.cma_bitmap_pages()),
    ("nr_swap_store", || SPACES.swap().stats().frames),
    ("nr_reclaim_queues", || RECLAIM.frames()),
    ("nr_swap_total", || SPACES.swap().stats().slots),
    ("nr_swap_used", || SPACES.swap().stats().used),
    ("nr_bad_pages", || PAGES.bad_pages()),
];

/// Other counts since boot: pages that entered and left zones, and the longest latencies.
const TRAFFIC: &[Source<u64>] = &[
    ("pgalloc", || PAGES.zones().map(|zone| zone.events().0).sum()),
    ("pgfree", || PAGES.zones().map(|zone| zone.events().1).sum()),
    ("fail_page_alloc", || PAGES.injected_failures().into()),
    ("failslab", || SLAB.injected_failures().into()),
    ("longest_masked_ns", percpu::longest_masked),
    ("longest_unpreempted_ns", percpu::longest_unpreempted),
];

fn cma_sum(what: impl Fn(quire_mm::cma::CmaInfo) -> usize) -> usize {
    (0..).map_while(|index| PAGES.cma_info(index)).map(what).sum()
}

/// A line of vmstat.
pub fn counter(index: usize) -> Option<Counter> {
    let traffic = index.wrapping_sub(GAUGES.len());
    let event = traffic.wrapping_sub(TRAFFIC.len());
    let (text, value) = if let Some((text, value)) = speculation::get(GAUGES, index) {
        (*text, value() as u64)
    } else if let Some((text, value)) = speculation::get(TRAFFIC, traffic) {
        (*text, value())
    } else {
        let event = *speculation::get(Event::ALL, event)?;
        (event.name(), events::sum(event))
    };
    Some(Counter { name: name(text), value })
}

/// A truncated name could not be found by anybody.
const _: () = {
    const fn fits(name: &str) -> bool {
        name.len() <= size_of::<Counter>() - size_of::<u64>()
    }
    let mut n = 0;
    while n < GAUGES.len() {
        assert!(fits(GAUGES[n].0));
        n += 1;
    }
    n = 0;
    while n < TRAFFIC.len() {
        assert!(fits(TRAFFIC[n].0));
        n += 1;
    }
    n = 0;
    while n < Event::ALL.len() {
        assert!(fits(Event::ALL[n].name()));
        n += 1;
    }
};

/// Reclaim's lists of a node, for a control group or for pages of no group.
pub fn lists(group: usize, node: usize) -> Option<ListsInfo> {
    const { assert!(GENERATIONS == reclaim::GENERATIONS) }
    let view = match Key(group as u64) {
        Key::ROOT => RECLAIM.view(node)?,
        key => GROUPS.find(key)?.lists().view(node)?,
    };
    Some(ListsInfo {
        fresh: view.fresh as u64,
        watched: view.watched as u64,
        hot: view.hot as u64,
        pages: view.pages as u64,
        locked: view.locked as u64,
        rounds: view.rounds as u64,
        generations: view.generations as u64,
        hot_by_age: view.hot_by_age.map(|pages| pages as u64),
        begun: view.begun,
    })
}

/// The store of swap.
pub fn swap() -> SwapInfo {
    let stats = SPACES.swap().stats();
    SwapInfo {
        slots: stats.slots as u64,
        used: stats.used as u64,
        same: stats.same as u64,
        raw: stats.raw as u64,
        bytes: stats.bytes as u64,
        frames: stats.frames as u64,
    }
}

/// A contiguous memory area.
pub fn cma(index: usize) -> Option<CmaInfo> {
    let info = PAGES.cma_info(speculation::bounded(index, MAX_AREAS)?)?;
    Some(CmaInfo {
        start: info.start.addr().get() as u64,
        pages: info.pages as u64,
        used: info.used as u64,
        allocated: info.allocated as u64,
        failed: info.failed as u64,
    })
}

/// A NUL-padded field; text that does not fit is omitted.
pub(super) fn name<const N: usize>(text: &str) -> [u8; N] {
    let mut field = Text([0; N], 0);
    let _ = field.write_str(text);
    field.0
}

/// A field and the bytes written so far. The last byte stays NUL.
struct Text<const N: usize>([u8; N], usize);

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = &mut self.0[self.1..N - 1];
        let n = text.len().min(room.len());
        room[..n].copy_from_slice(&text.as_bytes()[..n]);
        self.1 += n;
        Ok(())
    }
}
