//! Unknown calls: ENOSYS, and one line in the log per program and call.
//!
//! A program is identified by the executed path, so its threads, its children and its next run do not repeat the line.
//! The pairs logged are kept in a table of [`SLOTS`] words, one hash each; when it is full, an old entry is
//! overwritten, and its line may appear again. Numbers without a name count as one call. A thread remembers its last
//! unknown call, so that repeating it is cheap.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::{Errno, linux};

use super::Answer;
use crate::task::thread::{Thread, current};

const SLOTS: usize = 256;

/// Slots probed for a hash, from its own on.
const PROBES: usize = 8;

static SAID: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

/// Handles a call that is not in the dispatch table.
#[inline]
pub fn call(nr: usize) -> Answer {
    let thread = current();
    if thread.unknown_call.load(Ordering::Relaxed) != nr {
        thread.unknown_call.store(nr, Ordering::Relaxed);
        say(thread, nr);
    }
    Err(Errno::ENOSYS)
}

#[cold]
fn say(thread: &Thread, nr: usize) {
    let process = thread.process();
    let name = linux::call_name(nr);
    let named = if name.is_some() { nr as u64 + 1 } else { 0 };
    if is_new(process.program.load(Ordering::Relaxed), named) {
        let program = *process.name.lock();
        let program = program.split(|&b| b == 0).next().unwrap_or(&[]).escape_ascii();
        let tid = thread.tid();
        match name {
            Some(name) => log::info!("{program}[{tid}]: no such call: {name} ({nr})"),
            None => log::info!("{program}[{tid}]: no such call: {nr}"),
        }
    }
}

/// Inserts a pair; returns whether it is new.
fn is_new(program: u64, call: u64) -> bool {
    // Fibonacci hashing; an entry is never 0, which is an empty slot.
    let hash = (program ^ call.wrapping_mul(0xff51_afd7_ed55_8ccd)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let first = (hash >> 56) as usize;
    for probe in 0..PROBES {
        let slot = &SAID[(first + probe) % SLOTS];
        match slot.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(there) if there == hash => return false,
            Err(_) => {}
        }
    }
    SAID[first].swap(hash, Ordering::Relaxed) != hash
}
