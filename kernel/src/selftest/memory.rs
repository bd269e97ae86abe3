//! Checks of running out of memory: every request fails properly, and all memory comes back.

use core::ptr::NonNull;

use quire_mm::buddy::MAX_ORDER;
use quire_mm::machine::MAX_CPUS;
use quire_mm::page_alloc::{FaultInjection, Gfp, PageList};
use quire_mm::sync::Rank;

use super::crew::{self, Place};
use super::{Check, Outcome, expect, got, pages, slab};
use crate::vm::heap::SLAB;
use crate::vm::{Cpu, PAGES, SpinLock};

pub const CHECKS: &[Check] = &[
    ("memory: pages run out", pages_run_out),
    ("memory: pages run out on all CPUs at once", run_out_everywhere),
    ("memory: slab runs out", slab_runs_out),
    ("memory: allocations fail at random", allocations_fail_at_random),
];

/// Blocks of any order until there are none: the largest first.
pub fn fill_with(gfp: Gfp, held: &mut PageList) {
    let gfp = gfp | Gfp::NORETRY | Gfp::NOWARN;
    for order in (0..=MAX_ORDER).rev() {
        while let Ok(block) = PAGES.alloc_pages(order, gfp) {
            // SAFETY: the block was just allocated; the list becomes its owner.
            unsafe { held.push(Cpu, block.into_raw()) };
        }
    }
}

/// Frees a list of [`fill_with`]'s.
fn free_all(held: &mut PageList) {
    // SAFETY: the blocks on the list are the list's alone.
    unsafe { PAGES.free_batch(held) }
}

fn pages_run_out() -> Outcome {
    let mut held = PageList::new();
    fill_with(Gfp::KERNEL, &mut held);
    let refused = PAGES.alloc_page(Gfp::KERNEL | Gfp::NORETRY | Gfp::NOWARN).is_err();
    let urgent = got(PAGES.alloc_page(Gfp::ATOMIC | Gfp::NOWARN), "urgent requests may go below the watermark");
    drop(urgent);
    for gfp in [Gfp::HIGHUSER_MOVABLE, Gfp::KERNEL] {
        fill_with(gfp | Gfp::MEMALLOC, &mut held);
    }
    let refused_again = PAGES.alloc_page(Gfp::ATOMIC | Gfp::NOWARN).is_err();
    let left = PAGES.total_free();
    free_all(&mut held);
    expect(refused && refused_again, "a request that cannot be met is refused")?;
    // Movable requests took the pages of CMA and of zone MOVABLE, and the others the rest.
    expect(left < 64, "no page is left over")
}

static HELD: [SpinLock<PageList>; MAX_CPUS] = [const { SpinLock::new(Cpu, Rank::Object, PageList::new()) }; MAX_CPUS];

/// All CPUs take what they can get; then each frees what another took.
fn run_out_everywhere() -> Outcome {
    crew::on_all(|place| {
        let mut held = PageList::new();
        fill_with(Gfp::HIGHUSER_MOVABLE, &mut held);
        *HELD[place.me].lock() = held;
        Ok(())
    })?;
    let refused = PAGES.alloc_page(Gfp::HIGHUSER_MOVABLE | Gfp::NORETRY | Gfp::NOWARN).is_err();
    crew::on_all(|place: Place| {
        free_all(&mut HELD[place.next()].lock());
        Ok(())
    })?;
    expect(refused, "a request that cannot be met is refused")
}

/// With most pages taken, allocates objects of every class, one after the other, until that fails.
fn slab_runs_out() -> Outcome {
    const SIZES: [usize; 14] = [64, 8, 192, 1024, 8192, 40_000, 16, 32, 96, 128, 256, 512, 2048, 4096];
    let gfp = Gfp::KERNEL | Gfp::NORETRY | Gfp::NOWARN;
    let mut spare = PageList::new();
    for _ in 0..512 {
        // SAFETY: the block was just allocated; the list becomes its owner.
        unsafe { spare.push(Cpu, got(PAGES.alloc_page(gfp), "a page")?.into_raw()) };
    }
    let mut held = PageList::new();
    fill_with(gfp, &mut held);
    free_all(&mut spare);
    let mut list: Option<NonNull<u8>> = None;
    let mut objects = 0;
    let mut refused = 0;
    for size in SIZES.into_iter().cycle() {
        if refused == SIZES.len() {
            break;
        }
        let Some(object) = SLAB.kmalloc(size, gfp) else {
            refused += 1;
            continue;
        };
        // SAFETY: the object is this check's and has at least a word.
        unsafe { object.cast::<usize>().write(list.map_or(0, |next| next.as_ptr().expose_provenance())) };
        list = Some(object);
        objects += 1;
        refused = 0;
    }
    let no_cache = SLAB.create(quire_mm::slab::CacheSpec::new("none", 5000, 8)).is_err();
    while let Some(object) = list {
        // SAFETY: the object is this check's; its first word is the next one's address.
        unsafe {
            list = NonNull::new(core::ptr::with_exposed_provenance_mut(object.cast::<usize>().read()));
            SLAB.kfree(object.as_ptr());
        }
    }
    free_all(&mut held);
    expect(objects > 100, "some objects first")?;
    expect(no_cache, "a cache needs memory itself")
}

/// The exchange of pages and objects between CPUs, with random allocations failing.
fn allocations_fail_at_random() -> Outcome {
    for (interval, probability) in [(2, 50), (3, 100), (1, 20)] {
        let failures = FaultInjection { interval, probability, times: u32::MAX, ..FaultInjection::OFF };
        PAGES.inject_failures(failures);
        SLAB.inject_failures(failures);
        let outcome = crew::on_all(pages::exchange).and_then(|()| crew::on_all(slab::exchange));
        let seen = PAGES.injected_failures();
        PAGES.inject_failures(FaultInjection::OFF);
        SLAB.inject_failures(FaultInjection::OFF);
        crew::on_all(pages::collect)?;
        crew::on_all(slab::collect)?;
        outcome?;
        expect(seen > 100, "failures were injected")?;
    }
    Ok(())
}
