//! What is asked of the kernel.

use alloc::vec::Vec;

use quire_abi::info::{CpuInfo, MountInfo, ProcessInfo, SystemInfo, ZoneInfo};
use quire_abi::layout::{Sysinfo, Utsname};
use quire_abi::statistics::{AreaInfo, Counter};

/// The kernel, or what stands for it in tests.
pub trait Facts {
    /// The machine.
    fn system(&self) -> SystemInfo;
    /// Memory and swap.
    fn memory(&self) -> Sysinfo;
    /// Names and versions.
    fn uname(&self) -> Utsname;
    /// Nanoseconds since 1970.
    fn now(&self) -> u64;
    /// All CPUs.
    fn cpus(&self) -> Vec<CpuInfo>;
    /// All zones.
    fn zones(&self) -> Vec<ZoneInfo>;
    /// All mounts.
    fn mounts(&self) -> Vec<MountInfo>;
    /// The lines of vmstat.
    fn counters(&self) -> Vec<Counter>;
    /// All processes, by number.
    fn processes(&self) -> Vec<ProcessInfo>;
    /// The areas of a process.
    fn areas(&self, pid: u32) -> Vec<AreaInfo>;
    /// The process that asks.
    fn caller(&self) -> u32;

    /// A process.
    fn process(&self, pid: u32) -> Option<ProcessInfo>;

    /// One line of vmstat; 0 if there is no such line.
    fn counter(&self, name: &str) -> u64 {
        self.counters().iter().find(|counter| text(&counter.name) == name).map_or(0, |counter| counter.value)
    }
}

/// The text of a NUL-padded field; bytes that are no UTF-8 end it.
pub fn text(field: &[u8]) -> &str {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let field = &field[..end];
    match core::str::from_utf8(field) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&field[..error.valid_up_to()]).unwrap_or(""),
    }
}

/// KiB of a number of pages.
pub const fn kib(pages: u64) -> u64 {
    pages * 4
}

/// Linux's ticks for programs, a hundred a second, of nanoseconds.
pub const fn ticks(nanoseconds: u64) -> u64 {
    nanoseconds / 10_000_000
}
