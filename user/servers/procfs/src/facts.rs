//! Queries to the kernel.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::group::GroupInfo;
use quire_abi::info::{CpuInfo, MountInfo, NodeInfo, ProcessInfo, SystemInfo, ZoneInfo};
use quire_abi::layout::{Sysinfo, Utsname};
use quire_abi::pressure::Pressure;
use quire_abi::process::{DescriptorInfo, ProcessDetail, ThreadInfo};
use quire_abi::statistics::{AreaInfo, Counter, PageTypeInfo, SlabCacheInfo, VmallocInfo};

/// The kernel, or a substitute in tests.
pub trait Facts {
    /// The control group with this key.
    fn control_group(&self, key: u64) -> Option<GroupInfo>;
    /// The machine's pressure.
    fn pressure(&self) -> Pressure;
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
    /// All nodes.
    fn nodes(&self) -> Vec<NodeInfo>;
    /// All zones.
    fn zones(&self) -> Vec<ZoneInfo>;
    /// All mounts.
    fn mounts(&self) -> Vec<MountInfo>;
    /// The lines of vmstat.
    fn counters(&self) -> Vec<Counter>;
    /// The process with this number, or else with the next higher one.
    fn process_from(&self, pid: u32) -> Option<ProcessInfo>;
    /// A process in detail.
    fn detail(&self, pid: u32) -> Option<ProcessDetail>;
    /// The thread of a process with this number, or else with the next higher one.
    fn thread_from(&self, pid: u32, tid: u32) -> Option<ThreadInfo>;
    /// The descriptor of a process with this number, or else with the next higher one.
    fn descriptor_from(&self, pid: u32, number: u32) -> Option<DescriptorInfo>;
    /// The first area of a process that ends above an address; its pages are counted only if `is_counted`.
    fn area_from(&self, pid: u32, from: u64, is_counted: bool) -> Option<AreaInfo>;
    /// Reads what exec has placed in a process's memory, from an offset on; returns how many bytes.
    fn text(&self, pid: u32, which: usize, offset: u64, to: &mut [u8]) -> usize;
    /// The record of page types for a zone and a migrate type.
    fn page_type(&self, index: usize) -> Option<PageTypeInfo>;
    /// A slab cache.
    fn slab(&self, index: usize) -> Option<SlabCacheInfo>;
    /// The first area of the kernel's addresses that ends above this address.
    fn vmalloc_from(&self, from: u64) -> Option<VmallocInfo>;
    /// Random bytes.
    fn random(&self) -> [u8; 16];
    /// The bits of `AT_HWCAP`.
    fn features(&self) -> u64;
    /// A setting of the machine.
    fn setting(&self, which: usize) -> u64;
    /// Changes it.
    fn set_setting(&self, which: usize, value: u64) -> Result<(), Errno>;
    /// Compacts all memory.
    fn compact(&self) -> Result<(), Errno>;
    /// Sets the machine's name, or its NIS domain.
    fn set_uname(&self, name: &[u8], is_domain: bool) -> Result<(), Errno>;
    /// The calling process, and its thread.
    fn caller(&self) -> (u32, u32);
    /// Sets a thread's name, NUL-padded.
    fn set_name(&self, tid: u32, name: &[u8; 16]) -> Result<(), Errno>;
    /// Sets the adjustment of a process for the OOM killer, on behalf of a caller that is privileged or not.
    fn set_oom_score_adj(&self, pid: u32, adj: i32, is_privileged: bool) -> Result<(), Errno>;

    /// A process.
    fn process(&self, pid: u32) -> Option<ProcessInfo> {
        self.process_from(pid).filter(|process| process.pid == pid)
    }

    /// A thread of a process.
    fn thread(&self, pid: u32, tid: u32) -> Option<ThreadInfo> {
        self.thread_from(pid, tid).filter(|thread| thread.tid == tid)
    }

    /// A descriptor of a process.
    fn descriptor(&self, pid: u32, number: u32) -> Option<DescriptorInfo> {
        self.descriptor_from(pid, number).filter(|descriptor| descriptor.number == number)
    }

    /// One line of vmstat; 0 if there is no such line.
    fn counter(&self, name: &str) -> u64 {
        self.counters().iter().find(|counter| text(&counter.name) == name).map_or(0, |counter| counter.value)
    }
}

impl dyn Facts + '_ {
    /// The processes with this number or a higher one, by number.
    pub fn processes(&self, from: u32) -> impl Iterator<Item = ProcessInfo> {
        all(from, |from| self.process_from(from), |process| process.pid)
    }

    /// The threads of a process with this number or a higher one.
    pub fn threads(&self, pid: u32, from: u32) -> impl Iterator<Item = ThreadInfo> {
        all(from, move |from| self.thread_from(pid, from), |thread| thread.tid)
    }

    /// The descriptors of a process with this number or a higher one.
    pub fn descriptors(&self, pid: u32, from: u32) -> impl Iterator<Item = DescriptorInfo> {
        all(from, move |from| self.descriptor_from(pid, from), |descriptor| descriptor.number)
    }

    /// The areas of a process that end above an address.
    pub fn areas(&self, pid: u32, from: u64, is_counted: bool) -> impl Iterator<Item = AreaInfo> {
        let mut from = from;
        core::iter::from_fn(move || {
            let area = self.area_from(pid, from, is_counted)?;
            from = area.end;
            Some(area)
        })
    }
}

/// All items that `next` finds, each after the number of the previous one.
fn all<T>(from: u32, next: impl Fn(u32) -> Option<T>, number: impl Fn(&T) -> u32) -> impl Iterator<Item = T> {
    let mut from = Some(from);
    core::iter::from_fn(move || {
        let found = next(from?)?;
        from = number(&found).checked_add(1);
        Some(found)
    })
}

/// The text of a NUL-padded field, up to bytes that are not UTF-8.
pub fn text(field: &[u8]) -> &str {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let field = &field[..end];
    match core::str::from_utf8(field) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&field[..error.valid_up_to()]).unwrap_or(""),
    }
}

/// A number of pages in KiB.
pub const fn kib(pages: u64) -> u64 {
    pages * 4
}

/// Nanoseconds in Linux's ticks for programs, a hundred per second.
pub const fn ticks(nanoseconds: u64) -> u64 {
    nanoseconds / 10_000_000
}
