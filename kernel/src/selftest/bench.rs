//! What the allocators' fast paths cost. Under the emulator's `-icount` a nanosecond is an instruction, so that the
//! counter tells instructions.
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
    let mut failed = 0;
    let alloc_page: fn(Gfp) -> Option<PageBlock<Cpu>> = black_box(|gfp| PAGES.alloc_page(gfp).ok());
    let alloc_pages: fn(u32, Gfp) -> Option<PageBlock<Cpu>> = black_box(|n, gfp| PAGES.alloc_pages(n, gfp).ok());
    let free_pages: fn(PageBlock<Cpu>) = black_box(drop);
    let kmalloc: fn(usize, Gfp) -> Option<NonNull<u8>> = black_box(|size, gfp| SLAB.kmalloc(size, gfp));
    // SAFETY: below it is given what `kmalloc` answered, once.
    let kfree: fn(NonNull<u8>) = black_box(|object| unsafe { SLAB.kfree(object.as_ptr()) });

    failed += measure("kernel.loop", || true);
    failed += measure("kernel.alloc_page", || alloc_page(Gfp::KERNEL).map(free_pages).is_some());
    failed += measure("kernel.zeroed_page", || alloc_page(Gfp::KERNEL | Gfp::ZERO).map(free_pages).is_some());
    failed += measure("kernel.alloc_order_3", || alloc_pages(3, Gfp::KERNEL).map(free_pages).is_some());
    failed += measure("kernel.kmalloc_64", || kmalloc(64, Gfp::KERNEL).map(kfree).is_some());
    failed += measure("kernel.kmalloc_1024", || kmalloc(1024, Gfp::KERNEL).map(kfree).is_some());
    failed += measure("kernel.kzalloc_64", || kmalloc(64, Gfp::KERNEL | Gfp::ZERO).map(kfree).is_some());
    failed
}

#[inline(never)]
fn measure(name: &str, pair: impl Fn() -> bool) -> usize {
    let failed = |ops: u64| (0..ops).filter(|_| !black_box(pair())).count();
    let mut sum = failed(WARM_UP);
    let start = timer::ticks();
    sum += failed(OPS);
    let spent = timer::to_ns(timer::ticks() - start);
    say(format_args!("BENCH {name} {OPS} {spent}"));
    sum
}
