//! Signals that are read: signalfd.

use quire_abi::Errno;
use quire_abi::flags::{Open, cld, si, sig};
use quire_abi::layout::SignalfdSiginfo;

use super::buffers::Buffers;
use super::epoll::install;
use super::file::table;
use super::signal::SET_SIZE;
use super::{Answer, Args};
use crate::arch::uaccess;
use crate::ipc::descriptor::Object;
use crate::ipc::signalfd::SignalFd;
use crate::task::point::resched_point;
use crate::task::signal::{Info, UNBLOCKABLE};
use crate::task::wait::Sleep;

/// Makes a file for a set of signals, or changes the set of an existing one.
pub fn create(a: Args) -> Answer {
    if a.word(2) != SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let mask = uaccess::get::<u64>(a.addr(1))? & !UNBLOCKABLE;
    let flags = Open::from_bits_retain(a.uint(3));
    if !(flags - Open::CLOEXEC - Open::NONBLOCK).is_empty() {
        return Err(Errno::EINVAL);
    }
    if a.int(0) == -1 {
        return install(Object::SignalFd(SignalFd::new(mask)?), Open::RDWR | flags & Open::NONBLOCK, flags);
    }
    match &table()?.get(a.int(0))?.file.object {
        Object::SignalFd(signals) => signals.set_mask(mask),
        _ => return Err(Errno::EINVAL),
    }
    Ok(a.int(0) as usize)
}

/// Reads as many pending signals as fit; sleeps only for the first one.
pub fn read(signals: &SignalFd, nonblocking: bool, to: &mut Buffers<'_>) -> Answer {
    const SIZE: usize = size_of::<SignalfdSiginfo>();
    if to.left() < SIZE {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    while to.left() >= SIZE {
        let put = signals.read(nonblocking || done > 0).and_then(|info| to.put_record(&record(&info)));
        match put {
            Ok(SIZE) => done += SIZE,
            Err(e) if done == 0 => return Err(e),
            Ok(_) if done == 0 => return Err(Errno::EFAULT),
            _ => break,
        }
        if resched_point(Sleep::Killable).is_err() {
            break;
        }
    }
    Ok(done)
}

/// The fields that Linux's `siginfo_layout` selects for a record.
fn record(info: &Info) -> SignalfdSiginfo {
    let [first, second, third, fourth] = info.fields;
    let plain =
        SignalfdSiginfo { signo: info.signal, errno: info.errno, code: info.code, ..SignalfdSiginfo::default() };
    let sent = SignalfdSiginfo { pid: first as u32, uid: (first >> 32) as u32, ..plain };
    let is_specific = info.code > si::USER && info.code < si::KERNEL;
    match (info.code, info.signal) {
        (_, sig::ILL | sig::FPE | sig::SEGV | sig::BUS | sig::TRAP) if is_specific => {
            SignalfdSiginfo { addr: first, ..plain }
        }
        (code, sig::CHLD) if is_specific && code <= cld::CONTINUED => {
            SignalfdSiginfo { status: second as i32, utime: third, stime: fourth, ..sent }
        }
        (si::TIMER, _) => SignalfdSiginfo {
            tid: first as u32,
            overrun: (first >> 32) as u32,
            int: second as i32,
            ptr: second,
            ..plain
        },
        (si::SIGIO, _) => SignalfdSiginfo { band: first as u32, fd: second as i32, ..plain },
        (code, _) if code < 0 => SignalfdSiginfo { int: second as i32, ptr: second, ..sent },
        _ => sent,
    }
}
