//! free: memory in use and free, in KiB, and what the kernel itself uses. `-b`, `-k`, `-m`, `-g` choose the unit, `-h` one
//! that suits each number; `-w` shows buffers and cache apart.
//!
//! The first lines are those of free(1) on Linux. A dash stands for what Quire does not count. `buff/cache` is files on disks that are in memory; those
//! of the boot archive do not belong to the allocator. `available` is what programs can have before the allocator's low watermarks are reached, and files that
//! need not be written first.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;

use quire_bin::Options;
use quire_rt::abi::info::{SystemInfo, ZoneInfo};
use quire_rt::{eprintln, info, println};

quire_rt::entry!(main);

/// The unit that numbers are shown in.
#[derive(Clone, Copy)]
enum Unit {
    /// Two to the power of this many bytes.
    Fixed(u32),
    /// Whatever suits the number.
    Human,
}

impl Unit {
    fn of(options: &Options) -> Unit {
        let shift = [('b', 0), ('k', 10), ('m', 20), ('g', 30)].into_iter().find(|(letter, _)| options.has(*letter));
        match shift {
            _ if options.has('h') => Unit::Human,
            Some((_, shift)) => Unit::Fixed(shift),
            None => Unit::Fixed(10),
        }
    }

    fn show(self, pages: u64) -> String {
        let bytes = pages * quire_rt::abi::PAGE_SIZE as u64;
        match self {
            Unit::Fixed(shift) => format!("{}", bytes >> shift),
            Unit::Human => human(bytes),
        }
    }
}

/// Three digits at most, with a unit: `0B`, `96Ki`, `1.2Gi`, `15Gi`.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "Ki", "Mi", "Gi", "Ti"];
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    match tenths {
        0..100 if unit > 0 => format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit]),
        _ => format!("{}{}", tenths / 10, UNITS[unit]),
    }
}

fn main() -> i32 {
    let options = match Options::parse_alone("bkmghw", &[], "free [-bkmghw]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    let system = match info::system() {
        Ok(system) => system,
        Err(error) => {
            eprintln!("free: {error}");
            return 1;
        }
    };
    let unit = Unit::of(&options);
    summary(&system, unit, options.has('w'));
    println!();
    details(&system, unit);
    0
}

/// What Linux's free shows.
fn summary(system: &SystemInfo, unit: Unit, wide: bool) {
    let cached = if wide { "     buffers       cache" } else { "  buff/cache" };
    println!("               total        used        free      shared{cached}   available");
    let show = |pages| unit.show(pages);
    let [cached, dirty, shared] = info::counters(["nr_file_pages", "nr_dirty", "nr_shmem"]);
    let (available, cached) = (available() + cached.saturating_sub(dirty), cached + shared);
    let used = system.managed.saturating_sub(system.free).saturating_sub(cached);
    let [total, used, free, shared] = [system.managed, used, system.free, shared].map(show);
    let [none, cached, available] = [0, cached, available].map(show);
    let cached = if wide { format!("{none:>12}{cached:>12}") } else { format!("{cached:>12}") };
    println!("Mem:    {total:>12}{used:>12}{free:>12}{shared:>12}{cached}{available:>12}");
    let [total, used] = info::counters(["nr_swap_total", "nr_swap_used"]);
    let [total, used, free] = [total, used, total.saturating_sub(used)].map(show);
    println!("Swap:   {total:>12}{used:>12}{free:>12}");
}

/// Pages above the zones' low watermarks.
fn available() -> u64 {
    info::records::<ZoneInfo>().map(|zone| zone.free.saturating_sub(zone.low)).sum()
}

fn details(system: &SystemInfo, unit: Unit) {
    let counted = |name: &str| info::counter(name).unwrap_or(0);
    for (what, pages) in [
        ("programs", counted("nr_user_pages")),
        ("files on disks, to be written", counted("nr_dirty")),
        ("their page tables", system.page_tables),
        ("kernel stacks", system.kernel_stacks),
        ("slab", system.slab),
        ("vmalloc", counted("nr_vmalloc")),
        ("per-CPU areas", counted("nr_per_cpu_areas")),
        ("the kernel's page tables", counted("nr_kernel_page_tables")),
        ("contiguous memory in use", counted("nr_cma_used") + counted("nr_cma_bitmaps")),
        ("pages in swap, compressed", counted("nr_swap_store")),
        ("reclaim's queues", counted("nr_reclaim_queues")),
        ("boot archive", system.archive),
        ("promised to processes", system.committed),
        ("promised at most, in mode 2", system.commit_limit),
        ("never given to the allocator", system.ram.saturating_sub(system.managed)),
    ] {
        println!("{what:30} {:>12}", unit.show(pages));
    }
}
