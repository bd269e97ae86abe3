//! Which frames memory gets: lessons 3, 8 and 9.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use quire_rt::abi::info::{ORDERS, ZoneInfo};
use quire_rt::abi::statistics::CmaInfo;
use quire_rt::info;

use super::faults::failed;
use super::{Area, Verdict, yours};

/// The order of a page block of 2 MiB.
const BLOCK_ORDER: usize = 9;

/// The order of the largest blocks.
const LARGEST: usize = ORDERS - 1;

/// Lesson 3: of a block that is split, the upper half is given away.
pub fn upper_halves() -> Verdict {
    // (Smaller blocks are used up before large ones are split.)
    const PAGES: usize = 8192;
    let area = Area::new(PAGES).map_err(failed)?;
    area.fill();
    // The frames of each large block, in the order in which they came.
    let mut blocks: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for frame in (0..PAGES).filter_map(|page| area.frame(page)) {
        blocks.entry(frame >> LARGEST).or_default().push(frame);
    }
    // (Of a block that was not free as a whole, others have a part.)
    blocks.retain(|_, frames| frames.len() == 1 << LARGEST);
    let from_above = |frames: &Vec<u64>| {
        let (early, late) = frames.split_at(frames.len() / 2);
        early.iter().sum::<u64>() > late.iter().sum::<u64>()
    };
    let (all, above) = (blocks.len(), blocks.values().filter(|frames| from_above(frames)).count());
    let seen = format!("{all} blocks of {} frames were used up, {above} of them from above", 1 << LARGEST);
    match all {
        0 | 1 => Err(format!(
            "{seen}; memory is not free in large blocks any more: start the machine again, with 128 MiB at least"
        )),
        _ if above == all => Ok(seen),
        _ => Err(seen),
    }
}

/// Lesson 8: a few pages that keep memory from being whole.
pub fn scattered() -> Verdict {
    let free = info::system().map_err(failed)?.free as usize;
    // (The rest is for the kernel.)
    let may_use = (free - free / 16).saturating_sub(1024);
    if may_use < 16 << BLOCK_ORDER {
        return Err("there is too little memory: start with 128 MiB".into());
    }
    let may_keep = may_use / 256;
    let before = large_blocks();
    let kept = yours::scatter::scatter(may_use).map_err(failed)?;
    let pages = kept.counts().resident as usize;
    let after = large_blocks();
    let made = info::compact().map_err(failed)?;
    drop(kept);
    let seen = format!(
        "{pages} pages were kept, of at most {may_keep}; {after} of {before} free blocks of 2 MiB were left, \
         and compaction emptied {made} page blocks"
    );
    if pages <= may_keep && after <= before / 4 { Ok(seen) } else { Err(seen) }
}

/// How many blocks of 2 MiB the free lists have.
fn large_blocks() -> u64 {
    let of_zone = |zone: ZoneInfo| {
        let large = zone.blocks.iter().enumerate().skip(BLOCK_ORDER);
        large.map(|(order, blocks)| blocks << (order - BLOCK_ORDER)).sum::<u64>()
    };
    info::records::<ZoneInfo>().map(of_zone).sum()
}

/// Lesson 9: programs get CMA's pages first, and its owner can still have them.
pub fn lent_by_cma() -> Verdict {
    const PAGES: usize = 4096;
    let area_pages = info::record::<CmaInfo>(0).map_err(|_| "there is no CMA area: start with --append cma=64M")?.pages;
    let system = info::system().map_err(failed)?;
    // (Where the area is much of all memory, programs get its pages anyway; where it is another node's, they do not.)
    if area_pages < 2 * PAGES as u64 || system.managed < 4 * area_pages || system.nodes != 1 {
        return Err("the area is to have 32 MiB at least, and a quarter of the memory of a single node at most".into());
    }
    let area = Area::new(PAGES).map_err(failed)?;
    area.fill();
    let is_lent = |page: &usize| {
        let found = area.translation(*page).unwrap_or_default();
        info::text(&found.frame.migrate_type) == "CMA"
    };
    let lent = (0..PAGES).filter(is_lent).count();
    let taken = info::try_cma(0);
    let moved = lent - (0..PAGES).filter(is_lent).count();
    let is_intact = (0..PAGES).all(|page| area.read(page) == page as u8);
    let seen = format!("{lent} of {PAGES} pages of a program are CMA's, and {moved} of them moved for a driver");
    match taken {
        Err(error) => Err(format!("a driver cannot have its {area_pages} pages: {error}")),
        Ok(_) if !is_intact => Err("a page that moved is not what it was".into()),
        Ok(_) if lent * 10 >= PAGES * 9 && moved == lent => Ok(seen),
        Ok(_) => Err(seen),
    }
}
