//! CPUs: which one runs this thread, which ones may, and how soon.

use quire_abi::layout::SchedAttr;
use quire_abi::{Errno, nr};

use crate::sys;

/// Lets others run.
pub fn yield_now() {
    let _ = sys::plain!(nr::SCHED_YIELD);
}

/// The CPU that this thread runs on now.
pub fn getcpu() -> Result<u32, Errno> {
    let mut cpu = 0u32;
    // SAFETY: the kernel writes one word.
    unsafe { sys::call(nr::GETCPU, [&raw mut cpu as usize, 0, 0]) }?;
    Ok(cpu)
}

/// Sets this thread's nice value. If `alone`, its children begin with 0 if the value is below that.
pub fn set_nice(nice: i32, alone: bool) -> Result<(), Errno> {
    const RESET_ON_FORK: u64 = 1;
    let flags = if alone { RESET_ON_FORK } else { 0 };
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, flags, nice, ..SchedAttr::default() };
    // SAFETY: the kernel reads one record.
    unsafe { sys::call(nr::SCHED_SETATTR, [0, &raw const attr as usize, 0]) }.map(drop)
}

/// The nice value of this thread.
pub fn nice() -> i32 {
    // (The call returns 20 minus the value, so that the result is not negative.)
    sys::plain!(nr::GETPRIORITY, 0, 0).map_or(0, |found| 20 - found as i32)
}

/// Restricts a thread (0: this one) to the CPUs of a set; bit n is CPU n.
pub fn set_affinity(tid: i32, cpus: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads one word.
    unsafe { sys::call(nr::SCHED_SETAFFINITY, [tid as usize, size_of::<u64>(), &raw const cpus as usize]) }.map(drop)
}

/// The CPUs that a thread (0: this one) may run on, the first 1024 at most.
pub fn affinity(tid: i32) -> Result<[u64; 16], Errno> {
    let mut cpus = [0u64; 16];
    // SAFETY: the kernel writes at most the size given.
    unsafe { sys::call(nr::SCHED_GETAFFINITY, [tid as usize, size_of_val(&cpus), cpus.as_mut_ptr() as usize]) }?;
    Ok(cpus)
}

/// How many CPUs this thread may run on, at least one.
pub fn cpu_count() -> u32 {
    affinity(0).map_or(1, |cpus| cpus.iter().map(|word| word.count_ones()).sum::<u32>().max(1))
}
