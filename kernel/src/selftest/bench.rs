//! What the allocators' fast paths cost, and the walks of reverse mapping ([`super::walks`]). Under the emulator's
//! `-icount` a nanosecond is an instruction, so that the counter tells instructions.
//!
//! Every call goes through a pointer that the compiler does not see through, as a driver's call would, with its
//! arguments in registers. The calls are part of the figures; the loop around them is measured alone and can be taken
//! off.

use core::hint::black_box;
use core::ptr::NonNull;

use quire_mm::page_alloc::{Gfp, PageBlock};

use super::say;
use crate::arch::timer;
use crate::vm::heap::SLAB;
use crate::vm::{Cpu, PAGES};

/// Repetitions; the counter ticks every 16 ns.
const OPS: u64 = 100_000;
/// Repetitions that come first and fill the lists.
const WARM_UP: u64 = 64;

/// Prints `BENCH name operations nanoseconds` for each. Nothing can fail here but memory; answers how often it did.
pub fn run() -> usize {
    let alloc_page: fn(Gfp) -> Option<PageBlock<Cpu>> = black_box(|gfp| PAGES.alloc_page(gfp).ok());
    let alloc_pages: fn(u32, Gfp) -> Option<PageBlock<Cpu>> = black_box(|n, gfp| PAGES.alloc_pages(n, gfp).ok());
    let free_pages: fn(PageBlock<Cpu>) = black_box(drop);
    let kmalloc: fn(usize, Gfp) -> Option<NonNull<u8>> = black_box(|size, gfp| SLAB.kmalloc(size, gfp));
    // SAFETY: below it is given what `kmalloc` answered, once.
    let kfree: fn(NonNull<u8>) = black_box(|object| unsafe { SLAB.kfree(object.as_ptr()) });

    let zeroed = Gfp::KERNEL | Gfp::ZERO;
    let outcomes = [
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

/// Prints the line of one, which is done so many times.
#[inline(never)]
pub fn measure(name: &str, times: u64, pair: impl Fn() -> Option<()>) -> Option<()> {
    (0..WARM_UP).try_for_each(|_| pair())?;
    let start = timer::ticks();
    (0..times).try_for_each(|_| pair())?;
    let spent = timer::to_ns(timer::ticks() - start);
    say(format_args!("BENCH {name} {times} {spent}"));
    Some(())
}
