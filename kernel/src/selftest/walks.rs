//! The cost of a walk from a page to its single mapping, of the page's move to another frame, and of its way to swap
//! and back: alone, and beside related spaces and areas that do not map the page.

use alloc::vec::Vec;
use core::hint::black_box;

use quire_abi::flags::{Map, Mremap, Prot};
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::{KArc, TryVec};
use quire_mm::frame;
use quire_mm::mm::{Access, MapRequest, MmLayout, Out, for_each_mapping_of_held, migrate, page_out};

use super::bench::measure;
use crate::vm::{Cpu, Mm};

const WALKS: u64 = 10_000;
/// Times that a page is moved.
const MOVES: u64 = 1000;
/// Generations that have ended, or children of the space.
const RELATIVES: usize = 4000;
/// Areas that were moved away from one place.
const AREAS: usize = 10_000;
const RW: Prot = Prot::READ.union(Prot::WRITE);
/// Where areas are made, and where they are moved to.
const FROM: usize = 0x4000_0000;
const TO: usize = 0x1_0000_0000;

/// Prints a line for each. The only possible failure is a lack of memory; returns how often that happened.
pub fn run() -> usize {
    let rows = [
        alone(),
        behind_ended_generations(),
        beside_younger_children(),
        left_to_one_child(),
        among_moved_areas(),
        among_moved_parts(),
    ];
    rows.iter().filter(|outcome| outcome.is_none()).count()
}

fn space() -> Option<KArc<Mm>> {
    Mm::new(Cpu, &MmLayout::default()).ok()
}

fn map(mm: &Mm, at: usize, pages: usize) -> Option<()> {
    let flags = Map::PRIVATE | Map::ANONYMOUS | Map::FIXED;
    mm.map(&MapRequest { addr: at, flags, ..MapRequest::anonymous(pages * PAGE_SIZE, RW) }).ok().map(drop)
}

fn write(mm: &Mm, at: usize) -> Option<()> {
    mm.fault(at, Access::Write).ok()
}

/// Measures what is done with the page at `at`, which this space alone maps.
fn measure_page(name: &str, mm: &Mm, at: usize) -> Option<()> {
    let page = mm.pin(at, false).ok()?;
    measure(format_args!("kernel.rmap.{name}"), WALKS, || {
        let mut found = 0;
        for_each_mapping_of_held(Cpu, black_box(page.pfn()), 1, |_, _| {
            found += 1;
            true
        });
        (found == 1).then_some(())
    })?;
    drop(page);
    let pfn = || mm.pin(at, false).ok().map(|page| page.pfn());
    measure(format_args!("kernel.migrate.{name}"), MOVES, || {
        migrate(Cpu, pfn()?, || frame::alloc_to_move(Cpu)).ok().map(drop)
    })?;
    let out = Out { even_raw: true, ..Out::default() };
    measure(format_args!("kernel.page_out.{name}"), MOVES, || page_out(Cpu, pfn()?, out).ok())
}

fn alone() -> Option<()> {
    let mm = space()?;
    map(&mm, FROM, 1)?;
    write(&mm, FROM)?;
    measure_page("alone", &mm, FROM)
}

fn behind_ended_generations() -> Option<()> {
    let mut mm = space()?;
    map(&mm, FROM, RELATIVES)?;
    for page in 0..RELATIVES {
        write(&mm, FROM + page * PAGE_SIZE)?;
        let child = mm.fork().ok()?;
        mm = child;
    }
    measure_page("ended", &mm, FROM)
}

fn children_of(mm: &Mm) -> Option<Vec<KArc<Mm>>> {
    let mut children: Vec<KArc<Mm>> = TryVec::try_with_capacity(RELATIVES).ok()?;
    for _ in 0..RELATIVES {
        children.try_push(mm.fork().ok()?).ok()?;
    }
    Some(children)
}

fn beside_younger_children() -> Option<()> {
    let mm = space()?;
    map(&mm, FROM, 1)?;
    let _children = children_of(&mm)?;
    write(&mm, FROM)?;
    measure_page("younger", &mm, FROM)
}

/// All children inherited the page, and all but one have replaced it by a copy, as has the parent.
fn left_to_one_child() -> Option<()> {
    let mm = space()?;
    map(&mm, FROM, 1)?;
    write(&mm, FROM)?;
    let mut children = children_of(&mm)?;
    let last = children.swap_remove(RELATIVES / 2);
    write(&mm, FROM)?;
    children.iter().try_for_each(|child| write(child, FROM))?;
    measure_page("left", &last, FROM)
}

fn among_moved_areas() -> Option<()> {
    let mm = space()?;
    for area in 0..AREAS {
        map(&mm, FROM, 1)?;
        write(&mm, FROM)?;
        let to = TO + 2 * area * PAGE_SIZE;
        mm.remap(FROM, PAGE_SIZE, PAGE_SIZE, Mremap::MAYMOVE | Mremap::FIXED, to).ok()?;
        if area == 0 {
            measure_page("moved_one", &mm, TO)?;
        }
    }
    measure_page("moved", &mm, TO + AREAS / 2 * 2 * PAGE_SIZE)
}

/// The same part of an area moves again and again, and leaves the area there.
fn among_moved_parts() -> Option<()> {
    let mm = space()?;
    map(&mm, FROM, 3)?;
    let part = FROM + PAGE_SIZE;
    for area in 0..AREAS {
        write(&mm, part)?;
        let flags = Mremap::MAYMOVE | Mremap::FIXED | Mremap::DONTUNMAP;
        mm.remap(part, PAGE_SIZE, PAGE_SIZE, flags, TO + 2 * area * PAGE_SIZE).ok()?;
    }
    measure_page("parts", &mm, TO + AREAS / 2 * 2 * PAGE_SIZE)
}
