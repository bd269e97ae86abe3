//! Checks of short-lived mappings, of memory inside and outside the direct map.
//!
//! On a real board, memory outside the direct map (`no-map`) belongs to firmware. So these checks write only to a
//! region that the tree provides for them: a node [`REGION`] with `no-map` below `/reserved-memory`.

use quire_mm::Machine;
use quire_mm::addr::{PAGE_SIZE, PhysAddr};
use quire_mm::kernel_table::MapError;
use quire_mm::machine::MAX_CPUS;
use quire_mm::page_alloc::Gfp;
use quire_mm::sync::Rank;
use quire_platform::tree::{Region, ReservationFlags};

use super::crew::{self, Place};
use super::{Check, Outcome, expect, got, some};
use crate::arch::translate::Translation;
use crate::board::BOARD;
use crate::vm::kmap::{Mapped, SLOTS, kmap_local};
use crate::vm::{Cpu, PAGES, SpinLock};

pub const CHECKS: &[Check] = &[
    ("kmap: memory of the direct map is where it is", of_the_direct_map),
    ("kmap: no-map memory in slots, on all CPUs", || if region().is_some() { crew::on_all(slots) } else { Ok(()) }),
    ("kmap: no two CPUs share an address", apart),
];

/// The node's name, without its address.
const REGION: &str = "selftest";

/// The region that is for these checks; `None` if the tree has none.
pub fn region() -> Option<Region> {
    let is_it = |name: &str| name.split('@').next() == Some(REGION);
    let found = BOARD.get().reserved.iter().find(|r| is_it(&r.name) && r.flags.contains(ReservationFlags::NO_MAP));
    found.map(|r| r.region).filter(|region| region.size as usize >= MAX_CPUS * SLOTS * PAGE_SIZE)
}

fn of_the_direct_map() -> Outcome {
    let page = got(PAGES.alloc_page(Gfp::KERNEL), "a page")?;
    let mapped = some(kmap_local(page.addr() + 8).ok(), "a mapping")?;
    expect(mapped.as_ptr() == Cpu.direct_map(page.addr() + 8), "it is the direct map's")
}

/// Where in a page the checks write.
const OFFSET: usize = 0x128;

/// A CPU's own page of the region.
fn page_of(place: Place, slot: usize) -> Outcome<PhysAddr> {
    let base = some(region(), "the region")?.base as usize;
    Ok(PhysAddr::new(base + (place.me * SLOTS + slot) * PAGE_SIZE))
}

fn map(place: Place, slot: usize) -> Outcome<Mapped> {
    some(kmap_local(page_of(place, slot)? + OFFSET).ok(), "a mapping")
}

fn word(mapped: &Mapped) -> *mut usize {
    mapped.as_ptr().cast()
}

/// Maps as many pages as there are slots; one more is refused; then unmaps them, last first. Done twice: the contents
/// and the addresses must be the same.
fn slots(place: Place) -> Outcome {
    let value = |slot: usize| place.me << 32 | slot << 8 | 0x5a;
    let mut seen = [0; SLOTS];
    for round in 0..2 {
        let mut held = [const { None }; SLOTS];
        for slot in 0..SLOTS {
            let mapped = map(place, slot)?;
            let at = mapped.as_ptr().addr();
            expect(at % PAGE_SIZE == OFFSET && !seen[..slot].contains(&at), "an address of its own")?;
            expect(Translation::of(at, true).page() == Some(page_of(place, slot)?), "it leads to the page")?;
            if round == 0 {
                // SAFETY: the page is this CPU's, for these checks.
                unsafe { word(&mapped).write_volatile(value(slot)) };
            } else {
                expect(at == seen[slot], "a slot that was given back is used again")?;
            }
            seen[slot] = at;
            held[slot] = Some(mapped);
        }
        let one_more = kmap_local(page_of(place, 0)?);
        expect(matches!(one_more, Err(MapError::NoMemory)), "no more than there are slots")?;
        for slot in (0..SLOTS).rev() {
            let mapped = some(held[slot].take(), "held")?;
            // SAFETY: as above.
            let found = unsafe { word(&mapped).read_volatile() };
            expect(found == value(slot), "what was written to the page")?;
            drop(mapped);
            expect(Translation::of(seen[slot], false).is_translation_fault(), "the mapping ends at once")?;
        }
    }
    Ok(())
}

/// Each CPU's first slot has a different address.
fn apart() -> Outcome {
    static ADDRESSES: SpinLock<[usize; MAX_CPUS]> = SpinLock::new(Cpu, Rank::Log, [0; MAX_CPUS]);
    if region().is_none() {
        return Ok(());
    }
    crew::on_all(|place| {
        let mapped = map(place, 0)?;
        ADDRESSES.lock()[place.me] = mapped.as_ptr().addr();
        Ok(())
    })?;
    let addresses = ADDRESSES.lock();
    let all = &addresses[..crew::size()];
    expect((1..all.len()).all(|i| !all[..i].contains(&all[i])), "addresses differ")
}
