//! A further arena gives back all memory except its first page, on a system that brings in more pages than are touched.
#![allow(clippy::undocumented_unsafe_blocks)] // The tests keep to the contracts that they test.

mod support;

use quire_malloc::{Malloc, PAGE, Parameter};
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use support::Fake;

/// Size and alignment of a further arena's region.
const REGION: usize = 16 << 20;
/// Pages that the system brings in behind those that are touched.
const AHEAD: usize = 15;
/// A block for which a thread goes to its arena.
const SIZE: usize = 5000;

/// Makes the calling thread one that a further arena serves: it meets another in the first arena, again and again.
fn move_to_a_further_arena(m: &Malloc<Fake>) {
    // Each request grows the break, and nothing goes back before it is asked for.
    assert!(m.set_option(Parameter::TopPad, 0) && m.set_option(Parameter::TrimThreshold, -1));
    let system = m.system();
    for _ in 0..100 {
        let at = thread::scope(|s| {
            system.stall.store(true, SeqCst);
            s.spawn(|| {
                m.malloc(100_000);
                m.thread_exit();
            });
            while system.stall.load(SeqCst) {
                thread::yield_now();
            }
            m.malloc(SIZE)
        });
        // The others stay in the first arena.
        if system.mapped() >= REGION {
            return unsafe { m.free(at) };
        }
    }
    panic!("there is no further arena");
}

/// Uses and frees 200 KB in a further arena, its newest; returns the pages that are in memory now but for the first.
fn used_pages(m: &Malloc<Fake>) -> &[u8] {
    let blocks: Vec<_> = (0..40).map(|_| m.malloc(SIZE)).collect();
    let region = blocks[0] as usize & !(REGION - 1);
    let end = (blocks[39] as usize + SIZE).next_multiple_of(PAGE) + AHEAD * PAGE;
    for at in &blocks {
        assert_eq!(*at as usize & !(REGION - 1), region);
        unsafe { at.write_bytes(0x11, SIZE) };
    }
    blocks.into_iter().for_each(|at| unsafe { m.free(at) });
    let ahead = AHEAD * PAGE;
    unsafe {
        ((end - ahead) as *mut u8).write_bytes(0x22, ahead);
        std::slice::from_raw_parts((region + PAGE) as *const u8, end - region - PAGE)
    }
}

fn in_memory(pages: &[u8]) -> usize {
    pages.chunks(PAGE).filter(|page| page.iter().any(|byte| *byte != 0)).count()
}

#[test]
fn what_was_brought_in_unasked_goes_back_too() {
    let m = Malloc::new(Fake::new());
    move_to_a_further_arena(&m);
    for round in 0..3 {
        let pages = used_pages(&m);
        assert!(in_memory(pages) >= 40 + AHEAD);
        assert!(m.trim(0));
        assert_eq!(in_memory(pages), 0, "round {round}");
        assert!(!m.trim(0), "there is nothing left to give back");
    }
}

#[test]
fn what_one_trim_keeps_the_next_can_give_back() {
    let m = Malloc::new(Fake::new());
    move_to_a_further_arena(&m);
    let pages = used_pages(&m);
    assert!(m.trim(20 * PAGE));
    assert_eq!(in_memory(pages), 20);
    assert!(m.trim(0));
    assert_eq!(in_memory(pages), 0);
}
