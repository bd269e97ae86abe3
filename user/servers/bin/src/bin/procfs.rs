//! procfs: serves what the kernel knows of processes and memory, as Linux's /proc, at the path that it is started with.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use quire_procfs::facts::Facts;
use quire_procfs::serve::serve;
use quire_rt::abi::info::{CpuInfo, MountInfo, ProcessInfo, SystemInfo, ZoneInfo};
use quire_rt::abi::layout::{Sysinfo, Utsname};
use quire_rt::abi::statistics::{AreaInfo, Counter};
use quire_rt::ipc::{self, Receiver};
use quire_rt::{Errno, args, eprintln, fs, info, time};

quire_rt::entry!(main);

/// The time of day.
const REALTIME: i32 = 0;

fn main() -> i32 {
    match start() {
        Ok(receiver) => quire_servers::serve("procfs", receiver, |_, request, room| serve(&Kernel, request, room)),
        Err(error) => {
            eprintln!("procfs: {error}");
            1
        }
    }
}

fn start() -> Result<Receiver, Errno> {
    let receiver = Receiver::new()?;
    let sender = receiver.sender(0)?;
    fs::mount(args().nth(1).ok_or(Errno::EINVAL)?, sender, c"proc")?;
    ipc::close(sender.0)?;
    Ok(receiver)
}

/// The kernel this runs on.
struct Kernel;

impl Facts for Kernel {
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
    fn zones(&self) -> Vec<ZoneInfo> {
        info::records().collect()
    }
    fn mounts(&self) -> Vec<MountInfo> {
        info::records().collect()
    }
    fn counters(&self) -> Vec<Counter> {
        info::records().collect()
    }
    fn processes(&self) -> Vec<ProcessInfo> {
        info::records().collect()
    }
    fn process(&self, pid: u32) -> Option<ProcessInfo> {
        info::records().find(|process: &ProcessInfo| process.pid == pid)
    }
    fn areas(&self, pid: u32) -> Vec<AreaInfo> {
        info::areas(pid).map_while(Result::ok).collect()
    }
    fn caller(&self) -> u32 {
        ipc::caller(0).map_or(0, |caller| caller.pid)
    }
}
