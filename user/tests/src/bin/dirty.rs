//! dirty: which pages were referenced and which were written, as the kernel reports for each area; on Linux from
//! /proc/self/smaps, if it exists.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use core::sync::atomic::{AtomicBool, Ordering};

use quire_rt::Errno;
use quire_rt::abi::flags::{Map, Mremap, Open, Prot, madv};
use quire_rt::abi::info::{CpuInfo, cpu_feature, kind};
use quire_rt::abi::nr;
use quire_rt::abi::statistics::{AreaInfo, vma};
use quire_rt::thread::{Thread, spawn};
use quire_rt::{fs, info, mem, process, sched};
use user_tests::{Checks, PAGE, RW, child, is_quire, map, mmap, mprotect, munmap, peek, poke, raw};

quire_rt::entry!(main);

const SHARED: Map = Map::SHARED.union(Map::ANONYMOUS);

/// Pages of an area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pages {
    resident: u64,
    referenced: u64,
    dirty: u64,
}

const fn pages(resident: u64, referenced: u64, dirty: u64) -> Pages {
    Pages { resident, referenced, dirty }
}

/// What the kernel says of the area that begins at `at`.
fn usage(at: usize) -> Pages {
    if is_quire() {
        let area = info::areas(0).flatten().find(|area| area.start == at as u64).unwrap_or_default();
        return pages(area.resident, area.referenced, area.dirty());
    }
    smaps().and_then(|text| smaps_entry(&text, at)).unwrap_or_default()
}

fn smaps() -> Option<String> {
    let file = fs::File::open(c"/proc/self/smaps", Open::empty()).ok()?;
    String::from_utf8(file.read_to_end().ok()?).ok()
}

fn smaps_entry(text: &str, at: usize) -> Option<Pages> {
    let starts_here =
        |line: &&str| line.split_once('-').and_then(|(start, _)| usize::from_str_radix(start, 16).ok()) == Some(at);
    let mut found = Pages::default();
    for line in text.lines().skip_while(|line| !starts_here(line)).skip(1) {
        let Some((name, value)) = line.split_once(':') else { break };
        let kib: u64 = value.trim().trim_end_matches(" kB").parse().unwrap_or(0);
        match name {
            "Rss" => found.resident = kib / 4,
            "Referenced" => found.referenced = kib / 4,
            "Shared_Dirty" | "Private_Dirty" => found.dirty += kib / 4,
            "VmFlags" => break,
            _ => {}
        }
    }
    Some(found)
}

/// Fresh memory with a hole on both sides: an area of its own.
fn alone(count: usize, flags: Map) -> usize {
    let at = mmap(0, (count + 2) * PAGE, RW, flags | Map::ANONYMOUS, -1, 0).unwrap_or(0);
    let _ = (munmap(at, PAGE), munmap(at + (count + 1) * PAGE, PAGE));
    at + PAGE
}

fn cold(at: usize, count: usize) -> Result<(), Errno> {
    // SAFETY: a mapping of the test's own.
    unsafe { mem::madvise(at, count * PAGE, madv::COLD) }
}

fn read_pages(at: usize, count: usize) {
    for page in 0..count {
        peek(at + page * PAGE);
    }
}

fn main() -> i32 {
    let mut checks = Checks::new();
    if !is_quire() && smaps().is_none() {
        checks.skip("what is referenced and dirty", "no /proc");
        return checks.finish();
    }
    private(&mut checks);
    shared(&mut checks);
    rights(&mut checks);
    ends(&mut checks);
    beside(&mut checks);
    if is_quire() {
        faults(&mut checks);
        records(&mut checks);
    }
    checks.finish()
}

fn private(checks: &mut Checks) {
    let at = alone(16, Map::PRIVATE);
    checks.eq(usage(at), pages(0, 0, 0), "nothing was touched");
    // Downwards: no run of pages comes along.
    [12, 9, 6, 3].iter().for_each(|page| poke(at + page * PAGE, 7));
    checks.eq(usage(at), pages(4, 4, 4), "what is written is there, referenced and dirty");
    checks.eq(cold(at, 16), Ok(()), "MADV_COLD");
    checks.eq(usage(at), pages(4, 0, 4), "makes pages old, and keeps them");
    checks.eq(peek(at + 9 * PAGE), 7, "with what they hold");
    checks.eq(usage(at), pages(4, 1, 4), "what is read is referenced again");
    poke(at + 3 * PAGE, 8);
    checks.eq(usage(at), pages(4, 2, 4), "so is what is written");
    checks.eq(cold(at + 3 * PAGE, 1), Ok(()), "a part");
    checks.eq(usage(at), pages(4, 1, 4), "leaves the rest as it is");
    // Written by the kernel, on the program's behalf.
    checks.eq(fs::File::open(c"/init", Open::empty()).is_ok_and(|file| read(&file, at + 3 * PAGE)), true, "read(2)");
    checks.eq(usage(at), pages(4, 2, 4), "leaves its trace too");
    let _ = munmap(at, 16 * PAGE);
}

fn read(file: &fs::File, at: usize) -> bool {
    raw(nr::READ, [file.fd() as usize, at, 8]) == Ok(8)
}

fn shared(checks: &mut Checks) {
    let at = mmap(0, 8 * PAGE, RW, SHARED, -1, 0).unwrap_or(0);
    read_pages(at, 3);
    checks.eq(usage(at), pages(3, 3, 0), "shared memory that was read is clean");
    poke(at + PAGE, 1);
    checks.eq(usage(at), pages(3, 3, 1), "what is written then is dirty");
    poke(at + 5 * PAGE, 1);
    checks.eq(usage(at), pages(4, 4, 2), "and what is written at once");
    checks.eq(cold(at, 8), Ok(()), "MADV_COLD");
    checks.eq(usage(at).dirty, 2, "cleans nothing");
    peek(at + 2 * PAGE);
    checks.eq(usage(at).dirty, 2, "nor does a read dirty anything");
    let done = child(|| {
        poke(at + 2 * PAGE, 3);
        usage(at).dirty as i32
    });
    // (It has not touched the others.)
    checks.eq(done, Ok(process::Status::Exited(1)), "a child dirties one more");
    checks.eq(usage(at).dirty, 3, "which the parent's page is, too, once it is gone");
    checks.eq(peek(at + 2 * PAGE), 3, "with what it wrote");
    let _ = munmap(at, 8 * PAGE);
}

fn rights(checks: &mut Checks) {
    let at = mmap(0, 4 * PAGE, RW, SHARED, -1, 0).unwrap_or(0);
    read_pages(at, 4);
    poke(at, 1);
    checks.eq(mprotect(at, 4 * PAGE, Prot::READ), Ok(()), "without the right to write");
    checks.eq(usage(at), pages(4, 4, 1), "dirty pages stay dirty");
    checks.killed(|| poke(at + PAGE, 9), quire_rt::abi::flags::sig::SEGV, "clean ones cannot be written");
    checks.eq((usage(at).dirty, peek(at + PAGE)), (1, 0), "and are clean");
    checks.eq(mprotect(at, 4 * PAGE, RW), Ok(()), "with the right again");
    checks.eq(usage(at).dirty, 1, "nothing was written by that");
    poke(at + PAGE, 2);
    checks.eq(usage(at).dirty, 2, "a write shows");
    let _ = munmap(at, 4 * PAGE);

    let at = alone(4, Map::PRIVATE);
    (0..4).rev().for_each(|page| poke(at + page * PAGE, 1));
    let _ = (mprotect(at, 4 * PAGE, Prot::READ), mprotect(at, 4 * PAGE, RW));
    checks.eq(usage(at), pages(4, 4, 4), "private pages are dirty before and after");
    checks.exits(|| usage(at).dirty as i32, 4, "and in a child");
    checks.exits(
        || {
            poke(at, 5);
            peek(at + PAGE) as i32 + 16 * usage(at).dirty as i32
        },
        65,
        "which copies one",
    );
    checks.ok((0..4).all(|page| peek(at + page * PAGE) == 1), "that the parent does not see");
    let _ = munmap(at, 4 * PAGE);
}

/// A mapping ends, the pages live on.
fn ends(checks: &mut Checks) {
    let at = mmap(0, 4 * PAGE, RW, SHARED, -1, 0).unwrap_or(0);
    // SAFETY: a mapping of the test's own is mapped a second time.
    let twin = unsafe { mem::mremap(at, 0, 4 * PAGE, Mremap::MAYMOVE, 0) }.unwrap_or(0);
    read_pages(at, 4);
    read_pages(twin, 4);
    poke(twin, 4);
    poke(twin + PAGE, 4);
    checks.eq(munmap(twin, PAGE), Ok(()), "a page's other mapping ends");
    checks.eq(usage(at).dirty, 1, "what was written through it is dirty here");
    // SAFETY: as above: the entries move.
    let moved = unsafe { mem::mremap(twin + PAGE, 3 * PAGE, 3 * PAGE, Mremap::MAYMOVE | Mremap::DONTUNMAP, 0) };
    checks.eq(moved.map(|moved| usage(moved).dirty >= 1), Ok(true), "dirty state moves with a mapping");
    let _ = (munmap(moved.unwrap_or(at), 3 * PAGE), munmap(twin + PAGE, 3 * PAGE));
    checks.eq(usage(at).dirty, 2, "and is left behind by it");
    let _ = munmap(at, 4 * PAGE);
}

/// One thread reads and writes while the other changes the same entries: no write is forgotten.
fn beside(checks: &mut Checks) {
    const PAGES: usize = 512;
    static DONE: AtomicBool = AtomicBool::new(false);
    static BEGUN: AtomicBool = AtomicBool::new(false);
    let at = mmap(0, PAGES * PAGE, RW, SHARED, -1, 0).unwrap_or(0);
    let writer = spawn(move || {
        // (It could be done before the other has begun.)
        while !BEGUN.load(Ordering::Acquire) {
            sched::yield_now();
        }
        for page in 0..PAGES {
            let at = at + page * PAGE;
            peek(at);
            poke(at, 1);
        }
        DONE.store(true, Ordering::Release);
    });
    let mut changes = 0;
    while writer.is_ok() && !DONE.load(Ordering::Acquire) {
        let _ = mprotect(at, PAGES * PAGE, RW | Prot::EXEC);
        let _ = (cold(at, PAGES), mprotect(at, PAGES * PAGE, RW));
        changes += 1;
        BEGUN.store(true, Ordering::Release);
    }
    checks.ok(writer.map(Thread::join).is_ok() && changes > 0, "a thread writes, another changes rights and makes old");
    let dirty = usage(at).dirty;
    let all = PAGES as u64;
    checks.ok(dirty == all || dirty < all && user_tests::is_short(), "all that was written and is in memory is dirty");
    let _ = munmap(at, PAGES * PAGE);
}

/// Access flags are set by the CPU if it can, and by faults otherwise.
fn faults(checks: &mut Checks) {
    let features = |cpu: CpuInfo| if cpu.online == 1 { cpu.features } else { !0 };
    let all = info::records::<CpuInfo>().map(features).fold(!0, |all, own| all & own);
    let by_hardware = |feature: u32| all & feature != 0;
    let at = alone(64, Map::PRIVATE);
    (0..64).rev().for_each(|page| poke(at + page * PAGE, 1));
    let count = |name: &str| info::counter(name).unwrap_or(0);
    let before = count("pgfault_young");
    let _ = cold(at, 64);
    read_pages(at, 64);
    let faults = count("pgfault_young") - before;
    checks.eq(usage(at), pages(64, 64, 64), "64 pages are young again");
    checks.ok((faults < 64) == by_hardware(cpu_feature::ACCESS_FLAG), "by a fault each unless hardware does it");
    let _ = munmap(at, 64 * PAGE);

    let at = mmap(0, 64 * PAGE, RW, SHARED, -1, 0).unwrap_or(0);
    read_pages(at, 64);
    let before = count("pgfault_reuse");
    (0..64).for_each(|page| poke(at + page * PAGE, 1));
    let faults = count("pgfault_reuse") - before;
    checks.eq(usage(at), pages(64, 64, 64), "64 pages are dirty");
    checks.ok((faults < 64) == by_hardware(cpu_feature::DIRTY_STATE), "by a fault each unless hardware does it");
    let _ = munmap(at, 64 * PAGE);
}

/// The records themselves.
fn records(checks: &mut Checks) {
    const TABLES: usize = 40;
    const SPAN: usize = 512 * PAGE;
    let at = map(TABLES * SPAN, RW);
    // SAFETY: a mapping of the test's own.
    let _ = unsafe { mem::madvise(at, TABLES * SPAN, madv::NOHUGEPAGE) };
    (0..TABLES).rev().for_each(|table| poke(at + table * SPAN, 1));
    let part = info::area(0, at).unwrap_or_default();
    checks.ok(part.resident < TABLES as u64 && part.to < part.end, "one answer goes so far");
    let inside = |area: &AreaInfo| (area.start..area.end).contains(&(at as u64));
    let area = info::areas(0).flatten().find(inside).unwrap_or_default();
    checks.ok(area.resident >= TABLES as u64 && area.to == area.end, "many go through an area of any size");
    let _ = munmap(at, TABLES * SPAN);

    let me = process::getpid();
    let all: u64 = info::areas(me as u32).flatten().map(|area| area.resident).sum();
    let process = info::process(me as u32).unwrap_or_default();
    checks.ok(all.abs_diff(process.rss) <= 4, "areas have what the process has");
    let text = info::areas(0).flatten().find(|area| area.flags & vma::EXEC != 0).unwrap_or_default();
    checks.eq(info::text(&text.name), "/tests/dirty", "a file's area has its name");
    checks.ok(text.dirty() == 0 && text.referenced > 0, "and is read, not written");
    checks.ok(info::areas(0).flatten().any(|area| area.flags & vma::STACK != 0), "there is a stack");
    checks.eq(info::areas(1).flatten().next().is_some(), true, "others can be looked at");
    checks.fails(info::area(0, usize::MAX), Errno::ENOENT, "past the last area there is none");
    checks.fails(info::area(0x7fff_ffff, 0), Errno::ESRCH, "nor has nobody any");
    let mut short = AreaInfo::default();
    let args = [kind::AREA, 0, &raw mut short as usize, size_of::<AreaInfo>() - 8, 0];
    checks.fails(raw(nr::QUIRE_INFO, args), Errno::EINVAL, "a record of another size");
}
