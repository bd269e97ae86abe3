//! What faults do: lessons 1, 2 and 5.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use quire_rt::abi::flags::Prot;
use quire_rt::abi::translation::note;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, info};

use super::{Area, Verdict};

/// Pages that are far enough from each other that no fault brings two of them in.
const APART: usize = 32;

/// Lesson 1: a load of untouched memory brings a page of the program's own.
pub fn own_pages() -> Verdict {
    const PAGES: usize = 16;
    let area = Area::new(PAGES * APART).map_err(failed)?;
    let is_zero = (0..PAGES).all(|n| area.read(n * APART) == 0);
    let mut frames = BTreeSet::new();
    let mut zero_pages = 0;
    for page in (0..PAGES).map(|n| n * APART) {
        let found = area.translation(page).map_err(failed)?;
        zero_pages += usize::from(found.notes & note::ZERO_PAGE != 0);
        frames.extend(area.frame(page));
    }
    let seen = format!("{PAGES} pages were read: {} frames, and {zero_pages} times the zero page", frames.len());
    match (is_zero, zero_pages, frames.len()) {
        (false, ..) => Err("a page that nobody has written is not zeros".into()),
        (_, 0, PAGES) => Ok(seen),
        _ => Err(seen),
    }
}

/// Lesson 2: a counter of the faults of writes.
pub fn write_faults() -> Verdict {
    const NAME: &str = "pgfault_write";
    const PAGES: usize = 64;
    if info::counter(NAME).is_none() {
        return Err(format!("vmstat has no {NAME}"));
    }
    let counts = || info::counters(["pgfault", NAME]);
    let during = |work: &dyn Fn()| {
        let before = counts();
        work();
        let after = counts();
        [after[0] - before[0], after[1] - before[1]]
    };
    let to_read = Area::with(PAGES * APART, Prot::READ).map_err(failed)?;
    let to_write = Area::new(PAGES * APART).map_err(failed)?;
    let [loads, of_loads] = during(&|| (0..PAGES).for_each(|n| _ = to_read.read(n * APART)));
    let [stores, of_stores] = during(&|| (0..PAGES).for_each(|n| to_write.write(n * APART, 1)));
    let seen = format!("{NAME} counts {of_loads} of {loads} faults of loads, and {of_stores} of {stores} of stores");
    // (Other programs may run.)
    let is_right = of_loads <= loads / 8 && of_stores >= PAGES as u64 && of_stores <= stores;
    if is_right { Ok(seen) } else { Err(seen) }
}

/// Lesson 5: fork copies the first page of a private area at once.
pub fn eager_copy() -> Verdict {
    const PAGES: usize = 8;
    let area = Area::new(PAGES).map_err(failed)?;
    area.fill();
    let frames = |area: &Area| (0..PAGES).map(|page| area.frame(page)).collect::<Vec<_>>();
    let parents = frames(&area);
    let child = process::fork().map_err(failed)?;
    if child == 0 {
        let own = frames(&area);
        let is_intact = (0..PAGES).all(|page| area.read(page) == page as u8);
        // A bit for each page that is shared.
        let shared = (0..PAGES).fold(0, |bits, page| bits | i32::from(own[page] == parents[page]) << page);
        process::exit_now(if is_intact { shared } else { 0 });
    }
    let Status::Exited(shared) = process::waitpid(child).map_err(failed)? else {
        return Err("the child was killed".into());
    };
    let copied: Vec<usize> = (0..PAGES).filter(|page| shared & 1 << page == 0).collect();
    let seen = format!("of {PAGES} pages of an area, these were copied by fork: {copied:?}");
    match (shared, frames(&area) == parents) {
        (0, _) => Err("the child has not what the parent had".into()),
        (_, false) => Err("the parent's frames have changed".into()),
        _ if copied == [0] => Ok(seen),
        _ => Err(seen),
    }
}

/// What stands in the way of a check.
pub(super) fn failed(error: Errno) -> alloc::string::String {
    format!("the check itself has failed: {error}")
}
