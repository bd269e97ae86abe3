//! Zones as maps of page blocks: one character a block, or for some blocks where a zone is large. Its letter or colour is the kind, its case
//! or shade how much is in use.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use quire_abi::info::RegionInfo;
use quire_abi::info::region;
use quire_abi::statistics::BLOCK_PAGES;

use crate::text;

/// log2 of the bytes of a page block.
const BLOCK_SHIFT: u32 = 21;

/// Columns before a row's cells: the address of its first one.
const MARGIN: usize = 13;

/// What a page block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// By its number in the records: the migrate type.
    Type(u8),
    /// More than half of it was reserved at boot, and never was the page allocator's.
    Reserved,
}

/// The kinds in the order of the legend: letter, name, and the colour of the terminal (SGR).
const KINDS: [(Kind, char, &str, u8); 7] = [
    (Kind::Type(0), 'U', "Unmovable", 31),
    (Kind::Type(1), 'M', "Movable", 32),
    (Kind::Type(2), 'R', "Reclaimable", 33),
    (Kind::Type(3), 'H', "HighAtomic", 35),
    (Kind::Type(4), 'C', "CMA", 36),
    (Kind::Type(5), 'I', "Isolate", 34),
    (Kind::Reserved, 'X', "reserved", 90),
];

impl Kind {
    fn look(self) -> (char, &'static str, u8) {
        KINDS
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or(('?', "?", 39), |(_, letter, name, colour)| (*letter, *name, *colour))
    }
}

/// A page block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it is.
    pub kind: Kind,
    /// Its free frames.
    pub free: u32,
}

/// The page blocks of a zone.
pub struct Zone {
    /// "Node 0, zone DMA".
    pub title: String,
    /// The number of the first one: its address divided by 2 MiB.
    pub first: u64,
    /// By number; `None` for those that are not the zone's.
    pub blocks: Vec<Option<Block>>,
}

/// How a picture is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns of the screen.
    pub columns: usize,
    /// Lines that the maps of all zones may take, a title each included.
    pub rows: usize,
    /// Colours and shades, or letters.
    pub is_colored: bool,
}

impl Zone {
    /// Marks blocks of which more than half is reserved by one of these regions.
    pub fn note_reserved(&mut self, regions: &[RegionInfo]) {
        let first = self.first;
        for (number, block) in self.blocks.iter_mut().enumerate() {
            let start = (first + number as u64) << BLOCK_SHIFT;
            let end = start + (1 << BLOCK_SHIFT);
            let is_reserved = |region: &&RegionInfo| !matches!(region.kind, region::MEMORY | region::CMA);
            let part = |region: &RegionInfo| region.end.min(end).saturating_sub(region.start.max(start));
            let covered: u64 = regions.iter().filter(is_reserved).map(part).sum();
            if let Some(block) = block
                && covered > 1 << (BLOCK_SHIFT - 1)
            {
                block.kind = Kind::Reserved;
            }
        }
    }

    fn end(&self) -> u64 {
        self.first + self.blocks.len() as u64
    }
}

/// How many blocks a character stands for, so that all zones fit: a power of two.
pub fn scale(zones: &[Zone], style: &Style) -> usize {
    let rows = |scale: usize| zones.iter().map(|zone| zone.blocks.len().div_ceil(scale * cells(style))).sum::<usize>();
    // Each zone has a title, and a row at least.
    let room = style.rows.max(2 * zones.len()) - zones.len();
    let mut scale = 1;
    while rows(scale) > room {
        scale *= 2;
    }
    scale
}

/// Characters in a row: a power of two, so that rows begin at round addresses.
fn cells(style: &Style) -> usize {
    1 << style.columns.saturating_sub(MARGIN + 1).max(8).ilog2()
}

/// The map of a zone, `scale` blocks a character.
pub fn map(zone: &Zone, scale: usize, style: &Style) -> String {
    let (first, end) = (zone.first << BLOCK_SHIFT, zone.end() << BLOCK_SHIFT);
    let count = zone.blocks.iter().flatten().count();
    let of = if scale == 1 { "one".into() } else { format!("{scale}") };
    let mut text = format!("{}: {count} page blocks from {first:#x} to {end:#x}, {of} a character\n", zone.title);
    let cells: Vec<&[Option<Block>]> = zone.blocks.chunks(scale).collect();
    let mut address = first;
    for row in cells.chunks(self::cells(style)) {
        text += &format!("{address:#012x} ");
        row.iter().for_each(|blocks| cell(&mut text, blocks, style));
        text += "\n";
        address += ((row.len() * scale) as u64) << BLOCK_SHIFT;
    }
    text
}

/// The character of some blocks: what most of them are, and how full they are together.
fn cell(text: &mut String, blocks: &[Option<Block>], style: &Style) {
    let there: Vec<Block> = blocks.iter().flatten().copied().collect();
    let count = |kind: Kind| there.iter().filter(|block| block.kind == kind).count();
    // (Of as many, the first one in the legend.)
    let Some((kind, ..)) = KINDS.iter().rev().max_by_key(|(kind, ..)| count(*kind)).filter(|_| !there.is_empty())
    else {
        *text += " ";
        return;
    };
    let all = there.len() as u64 * BLOCK_PAGES;
    let used = all - there.iter().map(|block| u64::from(block.free)).sum::<u64>().min(all);
    let (letter, _, color) = kind.look();
    if style.is_colored {
        *text += &format!("\x1b[{color}m{}\x1b[0m", shade(used, all));
    } else {
        text.push(match used {
            0 => '.',
            used if 2 * used > all => letter,
            _ => letter.to_ascii_lowercase(),
        });
    }
}

/// How full, in quarters.
fn shade(used: u64, all: u64) -> char {
    match used * 4 {
        0 => '·',
        quarters if quarters <= all => '░',
        quarters if quarters <= 2 * all => '▒',
        quarters if quarters <= 3 * all => '▓',
        _ => '█',
    }
}

/// What the characters mean.
pub fn legend(style: &Style) -> String {
    let mut text = String::new();
    for (kind, ..) in KINDS {
        let (letter, name, color) = kind.look();
        let mark = if style.is_colored { format!("\x1b[{color}m█\x1b[0m") } else { format!("{letter}") };
        text += &format!("{mark} {name}  ");
    }
    text.truncate(text.trim_end().len());
    text += if style.is_colored {
        "\n· free, ░ up to a quarter in use, ▒ half, ▓ three quarters, █ more\n"
    } else {
        "\nA capital: more than half in use; a small letter: less; a point: all free, of any kind\n"
    };
    text
}

/// A line for each kind that there is: blocks, those that are free as a whole, and frames in use.
pub fn totals(zone: &Zone) -> String {
    let mut text = format!("{:13}{:>8} {:>8} {:>12} {:>9}\n", "", "blocks", "free", "pages in use", "of pages");
    for (kind, ..) in KINDS {
        let of_kind: Vec<Block> = zone.blocks.iter().flatten().filter(|block| block.kind == kind).copied().collect();
        if of_kind.is_empty() {
            continue;
        }
        let all = of_kind.len() as u64 * BLOCK_PAGES;
        let used = all - of_kind.iter().map(|block| u64::from(block.free)).sum::<u64>().min(all);
        let whole = of_kind.iter().filter(|block| u64::from(block.free) == BLOCK_PAGES).count();
        let (_, name, _) = kind.look();
        text += &format!("{name:13}{:8} {whole:8} {used:12} {:>7} %\n", of_kind.len(), used * 100 / all);
    }
    text
}

/// The name of a zone of a node, from NUL-padded fields.
pub fn title(node: u32, zone: &[u8]) -> String {
    format!("Node {node}, zone {}", text(zone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const PLAIN: Style = Style { columns: 80, rows: 20, is_colored: false };

    fn block(kind: u8, free: u32) -> Option<Block> {
        Some(Block { kind: Kind::Type(kind), free })
    }

    fn zone(blocks: Vec<Option<Block>>) -> Zone {
        Zone { title: title(0, b"DMA\0\0"), first: 512, blocks }
    }

    #[test]
    fn a_letter_is_the_kind_and_its_case_how_full_it_is() {
        let zone = zone(vec![block(0, 0), block(1, 511), block(1, 512), None, block(4, 256), block(2, 255)]);
        let wanted = "\
Node 0, zone DMA: 5 page blocks from 0x40000000 to 0x40c00000, one a character
0x0040000000 Um. cR
";
        assert_eq!(map(&zone, 1, &PLAIN), wanted);
    }

    #[test]
    fn a_terminal_gets_colours_and_shades() {
        let style = Style { is_colored: true, ..PLAIN };
        let zone = zone(vec![block(1, 0), block(0, 512)]);
        let text = map(&zone, 1, &style);
        assert!(text.ends_with("\x1b[32m█\x1b[0m\x1b[31m·\x1b[0m\n"), "{text:?}");
        assert_eq!([1, 128, 129, 256, 384, 385, 512].map(|used| shade(used, 512)), ['░', '░', '▒', '▒', '▓', '█', '█']);
        assert!(legend(&style).contains("\x1b[36m█\x1b[0m CMA"));
    }

    #[test]
    fn eight_gibibytes_fit_on_a_screen() {
        let large = [zone(vec![block(1, 512); 512]), zone(vec![block(1, 0); 3584])];
        let scale = scale(&large, &Style { rows: 18, ..PLAIN });
        assert_eq!(scale, 4);
        let lines: usize = large.iter().map(|zone| map(zone, scale, &PLAIN).lines().count()).sum();
        assert_eq!(lines, 2 + 16);
        assert_eq!(super::scale(&large, &Style { rows: 66, ..PLAIN }), 1);
        // Too small a screen gets a row a zone.
        assert_eq!(super::scale(&large, &Style { rows: 0, columns: 20, is_colored: false }), 512);
    }

    #[test]
    fn several_blocks_are_what_most_of_them_are() {
        let zone = zone(vec![
            block(0, 512),
            block(1, 0),
            block(1, 0),
            None,
            None,
            None,
            None,
            None,
            block(2, 0),
            block(0, 512),
        ]);
        let text = map(&zone, 4, &PLAIN);
        // Two of three are movable and full; then none; then as many of either kind, half in use.
        assert!(text.ends_with("0x0040000000 M u\n"), "{text}");
    }

    #[test]
    fn reserved_blocks_are_their_own_kind() {
        let mut zone = zone(vec![block(1, 0); 3]);
        let region = |kind, start: u64, end: u64| RegionInfo {
            start: 0x4000_0000 + start,
            end: 0x4000_0000 + end,
            kind,
            ..RegionInfo::default()
        };
        zone.note_reserved(&[
            region(region::MEMORY, 0, 0x100_0000),
            region(region::KERNEL, 0x8_0000, 0x20_0000),
            region(region::INITRD, 0x20_0000, 0x28_0000),
        ]);
        let kinds: Vec<_> = zone.blocks.iter().flatten().map(|block| block.kind).collect();
        assert_eq!(kinds, [Kind::Reserved, Kind::Type(1), Kind::Type(1)]);
        let text = totals(&zone);
        let numbers = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
        assert_eq!(numbers(text.lines().nth(1).unwrap()), ["Movable", "2", "0", "1024", "100", "%"]);
        assert_eq!(numbers(text.lines().nth(2).unwrap()), ["reserved", "1", "0", "512", "100", "%"]);
    }
}
