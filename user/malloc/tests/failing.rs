//! A system that refuses memory at every step of a sequence in turn: the call returns null and nothing is lost.
#![allow(clippy::undocumented_unsafe_blocks)] // The tests keep to the contracts that they test.

mod support;

use quire_malloc::{Malloc, Parameter};
use std::sync::atomic::Ordering::Relaxed;
use support::Fake;

struct Held {
    at: *mut u8,
    size: usize,
}

/// One sequence of calls; counts those that were refused, and checks that refused ones changed nothing.
fn sequence(m: &Malloc<Fake>) -> usize {
    let mut held: Vec<Held> = Vec::new();
    let mut refused = 0;
    let sizes = [40, 700, 5000, 60_000, 200_000, 24, 1_000_000, 90_000, 300, 20_000];
    for (i, &size) in sizes.iter().cycle().take(60).enumerate() {
        let at = match i % 5 {
            0 => m.calloc(1, size),
            1 => m.memalign(1 << (5 + i % 9), size),
            _ => m.malloc(size),
        };
        if at.is_null() {
            refused += 1;
        } else {
            unsafe { at.write_bytes(i as u8, size) };
            held.push(Held { at, size });
        }
        if i % 3 == 2
            && let Some(block) = held.first_mut()
        {
            let first = unsafe { *block.at };
            let to = block.size * 2 + 1;
            let new = unsafe { m.realloc(block.at, to) };
            if new.is_null() {
                refused += 1;
            } else {
                *block = Held { at: new, size: block.size };
            }
            let kept = unsafe { std::slice::from_raw_parts(block.at, block.size) };
            assert!(kept.iter().all(|b| *b == first), "a realloc lost the contents");
        }
        if i % 7 == 6 && !held.is_empty() {
            let block = held.swap_remove(i % held.len());
            unsafe { m.free(block.at) };
        }
    }
    held.into_iter().for_each(|block| unsafe { m.free(block.at) });
    refused
}

fn fails_at_each_step(prepare: impl Fn(&Malloc<Fake>)) {
    let calls = {
        let m = Malloc::new(Fake::new());
        prepare(&m);
        assert_eq!(sequence(&m), 0);
        m.system().calls.load(Relaxed)
    };
    assert!(calls > 10);
    for allowed in 0..calls {
        let m = Malloc::new(Fake::new());
        prepare(&m);
        m.system().budget.store(allowed, Relaxed);
        let refused = sequence(&m);
        assert!(refused > 0 || allowed > 0, "nothing can be had from a system that gives nothing");
        m.validate().unwrap();

        // With memory again everything works, and everything can be given back.
        m.system().budget.store(usize::MAX, Relaxed);
        assert_eq!(sequence(&m), 0, "after failing at call {allowed}");
        m.trim(0);
        m.thread_exit();
        m.trim(0);
        let totals = m.validate().unwrap();
        assert_eq!((totals.used, totals.cached), ((0, 0), (0, 0)), "after failing at call {allowed}");
    }
}

#[test]
fn refusals_come_out_as_null_and_lose_nothing() {
    fails_at_each_step(|_| ());
}

#[test]
fn the_same_with_nothing_but_mappings() {
    fails_at_each_step(|m| {
        m.set_option(Parameter::MmapThreshold, 4096);
    });
}

#[test]
fn the_same_with_nothing_but_the_break() {
    fails_at_each_step(|m| {
        m.set_option(Parameter::MmapMax, 0);
        m.set_option(Parameter::TopPad, 0);
    });
}

#[test]
fn the_same_in_the_guarded_mode() {
    fails_at_each_step(|m| assert!(m.guard()));
}
