//! The machine: its names, its log and its power, with Linux's calls.

use core::sync::atomic::{AtomicUsize, Ordering};

use log::LevelFilter;
use quire_abi::Errno;
use quire_abi::flags::{reboot as cmd, syslog as action};
use quire_abi::layout::{Sysinfo, Utsname};
use quire_mm::UserAddr;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::load;
use quire_mm::sync::Rank;

use super::{Answer, Args, statistics};
use crate::arch::{timer, uaccess};
use crate::boot::info;
use crate::console::log as kernel_log;
use crate::power;
use crate::task::credentials::{Privilege, require};
use crate::task::point::resched_point;
use crate::task::thread::current;
use crate::task::wait::{self, Sleep};
use crate::vm::{Cpu, SPACES, SpinLock};

/// The maximum length of a name in bytes, without its NUL.
const NAME: usize = 64;

type Name = [u8; NAME + 1];

const fn name(text: &str) -> Name {
    let mut bytes = [0; NAME + 1];
    let mut i = 0;
    while i < text.len() && i < NAME {
        bytes[i] = text.as_bytes()[i];
        i += 1;
    }
    bytes
}

/// The machine's host name, and its NIS domain.
static NAMES: SpinLock<[Name; 2]> = SpinLock::new(Cpu, Rank::Descriptors, [name("quire"), name("(none)")]);

pub fn uname(a: Args) -> Answer {
    let [nodename, domainname] = *NAMES.lock();
    let names = Utsname {
        sysname: name("Quire"),
        nodename,
        // Linux programs check whether the kernel is new enough; the implemented calls are those of 6.x.
        release: name(concat!("6.12.0-quire-", env!("CARGO_PKG_VERSION"))),
        version: name("#1 SMP"),
        machine: name("aarch64"),
        domainname,
    };
    uaccess::put(a.addr(0), &names)?;
    Ok(0)
}

fn set_name(a: Args, which: usize) -> Answer {
    require(current().process(), Privilege::SetNames)?;
    let len = usize::try_from(a.int(1)).ok().filter(|len| *len <= NAME).ok_or(Errno::EINVAL)?;
    let mut new = [0; NAME + 1];
    if uaccess::copy_from_user(&mut new[..len], a.addr(0))? != len {
        return Err(Errno::EFAULT);
    }
    NAMES.lock()[which] = new;
    Ok(0)
}

pub fn sethostname(a: Args) -> Answer {
    set_name(a, 0)
}

pub fn setdomainname(a: Args) -> Answer {
    set_name(a, 1)
}

pub fn sysinfo(a: Args) -> Answer {
    let system = info::system();
    let swap = SPACES.swap().stats();
    let record = Sysinfo {
        uptime: (timer::now_ns() / 1_000_000_000) as i64,
        totalram: system.managed * PAGE_SIZE as u64,
        freeram: system.free * PAGE_SIZE as u64,
        sharedram: (statistics::shared() * PAGE_SIZE) as u64,
        totalswap: (swap.slots * PAGE_SIZE) as u64,
        freeswap: (swap.slots.saturating_sub(swap.used) * PAGE_SIZE) as u64,
        // (With 16 fractional bits.)
        loads: system.loads.map(|load| load << (16 - load::SHIFT)),
        procs: system.processes.min(u32::from(u16::MAX)) as u16,
        mem_unit: 1,
        ..Sysinfo::default()
    };
    uaccess::put(a.addr(0), &record)?;
    Ok(0)
}

pub fn reboot(a: Args) -> Answer {
    require(current().process(), Privilege::Reboot)?;
    if a.uint(0) != cmd::MAGIC1 || !cmd::MAGIC2.contains(&a.uint(1)) {
        return Err(Errno::EINVAL);
    }
    match a.uint(2) {
        cmd::RESTART => power::reset(),
        cmd::HALT => power::halt(),
        cmd::POWER_OFF => power::off(0),
        cmd::CAD_ON | cmd::CAD_OFF => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// Where the next SYSLOG_ACTION_READ begins, and where SYSLOG_ACTION_READ_ALL begins.
static READ_FROM: AtomicUsize = AtomicUsize::new(0);
static CLEARED_TO: AtomicUsize = AtomicUsize::new(0);
/// The level that SYSLOG_ACTION_CONSOLE_ON restores; 0 for none.
static LEVEL_BEFORE: AtomicUsize = AtomicUsize::new(0);

/// klogctl. Anybody may read the whole log and ask for its size; everything else is for root only. Lines are not
/// prefixed with their level, and the level determines what is logged at all, both to the port and to the buffer.
pub fn syslog(a: Args) -> Answer {
    let what = a.int(0);
    if !matches!(what, action::READ_ALL | action::SIZE_BUFFER) {
        require(current().process(), Privilege::Syslog)?;
    }
    match what {
        action::CLOSE | action::OPEN => Ok(0),
        action::READ | action::READ_ALL | action::READ_CLEAR => {
            let len = usize::try_from(a.int(2)).map_err(|_| Errno::EINVAL)?;
            if a.word(1) == 0 {
                return Err(Errno::EINVAL);
            }
            read_log(what, a.addr(1), len)
        }
        action::CLEAR => {
            CLEARED_TO.store(kernel_log::end(), Ordering::Relaxed);
            Ok(0)
        }
        action::CONSOLE_OFF => {
            let _ = LEVEL_BEFORE.compare_exchange(0, level(), Ordering::Relaxed, Ordering::Relaxed);
            set_level(1);
            Ok(0)
        }
        action::CONSOLE_ON => {
            let before = LEVEL_BEFORE.swap(0, Ordering::Relaxed);
            if before != 0 {
                set_level(before);
            }
            Ok(0)
        }
        action::CONSOLE_LEVEL => {
            let level = usize::try_from(a.int(2)).ok().filter(|level| (1..=8).contains(level)).ok_or(Errno::EINVAL)?;
            LEVEL_BEFORE.store(0, Ordering::Relaxed);
            set_level(level);
            Ok(0)
        }
        action::SIZE_UNREAD => Ok(kernel_log::end() - kernel_log::start().max(READ_FROM.load(Ordering::Relaxed))),
        action::SIZE_BUFFER => Ok(kernel_log::SIZE),
        _ => Err(Errno::EINVAL),
    }
}

fn read_log(what: i32, to: UserAddr, len: usize) -> Answer {
    if len == 0 {
        return Ok(0);
    }
    if what == action::READ {
        return read_new(to, len);
    }
    let end = kernel_log::end();
    let start = kernel_log::start().max(CLEARED_TO.load(Ordering::Relaxed));
    let done = copy_log(start.max(end.saturating_sub(len)), to, len)?.0;
    if what == action::READ_CLEAR {
        CLEARED_TO.store(end, Ordering::Relaxed);
    }
    Ok(done)
}

/// Sleeps until there is new text, and reads it.
fn read_new(to: UserAddr, len: usize) -> Answer {
    /// Nanoseconds between two checks: a thread that logs may hold any lock, so it wakes nobody.
    const PAUSE: u64 = 50_000_000;
    loop {
        let from = READ_FROM.load(Ordering::Relaxed);
        let (done, next) = copy_log(from, to, len)?;
        if done > 0 {
            READ_FROM.store(next, Ordering::Relaxed);
            return Ok(done);
        }
        wait::sleep_until(timer::now_ns() + PAUSE)?;
    }
}

/// Copies the log from a position on; returns the number of bytes, and the position after them.
fn copy_log(mut from: usize, to: UserAddr, len: usize) -> Result<(usize, usize), Errno> {
    let mut piece = [0; 256];
    let mut done = 0;
    while done < len {
        let room = piece.len().min(len - done);
        let (n, next) = kernel_log::read(from, &mut piece[..room]);
        if n == 0 {
            break;
        }
        if uaccess::copy_to_user(to + done, &piece[..n])? != n {
            return Err(Errno::EFAULT);
        }
        (from, done) = (next, done + n);
        resched_point(Sleep::Killable)?;
    }
    Ok((done, from))
}

/// Linux logs messages that are more urgent than its level: errors are 3, warnings 4, information 6, and debug
/// messages 7.
const LEVELS: [(usize, LevelFilter); 5] = [
    (8, LevelFilter::Debug),
    (7, LevelFilter::Info),
    (5, LevelFilter::Warn),
    (4, LevelFilter::Error),
    (1, LevelFilter::Off),
];

fn set_level(level: usize) {
    let found = LEVELS.iter().find(|(least, _)| level >= *least);
    log::set_max_level(found.map_or(LevelFilter::Off, |(_, filter)| *filter));
}

fn level() -> usize {
    let now = log::max_level();
    LEVELS.iter().find(|(_, filter)| now >= *filter).map_or(1, |(level, _)| *level)
}
