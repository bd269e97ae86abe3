//! accounts: the kernel's statistics agree with each other, and count what this program does.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use quire_rt::abi::flags::sig;
use quire_rt::abi::info::{ORDERS, SystemInfo, ZoneInfo};
use quire_rt::abi::statistics::{CmaInfo, Counter, PageTypeInfo, SlabCacheInfo, VmallocInfo, area};
use quire_rt::{Errno, info, process, time};
use user_tests::{Checks, PAGE, RW, map, munmap, peek, poke, start};

quire_rt::entry!(main);

/// All statistics, read one after the other.
struct Books {
    system: SystemInfo,
    zones: Vec<ZoneInfo>,
    types: Vec<PageTypeInfo>,
    caches: Vec<SlabCacheInfo>,
    areas: Vec<VmallocInfo>,
    counters: Vec<(String, u64)>,
    cma: Vec<CmaInfo>,
}

impl Books {
    fn read() -> Result<Books, Errno> {
        Ok(Books {
            system: info::system()?,
            zones: info::records().collect(),
            types: info::records().collect(),
            caches: info::records().collect(),
            areas: info::vmalloc_areas().collect(),
            counters: info::records::<Counter>().map(|c| (info::text(&c.name).to_string(), c.value)).collect(),
            cma: info::records().collect(),
        })
    }

    fn count(&self, name: &str) -> u64 {
        let found = self.counters.iter().find(|(other, _)| other == name);
        found.map_or_else(|| panic!("no counter {name}"), |(_, value)| *value)
    }

    fn sum(&self, names: &[&str]) -> u64 {
        names.iter().map(|name| self.count(name)).sum()
    }
}

fn pages(free: &[u64; ORDERS]) -> u64 {
    free.iter().enumerate().map(|(order, blocks)| blocks << order).sum()
}

/// The counters that together cover all managed pages.
const EVERYWHERE: &[&str] = &[
    "nr_free_pages",
    "nr_free_per_cpu",
    "nr_user_pages",
    "nr_page_tables",
    "nr_kernel_page_tables",
    "nr_kernel_stacks",
    "nr_spare_stacks",
    "nr_slab",
    "nr_vmalloc",
    "nr_per_cpu_areas",
    "nr_cma_used",
    "nr_cma_bitmaps",
    "nr_swap_store",
    "nr_reclaim_queues",
    "nr_bad_pages",
];

/// Pairs of values that two of the kernel's tables give for the same thing.
fn agreements(books: &Books) -> Vec<(u64, u64, &'static str)> {
    let system = &books.system;
    let zones = |of: fn(&ZoneInfo) -> u64| books.zones.iter().map(of).sum::<u64>();
    let caches = |of: fn(&SlabCacheInfo) -> u64| books.caches.iter().map(of).sum::<u64>();
    let owned = books.areas.iter().filter(|a| a.kind == area::VMALLOC).map(|a| a.pages).sum();
    let lazy = books.areas.iter().filter(|a| a.lazy != 0).map(|a| a.pages).sum();
    let managed = zones(|z| z.managed);
    let free = books.sum(&["nr_free_pages", "nr_free_per_cpu"]);
    let cma = |line: &&PageTypeInfo| info::text(&line.name) == "CMA";
    let free_cma = books.types.iter().filter(cma).map(|line| pages(&line.free)).sum();
    let cma_blocks: u64 = books.types.iter().filter(cma).map(|line| line.page_blocks).sum();
    let of_type = books.types.iter().map(|line| pages(&line.free)).sum();
    Vec::from([
        (system.managed, managed, "free's total is the zones' managed pages"),
        (books.count("nr_managed_pages"), managed, "vmstat's managed pages are the zones'"),
        (zones(|z| z.free), zones(|z| pages(&z.blocks)), "zoneinfo's free pages are buddyinfo's"),
        (zones(|z| z.free), of_type, "pagetypeinfo's free pages are zoneinfo's"),
        (books.count("nr_free_pages"), zones(|z| z.free), "vmstat's free pages are the zones'"),
        (books.count("nr_free_per_cpu"), zones(|z| z.per_cpu.into()), "and so are those of the per-CPU lists"),
        (system.free, free + books.count("nr_spare_stacks"), "free's free pages are those and the spare stacks'"),
        (books.count("pgalloc") - books.count("pgfree"), managed - free, "allocated less freed is what is in use"),
        (system.slab, books.count("nr_slab"), "free's slab pages are vmstat's"),
        (system.slab, caches(|cache| cache.pages), "and slabinfo's"),
        (system.page_tables, books.count("nr_page_tables"), "page tables: free and vmstat"),
        (system.kernel_stacks, books.count("nr_kernel_stacks"), "kernel stacks: free and vmstat"),
        (books.count("nr_vmalloc"), owned, "vmstat's vmalloc pages are vmallocinfo's"),
        (books.count("nr_vmalloc_lazy"), lazy, "and so are the lazily freed ones"),
        (books.count("nr_cma_pages"), books.cma.iter().map(|a| a.pages).sum(), "CMA: vmstat and cmainfo"),
        (books.count("nr_cma_used"), books.cma.iter().map(|a| a.used).sum(), "and what the owners have of it"),
        (books.count("nr_cma_pages"), cma_blocks * 512, "CMA: vmstat and the page blocks of pagetypeinfo"),
        (books.count("nr_free_cma"), free_cma, "free CMA pages: vmstat and pagetypeinfo"),
        (books.count("nr_managed_pages"), books.sum(EVERYWHERE), "every page is somewhere"),
    ])
}

/// Reads the statistics until they agree: meanwhile other CPUs may still be freeing what earlier programs used.
fn settled() -> Result<Books, Errno> {
    // Reads twice: by the second time the memory that reading itself needs has been allocated.
    Books::read()?;
    let mut books = Books::read()?;
    for _ in 0..100 {
        if user_tests::is_short() || agreements(&books).iter().all(|(a, b, _)| a == b) {
            break;
        }
        drop(books);
        time::sleep_ms(10);
        books = Books::read()?;
    }
    Ok(books)
}

/// A child that sleeps for a moment and exits.
fn nap() -> i32 {
    time::sleep_ms(20);
    0
}

/// Writes to `pages` new pages.
fn hoard(pages: usize) -> i32 {
    let at = map(pages * PAGE, RW);
    (0..pages).for_each(|i| poke(at + i * PAGE, 1));
    0
}

/// Pages that a program may fill without the tests taking long.
const SMALL: u64 = 256 << 20 >> 12;

fn main() -> i32 {
    let mut checks = Checks::new();
    if !user_tests::is_quire() {
        checks.skip("statistics", "this is not Quire");
        return checks.finish();
    }
    let books = match settled() {
        Ok(books) => books,
        Err(error) => {
            checks.eq(Some(error), None, "the statistics can be read");
            return checks.finish();
        }
    };
    if user_tests::is_short() {
        checks.skip("the tables agree", "pages come and go while they are read");
    } else {
        agreements(&books).into_iter().for_each(|(one, other, what)| checks.eq(one, other, what));
    }
    checks
        .ok(books.caches.iter().all(|c| c.active <= c.total || c.object_size == 0), "no cache has more than it holds");
    let in_order = books.areas.windows(2).all(|pair| pair[0].end <= pair[1].start);
    checks.ok(in_order && !books.areas.is_empty(), "vmalloc areas do not overlap");
    let mapped = books.areas.iter().all(|a| a.end - a.start == (a.pages + 1) * PAGE as u64);
    checks.ok(
        mapped && books.areas.iter().all(|a| info::text(&a.caller).contains(".rs:")),
        "each has a guard and a caller",
    );
    checks.fails(info::record::<Counter>(books.counters.len()), Errno::ENOENT, "nothing is past the last counter");
    checks.fails(info::record::<VmallocInfo>(usize::MAX), Errno::ENOENT, "nor past the last area");

    const N: u64 = 64;
    let count = |name: &str| info::counter(name).unwrap_or(0);
    let at = map(N as usize * PAGE, RW);
    let touch = |from: usize| (from..N as usize).step_by(2).for_each(|i| poke(at + i * PAGE, 1));
    let (faults, anon, user) = (count("pgfault"), count("pgfault_anon"), count("nr_user_pages"));
    touch(0);
    touch(1);
    let brought = count("nr_user_pages") - user;
    // (Others take and lose pages meanwhile if memory is short.)
    let is_quiet = !user_tests::is_short();
    checks.ok((N..N + 8).contains(&brought) || !is_quiet, "pages that are written are the program's");
    let new = count("pgfault_anon") - anon;
    let expected = new > 0 && (new <= N + 8 || !is_quiet);
    checks.ok(expected && count("pgfault") - faults >= new, "and their faults are counted");
    let (asid, range, free) = (count("tlb_flush_asid"), count("tlb_flush_range"), count("nr_user_pages"));
    let _ = munmap(at, N as usize * PAGE);
    checks.ok(count("tlb_flush_asid") > asid, "a large unmapping invalidates the ASID");
    checks.ok(free.wrapping_sub(count("nr_user_pages")) == N || !is_quiet, "and gives its pages back");
    let one = map(PAGE, RW);
    poke(one, 1);
    let _ = munmap(one, PAGE);
    checks.ok(count("tlb_flush_range") > range, "a small one invalidates by page");
    let zero = count("pgfault_zero");
    let read = map(PAGE, RW);
    checks.ok(peek(read) == 0 && count("pgfault_zero") > zero, "a read of untouched memory maps the zero page");
    let _ = munmap(read, PAGE);

    // Where memory is small enough to be filled in a moment.
    if books.system.managed < SMALL {
        // Their stacks are kept for the next threads.
        let children: Vec<_> = (0..4).filter_map(|_| start(nap).ok()).collect();
        children.into_iter().for_each(|pid| _ = process::waitpid(pid));
        let given = count("shrinker_pages");
        let all = || hoard(books.system.managed as usize);
        if count("nr_swap_total") == 0 {
            checks.killed(all, sig::KILL, "a process that takes all memory is killed");
        } else {
            checks.exits(|| (all(), 0).1, 0, "a process that takes all memory has others in swap");
        }
        let have_given = count("shrinker_pages") > given;
        checks.ok(have_given || user_tests::is_short(), "after the kernel's caches have given back what they could");
    }
    checks.finish()
}
