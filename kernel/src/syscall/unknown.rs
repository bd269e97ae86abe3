//! Unknown calls: ENOSYS, and one line in the log per program and call.
//!
//! For some of these calls Linux checks whether the caller is root before it examines the arguments: here they return
//! EPERM to other callers, so that programs which have given up their rights behave as they do there. Root gets ENOSYS
//! for them too: their functions are available through handles (a file system is mounted with `QUIRE_MOUNT`) or the
//! kernel's arguments (`swap=`), so any other error would be misleading.
//!
//! A program is identified by the executed path, so its threads, its children and its next run do not repeat the line.
//! The logged calls of each program are recorded as bits, for [`PROGRAMS`] programs; if there are more, one is
//! forgotten, and its lines may appear again. Numbers without a name count as one call. A thread remembers its last
//! unknown call, so that repeating it is cheap.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::nr::LINUX_END;
use quire_abi::{Errno, linux};

use super::Answer;
use crate::task::credentials::{Privilege, require};
use crate::task::thread::{Thread, current};

/// Programs that are remembered.
const PROGRAMS: usize = 128;

/// How many slots may hold a program, from the one of its hash on.
const PROBES: usize = 8;

/// The number of words of bits: one bit for each of Linux's numbers, and one for those without a name.
const WORDS: usize = LINUX_END / 64 + 1;

/// umount2, mount, pivot_root, chroot, vhangup, acct, kexec_load, init_module, delete_module, swapon, swapoff,
/// finit_module, kexec_file_load, move_mount, fsopen, fsmount and fspick. (Linux checks for root in other calls only
/// after it has examined the arguments.)
const OF_ROOT: [usize; 17] = [39, 40, 41, 51, 58, 89, 104, 105, 106, 224, 225, 273, 294, 429, 430, 432, 433];

struct Program {
    /// Its hash, which is not 0.
    id: AtomicU64,
    said: [AtomicU64; WORDS],
}

static SAID: [Program; PROGRAMS] =
    [const { Program { id: AtomicU64::new(0), said: [const { AtomicU64::new(0) }; WORDS] } }; PROGRAMS];

/// Handles a call that is not in the dispatch table.
#[inline]
pub fn call(nr: usize) -> Answer {
    let thread = current();
    if OF_ROOT.contains(&nr) {
        require(thread.process(), Privilege::UnknownCall)?;
    }
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
    let call = if name.is_some() && nr < LINUX_END { nr } else { LINUX_END };
    if is_new(process.program.load(Ordering::Relaxed), call) {
        let program = *process.name.lock();
        let program = program.split(|&b| b == 0).next().unwrap_or(&[]).escape_ascii();
        let tid = thread.tid();
        match name {
            Some(name) => log::info!("{program}[{tid}]: no such call: {name} ({nr})"),
            None => log::info!("{program}[{tid}]: no such call: {nr}"),
        }
    }
}

/// Records a call of a program; returns whether it is its first one.
fn is_new(program: u64, call: usize) -> bool {
    // Fibonacci hashing; 0 stands for no program.
    let id = program.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let first = (id >> 32) as usize;
    let places = (0..PROBES).map(|probe| &SAID[(first + probe) % PROGRAMS]);
    let place = places.clone().find(|place| {
        let there = place.id.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed);
        there.is_ok() || there == Err(id)
    });
    let place = place.unwrap_or_else(|| {
        let place = &SAID[first % PROGRAMS];
        place.id.store(id, Ordering::Relaxed);
        place.said.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        place
    });
    let bit = 1 << (call % 64);
    place.said[call / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0
}
