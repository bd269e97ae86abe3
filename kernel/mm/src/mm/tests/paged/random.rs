//! Random scripts against a vector of bytes, and threads side by side.

use core::mem::ManuallyDrop;
use std::string::String;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use quire_abi::flags::{Mremap, madv};

use super::super::script::Random;
use super::*;
use crate::frame;
use crate::mm::migrate;
use crate::sim::mmu::Drain;

/// Pages that the mappings cover.
const PAGES: usize = 24;
const PRIVATE: usize = 0x6000_0000;

/// A scene, and what the file should be.
struct Pair {
    scene: Scene,
    want: Vec<u8>,
    /// One maps it at [`AT`], the other at [`THERE`], or elsewhere, and privately.
    spaces: [Space; 2],
    place: usize,
    stamp: u8,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let rig = Rig::new(16);
        rig.mmu.set_chance(seed, if seed.is_multiple_of(2) { Drain::Late } else { Drain::AtChance });
        if seed.is_multiple_of(3) {
            rig.sim.spaces().set_hardware_updates();
            rig.mmu.stir(seed);
        }
        // What frames hold at first shows.
        let blocks: Vec<_> = (0..300).map(|_| rig.sim.pages().alloc_raw(0, crate::page_alloc::Gfp::KERNEL)).collect();
        for pfn in blocks.into_iter().flatten() {
            // SAFETY: the frame is this test's.
            unsafe {
                rig.sim.direct_map(pfn.addr()).write_bytes(0xdd, PAGE);
                rig.sim.pages().free_pages(pfn, 0);
            }
        }
        let want = pages(seed as usize % 9, 37 * seed as usize % PAGE);
        let scene = Scene::on(rig, want.clone());
        let spaces = [scene.space(), scene.space()];
        scene.map(&spaces[0], AT, PAGES, Map::SHARED);
        scene.map(&spaces[1], THERE, PAGES, Map::SHARED);
        scene.map(&spaces[1], PRIVATE, PAGES, Map::PRIVATE);
        Self { scene, want, spaces, place: THERE, stamp: 0 }
    }

    fn stamp(&mut self) -> u8 {
        self.stamp = self.stamp.wrapping_add(1).max(1);
        self.stamp
    }

    /// A word or a byte of a page by a mapping.
    fn touch(&mut self, space: usize, va: usize, at: usize, store: bool) {
        let access = if store { Access::Write } else { Access::Read };
        let got = self.scene.rig.touch(0, &self.spaces[space], va + at, access);
        let is_there = at < self.want.len().next_multiple_of(PAGE);
        let Ok(byte) = got else {
            assert_eq!((got, is_there), (Err(FaultError::BeyondObject), false), "{at:#x}");
            return;
        };
        assert!(is_there, "{at:#x} is behind the end");
        if let Some(want) = self.want.get(at) {
            // SAFETY: the MMU allows it, and no other thread is there.
            assert_eq!(unsafe { byte.read() }, *want, "{at:#x}");
        }
        if store {
            let stamp = self.stamp();
            // SAFETY: as above.
            unsafe { byte.write(stamp) };
            if let Some(byte) = self.want.get_mut(at) {
                *byte = stamp;
            }
        }
    }

    fn write(&mut self, at: usize, len: usize, most: usize) {
        let stamp = self.stamp();
        let room = self.scene.disk.lock().room;
        let old = self.want.len();
        let done = write(self.scene.rig.sim, &self.scene.file, at as u64, &vec![stamp; len], most);
        let can = match (at + len > old, at + len <= room) {
            (false, _) | (_, true) => len,
            // What fits in, and what is there already.
            _ => room.max(old).saturating_sub(at).min(len),
        };
        match done {
            Ok(done) => {
                assert!(done == can || done < can && most < PAGE, "{done} of {can}");
                if done != 0 {
                    self.want.resize(old.max(at + done), 0);
                    self.want[at..at + done].fill(stamp);
                }
            }
            Err(error) => assert_eq!((error, can), (Errno::ENOSPC, 0)),
        }
    }

    fn step(&mut self, random: &mut Random) {
        let at = random.below(PAGES * PAGE);
        let at = if random.below(3) == 0 { at / PAGE * PAGE } else { at };
        let most = if random.below(4) == 0 { 18 * PAGE } else { 600 };
        let len = 1 + random.below(most);
        let page = random.below(PAGES);
        let sim = self.scene.rig.sim;
        match random.below(16) {
            0 | 1 => self.write(at, len, if random.below(3) == 0 { random.below(PAGE) } else { usize::MAX }),
            2 | 3 => self.write(self.want.len(), len.min(PAGES * PAGE), usize::MAX),
            4 if random.below(2) == 0 => {
                if self.scene.disk.lock().room >= at {
                    self.scene.set_len(at).unwrap();
                    self.want.resize(at, 0);
                }
            }
            4 | 5 => {
                let (from, flags) = (self.place, Mremap::MAYMOVE | Mremap::FIXED);
                self.place = if from == THERE { THERE + 0x100_0000 } else { THERE };
                self.spaces[1].remap(from, PAGES * PAGE, PAGES * PAGE, flags, self.place).unwrap();
            }
            6 | 7 => self.touch(0, AT, at, true),
            8 => self.touch(1, self.place, at, true),
            9 => self.touch(1, [self.place, PRIVATE][random.below(2)], at, false),
            10 => {
                self.scene.write_back().unwrap();
                assert_eq!((self.scene.marked(), self.scene.disk.bytes() == self.want), (vec![], true));
            }
            11 => {
                if let Some(Ok(pfn)) = self.scene.file.look_at(page) {
                    let moved = migrate(sim, pfn, || frame::alloc_to_move(sim));
                    assert!(moved.is_ok(), "{moved:?}");
                }
            }
            12 => {
                let marked = self.scene.file.marked_pages();
                assert_eq!(self.scene.drop_cache(), marked);
            }
            13 => {
                if let Some(Ok(pfn)) = self.scene.file.look_at(page) {
                    let want = if self.scene.file.is_marked(page) { Err(Stays::Marked) } else { Ok(()) };
                    assert_eq!(page_out(sim, pfn, OUT), want);
                }
            }
            14 => {
                let (mm, va) = if random.below(2) == 0 { (&self.spaces[0], AT) } else { (&self.spaces[1], self.place) };
                let pages = 1 + random.below(PAGES - page);
                match random.below(4) {
                    0 => mm.advise(va + page * PAGE, pages * PAGE, madv::DONTNEED).unwrap(),
                    1 => drop(mm.fork().unwrap()),
                    2 => assert_eq!(mm.advise(va, pages * PAGE, madv::REMOVE), Err(Errno::EOPNOTSUPP)),
                    _ => {
                        let (start, len) = (va + page * PAGE, pages * PAGE);
                        mm.protect(start, len, Prot::READ).unwrap();
                        if random.below(2) == 0 {
                            self.scene.write_back().unwrap();
                        }
                        mm.protect(start, len, RW).unwrap();
                    }
                }
            }
            _ => self.fail(random, at, len),
        }
        match random.below(8) {
            0 => self.check(),
            n => self.compare((page * PAGE).min(self.want.len()), n * PAGE),
        }
    }

    /// Something that goes wrong, and leaves the file as it was.
    fn fail(&mut self, random: &mut Random, at: usize, len: usize) {
        let error = [Errno::EINTR, Errno::ENOMEM, Errno::ENOSPC][random.below(3)];
        match random.below(4) {
            0 => {
                let marked = self.scene.marked();
                self.scene.disk.lock().refuses = Some(error);
                assert_eq!(self.scene.write_back().is_err(), !marked.is_empty());
                assert_eq!(self.scene.set_len(self.want.len() + 1), Err(error));
                self.scene.disk.lock().refuses = None;
                assert_eq!(self.scene.marked(), marked);
            }
            1 => {
                // A read that is killed, or fails, and one that is not.
                self.scene.disk.lock().unreadable = Some((at / PAGE, Errno::EIO));
                let got = self.scene.read(at, len);
                assert!(matches!(got, Ok(_) | Err(ObjectError::Refused(Errno::EIO))), "{got:?}");
                self.scene.disk.lock().unreadable = None;
            }
            2 => {
                let room = self.want.len() + random.below(PAGE);
                self.scene.disk.lock().room = room;
                self.write(at, len, usize::MAX);
                self.scene.disk.lock().room = usize::MAX;
            }
            _ => {
                // A call that makes it longer is killed: what it did is learned later.
                self.scene.disk.lock().ends = Some(Errno::EINTR);
                let (stamp, old) = (self.stamp(), self.want.len());
                let done =
                    write(self.scene.rig.sim, &self.scene.file, old as u64, &vec![stamp; len.min(PAGE)], usize::MAX);
                assert_eq!(done, Err(Errno::EINTR));
                self.scene.disk.lock().ends = None;
                Object::turn(&self.scene.file).unwrap().agree().unwrap();
                let more = self.scene.disk.lock().bytes.len() - old;
                self.want.resize(old + more, stamp);
            }
        }
    }

    fn check(&self) {
        self.scene.check();
        self.compare(0, self.want.len() + PAGE);
    }

    fn compare(&self, at: usize, len: usize) {
        assert_eq!(self.scene.file.len(), self.want.len() as u64);
        let want = &self.want[at..(at + len).min(self.want.len())];
        let is = self.scene.read(at, len).unwrap();
        if is != want {
            let wrong = is.iter().zip(want).position(|(is, want)| is != want);
            panic!("{} bytes, not {}, at {at:#x}; the first wrong one: {wrong:?}", is.len(), want.len());
        }
    }

    fn end(self) {
        self.scene.write_back().unwrap();
        assert!(self.scene.disk.bytes() == self.want);
        self.spaces.iter().for_each(|mm| mm.validate());
        self.scene.rig.idle(0);
        drop(self.spaces);
        assert_eq!(self.scene.drop_cache(), 0);
        self.scene.end();
    }
}

fn run(seed: u64) {
    let mut pair = ManuallyDrop::new(Pair::new(seed));
    let mut random = Random::new(seed);
    (0..150).for_each(|_| pair.step(&mut random));
    crate::sim::mmu::Mmu::calm();
    ManuallyDrop::into_inner(pair).end();
}

#[test]
fn calls_and_mappings_agree_with_the_model() {
    let failed: Vec<(u64, String)> =
        (1..=25).filter_map(|seed| Some((seed, turns::text_of(&catch_unwind(|| run(seed)).err()?)))).collect();
    crate::sim::mmu::Mmu::calm();
    assert_eq!(failed, []);
    let bugs =
        [Bug::StoreIsNotMarked, Bug::WriteBackLeavesEntries, Bug::WriteBackForgetsFlush, Bug::FailedWriteBackForgets];
    for bug in bugs {
        seeded::switch(Some(bug));
        let noticed = (1..=25).any(|seed| catch_unwind(AssertUnwindSafe(|| run(seed))).is_err());
        crate::sim::mmu::Mmu::calm();
        seeded::switch(None);
        assert!(noticed, "{bug:?}");
    }
}

/// Threads of their own, each with bytes of its own, by calls and by mappings, beside one who writes back, lets pages go, and moves them: all
/// that they have written is on the disk in the end.
#[test]
fn threads_lose_nothing() {
    const THREADS: usize = 3;
    const LEN: usize = 40 * PAGE;
    let scene = Scene::on(Rig::new(64), vec![0; LEN]);
    let (mm, other) = (scene.space(), scene.space());
    scene.map(&mm, AT, 40, Map::SHARED);
    scene.map(&other, AT, 40, Map::SHARED);
    let is_over = AtomicBool::new(false);
    let (file, sim) = (&scene.file, scene.rig.sim);
    let written = thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|me| {
                let mm = if me % 2 == 0 { &mm } else { &other };
                scope.spawn(move || {
                    let mut random = Random::new(me as u64 + 1);
                    let mut mine = vec![0_u64; LEN / 8];
                    for n in 1..1500_u64 {
                        // Each has every THREADS-th word.
                        let word = random.below(LEN / 8 / THREADS) * THREADS + me;
                        mine[word] = n;
                        if random.below(4) == 0 {
                            Sim::set_cpu(me);
                            store_word(sim, file, word * 8, n);
                            continue;
                        }
                        // (A hold, since the page may go as soon as the access is over.)
                        Sim::set_cpu(me);
                        let held = mm.pin(AT + word * 8, true).unwrap();
                        // SAFETY: held for writing; all accesses to the word are to an atomic.
                        unsafe { &*held.as_ptr().cast::<AtomicU64>() }.store(n, Ordering::Relaxed);
                    }
                    mine
                })
            })
            .collect();
        let is_over = &is_over;
        scope.spawn(move || {
            Sim::set_cpu(THREADS);
            let mut random = Random::new(99);
            while !is_over.load(Ordering::SeqCst) {
                match random.below(8) {
                    0 => Object::turn(file).unwrap().write_back().unwrap(),
                    1 => drop(read(file, random.below(LEN) as u64 & !7, 1)),
                    n => {
                        if let Some(Ok(pfn)) = file.look_at(random.below(40)) {
                            match n {
                                2..5 => _ = migrate(sim, pfn, || frame::alloc_to_move(sim)),
                                _ => _ = page_out(sim, pfn, OUT),
                            }
                        }
                    }
                }
            }
        });
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        is_over.store(true, Ordering::SeqCst);
        written.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    });
    scene.write_back().unwrap();
    assert_eq!(scene.marked(), []);
    let disk = scene.disk.bytes();
    for (n, bytes) in disk.chunks(8).enumerate() {
        let want = written[n % THREADS][n];
        assert_eq!(u64::from_ne_bytes(bytes.try_into().unwrap()), want, "word {n}");
    }
    assert_eq!(scene.read(0, LEN).unwrap(), disk);
    [&mm, &other].iter().for_each(|mm| mm.validate());
    drop((mm, other));
    assert_eq!(scene.drop_cache(), 0);
    scene.end();
}

/// One word by a call, as an atomic.
fn store_word(sim: &'static Sim, file: &File, at: usize, value: u64) {
    let mut turn = Object::turn(file).unwrap();
    let supply = Supply::new(sim);
    let copied = turn.write(at as u64, 8, &supply, |to, n| {
        // SAFETY: the page's bytes; all accesses to the word are to an atomic.
        unsafe { &*to.cast::<AtomicU64>() }.store(value, Ordering::Relaxed);
        n
    });
    assert_eq!(copied, Ok(8));
    turn.commit().unwrap();
}
