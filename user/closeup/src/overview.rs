//! All memory on one screen: what frames are used for, zones and their watermarks, free blocks by order, what happens a second, and the largest processes and slab
//! caches. It is what `cargo xtask view` draws, in letters.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;

use quire_abi::info::{ORDERS, ProcessInfo, ZoneInfo};
use quire_abi::pressure::Pressure;
use quire_abi::statistics::{SlabCacheInfo, SwapInfo, frame_use};

use crate::text;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Columns before the text of a line, and of the bar.
const MARGIN: usize = 9;
const BAR: usize = 64;

/// Letters and names of uses, in the order in which they are drawn.
const USES: [(usize, char, &str); frame_use::COUNT] = [
    (frame_use::RESERVED, 'X', "reserved"),
    (frame_use::KERNEL, 'K', "kernel"),
    (frame_use::SLAB, 'S', "slab"),
    (frame_use::TABLE, 'T', "page tables"),
    (frame_use::ANON, 'A', "anonymous"),
    (frame_use::OBJECT, 'F', "files, shared"),
    (frame_use::PER_CPU, 'c', "per-CPU lists"),
    (frame_use::FREE, '.', "free"),
];

/// Counters of vmstat whose rates are shown: what they are called there, and here.
pub const COUNTERS: [(&str, &str); 8] = [
    ("pgfault", "faults"),
    ("pgalloc", "pages taken"),
    ("pgfree", "pages given back"),
    ("pswpout", "to swap"),
    ("pswpin", "from swap"),
    ("pgsteal_kswapd", "freed by kswapd"),
    ("pgsteal_direct", "by those who wait"),
    ("pgmigrate_success", "moved"),
];

/// What is drawn.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Frames by their use.
    pub uses: [u64; frame_use::COUNT],
    /// The zones.
    pub zones: Vec<ZoneInfo>,
    /// The machine's pressure.
    pub pressure: Pressure,
    /// The store of swap.
    pub swap: SwapInfo,
    /// By [`COUNTERS`], since boot.
    pub counters: [u64; COUNTERS.len()],
    /// The processes.
    pub processes: Vec<ProcessInfo>,
    /// The slab caches.
    pub slabs: Vec<SlabCacheInfo>,
    /// Nanoseconds since power-on.
    pub at: u64,
}

/// At most so many lines. Rates are those since `before`, or since boot.
pub fn picture(now: &Facts, before: Option<&Facts>, lines: usize) -> String {
    let mut text = String::new();
    uses(&mut text, &now.uses);
    now.zones.iter().for_each(|zone| self::zone(&mut text, zone));
    orders(&mut text, &now.zones);
    rates(&mut text, now, before);
    waits(&mut text, now);
    let left = lines.saturating_sub(text.lines().count());
    largest(&mut text, now, before, left);
    text.lines().take(lines).flat_map(|line| [line, "\n"]).collect()
}

/// Mebibytes with one digit behind the point.
fn mib(pages: u64) -> String {
    let tenths = pages * 10 * PAGE / (1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn uses(text: &mut String, counts: &[u64; frame_use::COUNT]) {
    let all: u64 = counts.iter().sum();
    *text += &format!("{:MARGIN$}", "memory");
    // Each letter ends where its share of the whole does, so that all of them are as long as the bar.
    let (mut sum, mut drawn) = (0, 0);
    for (of, letter, _) in USES {
        sum += counts[of];
        let end = (sum * BAR as u64).checked_div(all).unwrap_or(0) as usize;
        text.extend(core::iter::repeat_n(letter, end - drawn));
        drawn = end;
    }
    *text += &format!(" {} MiB\n{:MARGIN$}", mib(all), "");
    for (n, (of, letter, name)) in USES.into_iter().enumerate() {
        let end = if n % 4 == 3 { "\n" } else { "  " };
        *text += &format!("{letter} {name} {}{end}", mib(counts[of]));
        if n == 3 {
            *text += &format!("{:MARGIN$}", "");
        }
    }
}

fn zone(text: &mut String, zone: &ZoneInfo) {
    *text += &format!(
        "node {}   {:8} {} of {} MiB free; watermarks: min {}, low {}, high {} MiB; {} on per-CPU lists\n",
        zone.node,
        self::text(&zone.name),
        mib(zone.free),
        mib(zone.managed),
        mib(zone.min),
        mib(zone.low),
        mib(zone.high),
        mib(zone.per_cpu.into()),
    );
}

fn orders(text: &mut String, zones: &[ZoneInfo]) {
    *text += &format!("{:MARGIN$}", "order");
    (0..ORDERS).for_each(|order| *text += &format!("{order:>6}"));
    *text += &format!("\n{:MARGIN$}", "blocks");
    for order in 0..ORDERS {
        *text += &format!("{:>6}", zones.iter().map(|zone| zone.blocks[order]).sum::<u64>());
    }
    *text += "\n";
}

/// What was added in a second, of something that counts up.
fn rate(now: u64, before: Option<u64>, nanoseconds: u64) -> u64 {
    (now.saturating_sub(before.unwrap_or(0)) as u128 * 1_000_000_000).checked_div(nanoseconds.into()).unwrap_or(0)
        as u64
}

fn elapsed(now: &Facts, before: Option<&Facts>) -> u64 {
    now.at.saturating_sub(before.map_or(0, |before| before.at))
}

fn rates(text: &mut String, now: &Facts, before: Option<&Facts>) {
    for (n, (_, name)) in COUNTERS.into_iter().enumerate() {
        let label = if n == 0 { "a second" } else { "" };
        let was = before.map(|before| before.counters[n]);
        let value = rate(now.counters[n], was, elapsed(now, before));
        *text += &match n % 4 {
            0 => format!("{label:MARGIN$}{name} {value}"),
            3 => format!(", {name} {value}\n"),
            _ => format!(", {name} {value}"),
        };
    }
}

fn waits(text: &mut String, now: &Facts) {
    let share = |hundredths: u32| format!("{}.{:02} %", hundredths / 100, hundredths % 100);
    let Pressure { some, full } = now.pressure;
    let swap = &now.swap;
    *text += &format!(
        "{:MARGIN$}for memory: some {}, all {} of the last 10 seconds; swap: {} MiB in {} MiB\n",
        "waits",
        share(some.averages[0]),
        share(full.averages[0]),
        mib(swap.used),
        mib(swap.frames),
    );
}

/// Processes and slab caches beside each other.
fn largest(text: &mut String, now: &Facts, before: Option<&Facts>, lines: usize) {
    let mut processes: Vec<&ProcessInfo> = now.processes.iter().collect();
    processes.sort_by_key(|process| Reverse((process.rss, process.pid)));
    let mut slabs: Vec<&SlabCacheInfo> = now.slabs.iter().filter(|cache| cache.pages != 0).collect();
    slabs.sort_by_key(|cache| Reverse((cache.pages, cache.active)));
    *text += &format!(
        "\n{:>6} {:14} {:>9} {:>9}   {:16} {:>8} {:>5}\n",
        "PID", "PROCESS", "KiB", "faults/s", "SLAB CACHE", "KiB", "full"
    );
    let count = processes.len().max(slabs.len()).min(lines.saturating_sub(2));
    for line in 0..count {
        let left = processes.get(line).map_or(String::new(), |process| {
            let was = before.and_then(|before| before.processes.iter().find(|other| other.pid == process.pid));
            let faults = rate(process.faults, was.map(|was| was.faults), elapsed(now, before));
            format!("{:6} {:14} {:9} {faults:9}", process.pid, self::text(&process.name), process.rss * PAGE / 1024)
        });
        let right = slabs.get(line).map_or(String::new(), |cache| {
            let full =
                (cache.active * 100).checked_div(cache.total).map_or(String::new(), |full| format!("{full:3} %"));
            format!("   {:16} {:8} {full:>5}", self::text(&cache.name), cache.pages * PAGE / 1024)
        });
        *text += &format!("{left:41}{right}");
        text.truncate(text.trim_end_matches(' ').len());
        *text += "\n";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let mut name = [0; 8];
        name[..5].copy_from_slice(b"DMA32");
        let zone = ZoneInfo { name, free: 256, managed: 512, blocks: [3; ORDERS], ..ZoneInfo::default() };
        let mut of = [0; 16];
        of[..3].copy_from_slice(b"hog");
        let process = |pid, rss| ProcessInfo { pid, rss, faults: 100, name: of, ..ProcessInfo::default() };
        let slab = SlabCacheInfo { active: 1, total: 4, pages: 2, ..SlabCacheInfo::default() };
        Facts {
            uses: [64, 256, 0, 0, 0, 0, 192, 0],
            zones: alloc::vec![zone],
            processes: alloc::vec![process(3, 5), process(4, 7)],
            slabs: alloc::vec![slab],
            at: 1_000_000_000,
            ..Facts::default()
        }
    }

    #[test]
    fn the_bar_is_as_long_as_the_shares() {
        let text = picture(&facts(), None, usize::MAX);
        let bar = text.lines().next().unwrap();
        let count = |letter| bar.chars().filter(|c| *c == letter).count();
        assert_eq!((count('X'), count('A')), (8, 24));
        assert_eq!(bar.find(" 2.0 MiB"), Some(MARGIN + BAR), "{text}");
        assert!(text.contains("order") && text.contains("DMA32    1.0 of 2.0 MiB free"), "{text}");
    }

    #[test]
    fn the_largest_come_first_with_their_rates() {
        let before = facts();
        let mut now = facts();
        now.at += 2_000_000_000;
        now.processes[0].faults += 50;
        now.counters[0] = 84;
        let text = picture(&now, Some(&before), usize::MAX);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
        assert!(
            at("     4 hog                   28         0                           8  25 %")
                < at("     3 hog                   20        25\n")
        );
        assert!(text.contains("faults 42"));
        for lines in 0..20 {
            assert!(picture(&now, None, lines).lines().count() <= lines);
        }
    }
}
