//! compact: moves pages in use together, and shows how many whole page blocks are free before and after.

#![no_std]
#![no_main]

use quire_bin::{Options, kib};
use quire_rt::abi::info::ZoneInfo;
use quire_rt::{eprintln, info, println};

quire_rt::entry!(main);

/// log2 of the pages of a page block.
const BLOCK: usize = 9;

/// Free page blocks, and free pages, of a zone.
fn whole(zone: &ZoneInfo) -> (u64, u64) {
    let blocks = zone.blocks.iter().enumerate().skip(BLOCK).map(|(order, blocks)| blocks << (order - BLOCK)).sum();
    (blocks, zone.free)
}

fn main() -> i32 {
    if let Err(status) = Options::none("compact") {
        return status;
    }
    let before: [(u64, u64); 64] =
        core::array::from_fn(|i| info::record::<ZoneInfo>(i).map_or((0, 0), |zone| whole(&zone)));
    let moved = || info::counter("pgmigrate_success").unwrap_or(0);
    let then = moved();
    if let Err(error) = info::compact() {
        eprintln!("compact: {error}");
        return 1;
    }
    println!("                       free KiB   in whole blocks: before       after");
    for (zone, (blocks, _)) in info::records::<ZoneInfo>().zip(before) {
        let (now, free) = whole(&zone);
        let in_blocks = |blocks: u64| kib(blocks << BLOCK);
        println!(
            "Node {}, zone {:>8} {:12} {:24} {:11}",
            zone.node,
            info::text(&zone.name),
            kib(free),
            in_blocks(blocks),
            in_blocks(now)
        );
    }
    println!("{} pages were moved", moved() - then);
    0
}
