//! What programs do: lessons 6, 7 and 12.

use alloc::format;
use alloc::vec::Vec;

use quire_rt::abi::statistics::vma;
use quire_rt::{Errno, info};

use super::faults::failed;
use super::yours::{sum, working_set};
use super::{Area, Verdict};

/// Lesson 6: nothing of what `sum` has mapped is left.
pub fn leak() -> Verdict {
    const CALLS: usize = 64;
    // (The first calls may make the heap larger.)
    let _ = (sum::sum(b"1 2 3"), mapped(), info::books());
    let before = (mapped(), info::books().map_err(failed)?);
    for call in 0..CALLS {
        let right = match call % 2 {
            0 => sum::sum(b"12 30 0 5") == Ok(47),
            _ => sum::sum(b"12 30 x 5") == Err(Errno::EINVAL),
        };
        if !right {
            return Err("sum is wrong".into());
        }
    }
    let after = (mapped(), info::books().map_err(failed)?);
    if before.0 == after.0 {
        return Ok(format!("after {CALLS} calls as much is mapped as before"));
    }
    let [usable, unusable] = [0, 1].map(|n| after.0[n] as i64 - before.0[n] as i64);
    let frames = before.1.free_pages as i64 - after.1.free_pages as i64;
    let objects = after.1.slab_objects as i64 - before.1.slab_objects as i64;
    Err(format!(
        "after {CALLS} calls {usable} pages more are mapped with rights, and {unusable} without; \
         the books have {frames} free pages less, and {objects} objects more"
    ))
}

/// Pages of this program's areas, with rights and without.
fn mapped() -> [u64; 2] {
    let mut pages = [0; 2];
    for area in info::areas(0).filter_map(Result::ok) {
        pages[usize::from(area.flags & vma::READ == 0)] += (area.end - area.start) >> 12;
    }
    pages
}

/// Lesson 7: the pages that are used, not those that are there.
pub fn working_set() -> Verdict {
    const PAGES: usize = 64;
    let area = Area::new(PAGES).map_err(failed)?;
    area.fill();
    let mut seen = Vec::new();
    for used in [7, 30, 0] {
        // (From both ends, so that they are no stream.)
        let touch = || (0..used).for_each(|n| _ = area.read(if n % 2 == 0 { n } else { PAGES - n }));
        seen.push((used, working_set::working_set(&area, touch).map_err(failed)?));
    }
    let is_right = seen.iter().all(|(used, said)| *used as u64 == *said);
    let words: Vec<_> = seen.iter().map(|(used, said)| format!("{said} when {used} of {PAGES} were used")).collect();
    let words = format!("the working set is said to be {}", words.join(", "));
    if is_right { Ok(words) } else { Err(words) }
}

/// Lesson 12: blocks of 64 KiB and more are mapped, always.
pub fn mapped_blocks() -> Verdict {
    const ROUNDS: usize = 8;
    let in_heap = |size: usize| {
        let block = Vec::<u8>::with_capacity(size);
        info::area(0, block.as_ptr() as usize).map(|area| area.flags & vma::HEAP != 0)
    };
    let mut counts = [0, 0];
    for round in 0..ROUNDS {
        for (size, count) in [63 << 10, (64 << 10) + round * 5000].into_iter().zip(&mut counts) {
            *count += usize::from(in_heap(size).map_err(failed)?);
        }
    }
    let [small, large] = counts;
    let seen = format!("of {ROUNDS} blocks of 63 KiB {small} were in the heap, of {ROUNDS} of 64 KiB and more {large}");
    if small == ROUNDS && large == 0 { Ok(seen) } else { Err(seen) }
}
