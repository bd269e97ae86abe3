//! cgroup: serves the kernel's control groups, as Linux's cgroup2, at the path that it is started with.

#![no_std]
#![no_main]

use quire_cgroupfs::facts::Facts;
use quire_cgroupfs::serve::serve;
use quire_rt::abi::group::{GroupInfo, op};
use quire_rt::abi::pressure::Pressure;
use quire_rt::ipc::{self, Receiver};
use quire_rt::{Errno, args, eprintln, fs, group, info, time};

quire_rt::entry!(main);

/// The time of day.
const REALTIME: i32 = 0;

fn main() -> i32 {
    match start() {
        Ok(receiver) => quire_servers::serve("cgroup", receiver, |_, request, room| serve(&Kernel, request, room)),
        Err(error) => {
            eprintln!("cgroup: {error}");
            1
        }
    }
}

fn start() -> Result<Receiver, Errno> {
    let receiver = Receiver::new()?;
    let path = args().nth(1).ok_or(Errno::EINVAL)?;
    let sender = receiver.sender(0)?;
    fs::mount(path, sender, c"cgroup2")?;
    ipc::close(sender.0)?;
    Ok(receiver)
}

/// The kernel this runs on.
struct Kernel;

impl Facts for Kernel {
    fn group_from(&self, number: u32) -> Option<GroupInfo> {
        info::record(number as usize).ok()
    }
    fn pressure(&self, key: u64) -> Pressure {
        info::record(key as usize).unwrap_or_default()
    }
    fn find(&self, parent: u64, name: &[u8]) -> Option<u64> {
        group::named(op::FIND, parent, name).ok()
    }
    fn make(&self, parent: u64, name: &[u8]) -> Result<(), Errno> {
        group::named(op::MAKE, parent, name).map(drop)
    }
    fn remove(&self, key: u64) -> Result<(), Errno> {
        group::change(op::REMOVE, key, 0, 0).map(drop)
    }
    fn set(&self, key: u64, what: usize, value: u64) -> Result<(), Errno> {
        group::change(op::SET, key, what as u64, value).map(drop)
    }
    fn move_to(&self, key: u64, pid: u32) -> Result<(), Errno> {
        group::change(op::MOVE, key, pid.into(), 0).map(drop)
    }
    fn kill(&self, key: u64) -> Result<(), Errno> {
        group::change(op::KILL, key, 0, 0).map(drop)
    }
    fn thread_from(&self, pid: u32, tid: u32) -> Option<u32> {
        info::thread_from(pid, tid).ok().map(|thread| thread.tid)
    }
    fn reclaim(&self, key: u64, pages: u64) -> Result<u64, Errno> {
        group::change(op::RECLAIM, key, pages, 0)
    }
    fn process_from(&self, pid: u32) -> Option<(u32, u64)> {
        info::process_from(pid).ok().map(|process| (process.pid, process.control_group))
    }
    fn caller(&self) -> u32 {
        ipc::caller(0).map_or(0, |caller| caller.pid)
    }
    fn now(&self) -> u64 {
        time::nanoseconds(REALTIME)
    }
}
