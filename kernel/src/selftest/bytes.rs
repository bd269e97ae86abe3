//! Checks of memset and memcpy: every small length at every alignment, and no byte outside the range.

use core::hint::black_box;

use quire_mm::addr::PAGE_SIZE;
use quire_mm::page_alloc::Gfp;

use super::{Check, Outcome, expect, got};
use crate::vm::PAGES;

pub const CHECKS: &[Check] = &[("bytes: set", set), ("bytes: copy", copy)];

/// A byte that no check writes itself.
const BESIDE: u8 = 0xa5;

/// Lengths from nothing to more than two rounds of the longest loop.
const LENGTHS: core::ops::Range<usize> = 0..200;
const OFFSETS: core::ops::Range<usize> = 16..32;

/// Runs `f` with two pages.
fn with_pages(f: impl FnOnce(&mut [u8], &mut [u8]) -> Outcome) -> Outcome {
    let one = got(PAGES.alloc_page(Gfp::KERNEL), "a page")?;
    let two = got(PAGES.alloc_page(Gfp::KERNEL), "a page")?;
    let bytes = |page: *mut u8| {
        // SAFETY: each page is this check's alone until it is freed at its end.
        unsafe { core::slice::from_raw_parts_mut(page, PAGE_SIZE) }
    };
    f(bytes(one.as_ptr()), bytes(two.as_ptr()))
}

fn set() -> Outcome {
    with_pages(|page, _| {
        for (len, at) in LENGTHS.flat_map(|len| OFFSETS.map(move |at| (len, at))) {
            (0..256).for_each(|i| page[i] = black_box(BESIDE));
            page[at..at + black_box(len)].fill(black_box(0x3c));
            let right = (0..256).all(|i| page[i] == if (at..at + len).contains(&i) { 0x3c } else { BESIDE });
            expect(right, "memset sets what it should and nothing else")?;
        }
        Ok(())
    })
}

fn copy() -> Outcome {
    with_pages(|from, to| {
        (0..256).for_each(|i| from[i] = black_box(i as u8));
        for (len, at) in LENGTHS.flat_map(|len| OFFSETS.map(move |at| (len, at))) {
            let start = (at * 7 + len) % 16;
            (0..256).for_each(|i| to[i] = black_box(BESIDE));
            to[at..at + black_box(len)].copy_from_slice(&from[start..start + len]);
            let copied = |i: usize| (i - at + start) as u8;
            let right = (0..256).all(|i| to[i] == if (at..at + len).contains(&i) { copied(i) } else { BESIDE });
            expect(right, "memcpy copies what it should and nothing else")?;
        }
        Ok(())
    })
}
