//! Processes as open files: pidfd.

use quire_abi::Errno;
use quire_abi::flags::{Open, pidfd, si};
use quire_mm::fallible::KArc;

use super::file::{limit, table};
use super::{Answer, Args, signal as calls};
use crate::arch::uaccess;
use crate::ipc::descriptor::{Descriptor, Object};
use crate::ipc::pidfd::{alive, descriptor};
use crate::task::credentials::{permit_signal, permit_takeover};
use crate::task::process::{Process, TABLE};
use crate::task::signal::{self, Info};
use crate::task::thread::current;

/// Only for whole processes: PIDFD_THREAD is an unknown flag.
pub fn open(a: Args) -> Answer {
    let flags = Open::from_bits_retain(a.uint(1));
    let pid = u32::try_from(a.int(0)).ok().filter(|pid| *pid > 0).ok_or(Errno::EINVAL)?;
    if !(flags - Open::NONBLOCK).is_empty() {
        return Err(Errno::EINVAL);
    }
    let process = {
        let table = TABLE.lock();
        match table.process(pid) {
            Some(process) => process.clone(),
            // A thread that is not the first one of its process.
            None if table.thread(pid).is_some() => return Err(Errno::EINVAL),
            None => return Err(Errno::ESRCH),
        }
    };
    table()?.insert(descriptor(&process, flags)?, 0, limit()).map(|fd| fd as usize)
}

/// The process of a descriptor, and whether waits for it must not sleep; EBADF.
pub fn named(fd: i32) -> Result<(KArc<Process>, bool), Errno> {
    let file = table()?.get(fd)?.file;
    match &file.object {
        Object::PidFd(process) => Ok((process.clone(), file.is_nonblocking())),
        _ => Err(Errno::EBADF),
    }
}

pub fn send_signal(a: Args) -> Answer {
    let flags = a.uint(3);
    if flags & !pidfd::SIGNAL_SCOPES != 0 || flags.count_ones() > 1 {
        return Err(Errno::EINVAL);
    }
    let (process, _) = named(a.int(0))?;
    let is_group = flags == pidfd::SIGNAL_PROCESS_GROUP;
    let info = match a.opt_addr(2) {
        None => calls::from_here(calls::valid(a.uint(1))?, si::USER),
        Some(at) => {
            let record: quire_abi::layout::Siginfo = uaccess::get(at)?;
            if record.signo != a.int(1) {
                return Err(Errno::EINVAL);
            }
            let info = Info::from_user(calls::valid(a.uint(1))?, &record)?;
            let is_other = is_group || !KArc::ptr_eq(&process, current().process());
            if is_other && (info.code >= 0 || info.code == si::TKILL) {
                return Err(Errno::EPERM);
            }
            info
        }
    };
    if is_group {
        // The group with the process's number.
        let pgid = alive(&TABLE.lock(), &process)?.pid;
        return calls::send_to_group(pgid, &info).map(|()| 0);
    }
    let table = TABLE.lock();
    alive(&table, &process)?;
    permit_signal(&table, &process, info.signal)?;
    let sent = if info.signal != 0 && flags == pidfd::SIGNAL_THREAD {
        let first = table.thread(process.pid).ok_or(Errno::ESRCH)?;
        signal::send_to_thread(&table, first, &info)
    } else {
        signal::send_or_ask(&table, &process, &info)
    };
    // For kill's kind of signal, a record that does not fit is dropped silently.
    if sent || a.opt_addr(2).is_none() { Ok(0) } else { Err(Errno::EAGAIN) }
}

/// Makes a descriptor of the caller's for an object that another process has open.
pub fn get_fd(a: Args) -> Answer {
    if a.uint(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let (process, _) = named(a.int(0))?;
    alive(&TABLE.lock(), &process)?;
    permit_takeover(&process)?;
    let descriptor = process.descriptors()?.get(a.int(1))?;
    table()?.insert(Descriptor { close_on_exec: true, ..descriptor }, 0, limit()).map(|fd| fd as usize)
}
