//! mallocsig: a signal's handler that uses the heap, wherever it interrupts the program: in the middle of malloc and
//! free too.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::SeqCst};

use quire_rt::abi::flags::sig;
use quire_rt::abi::layout::sa;
use quire_rt::signal::{How, Info, handle, mask, set};
use quire_rt::thread::{Thread, spawn};
use quire_rt::{heap, process};
use user_tests::Checks;

quire_rt::entry!(main);

/// Vectors that the handler keeps from one signal to the next; each holds its own length.
static HELD: [AtomicPtr<Vec<usize>>; 8] = [const { AtomicPtr::new(null_mut()) }; 8];
static SIGNALS: AtomicU64 = AtomicU64::new(0);
/// Blocks allocated in nested calls, which are mappings: nothing else here is large enough for one.
static INSIDE: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicBool = AtomicBool::new(false);

fn main() -> i32 {
    let mut checks = Checks::new();
    let ready = handle(sig::USR1, handler, sa::RESTART, 0);
    checks.ok(ready.is_ok(), "a handler that allocates");
    let before = heap::info().uordblks;
    // Sends and never handles, so that the signals come to this thread.
    let sender = spawn(|| {
        let _ = mask(How::Block, set(&[sig::USR1]));
        while !DONE.load(SeqCst) {
            let _ = process::kill(process::getpid(), sig::USR1);
        }
    });
    checks.ok(sender.is_ok(), "a thread that sends signals");
    let mut mine: Vec<Vec<usize>> = Vec::new();
    let mut seed = 1usize;
    for _ in 0..2_000_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let len = (seed >> 33) % if seed >> 60 == 0 { 4000 } else { 100 };
        if mine.len() > 100 {
            let old = mine.swap_remove((seed >> 40) % 100);
            WRONG.fetch_add(!whole(&old) as u64, SeqCst);
        }
        mine.push(filled(len));
        if INSIDE.load(SeqCst) >= 5 && SIGNALS.load(SeqCst) >= 200 {
            break;
        }
    }
    DONE.store(true, SeqCst);
    sender.into_iter().for_each(Thread::join);
    checks.ok(SIGNALS.load(SeqCst) >= 200, "two hundred signals");
    checks.ok(INSIDE.load(SeqCst) >= 5, "some in the middle of malloc or free");
    checks.ok(mine.iter().all(|vec| whole(vec)), "the program's blocks are whole");
    checks.eq(WRONG.load(SeqCst), 0, "the handler's blocks are whole, freed ones too");
    drop(mine);
    for place in &HELD {
        take(place);
    }
    checks.eq(heap::info().uordblks, before, "nothing is lost");
    checks.ok(heap::validate().is_ok(), "the heap is in order");
    checks.finish()
}

fn filled(len: usize) -> Vec<usize> {
    (0..len).map(|_| len).collect()
}

fn whole(vec: &[usize]) -> bool {
    vec.iter().all(|word| *word == vec.len())
}

/// Frees what a place holds.
fn take(place: &AtomicPtr<Vec<usize>>) {
    let old = place.swap(null_mut(), SeqCst);
    if !old.is_null() {
        // SAFETY: the handler made it with `Box::into_raw`, and the swap has taken it for this caller alone.
        let old = unsafe { Box::from_raw(old) };
        WRONG.fetch_add(!whole(&old) as u64, SeqCst);
    }
}

extern "C" fn handler(_: i32, _: *const Info, _: *mut u8) {
    let n = SIGNALS.fetch_add(1, SeqCst) as usize;
    let mappings = heap::info().hblks;
    let new = Box::new(filled(1 + n % 300));
    INSIDE.fetch_add((heap::info().hblks > mappings) as u64, SeqCst);
    let place = &HELD[n % HELD.len()];
    take(place);
    place.store(Box::into_raw(new), SeqCst);
}
