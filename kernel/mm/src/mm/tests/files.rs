//! Files in memory: calls and mappings against a model of bytes.

use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::vec;
use std::vec::Vec;

use super::script::Random;
use super::*;
use crate::mm::page_out::{Out, page_out};
use crate::object::file::MAX_LEN;
use crate::object::{Object, ObjectError};
use crate::seeded::{self, Bug};
use crate::sim::mmu::Drain;
use crate::sim::turns;
use crate::supply::Supply;
use quire_abi::flags::{Mremap, madv, setting};

type File = KArc<Object<&'static Sim>>;

/// Pages that the mappings cover.
const PAGES: usize = 24;
const SHARED: usize = 0x4000_0000;
const PRIVATE: usize = 0x5000_0000;
const PLACES: [usize; 2] = [0x6000_0000, 0x7000_0000];

fn map(mm: &Space, file: &File, at: usize, flags: Map) {
    let request = MapRequest {
        addr: at,
        len: PAGES * PAGE,
        prot: RW,
        flags: flags | Map::FIXED,
        object: Some((file.clone(), 0)),
        max_prot: Prot::all(),
    };
    mm.map(&request).unwrap();
}

/// Writes bytes, piece by piece, as a call does that meets a bad address after `most` bytes of a piece.
fn write(rig: &Rig, file: &File, at: u64, bytes: &[u8], most: usize) -> Result<usize, ObjectError> {
    let mut turn = Object::turn(file).unwrap();
    let supply = Supply::new(rig.sim);
    let mut done = 0;
    while done < bytes.len() {
        let left = &bytes[done..];
        let copied = turn.write(at + done as u64, left.len(), &supply, |to, n| {
            let n = n.min(most);
            // SAFETY: the page's bytes, which only this thread touches.
            unsafe { to.copy_from_nonoverlapping(left.as_ptr(), n) };
            n
        });
        match copied {
            Ok(0) => break,
            Ok(n) if n == most && n < PAGE => return Ok(done + n),
            Ok(n) => done += n,
            Err(ObjectError::OutOfMemory) if supply.is_short() && supply.refill().is_ok() => {}
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

fn read(file: &File, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        let left = &mut bytes[done..];
        let most = left.len();
        let copy = |from: *const u8, n: usize| {
            // SAFETY: as for `write`.
            unsafe { from.copy_to_nonoverlapping(left.as_mut_ptr(), n) };
            n
        };
        match file.read(at + done as u64, most, copy) {
            Some(0) => drop(file.bring_in_at(at + done as u64).unwrap()),
            Some(n) => done += n,
            None => break,
        }
    }
    bytes.truncate(done);
    bytes
}

/// What the file should be.
#[derive(Default)]
struct Model {
    bytes: Vec<u8>,
    /// Pages that it has.
    pages: BTreeSet<usize>,
    /// The first bytes of private copies.
    private: BTreeMap<usize, u8>,
}

impl Model {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[at..end].copy_from_slice(bytes);
        self.pages.extend(at / PAGE..end.div_ceil(PAGE));
    }

    fn set_len(&mut self, len: usize) {
        let first = len.div_ceil(PAGE);
        if len <= self.bytes.len() {
            self.pages.retain(|page| *page < first);
        }
        if len < self.bytes.len() {
            self.private.retain(|page, _| *page < first);
        }
        self.bytes.resize(len, 0);
    }

    fn punch(&mut self, start: usize, end: usize) {
        let (first, last) = (start.div_ceil(PAGE), end / PAGE);
        let (from, to) = (start.min(self.bytes.len()), end.min(self.bytes.len()));
        self.bytes[from..to].fill(0);
        self.pages.retain(|page| !(first..last).contains(page));
    }

    fn next_data(&self, at: usize) -> Option<u64> {
        let page = self.pages.range(at / PAGE..).next()?;
        Some(at.max(page * PAGE)).filter(|at| *at < self.bytes.len()).map(|at| at as u64)
    }

    fn next_hole(&self, at: usize) -> u64 {
        let page = (at / PAGE..).find(|page| !self.pages.contains(page)).unwrap_or(0);
        at.max(page * PAGE).min(self.bytes.len()) as u64
    }
}

/// Both sides.
struct Pair {
    rig: Rig,
    file: File,
    model: Model,
    /// The space with the shared mapping, and the one with a private mapping, and a shared one that moves.
    spaces: [Space; 2],
    place: usize,
    stamp: u8,
}

impl Pair {
    fn new() -> Self {
        let rig = Rig::new(64);
        // What frames hold at first shows.
        let blocks: Vec<_> = (0..200).map(|_| rig.sim.pages().alloc_raw(0, crate::page_alloc::Gfp::KERNEL)).collect();
        for pfn in blocks.into_iter().flatten() {
            // SAFETY: the frame is this test's.
            unsafe {
                rig.sim.direct_map(pfn.addr()).write_bytes(0xdd, PAGE);
                rig.sim.pages().free_pages(pfn, 0);
            }
        }
        rig.sim.spaces().swap().init(1 << 12, 1 << 12, 1).unwrap();
        let file = Object::file(rig.sim, 0).unwrap();
        let spaces = [rig.space(), rig.space()];
        Self { rig, file, model: Model::default(), spaces, place: 0, stamp: 0 }
    }

    fn map(&self) {
        map(&self.spaces[0], &self.file, SHARED, Map::SHARED);
        map(&self.spaces[1], &self.file, PRIVATE, Map::PRIVATE);
        map(&self.spaces[1], &self.file, PLACES[0], Map::SHARED);
    }

    /// A byte of a page by a mapping, and what is there by the model; `offset` is 0 for a private one.
    fn touch(&mut self, space: usize, start: usize, page: usize, offset: usize, store: bool) {
        let is_private = start == PRIVATE;
        let there = page * PAGE < self.model.bytes.len();
        let access = if store { Access::Write } else { Access::Read };
        let got = self.rig.touch(0, &self.spaces[space], start + page * PAGE + offset, access);
        let Ok(byte) = got else {
            assert_eq!((got, there), (Err(FaultError::BeyondObject), false), "page {page}");
            return;
        };
        let copy = self.model.private.get(&page).copied().filter(|_| is_private);
        if copy.is_none() {
            self.model.pages.insert(page);
        }
        assert!(there, "page {page} is behind the end");
        let at = page * PAGE + offset;
        // SAFETY: the MMU allows it, and no other thread is there.
        let is = unsafe { byte.read() };
        if let Some(want) = copy.or(self.model.bytes.get(at).copied()) {
            assert_eq!(is, want, "byte {at:#x}, private: {is_private}");
        }
        if store {
            self.stamp = self.stamp.wrapping_add(1).max(1);
            // SAFETY: as above.
            unsafe { byte.write(self.stamp) };
            match self.model.bytes.get_mut(at) {
                _ if is_private => _ = self.model.private.insert(page, self.stamp),
                Some(byte) => *byte = self.stamp,
                None => {}
            }
        }
    }

    /// A page of the file goes to swap, if it is in memory.
    fn take_away(&self, page: usize) {
        if let Some(Ok(pfn)) = self.file.look_at(page) {
            let out = Out { shadow: 3, even_raw: true, if_unused: false, if_given_up: false };
            assert_eq!(page_out(self.rig.sim, pfn, out), Ok(()), "page {page}");
            assert!(self.file.is_swapped(page) && !self.file.is_resident(page));
        }
    }

    /// A random step; `kinds` is 6 for calls only, 12 for all.
    fn step(&mut self, random: &mut Random, kinds: usize) {
        let at = random.below(PAGES * PAGE);
        let at = if random.below(3) == 0 { at / PAGE * PAGE } else { at };
        let most = if random.below(4) == 0 { 5 * PAGE } else { 600 };
        let len = 1 + random.below(most);
        let end = at + if random.below(3) == 0 { len.next_multiple_of(PAGE) } else { len };
        let page = random.below(PAGES);
        (0..random.below(4)).for_each(|_| self.take_away(random.below(PAGES)));
        match random.below(kinds) {
            0..3 => {
                self.stamp = self.stamp.wrapping_add(1).max(1);
                let bytes = vec![self.stamp; end - at];
                let most = if random.below(3) == 0 { random.below(PAGE) } else { PAGE };
                let done = write(&self.rig, &self.file, at as u64, &bytes, most).unwrap();
                assert!(done == bytes.len() || most < PAGE);
                self.model.write(at, &bytes[..done]);
            }
            3 => {
                Object::turn(&self.file).unwrap().set_len(at as u64).unwrap();
                self.model.set_len(at);
            }
            4 => {
                Object::turn(&self.file).unwrap().punch(at as u64, end as u64).unwrap();
                self.model.punch(at, end);
            }
            5 => {
                let mut turn = Object::turn(&self.file).unwrap();
                for page in at / PAGE..end.div_ceil(PAGE) {
                    turn.allocate(page, &Supply::new(self.rig.sim)).unwrap();
                    self.model.pages.insert(page);
                }
            }
            6 => self.touch(0, SHARED, page, at % PAGE, true),
            7 => self.touch(1, PRIVATE, page, 0, random.below(2) == 0),
            8 => self.touch(1, PLACES[self.place], page, at % PAGE, random.below(2) == 0),
            9 => {
                let (from, flags) = (PLACES[self.place], Mremap::MAYMOVE | Mremap::FIXED);
                self.place = 1 - self.place;
                self.spaces[1].remap(from, PAGES * PAGE, PAGES * PAGE, flags, PLACES[self.place]).unwrap();
            }
            10 => {
                let (first, pages) = (at / PAGE, (PAGES - at / PAGE).min(len.div_ceil(PAGE)));
                self.spaces[0].advise(SHARED + first * PAGE, pages * PAGE, madv::REMOVE).unwrap();
                self.model.punch(first * PAGE, (first + pages) * PAGE);
            }
            _ => self.touch(0, SHARED, page, at % PAGE, false),
        }
        self.check(at);
    }

    fn check(&self, at: usize) {
        let len = self.model.bytes.len();
        assert_eq!(self.file.len(), len as u64);
        let all = read(&self.file, 0, len + PAGE);
        assert_eq!(all.len(), len);
        let wrong = all.iter().zip(&self.model.bytes).position(|(is, want)| is != want);
        assert_eq!(wrong, None, "of {len} bytes");
        assert_eq!(self.file.owned_pages(), self.model.pages.len(), "pages");
        let promised = self.rig.sim.spaces().commit().sum() as usize;
        let areas = if self.file.mappings().lock().is_empty() { 0 } else { PAGES };
        assert_eq!(promised, self.model.pages.len() + areas, "promised");
        assert_eq!(self.file.next_data(at as u64), Ok(self.model.next_data(at)));
        let in_swap = (0..PAGES + 8).filter(|page| self.file.is_swapped(*page)).count();
        assert_eq!((in_swap, in_swap), (self.file.swapped_pages(), self.rig.sim.spaces().swap().stats().used));
        if at < len {
            assert_eq!(self.file.next_hole(at as u64), Ok(Some(self.model.next_hole(at))));
        }
    }

    fn end(self) {
        self.spaces.iter().for_each(|mm| mm.validate());
        self.rig.idle(0);
        let Self { rig, file, spaces, .. } = self;
        drop((file, spaces));
        assert_eq!(rig.sim.spaces().swap().stats().used, 0);
        rig.assert_balanced();
        assert_eq!(rig.sim.pages().bad_pages(), 0);
    }
}

/// Some hundred steps, the first ones before it is mapped.
fn run(seed: u64) {
    let mut pair = core::mem::ManuallyDrop::new(Pair::new());
    let mut random = Random::new(seed);
    for step in 0..300 {
        if step == 20 {
            pair.map();
        }
        pair.step(&mut random, if step < 20 { 6 } else { 12 });
    }
    core::mem::ManuallyDrop::into_inner(pair).end();
}

#[test]
fn calls_and_mappings_agree_with_the_model() {
    (1..=25).for_each(run);
    let bugs = [Bug::GrowthShowsStores, Bug::ShortCopyShowsFrame, Bug::TruncateKeepsCopies, Bug::TruncateKeepsTail];
    for bug in bugs.into_iter().chain([Bug::RemoveLeaksSlot, Bug::BringInLeaksSlot]) {
        seeded::switch(Some(bug));
        let noticed = (1..=25).any(|seed| catch_unwind(AssertUnwindSafe(|| run(seed))).is_err());
        seeded::switch(None);
        assert!(noticed, "{bug:?}");
    }
}

/// A file is cut, and becomes longer again, while two spaces bring pages in: whatever they did, all see the same bytes after it, and no
/// page was left behind the end.
fn is_whole_after(seed: u64) -> bool {
    let rig = core::mem::ManuallyDrop::new(Rig::new(16));
    rig.mmu.set_chance(seed, Drain::Late);
    let file = Object::file(rig.sim, 0).unwrap();
    let (mm, other) = (rig.space(), rig.space());
    map(&mm, &file, SHARED, Map::SHARED);
    map(&other, &file, PRIVATE, Map::PRIVATE);
    write(&rig, &file, 0, &[1; 3 * PAGE], PAGE).unwrap();
    if seed.is_multiple_of(2) {
        _ = rig.touch(0, &other, PRIVATE + PAGE, Access::Read);
    }
    let bug = seeded::current();
    let on = |cpu, work: Box<dyn Fn() + Send>| -> turns::Body { body(cpu, bug, work) };
    let (rig_, file_, mm_, other_) = (&*rig, &file, &mm, &other);
    let bodies = [
        on(0, Box::new(move || Object::turn(file_).unwrap().set_len(PAGE as u64).unwrap())),
        on(1, Box::new(move || _ = rig_.touch(1, mm_, SHARED + PAGE, Access::Write))),
        on(2, Box::new(move || _ = rig_.touch(2, other_, PRIVATE + PAGE, Access::Write))),
    ];
    turns::run(seed, 1 + seed as usize % 20, bodies.into());
    Sim::set_cpu(0);
    let is_gone = |mm: &Space, at| rig.touch(0, mm, at, Access::Read).err() == Some(FaultError::BeyondObject);
    let are_gone = is_gone(&mm, SHARED + PAGE) && is_gone(&other, PRIVATE + PAGE);
    let whole = are_gone && file.owned_pages() == 1 && file.next_data(PAGE as u64) == Ok(None);
    (0..3).for_each(|cpu| rig.idle(cpu));
    whole && rig.sim.pages().bad_pages() == 0
}

#[test]
fn nothing_is_left_behind_the_end_beside_faults() {
    assert!((1..300).all(is_whole_after));
    for bug in [Bug::FaultEntersBehindEnd, Bug::RemoveWalksOnce] {
        seeded::switch(Some(bug));
        let noticed = (1..300).any(|seed| !is_whole_after(seed));
        seeded::switch(None);
        assert!(noticed, "{bug:?}");
    }
}

#[test]
fn a_page_may_be_the_last_that_there_is() {
    let rig = Rig::new(64);
    let file = Object::file(rig.sim, 0).unwrap();
    let last = MAX_LEN - 3;
    assert_eq!(write(&rig, &file, last, &[7; 3], PAGE), Ok(3));
    assert_eq!((file.len(), read(&file, last - 1, 10)), (MAX_LEN, vec![0, 7, 7, 7]));
    assert_eq!((file.next_data(0), file.next_hole(0)), (Ok(Some(MAX_LEN - PAGE as u64)), Ok(Some(0))));
    Object::turn(&file).unwrap().punch(PAGE as u64 + 1, MAX_LEN - 1).unwrap();
    assert_eq!((file.owned_pages(), read(&file, last, 10)), (1, vec![0, 0, 7]));
    Object::turn(&file).unwrap().set_len(0).unwrap();
    assert_eq!(file.owned_pages(), 0);
    drop(file);
    rig.assert_balanced();
}

/// Memory ends in the middle of a write: the bytes before that are there.
#[test]
fn a_write_without_memory_ends_where_it_is() {
    let rig = Rig::new(16);
    let file = Object::file(rig.sim, 0).unwrap();
    let bytes: Vec<u8> = (0..32 << 20).map(|at| (at / PAGE) as u8).collect();
    let done = write(&rig, &file, 5, &bytes, PAGE).unwrap();
    assert!(done > 8 << 20 && done < 16 << 20, "{done}");
    assert_eq!(
        (file.len(), write(&rig, &file, file.len(), &[1; PAGE * 2], PAGE)),
        (done as u64 + 5, Err(ObjectError::OutOfMemory))
    );
    assert!(read(&file, 5, done) == bytes[..done]);
    Object::turn(&file).unwrap().set_len(0).unwrap();
    assert_eq!(write(&rig, &file, 0, &[1; PAGE], PAGE), Ok(PAGE));
    drop(file);
    rig.assert_balanced();
}

#[test]
fn no_page_is_made_that_was_not_promised() {
    let rig = Rig::new(64);
    let commit = rig.sim.spaces().commit();
    let file = Object::file(rig.sim, 0).unwrap();
    let mm = rig.space();
    map(&mm, &file, SHARED, Map::SHARED);
    commit.set(setting::OVERCOMMIT_KBYTES, (3 * PAGE) >> 10).unwrap();
    commit.set(setting::OVERCOMMIT_MEMORY, setting::OVERCOMMIT_NEVER).unwrap();
    assert_eq!(write(&rig, &file, 0, &[1; 5 * PAGE], PAGE), Ok(3 * PAGE));
    assert_eq!(write(&rig, &file, 3 * PAGE as u64, &[1; PAGE], PAGE), Err(ObjectError::NoRoom));
    Object::turn(&file).unwrap().set_len(5 * PAGE as u64).unwrap();
    assert_eq!(rig.write(&mm, SHARED + 4 * PAGE, 1), Err(FaultError::BeyondObject));
    Object::turn(&file).unwrap().punch(0, PAGE as u64).unwrap();
    assert_eq!(rig.write(&mm, SHARED + 4 * PAGE, 1), Ok(()));
    rig.idle(0);
    drop((mm, file));
    rig.assert_balanced();
}

#[test]
fn a_read_brings_in_the_neighbours_that_are_there() {
    let rig = Rig::new(64);
    let file = Object::file(rig.sim, 0).unwrap();
    let mm = rig.space();
    map(&mm, &file, PRIVATE, Map::PRIVATE);
    map(&mm, &file, SHARED, Map::SHARED);
    write(&rig, &file, 0, &[1; 5 * PAGE], PAGE).unwrap();
    {
        let mut turn = Object::turn(&file).unwrap();
        turn.punch(2 * PAGE as u64, 3 * PAGE as u64).unwrap();
        // Behind the end.
        turn.allocate(5, &Supply::new(rig.sim)).unwrap();
    }
    let present = |at: usize| [0, 1, 2, 3, 4, 5].map(|n| mm.entry(UserAddr::new(at + n * PAGE)).is_present());
    rig.read(&mm, PRIVATE + PAGE).unwrap();
    assert_eq!(present(PRIVATE), [true, true, false, true, true, false]);
    rig.write(&mm, SHARED + PAGE, 2).unwrap();
    assert_eq!(present(SHARED), [false, true, false, false, false, false]);
    rig.read(&mm, SHARED + 4 * PAGE).unwrap();
    assert_eq!(present(SHARED), [true, true, false, true, true, false]);
    assert_eq!((mm.rss(), file.owned_pages()), (8, 5));
    mm.validate();
    Object::turn(&file).unwrap().set_len(PAGE as u64).unwrap();
    assert_eq!([present(SHARED), present(PRIVATE)], [[true, false, false, false, false, false]; 2]);
    assert_eq!(mm.rss(), 2);
    rig.idle(0);
    drop((mm, file));
    rig.assert_balanced();
}

#[test]
fn those_who_may_write_are_known() {
    let rig = Rig::new(64);
    let file = Object::file(rig.sim, 0).unwrap();
    let writers = || Object::turn(&file).unwrap().has_writers();
    let mm = rig.space();
    map(&mm, &file, PRIVATE, Map::PRIVATE);
    assert!(!writers());
    map(&mm, &file, SHARED, Map::SHARED);
    let child = mm.fork().unwrap();
    mm.unmap(SHARED + PAGE, PAGE).unwrap();
    mm.protect(SHARED, PAGES * PAGE, Prot::READ).unwrap_err();
    assert!(writers());
    mm.unmap(SHARED, PAGES * PAGE).unwrap();
    assert!(writers());
    child.protect(SHARED, PAGES * PAGE, Prot::READ).unwrap();
    assert!(writers(), "mprotect may allow it again");
    child.unmap(SHARED, PAGES * PAGE).unwrap();
    assert!(!writers());
    drop((mm, child, file));
    rig.assert_balanced();
}
