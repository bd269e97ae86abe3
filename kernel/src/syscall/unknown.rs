//! Calls that there are not: ENOSYS, and a line in the log, once a program and call.
//!
//! A program is known by the path that was executed, so neither its threads nor its children nor its next run say it again. What was
//! said is kept in a table of [`SLOTS`] words, a hash each; where it is full, an old entry is overwritten and may be said
//! once more. Numbers without a name count as one call. A thread remembers its last one, so that asking again is cheap.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::{Errno, linux};

use super::Answer;
use crate::task::thread::{Thread, current};

const SLOTS: usize = 256;

/// Places that a hash may have, from its own on.
const PROBES: usize = 8;

static SAID: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

/// A call that is not in the table.
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

/// Enters a pair; answers whether it was not there.
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
