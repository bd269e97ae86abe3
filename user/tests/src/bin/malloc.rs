//! malloc: the heap of programs, through the global allocator: single blocks, memory returned to the system, and
//! threads that exchange blocks and fork meanwhile.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use quire_rt::abi::statistics::vma;
use quire_rt::sync::Mutex;
use quire_rt::thread::{Thread, spawn};
use quire_rt::{Errno, heap, info, mem, process, time};
use user_tests::{Checks, PAGE};

quire_rt::entry!(main);

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// What each arena but the first takes from the system at a time.
const REGION: usize = 16 * MIB;
/// Pages that such an arena keeps when all of it is free. An arena stays once it is made, and so does the first page of
/// its region: the arena's own record, and the header of the one chunk that is the rest of the region.
const ARENA_KEEPS: u64 = 1;

fn main() -> i32 {
    let mut checks = Checks::new();
    sizes(&mut checks);
    resizing(&mut checks);
    zeroes(&mut checks);
    mappings(&mut checks);
    giving_back(&mut checks);
    exchange(&mut checks);
    churn(&mut checks);
    forks(&mut checks);
    checks.finish()
}

/// A block whose bytes all follow from `mark`.
struct Block {
    at: *mut u8,
    layout: Layout,
    mark: u64,
}

// SAFETY: a block is its holder's alone, whatever thread that is.
unsafe impl Send for Block {}

impl Block {
    /// A block with its payload, or `None` if there is no memory. Zeroed ones are checked to be so.
    fn new(size: usize, align: usize, mark: u64, zeroed: bool) -> Option<Block> {
        let layout = Layout::from_size_align(size.max(1), align).ok()?;
        // SAFETY: the size is not 0.
        let at = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
        let block = Block { at, layout, mark };
        if at.is_null() || zeroed && !block.holds(layout.size(), 0) {
            return None;
        }
        block.fill(mark);
        Some(block)
    }

    fn sized(size: usize) -> Option<Block> {
        Block::new(size, 1, size as u64 ^ 0x55, false)
    }

    fn addr(&self) -> usize {
        self.at as usize
    }

    fn fill(&self, mark: u64) {
        let pattern = pattern(mark);
        let (words, rest) = (self.layout.size() / 8, self.layout.size() % 8);
        // SAFETY: the block is alive, this thread's, and as large as its layout says.
        unsafe {
            (0..words).for_each(|i| self.at.cast::<u64>().add(i).write_unaligned(pattern));
            self.at.add(8 * words).copy_from_nonoverlapping(pattern.to_ne_bytes().as_ptr(), rest);
        }
    }

    /// Whether the first `len` bytes are those of `mark`.
    fn holds(&self, len: usize, mark: u64) -> bool {
        let (pattern, words) = (pattern(mark), len / 8);
        let bytes = pattern.to_ne_bytes();
        // SAFETY: the block is alive, this thread's, and at least `len` bytes of it are written.
        unsafe {
            (0..words).all(|i| self.at.cast::<u64>().add(i).read_unaligned() == pattern)
                && (0..len % 8).all(|i| *self.at.add(8 * words + i) == bytes[i])
        }
    }

    /// Whether its contents are intact and it is as large and aligned as requested.
    fn good(&self) -> bool {
        // SAFETY: the block is alive.
        let usable = unsafe { heap::usable_size(self.at) };
        self.addr().is_multiple_of(self.layout.align().max(16))
            && usable >= self.layout.size()
            && self.holds(self.layout.size(), self.mark)
    }

    /// Changes the size; returns whether the common part was kept.
    fn resize(&mut self, size: usize) -> bool {
        // SAFETY: the block is alive and of this layout, and neither size is 0.
        let at = unsafe { realloc(self.at, self.layout, size) };
        let Ok(layout) = Layout::from_size_align(size, self.layout.align()) else { return false };
        if at.is_null() {
            return false;
        }
        let common = size.min(self.layout.size());
        (self.at, self.layout) = (at, layout);
        let kept = self.holds(common, self.mark);
        self.fill(self.mark);
        kept
    }

    /// Frees it; returns whether its contents were intact until then.
    fn done(self) -> bool {
        self.good()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if !self.at.is_null() {
            // SAFETY: the block is alive and of this layout.
            unsafe { dealloc(self.at, self.layout) };
        }
    }
}

/// Zero for the mark 0, else eight bytes of which a shifted or foreign copy is noticed.
fn pattern(mark: u64) -> u64 {
    mark.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn all_good(blocks: &[Option<Block>]) -> bool {
    blocks.iter().all(|block| block.as_ref().is_some_and(Block::good))
}

/// Whether no two blocks share a byte.
fn disjoint(blocks: &[Option<Block>]) -> bool {
    let mut ranges: Vec<_> = blocks.iter().flatten().map(|block| (block.addr(), block.layout.size())).collect();
    ranges.sort_unstable();
    ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0)
}

fn sizes(checks: &mut Checks) {
    let blocks: Vec<_> = (1..=1200).map(Block::sized).collect();
    checks.ok(all_good(&blocks), "blocks of 1 to 1200 bytes: alignment, room, contents");
    checks.ok(disjoint(&blocks), "no two share a byte");
    drop(blocks);
    let blocks: Vec<_> = (10..=20)
        .flat_map(|power| [-1, 0, 1].map(|d| Block::sized((1usize << power).wrapping_add_signed(d))))
        .collect();
    checks.ok(all_good(&blocks) && disjoint(&blocks), "sizes around the powers of two to 1 MiB");
    drop(blocks);
    let blocks: Vec<_> = (0..=16)
        .flat_map(|power| [1, 100, 5000].map(|size| Block::new(size, 1 << power, size as u64 + power, false)))
        .collect();
    checks.ok(all_good(&blocks) && disjoint(&blocks), "alignments of 1 to 64 KiB");
    drop(blocks);
    let none = Layout::from_size_align(isize::MAX as usize - 4096, 16).map(|layout| {
        // SAFETY: the size is not 0. The compiler must not take a block that nobody uses for one that exists.
        core::hint::black_box(unsafe { alloc(layout) })
    });
    checks.ok(none.is_ok_and(|at| at.is_null()), "more than there is: null");
    checks.ok(heap::validate().is_ok(), "the heap is in order");
}

fn resizing(checks: &mut Checks) {
    let Some(mut block) = Block::sized(40_000) else { return checks.ok(false, "a block") };
    let at = block.addr();
    let kept = block.resize(10_000);
    checks.ok(kept && block.addr() == at, "a block shrinks where it is");
    let kept = block.resize(30_000);
    checks.ok(kept && block.addr() == at, "and grows into what it gave up");
    let Some(fence) = Block::sized(40_000) else { return checks.ok(false, "a block") };
    let kept = block.resize(100_000);
    checks.ok(kept && block.addr() != at && fence.good(), "with a neighbour it moves, and its contents with it");
    let mut right = block.done() && fence.done();
    let Some(mut block) = Block::sized(1) else { return checks.ok(false, "a block") };
    for size in (2..300).chain((300..40_000).step_by(997)).chain((1..3000).rev().step_by(7)) {
        right &= block.resize(size) && block.good();
    }
    checks.ok(right && block.done(), "up and down in small steps");
    let Some(mut block) = Block::new(5000, 4096, 9, false) else { return checks.ok(false, "a block") };
    let right = block.resize(20_000) && block.good() && block.resize(100) && block.good();
    checks.ok(right, "an aligned block stays aligned");
}

fn zeroes(checks: &mut Checks) {
    let mut right = true;
    for size in [1, 24, 500, 1032, 5000, 64_000, 100_000, 300_000] {
        for round in 0..3 {
            let dirty: Vec<_> = (0..4).map(|_| Block::new(size, 1, u64::MAX - round, false)).collect();
            right &= all_good(&dirty);
            drop(dirty);
            let clean: Vec<_> = (0..4).map(|_| Block::new(size, 1, round + 1, true)).collect();
            right &= all_good(&clean);
        }
    }
    checks.ok(right, "zeroed blocks are zero where others have been");
    let aligned = (0..4).all(|_| {
        drop(Block::new(3000, 1024, 7, false));
        Block::new(3000, 1024, 7, true).is_some_and(Block::done)
    });
    checks.ok(aligned, "aligned ones too");
}

/// Whether the page of an address is mapped.
fn is_mapped(addr: usize) -> bool {
    mem::mincore(addr & !(PAGE - 1), PAGE, &mut [0]) != Err(Errno::ENOMEM)
}

fn mappings(checks: &mut Checks) {
    heap::trim();
    let before = heap::info();
    let layout = Layout::new::<[u8; 40 * MIB]>();
    // SAFETY: the size is not 0.
    let huge = unsafe { alloc_zeroed(layout) };
    checks.ok(!huge.is_null() && heap::info().hblks == before.hblks + 1, "40 MiB are a mapping of their own");
    if !huge.is_null() {
        // SAFETY: within the block; then it is freed once.
        unsafe {
            huge.write(1);
            huge.add(layout.size() - 1).write(1);
            dealloc(huge, layout);
        }
    }
    checks.ok(!is_mapped(huge as usize) && !is_mapped(huge as usize + 20 * MIB), "which goes when it is freed");

    let Some(mut block) = Block::sized(3 * MIB) else { return checks.ok(false, "a block") };
    let wanted = heap::info().hblks == before.hblks + 1;
    let right = block.resize(5 * MIB) && block.good() && block.resize(2 * MIB) && block.good();
    checks.ok(wanted && right, "a mapped block grows and shrinks");
    let info = heap::info();
    checks.ok(info.hblkhd - before.hblkhd < 3 * MIB, "and holds no more than it needs");
    let right = block.resize(500) && block.good();
    checks.ok(right && heap::info().hblks == before.hblks, "it becomes a small one");
    let Some(block) = Block::sized(4 * MIB + 7) else { return checks.ok(false, "a block") };
    let at = block.addr();
    let right = block.done();
    heap::trim();
    checks.ok(right && !is_mapped(at + MIB), "the spare mapping goes when the heap is trimmed");
    checks.eq(heap::info().hblks, before.hblks, "no mapping is left");
}

/// Pages that the heap and the stacks of threads have, in memory or swapped; `None` on a system that does not say.
/// Mappings of the program's file and the main stack do not count: they grow with the code that runs and the depth of
/// calls.
fn pages() -> Option<u64> {
    let mut pages = 0;
    for area in info::areas(0) {
        let area = area.ok()?;
        if area.flags & (vma::OBJECT | vma::STACK) == 0 && info::text(&area.name).is_empty() {
            pages += area.resident + area.swapped;
        }
    }
    Some(pages)
}

/// The pages and regions that a trimmed heap keeps.
struct Kept {
    pages: Option<u64>,
    /// Regions of arenas other than the first. Their number depends on contention between threads.
    regions: usize,
}

impl Kept {
    /// Trims the heap, and measures it.
    fn after_trim() -> Kept {
        heap::trim();
        Kept { pages: pages(), regions: heap::info().arena / REGION }
    }

    /// Checks that a heap with the same blocks as before keeps no more pages than before, except for those that each
    /// new arena keeps.
    #[track_caller]
    fn check_again(&self, checks: &mut Checks, what: &str) {
        let now = Kept::after_trim();
        let (Some(before), Some(pages)) = (self.pages, now.pages) else {
            return checks.skip(what, "the system does not say");
        };
        let new = now.regions.saturating_sub(self.regions) as u64;
        checks.eq(pages.saturating_sub(before + new * ARENA_KEEPS), 0, what);
    }
}

/// The end of the data segment.
fn segment_end() -> usize {
    // SAFETY: a query changes nothing.
    unsafe { mem::brk(0) }
}

fn giving_back(checks: &mut Checks) {
    let (before, end, used) = (Kept::after_trim(), segment_end(), heap::info().uordblks);
    let blocks: Vec<_> = (0..2000).map(|i| Block::sized(1100 + i)).collect();
    let bytes: usize = blocks.iter().flatten().map(|block| block.layout.size()).sum();
    checks.ok(all_good(&blocks) && segment_end() >= end + bytes, "4 MiB in small blocks come from the segment");
    if let (Some(before), Some(now)) = (before.pages, pages()) {
        checks.ok(now >= before + (bytes / PAGE) as u64, "and are resident");
    } else {
        checks.skip("and are resident", "the system does not say");
    }
    drop(blocks);
    heap::trim();
    checks.ok(segment_end() <= end + 64 * KIB, "the segment shrinks once they are freed");
    before.check_again(checks, "and their pages are free");
    checks.eq(heap::info().uordblks, used, "no block is left");

    let mut blocks: Vec<_> = (0..500).map(|_| Block::sized(8 * KIB)).collect();
    let full = pages();
    let last = blocks.pop();
    drop(blocks);
    heap::trim();
    match (full, pages()) {
        (Some(full), Some(now)) => checks.ok(now + 900 <= full, "free pages below a living block are given back"),
        _ => checks.skip("free pages below a living block are given back", "the system does not say"),
    }
    checks.ok(last.flatten().is_some_and(Block::done), "and that block is whole");
}

/// A small generator: the same blocks in every run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 8) as usize % end
    }

    /// Mostly small ones, some zeroed, some aligned.
    fn block(&mut self) -> Option<Block> {
        let size = match self.below(64) {
            0..40 => self.below(300),
            40..58 => self.below(3000),
            58..63 => self.below(40_000),
            _ => self.below(300_000),
        };
        let (kind, mark) = (self.below(16), self.next());
        let align = if kind == 1 { 16 << self.below(9) } else { 1 };
        Block::new(size, align, mark, kind == 0)
    }
}

type Table = [Mutex<Option<Block>>];

/// Puts new blocks in the table's places and frees what was there; returns how many blocks were damaged.
fn trade(table: &Table, seed: u64, turns: usize) -> u64 {
    let mut random = Random::new(seed);
    let mut wrong = 0;
    for _ in 0..turns {
        let new = if random.below(4) == 0 {
            None
        } else {
            random.block().or_else(|| {
                wrong += 1;
                None
            })
        };
        let old = core::mem::replace(&mut *table[random.below(table.len())].lock(), new);
        if let Some(mut old) = old {
            if random.below(8) == 0 {
                let size = 1 + random.below(2 * old.layout.size() + 64);
                wrong += !(old.good() && old.resize(size)) as u64;
            }
            wrong += !old.done() as u64;
        }
    }
    wrong
}

/// Runs `threads` of `work`, each with its number, until they end; returns their number and the sum of their results.
fn together(threads: usize, work: impl Fn(u64) -> u64 + Send + Sync + 'static) -> (usize, u64) {
    let shared = Arc::new((work, AtomicU64::new(0)));
    let started: Vec<Thread> = (0..threads as u64)
        .filter_map(|number| {
            let shared = shared.clone();
            spawn(move || {
                shared.1.fetch_add((shared.0)(number), SeqCst);
            })
            .ok()
        })
        .collect();
    let count = started.len();
    started.into_iter().for_each(Thread::join);
    (count, shared.1.load(SeqCst))
}

fn exchange(checks: &mut Checks) {
    let (before, used) = (Kept::after_trim(), heap::info().uordblks);
    let table: Arc<Table> = (0..600).map(|_| Mutex::new(None)).collect();
    for (round, what) in
        ["two threads exchange blocks", "four do", "eight do", "and other eight"].into_iter().enumerate()
    {
        let threads = [2, 4, 8, 8][round];
        let table = table.clone();
        let result = together(threads, move |number| trade(&table, 1 + number + 100 * round as u64, 8000 / threads));
        checks.eq(result, (threads, 0), what);
        checks.ok(heap::validate().is_ok(), "the heap is in order");
    }
    let left = table.iter().filter_map(|place| place.lock().take());
    checks.ok(left.fold(true, |right, block| right & block.done()), "what is left in the end is whole");
    drop(table);
    heap::trim();
    checks.eq(heap::info().uordblks, used, "nothing is lost");
    checks.eq(
        heap::validate().map(|totals| totals.cached.0),
        Ok(0),
        "nothing is kept in caches of threads that are gone",
    );
    before.check_again(checks, "and the pages are given back");
}

/// One short-lived thread; returns the heap's size at its peak, or 0 if something is wrong.
fn short_life(number: u64) -> u64 {
    let blocks: Vec<_> = (0..100).map(|i| Block::sized(16 + (i * 37 + number as usize) % 900)).collect();
    if all_good(&blocks) { first_arena() as u64 } else { 0 }
}

/// The size of the first arena. Every other one counts with its regions, whatever of those was ever touched.
fn first_arena() -> usize {
    heap::info().arena % REGION
}

fn churn(checks: &mut Checks) {
    let (kept, before) = (Kept::after_trim(), first_arena());
    let (_, alone) = together(1, short_life);
    let need = (alone as usize).saturating_sub(before);
    checks.ok((48 * KIB..MIB).contains(&need), "a short-lived thread needs some memory");
    heap::trim();
    let (mut wrong, mut largest) = (0, 0);
    for _ in 0..20 {
        let (count, bad) = together(8, |number| (short_life(number) == 0) as u64);
        wrong += bad + (8 - count) as u64;
        largest = largest.max(first_arena());
    }
    checks.eq(wrong, 0, "a hundred and sixty short-lived threads, eight at a time");
    checks.ok(largest <= before + 8 * need, "never leave more in the heap than eight at once need");
    heap::trim();
    checks.ok(first_arena() <= before + 64 * KIB, "and nothing there once it is trimmed");
    kept.check_again(checks, "in any arena: their pages are free");
}

fn forks(checks: &mut Checks) {
    let stop = Arc::new(AtomicU64::new(0));
    let wrong = Arc::new(AtomicU64::new(0));
    let table: Arc<Table> = (0..100).map(|_| Mutex::new(None)).collect();
    let threads: Vec<Thread> = (0..4)
        .filter_map(|number| {
            let (stop, wrong, table) = (stop.clone(), wrong.clone(), table.clone());
            spawn(move || {
                let mut seed = number;
                while stop.load(SeqCst) == 0 {
                    seed += 4;
                    wrong.fetch_add(trade(&table, seed, 20), SeqCst);
                }
            })
            .ok()
        })
        .collect();
    checks.eq(threads.len(), 4, "four threads use the heap while the fifth forks");
    let mine: Vec<_> = (0..50).map(|i| Block::sized(100 + 90 * i)).collect();
    let mut good = 0;
    for round in 0..12 {
        // At an arbitrary point of the others' work.
        time::sleep_ms(1 + round % 4);
        let status = user_tests::child(|| {
            let inherited = all_good(&mine);
            // In the child the table's slots may be locked for ever, so it makes a table of its own.
            let table: Arc<Table> = (0..40).map(|_| Mutex::new(None)).collect();
            let alone = trade(&table, round, 100);
            let (count, bad) = together(2, move |number| trade(&table, number, 50));
            heap::trim();
            !(inherited && alone + bad == 0 && count == 2 && heap::validate().is_ok()) as i32
        });
        good += (status == Ok(process::Status::Exited(0))) as u32;
    }
    checks.eq(good, 12, "each child uses the heap, alone and with threads of its own");
    stop.store(1, SeqCst);
    threads.into_iter().for_each(Thread::join);
    checks.eq(wrong.load(SeqCst), 0, "the parent's threads saw nothing wrong");
    checks.ok(all_good(&mine), "nor did the parent");
    let left = table.iter().filter_map(|place| place.lock().take());
    checks.ok(left.fold(true, |right, block| right & block.done()) && heap::validate().is_ok(), "its heap is in order");
}
