//! Checks of the page allocator: every order and family of flags, and blocks that one CPU allocates and another frees.

use core::sync::atomic::{AtomicUsize, Ordering};

use quire_mm::Machine;
use quire_mm::addr::{PAGE_SIZE, Pfn};
use quire_mm::buddy::MAX_ORDER;
use quire_mm::machine::MAX_CPUS;
use quire_mm::page_alloc::{Gfp, PageBlock};
use quire_mm::zone::ZoneKind;

use super::crew::{self, Place};
use super::random::Random;
use super::{Check, Outcome, expect, got};
use crate::board::BOARD;
use crate::vm::{Cpu, PAGES};

pub const CHECKS: &[Check] = &[
    ("pages: every order of every family", every_order_of_every_family),
    ("pages: zeroed ones are zero", zeroed_ones_are_zero),
    ("pages: a node's own", a_nodes_own),
    ("pages: an order beyond the largest", no_such_order),
    ("pages: all CPUs free each other's", || crew::on_all(exchange).and_then(|()| crew::on_all(collect))),
];

type Block = PageBlock<Cpu>;

/// The families of flags, each with the highest zone that it may take from.
const FAMILIES: [(Gfp, ZoneKind); 15] = [
    (Gfp::KERNEL, ZoneKind::Normal),
    (Gfp::KERNEL_ACCOUNT, ZoneKind::Normal),
    (Gfp::ATOMIC, ZoneKind::Normal),
    (Gfp::NOWAIT, ZoneKind::Normal),
    (Gfp::NOIO, ZoneKind::Normal),
    (Gfp::NOFS, ZoneKind::Normal),
    (Gfp::USER, ZoneKind::Normal),
    (Gfp::HIGHUSER, ZoneKind::Normal),
    (Gfp::HIGHUSER_MOVABLE, ZoneKind::Movable),
    (Gfp::KERNEL.union(Gfp::DMA), ZoneKind::Dma),
    (Gfp::KERNEL.union(Gfp::DMA32), ZoneKind::Dma32),
    (Gfp::KERNEL.union(Gfp::RECLAIMABLE), ZoneKind::Normal),
    (Gfp::KERNEL.union(Gfp::NORETRY), ZoneKind::Normal),
    (Gfp::KERNEL.union(Gfp::MEMALLOC), ZoneKind::Normal),
    (Gfp::KERNEL.union(Gfp::COMP), ZoneKind::Normal),
];

fn every_order_of_every_family() -> Outcome {
    for (gfp, highest) in FAMILIES {
        // If every device reaches all memory, there is no separate zone DMA.
        let dma_is_dma32 = highest == ZoneKind::Dma && BOARD.get().dma_limit.is_none();
        let highest = if dma_is_dma32 { ZoneKind::Dma32 } else { highest };
        let has_zone = PAGES.zones().any(|zone| zone.kind() <= highest);
        for order in 0..=MAX_ORDER {
            let first = PAGES.alloc_pages(order, gfp);
            if !has_zone {
                expect(first.is_err(), "no memory where there is no zone")?;
                continue;
            }
            let first = got(first, "a first block")?;
            let second = got(PAGES.alloc_pages(order, gfp), "a second block")?;
            for (block, mark) in [(&first, 1), (&second, 2)] {
                expect(block.order() == order && block.addr().is_aligned(PAGE_SIZE << order), "aligned to its size")?;
                expect(zone_of(block.pfn()).is_some_and(|zone| zone <= highest), "in a zone of the family's")?;
                let movable = gfp.contains(Gfp::MOVABLE);
                expect(movable || PAGES.cma_area_of(block.pfn()).is_none(), "only movable pages lie in CMA areas")?;
                mark_all(block, mark);
            }
            expect(is_marked(&first, 1) && is_marked(&second, 2), "two blocks are two")?;
        }
    }
    Ok(())
}

/// The kind of the zone that a frame is in.
fn zone_of(pfn: Pfn) -> Option<ZoneKind> {
    let node = PAGES.node_of(pfn);
    let spans = |start: Pfn, pages: usize| start <= pfn && pfn.0 - start.0 < pages;
    PAGES.zones().find(|zone| zone.node() == node && spans(zone.span().0, zone.span().1)).map(|zone| zone.kind())
}

/// The first and the last word of each page of a block.
fn ends(block: &Block) -> impl Iterator<Item = *mut usize> {
    let start = block.as_ptr();
    let pages = (0..block.size()).step_by(PAGE_SIZE);
    pages.flat_map(move |at| [at, at + PAGE_SIZE - size_of::<usize>()]).map(move |at| start.wrapping_add(at).cast())
}

fn mark_all(block: &Block, mark: usize) {
    // SAFETY: the words lie in the block, which is the caller's.
    ends(block).for_each(|word| unsafe { word.write_volatile(word.addr() ^ mark) });
}

fn is_marked(block: &Block, mark: usize) -> bool {
    // SAFETY: as in `mark_all`.
    ends(block).all(|word| unsafe { word.read_volatile() } == word.addr() ^ mark)
}

fn zeroed_ones_are_zero() -> Outcome {
    for order in 0..=MAX_ORDER {
        let dirty = got(PAGES.alloc_pages(order, Gfp::KERNEL), "a block to dirty")?;
        // SAFETY: the whole block belongs to this function.
        unsafe { dirty.as_ptr().write_bytes(0xff, dirty.size()) };
        drop(dirty);
        let clean = got(PAGES.alloc_zeroed_pages(order, Gfp::KERNEL), "a clean block")?;
        // SAFETY: as above, and nobody writes to it meanwhile.
        let words = unsafe { core::slice::from_raw_parts(clean.as_ptr().cast::<u64>(), clean.size() / 8) };
        expect(words.iter().all(|&word| word == 0), "all zeros")?;
    }
    Ok(())
}

fn a_nodes_own() -> Outcome {
    for zone in PAGES.zones().filter(|zone| zone.free() > 1 << MAX_ORDER) {
        let node = zone.node();
        for order in [0, 3] {
            let gfp = Gfp::HIGHUSER_MOVABLE | Gfp::THISNODE;
            let block = got(PAGES.alloc_pages_node(node, order, gfp), "a block of the node")?;
            expect(PAGES.node_of(block.pfn()) == node, "from this node and no other")?;
        }
    }
    let nowhere = PAGES.alloc_pages_node(quire_mm::zone::MAX_NODES, 0, Gfp::KERNEL);
    expect(nowhere.is_err(), "a nonexistent node has no memory")
}

fn no_such_order() -> Outcome {
    expect(PAGES.alloc_pages(MAX_ORDER + 1, Gfp::KERNEL).is_err(), "refused")?;
    expect(PAGES.alloc_pages(u32::MAX, Gfp::KERNEL).is_err(), "refused")
}

/// Blocks on their way from one CPU to the next: frame and order in a word, 0 for none.
static MAIL: [[AtomicUsize; SLOTS]; MAX_CPUS] = [const { [const { AtomicUsize::new(0) }; SLOTS] }; MAX_CPUS];
const SLOTS: usize = 32;

/// Allocates blocks and passes them to the next CPU, and frees blocks from the previous one. A failed allocation is not
/// an error: [`super::memory`] runs this with failures injected.
pub fn exchange(place: Place) -> Outcome {
    const GFP: [Gfp; 3] = [Gfp::KERNEL, Gfp::HIGHUSER_MOVABLE, Gfp::NOWAIT];
    let mut random = Random::new(place.me);
    for round in place.rounds() {
        // Mostly single pages.
        let order = (random.below(34) / 30) as u32 * random.below(5) as u32;
        if let Ok(block) = PAGES.alloc_pages(order, GFP[round % 3]) {
            let mark = block.pfn().0;
            mark_all(&block, mark);
            let word = block.into_raw().0 << 8 | order as usize;
            end(MAIL[place.next()][random.below(SLOTS)].swap(word, Ordering::AcqRel))?;
        }
        end(MAIL[place.me][round % SLOTS].swap(0, Ordering::AcqRel))?;
    }
    Ok(())
}

/// Frees what is left for this CPU.
pub fn collect(place: Place) -> Outcome {
    MAIL[place.me].iter().try_for_each(|slot| end(slot.swap(0, Ordering::AcqRel)))
}

/// Checks a block and frees it.
fn end(word: usize) -> Outcome {
    if word == 0 {
        return Ok(());
    }
    // SAFETY: `exchange` encoded the block's owner in the word, which the swap gave to this CPU alone.
    let block = unsafe { Block::from_raw(Cpu, Pfn(word >> 8), (word & 0xff) as u32) };
    expect(is_marked(&block, block.pfn().0), "a block holds what its owner wrote")?;
    expect(Cpu.direct_map_to_phys(block.as_ptr()) == block.addr(), "the direct map leads there and back")
}
