//! fraginfo: zones as maps of page blocks, and how fragmented their free memory is; `--compact` shows it before and after all memory is
//! compacted, which takes machine control.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use quire_bin::Options;
use quire_closeup::blocks::{self, Block, Kind, Style, Zone};
use quire_closeup::fragmentation;
use quire_rt::abi::info::{RegionInfo, ZoneInfo};
use quire_rt::abi::statistics::PageBlocks;
use quire_rt::{Errno, eprintln, info, print, println, tty};

quire_rt::entry!(main);

/// The screen that is assumed without a terminal, and for one of unknown size.
const SCREEN: (usize, usize) = (80, 24);

/// Lines beside the maps: the legend, and what is typed next.
const OTHER_LINES: usize = 3;

fn main() -> i32 {
    let options = match Options::parse_alone("", &["compact"], "fraginfo [--compact]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    match run(options.has_long("compact")) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("fraginfo: {error}");
            1
        }
    }
}

fn run(compacts: bool) -> Result<(), Errno> {
    let style = style();
    show(&style)?;
    if compacts {
        let moved = || info::counter("pgmigrate_success").unwrap_or(0);
        let before = moved();
        let emptied = info::compact()?;
        println!("\nCompaction: {emptied} page blocks were emptied, {} pages moved\n", moved() - before);
        show(&style)?;
    }
    Ok(())
}

/// Colours are for a terminal that says how large it is.
fn style() -> Style {
    let size = tty::size(1);
    let (columns, rows) = size.unwrap_or(SCREEN);
    Style { columns, rows: rows.saturating_sub(OTHER_LINES), is_colored: size.is_some() }
}

fn show(style: &Style) -> Result<(), Errno> {
    let regions: Vec<RegionInfo> = info::records().collect();
    let infos: Vec<ZoneInfo> = info::records().collect();
    let mut zones = Vec::new();
    for (number, zone) in infos.iter().enumerate() {
        let mut zone = read(number, zone)?;
        zone.note_reserved(&regions);
        zones.push(zone);
    }
    let scale = blocks::scale(&zones, style);
    zones.iter().for_each(|zone| print!("{}", blocks::map(zone, scale, style)));
    print!("{}", blocks::legend(style));
    for (zone, info) in zones.iter().zip(&infos) {
        println!("\n{}", zone.title);
        print!("{}{}", blocks::totals(zone), fragmentation::table(&info.blocks));
    }
    Ok(())
}

/// The page blocks of a zone, from the first one to the last.
fn read(number: usize, zone: &ZoneInfo) -> Result<Zone, Errno> {
    let mut all = Zone { title: blocks::title(zone.node, &zone.name), first: 0, blocks: Vec::new() };
    let mut from = 0;
    loop {
        let part: PageBlocks = match info::page_blocks(number as u32, from) {
            Err(Errno::ENOENT) => return Ok(all),
            other => other?,
        };
        if all.blocks.is_empty() {
            all.first = part.first;
        }
        let words = part.blocks.iter().take(part.count as usize);
        all.blocks.extend(words.map(|word| {
            (*word != PageBlocks::NONE).then(|| Block {
                kind: Kind::Type((word >> PageBlocks::TYPE_SHIFT) as u8),
                free: u32::from(word & PageBlocks::FREE),
            })
        }));
        from = part.first as usize + part.count as usize;
    }
}
