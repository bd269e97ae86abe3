//! Costs of the allocators' fast paths, of reverse-mapping walks and of pages' moves ([`super::walks`]). Under the
//! emulator's `-icount` a nanosecond is an instruction, so the counter gives instructions.
//!
//! Every call goes through an opaque pointer, with its arguments in registers, so that it costs as much as a driver's
//! call. The calls are part of the figures; the loop around them is measured separately and can be subtracted.

use core::fmt;
use core::hint::black_box;
use core::ptr::NonNull;

use quire_mm::addr::Pfn;
use quire_mm::page_alloc::{Gfp, PageBlock, PageList};

use super::say;
use crate::arch::timer;
use crate::vm::heap::SLAB;
use crate::vm::{Cpu, PAGES};

/// Repetitions; the counter ticks every 16 ns.
const OPS: u64 = 100_000;
/// Repetitions before the measurement, which fill the lists.
const WARM_UP: u64 = 64;

/// Prints `BENCH name operations nanoseconds` for each. The only possible failure is a lack of memory; returns how
/// often that happened.
pub fn run() -> usize {
    let alloc_page: fn(Gfp) -> Option<PageBlock<Cpu>> = black_box(|gfp| PAGES.alloc_page(gfp).ok());
    let alloc_pages: fn(u32, Gfp) -> Option<PageBlock<Cpu>> = black_box(|n, gfp| PAGES.alloc_pages(n, gfp).ok());
    let free_pages: fn(PageBlock<Cpu>) = black_box(drop);
    let kmalloc: fn(usize, Gfp) -> Option<NonNull<u8>> = black_box(|size, gfp| SLAB.kmalloc(size, gfp));
    // SAFETY: below, each object from `kmalloc` is passed to it once.
    let kfree: fn(NonNull<u8>) = black_box(|object| unsafe { SLAB.kfree(object.as_ptr()) });

    let zeroed = Gfp::KERNEL | Gfp::ZERO;
    let fills = fill(alloc_page);
    let outcomes = [
        fills,
        measure("kernel.loop", OPS, || {
            black_box(0);
            Some(())
        }),
        measure("kernel.alloc_page", OPS, || alloc_page(Gfp::KERNEL).map(free_pages)),
        measure("kernel.alloc_page.zero", OPS, || alloc_page(zeroed).map(free_pages)),
        measure("kernel.alloc_pages.order3", OPS, || alloc_pages(3, Gfp::KERNEL).map(free_pages)),
        measure("kernel.kmalloc.64", OPS, || kmalloc(64, Gfp::KERNEL).map(kfree)),
        measure("kernel.kmalloc.1024", OPS, || kmalloc(1024, Gfp::KERNEL).map(kfree)),
        measure("kernel.kzalloc.64", OPS, || kmalloc(64, zeroed).map(kfree)),
    ];
    outcomes.iter().filter(|outcome| outcome.is_none()).count() + super::walks::run()
}

/// Allocates all pages one by one and prints the cost per page for each zone in turn: `BENCH kernel.fill.0` for the
/// preferred zone, and so on. Later zones must cost the same. (They exist on machines with more than 3 GiB or with
/// `movablecore=`.)
fn fill(alloc_page: fn(Gfp) -> Option<PageBlock<Cpu>>) -> Option<()> {
    const FILL: usize = 16_384;
    let mut taken = PageList::new();
    let mut take = || {
        let pfn = alloc_page(Gfp::HIGHUSER_MOVABLE | Gfp::NOWARN | Gfp::NORETRY)?.into_raw();
        // SAFETY: the block's owner was consumed just now.
        unsafe { taken.push(Cpu, pfn) };
        Some(pfn)
    };
    let mut nth = 0;
    while let Some(first) = take() {
        let start = timer::ticks();
        let last = (0..FILL).map_while(|_| take()).last();
        let spent = timer::to_ns(timer::ticks() - start);
        if last.is_some_and(|last| zone_of(last) == zone_of(first)) {
            say(format_args!("BENCH kernel.fill.{nth} {FILL} {spent}"));
        }
        nth += 1;
        while take().is_some_and(|pfn| zone_of(pfn) == zone_of(first)) {}
    }
    // SAFETY: all were allocated above, and nobody else knows of them.
    unsafe { PAGES.free_batch(&mut taken) };
    Some(())
}

fn zone_of(pfn: Pfn) -> Option<usize> {
    PAGES.zones().position(|zone| (zone.span().0.0..zone.span().0.0 + zone.span().1).contains(&pfn.0))
}

/// Measures `times` repetitions of `pair` and prints the line.
#[inline(never)]
pub fn measure(name: impl fmt::Display, times: u64, pair: impl Fn() -> Option<()>) -> Option<()> {
    (0..WARM_UP).try_for_each(|_| pair())?;
    let start = timer::ticks();
    (0..times).try_for_each(|_| pair())?;
    let spent = timer::to_ns(timer::ticks() - start);
    say(format_args!("BENCH {name} {times} {spent}"));
    Some(())
}
