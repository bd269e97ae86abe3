//! cgroup: serves the kernel's control groups, like Linux's cgroup2, at the path with which it is started.
//!
//! Work whose time depends on a group's number of pages or processes is done while another thread serves the next
//! requests: a thread that begins such work starts another one if none is left, up to [`MOST`] in total. Threads are
//! never ended.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering::*};

use quire_cgroupfs::facts::Facts;
use quire_cgroupfs::serve::serve;
use quire_rt::abi::group::{GroupInfo, op, set};
use quire_rt::abi::pressure::Pressure;
use quire_rt::ipc::{self, Receiver};
use quire_rt::{Errno, args, eprintln, fs, group, info, sched, thread, time};

quire_rt::entry!(main);

/// The time of day.
const REALTIME: i32 = 0;

/// Threads that serve, at most.
const MOST: u32 = 8;

/// The number of threads, and the number of those that do no long work.
static ALL: AtomicU32 = AtomicU32::new(1);
static FREE: AtomicU32 = AtomicU32::new(1);

fn main() -> i32 {
    match start() {
        Ok(receiver) => run(receiver),
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

fn run(receiver: Receiver) -> i32 {
    quire_servers::serve("cgroup", receiver, |_, request, room| serve(&Kernel(receiver), request, room))
}

/// The kernel on which this runs, and the source of requests.
struct Kernel(Receiver);

impl Kernel {
    /// Does work that may take long, while other requests are served.
    fn at_length<T>(&self, work: impl FnOnce() -> T) -> T {
        if FREE.fetch_sub(1, AcqRel) == 1 {
            self.start_another();
        }
        let done = work();
        FREE.fetch_add(1, AcqRel);
        done
    }

    /// The same, at low priority: it takes time from programs.
    fn modestly<T>(&self, work: impl FnOnce() -> T) -> T {
        self.at_length(|| {
            let own = sched::nice();
            let _ = sched::set_nice(own.max(0), false);
            let done = work();
            let _ = sched::set_nice(own, false);
            done
        })
    }

    fn start_another(&self) {
        let receiver = self.0;
        let may = |all: u32| (all < MOST).then_some(all + 1);
        if ALL.fetch_update(AcqRel, Acquire, may).is_err() {
            return;
        }
        FREE.fetch_add(1, AcqRel);
        // (If memory is lacking for one, requests wait.)
        if thread::spawn(move || _ = run(receiver)).is_err() {
            FREE.fetch_sub(1, AcqRel);
            ALL.fetch_sub(1, AcqRel);
        }
    }
}

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
        let set = || group::change(op::SET, key, what as u64, value).map(drop);
        // (A limit below the usage reclaims pages; freezing notifies all processes.)
        match what {
            set::MAX | set::HIGH => self.modestly(set),
            set::FREEZES => self.at_length(set),
            _ => set(),
        }
    }
    fn move_to(&self, key: u64, pid: u32) -> Result<(), Errno> {
        group::change(op::MOVE, key, pid.into(), 0).map(drop)
    }
    fn kill(&self, key: u64) -> Result<(), Errno> {
        self.at_length(|| group::change(op::KILL, key, 0, 0).map(drop))
    }
    fn thread_from(&self, pid: u32, tid: u32) -> Option<u32> {
        info::thread_from(pid, tid).ok().map(|thread| thread.tid)
    }
    fn reclaim(&self, key: u64, pages: u64) -> Result<u64, Errno> {
        self.modestly(|| group::change(op::RECLAIM, key, pages, 0))
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
