//! Checks of the contiguous memory areas: taken as a whole and in parts, lent to movable pages and taken back.

use quire_abi::flags::Prot;
use quire_mm::addr::{PAGE_SIZE, Pfn};
use quire_mm::cma::{CmaError, CmaInfo};
use quire_mm::fallible::KArc;
use quire_mm::mm::{Access, MapRequest, MmLayout};
use quire_mm::page_alloc::{Gfp, PageList};
use quire_mm::zone::ZoneKind;

use super::memory::fill_with;
use super::{Check, Outcome, Wrong, expect, some};
use crate::vm::{Cpu, Mm, PAGES};

pub const CHECKS: &[Check] = &[
    ("cma: the whole area, and again", whole),
    ("cma: parts of any size and alignment", parts),
    ("cma: the whole area after its borrowers are gone", after_borrowers),
    ("cma: the whole area after the process is gone that filled memory", after_a_process),
];

fn areas() -> impl Iterator<Item = (usize, CmaInfo)> {
    (0..).map_while(|area| PAGES.cma_info(area).map(|info| (area, info)))
}

fn take(area: usize, pages: usize, align_order: u32) -> Result<Pfn, CmaError> {
    PAGES.cma_alloc(area, pages, align_order, None)
}

#[track_caller]
fn give(area: usize, start: Pfn, pages: usize) -> Outcome {
    // SAFETY: the checks give back what `take` gave them, once.
    expect(unsafe { PAGES.cma_release(area, start, pages) }.is_ok(), "taken back")
}

fn whole() -> Outcome {
    for (area, info) in areas() {
        for _ in 0..3 {
            let start = some(take(area, info.pages, 0).ok(), "the whole area")?;
            expect(start == info.start, "from its first page")?;
            expect(take(area, 1, 0) == Err(CmaError::NoSpace), "nothing is left")?;
            give(area, start, info.pages)?;
        }
    }
    expect(take(areas().count(), 1, 0) == Err(CmaError::BadRequest), "a nonexistent area")
}

fn parts() -> Outcome {
    for (area, info) in areas() {
        for (pages, align_order) in [(1, 0), (3, 2), (100, 4), (512, 9), (info.pages / 2, 0)] {
            let start = some(take(area, pages, align_order).ok(), "a part")?;
            expect(start.0.is_multiple_of(1 << align_order), "aligned as requested")?;
            let other = some(take(area, 1, 0).ok(), "another part")?;
            expect(other < start || other.0 >= start.0 + pages, "apart from the first")?;
            give(area, other, 1)?;
            give(area, start, pages)?;
            // SAFETY: the call is refused, since the range is not allocated.
            let twice = unsafe { PAGES.cma_release(area, start, pages) };
            expect(twice == Err(CmaError::BadRequest), "not taken back twice")?;
        }
    }
    Ok(())
}

fn after_borrowers() -> Outcome {
    for (area, info) in areas() {
        let mut borrowed = PageList::new();
        fill_with(Gfp::HIGHUSER_MOVABLE, &mut borrowed);
        let lent = take(area, info.pages, 0);
        // SAFETY: `fill_with` allocated the blocks, and nobody else knows of them.
        unsafe { PAGES.free_batch(&mut borrowed) };
        match lent {
            Err(CmaError::NoSpace) => {}
            _ => return expect(false, "pages that are lent were given away"),
        }
        let start = take(area, info.pages, 0).map_err(|_| Wrong::here("the whole area, once they are gone"))?;
        give(area, start, info.pages)?;
    }
    Ok(())
}

/// Pages left free for tables and per-CPU lists.
const LITTLE: usize = 4096;

/// Takes most free pages outside of the areas, so that movable requests soon borrow from the areas.
fn leave_little(held: &mut PageList) {
    const ORDER: u32 = 8;
    let outside = |movable: bool| {
        let zones = PAGES.zones().filter(move |zone| (zone.kind() == ZoneKind::Movable) == movable);
        zones.map(|zone| zone.free() - zone.free_cma()).sum::<usize>()
    };
    for (gfp, movable) in [(Gfp::KERNEL, false), (Gfp::HIGHUSER_MOVABLE, true)] {
        while outside(movable) > LITTLE
            && let Ok(block) = PAGES.alloc_pages(ORDER, gfp | Gfp::NORETRY | Gfp::NOWARN)
        {
            // SAFETY: the block was just allocated; the list becomes its owner.
            unsafe { held.push(Cpu, block.into_raw()) };
        }
    }
}

/// An address space that writes to new pages until `is_enough` says so.
fn process(is_enough: impl Fn() -> bool) -> Outcome<KArc<Mm>> {
    let pages = PAGES.total_free();
    let mm = some(Mm::new(Cpu, &MmLayout::default()).ok(), "a space")?;
    let request = MapRequest::anonymous(pages * PAGE_SIZE, Prot::READ | Prot::WRITE);
    let start = some(mm.map(&request).ok(), "a mapping")?.get();
    for page in 0..pages {
        if page % 64 == 0 && is_enough() {
            break;
        }
        some(mm.fault(start + page * PAGE_SIZE, Access::Write).ok(), "a page")?;
    }
    expect(is_enough(), "the areas' pages are lent")?;
    Ok(mm)
}

fn after_a_process() -> Outcome {
    let all: usize = areas().map(|(_, info)| info.pages).sum();
    let free = || PAGES.zones().map(|zone| zone.free_cma()).sum::<usize>();
    let mut held = PageList::new();
    leave_little(&mut held);
    let alive = process(|| free() <= all / 4);
    // SAFETY: `leave_little` allocated the blocks, and nobody else knows of them.
    unsafe { PAGES.free_batch(&mut held) };
    let alive = alive?;
    let mut refused = 0;
    for (area, info) in areas() {
        match take(area, info.pages, 0) {
            Ok(start) => give(area, start, info.pages)?,
            Err(_) => refused += 1,
        }
    }
    drop(alive);
    expect(refused > 0 || all == 0, "a process's pages are its own while it lives")?;
    for (area, info) in areas() {
        let start = take(area, info.pages, 0).map_err(|_| Wrong::here("the whole area, once it is gone"))?;
        give(area, start, info.pages)?;
    }
    Ok(())
}
