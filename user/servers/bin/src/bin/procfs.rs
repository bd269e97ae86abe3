//! procfs: serves what the kernel knows about processes, memory and CPUs, like Linux's /proc and /sys, at the paths
//! with which it is started.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use quire_procfs::facts::Facts;
use quire_procfs::names::{System, Tree};
use quire_procfs::out::Marks;
use quire_procfs::serve::serve;
use quire_rt::abi::group::GroupInfo;
use quire_rt::abi::info::{CpuInfo, MountInfo, NodeInfo, ProcessInfo, SystemInfo, ZoneInfo};
use quire_rt::abi::layout::{Sysinfo, Utsname, at};
use quire_rt::abi::pressure::Pressure;
use quire_rt::abi::process::{DescriptorInfo, ProcessDetail, ThreadInfo};
use quire_rt::abi::statistics::{AreaInfo, Counter, PageTypeInfo, SlabCacheInfo, VmallocInfo};
use quire_rt::ipc::{self, Receiver};
use quire_rt::{Errno, args, eprintln, fs, info, time};

quire_rt::entry!(main);

/// The time of day.
const REALTIME: i32 = 0;

fn main() -> i32 {
    match start() {
        Ok(receiver) => {
            let mut marks = Marks::default();
            quire_servers::serve("procfs", receiver, |badge, request, room| {
                let system = if badge == SYS { System::Sys } else { System::Proc };
                serve(&Tree(&Kernel, system), &mut marks, request, room)
            })
        }
        Err(error) => {
            eprintln!("procfs: {error}");
            1
        }
    }
}

fn start() -> Result<Receiver, Errno> {
    let receiver = Receiver::new()?;
    let systems = [(PROC, c"proc"), (SYS, c"sysfs")];
    let mut paths = args().skip(1);
    for (badge, kind) in systems {
        let Some(path) = paths.next() else { break };
        let sender = receiver.sender(badge)?;
        fs::mount(path, sender, kind)?;
        ipc::close(sender.0)?;
    }
    Ok(receiver)
}

/// The badges of the file systems.
const PROC: u64 = 0;
const SYS: u64 = 1;

/// The kernel this runs on.
struct Kernel;

impl Facts for Kernel {
    fn pressure(&self) -> Pressure {
        info::record(0).unwrap_or_default()
    }
    fn control_group(&self, key: u64) -> Option<GroupInfo> {
        info::record::<GroupInfo>((key & 0xffff) as usize).ok().filter(|group| group.key == key)
    }
    fn system(&self) -> SystemInfo {
        info::system().unwrap_or_default()
    }
    fn memory(&self) -> Sysinfo {
        info::sysinfo().unwrap_or_default()
    }
    fn uname(&self) -> Utsname {
        info::uname().unwrap_or_default()
    }
    fn now(&self) -> u64 {
        time::nanoseconds(REALTIME)
    }
    fn cpus(&self) -> Vec<CpuInfo> {
        info::records().collect()
    }
    fn nodes(&self) -> Vec<NodeInfo> {
        info::records().collect()
    }
    fn zones(&self) -> Vec<ZoneInfo> {
        info::records().collect()
    }
    fn mounts(&self) -> Vec<MountInfo> {
        info::records().collect()
    }
    fn counters(&self) -> Vec<Counter> {
        info::records().collect()
    }
    fn process_from(&self, pid: u32) -> Option<ProcessInfo> {
        info::process_from(pid).ok()
    }
    fn detail(&self, pid: u32) -> Option<ProcessDetail> {
        info::detail(pid).ok()
    }
    fn thread_from(&self, pid: u32, tid: u32) -> Option<ThreadInfo> {
        info::thread_from(pid, tid).ok()
    }
    fn descriptor_from(&self, pid: u32, number: u32) -> Option<DescriptorInfo> {
        info::descriptor_from(pid, number).ok()
    }
    fn area_from(&self, pid: u32, from: u64, is_counted: bool) -> Option<AreaInfo> {
        match is_counted {
            true => info::areas_from(pid, from as usize).next()?.ok(),
            false => info::area(pid, from as usize).ok(),
        }
    }
    fn text(&self, pid: u32, which: usize, offset: u64, to: &mut [u8]) -> usize {
        usize::try_from(offset).ok().and_then(|offset| info::process_text(pid, which, offset, to).ok()).unwrap_or(0)
    }
    fn page_type(&self, index: usize) -> Option<PageTypeInfo> {
        info::record(index).ok()
    }
    fn slab(&self, index: usize) -> Option<SlabCacheInfo> {
        info::record(index).ok()
    }
    fn vmalloc_from(&self, from: u64) -> Option<VmallocInfo> {
        info::vmalloc_from(from as usize).ok()
    }
    fn random(&self) -> [u8; 16] {
        info::random_bytes().unwrap_or_default()
    }
    fn features(&self) -> u64 {
        quire_rt::start::auxv(at::HWCAP).unwrap_or(0)
    }
    fn setting(&self, which: usize) -> u64 {
        info::setting(which, None).map_or(0, |value| value as u64)
    }
    fn set_setting(&self, which: usize, value: u64) -> Result<(), Errno> {
        info::setting(which, Some(value as usize)).map(drop)
    }
    fn compact(&self) -> Result<(), Errno> {
        info::compact().map(drop)
    }
    fn set_uname(&self, name: &[u8], is_domain: bool) -> Result<(), Errno> {
        info::set_uname(name, is_domain)
    }
    fn caller(&self) -> (u32, u32) {
        ipc::caller(0).map_or((0, 0), |caller| (caller.pid, caller.tid))
    }
    fn set_name(&self, tid: u32, name: &[u8; 16]) -> Result<(), Errno> {
        info::set_thread_name(tid, name)
    }
    fn set_oom_score_adj(&self, pid: u32, adj: i32, is_privileged: bool) -> Result<(), Errno> {
        info::set_oom_score_adj(pid, adj, is_privileged)
    }
}
