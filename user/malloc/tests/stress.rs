//! Eight threads that allocate, check, hand blocks to each other, and end, over and over.
#![allow(clippy::undocumented_unsafe_blocks)] // The tests keep to the contracts that they test.

mod support;

use quire_malloc::{Malloc, Parameter};
use std::sync::Mutex;
use std::thread;
use support::Fake;

const THREADS: usize = 8;

/// A block on its way: its bytes are all the low byte of `mark`.
struct Parcel {
    at: *mut u8,
    size: usize,
    mark: u8,
}

unsafe impl Send for Parcel {}

impl Parcel {
    fn make(m: &Malloc<Fake>, random: &mut u64) -> Parcel {
        let r = next(random);
        let size = match r & 15 {
            0..=8 => (r >> 8) % 300,
            9..=13 => (r >> 8) % 3000,
            14 => (r >> 8) % 40_000,
            _ => (r >> 8) % 300_000,
        } as usize;
        let mark = (r >> 40) as u8;
        let at = match r >> 60 {
            0 => m.calloc(1, size),
            1 => m.memalign(16 << ((r >> 50) % 9), size),
            _ => m.malloc(size),
        };
        assert!(!at.is_null());
        unsafe { at.write_bytes(mark, size) };
        Parcel { at, size, mark }
    }

    fn check(&self) {
        let bytes = unsafe { std::slice::from_raw_parts(self.at, self.size) };
        assert!(bytes.iter().all(|b| *b == self.mark), "somebody wrote into a block of {} bytes", self.size);
    }

    fn grow(&mut self, m: &Malloc<Fake>, random: &mut u64) {
        let size = 1 + next(random) as usize % (2 * self.size + 64);
        self.check();
        self.at = unsafe { m.realloc(self.at, size) };
        self.size = self.size.min(size);
        self.check();
        self.size = size;
        unsafe { self.at.write_bytes(self.mark, size) };
    }

    fn free(self, m: &Malloc<Fake>) {
        self.check();
        unsafe { m.free(self.at) };
    }
}

fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

fn work(m: &Malloc<Fake>, table: &[Mutex<Option<Parcel>>], seed: u64, turns: usize) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for turn in 0..turns {
        let slot = &table[next(&mut random) as usize % table.len()];
        let new = (!next(&mut random).is_multiple_of(4)).then(|| Parcel::make(m, &mut random));
        let old = std::mem::replace(&mut *slot.lock().unwrap(), new);
        if let Some(mut old) = old {
            if next(&mut random).is_multiple_of(8) {
                old.grow(m, &mut random);
            }
            old.free(m);
        }
        if turn % 1000 == 999 && seed.is_multiple_of(3) {
            m.trim(0);
        }
    }
    m.thread_exit();
}

fn stress(m: &Malloc<Fake>, rounds: u64, turns: usize) {
    let table: Vec<_> = (0..600).map(|_| Mutex::new(None)).collect();
    for round in 0..rounds {
        thread::scope(|s| {
            for t in 0..THREADS as u64 {
                let table = &table;
                s.spawn(move || work(m, table, 1 + t + 100 * round, turns));
            }
        });
        m.validate().unwrap();
    }
    table.into_iter().filter_map(|slot| slot.into_inner().unwrap()).for_each(|parcel| parcel.free(m));
    m.trim(0);
    m.thread_exit();
    m.trim(0);
    let totals = m.validate().unwrap();
    assert_eq!((totals.used, totals.cached), ((0, 0), (0, 0)), "something was lost");
}

#[test]
fn eight_threads_keep_out_of_each_others_blocks() {
    stress(&Malloc::new(Fake::new()), 3, 3000);
}

#[test]
fn eight_threads_share_one_arena() {
    let m = Malloc::new(Fake::new());
    assert!(m.set_option(Parameter::ArenaMax, 1));
    stress(&m, 1, 3000);
}

/// The first arena's size. Every other arena counts as a region of 16 MiB, whatever of that was ever touched.
fn first_arena(m: &Malloc<Fake>) -> usize {
    m.info().arena % (16 << 20)
}

/// What one short-lived thread does; returns the heap's size when it holds most.
fn short_life(m: &Malloc<Fake>, number: usize) -> usize {
    let blocks: Vec<_> = (0..200).map(|i| m.malloc(16 + (i * 37 + number) % 900)).collect();
    let most = first_arena(m);
    blocks.into_iter().for_each(|at| unsafe { m.free(at) });
    m.thread_exit();
    most
}

#[test]
fn short_lived_threads_leave_nothing_behind() {
    let m = Malloc::new(Fake::new());
    let need = thread::scope(|s| s.spawn(|| short_life(&m, 0)).join().unwrap());
    for _ in 0..40 {
        thread::scope(|s| {
            for t in 0..THREADS {
                let m = &m;
                s.spawn(move || short_life(m, t));
            }
        });
        assert_eq!(m.validate().unwrap().used, (0, 0));
        let now = first_arena(&m);
        assert!(now <= THREADS * need, "{now} bytes, where one thread needs {need}, and no block is alive");
    }
    m.trim(0);
    assert!(first_arena(&m) <= 4096, "{} bytes", first_arena(&m));
}
