//! Waiting for children: wait4 and waitid.

use quire_abi::Errno;
use quire_abi::flags::{sig, wait};
use quire_abi::layout::Siginfo;

use super::{Answer, Args, pidfd};
use crate::arch::uaccess;
use crate::task::exit::{self, Waited, Which};
use crate::task::process::TABLE;
use crate::task::thread::current;

/// Linux's own options of waits. Here children belong to the whole process, so a thread can ask for its own children
/// only if it is the only thread of its process: EINVAL otherwise.
fn linux_options(options: u32) -> Result<u32, Errno> {
    let process = current().process();
    if options & wait::WNOTHREAD != 0 && TABLE.lock().family(process).thread_count > 1 {
        return Err(Errno::EINVAL);
    }
    Ok(options & (wait::WNOTHREAD | wait::WALL | wait::WCLONE))
}

pub fn wait4(a: Args) -> Answer {
    const KNOWN: u32 = wait::WNOHANG | wait::WUNTRACED | wait::WCONTINUED;
    let options = a.uint(2);
    if options & !(KNOWN | linux_options(options)?) != 0 {
        return Err(Errno::EINVAL);
    }
    let which = match a.int(0) {
        -1 => Which::Any,
        0 => Which::Group(current().process().pgid()),
        pid if pid > 0 => Which::Pid(pid as u32),
        i32::MIN => return Err(Errno::ESRCH),
        group => Which::Group(group.unsigned_abs()),
    };
    let Some(waited) = exit::wait_for_child(which, options | wait::WEXITED)? else { return Ok(0) };
    if let Some(at) = a.opt_addr(1) {
        uaccess::put(at, &waited.status)?;
    }
    if let Some(at) = a.opt_addr(3) {
        uaccess::put(at, &waited.spent.usage())?;
    }
    Ok(waited.pid as usize)
}

pub fn waitid(a: Args) -> Answer {
    let waited = wait_by_id(a);
    if let (Ok(Some(waited)), Some(at)) = (&waited, a.opt_addr(4)) {
        uaccess::put(at, &waited.spent.usage())?;
    }
    if let Some(at) = a.opt_addr(2) {
        // Only these words are stored, as on Linux even if the wait has failed: signal, errno, code; child, user,
        // status.
        let (head, body) = waited.as_ref().ok().and_then(Option::as_ref).map_or(([0; 3], [0; 3]), |waited| {
            let (code, status) = waited.cause();
            ([sig::CHLD, 0, code as u32], [waited.pid, waited.uid, status])
        });
        uaccess::put_all(at, &head)?;
        uaccess::put_all(at + core::mem::offset_of!(Siginfo, fields), &body)?;
    }
    waited.map(|_| 0)
}

fn wait_by_id(a: Args) -> Result<Option<Waited>, Errno> {
    const NEWS: u32 = wait::WEXITED | wait::WUNTRACED | wait::WCONTINUED;
    const KNOWN: u32 = NEWS | wait::WNOHANG | wait::WNOWAIT;
    let options = a.uint(3);
    if options & !(KNOWN | linux_options(options)?) != 0 || options & NEWS == 0 {
        return Err(Errno::EINVAL);
    }
    let number = u32::try_from(a.int(1)).map_err(|_| Errno::EINVAL);
    let (process, never_sleeps) = match a.uint(0) {
        wait::P_PIDFD => pidfd::named(number? as i32).map(|(process, nonblocking)| (Some(process), nonblocking))?,
        _ => (None, false),
    };
    let which = match (a.uint(0), &process) {
        (wait::P_ALL, _) => Which::Any,
        (wait::P_PID, _) => Which::Pid(number.ok().filter(|pid| *pid > 0).ok_or(Errno::EINVAL)?),
        (wait::P_PGID, _) if number == Ok(0) => Which::Group(current().process().pgid()),
        (wait::P_PGID, _) => Which::Group(number?),
        (_, Some(process)) => Which::This(process),
        _ => return Err(Errno::EINVAL),
    };
    let no_sleep = if never_sleeps { wait::WNOHANG } else { 0 };
    let waited = exit::wait_for_child(which, options | no_sleep)?;
    if waited.is_none() && never_sleeps && options & wait::WNOHANG == 0 {
        return Err(Errno::EAGAIN);
    }
    Ok(waited)
}
