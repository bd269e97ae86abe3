//! Processes: creation, changes, exit, queries.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::{Clone, pr, sig};
use quire_abi::layout::{CloneArgs, Rlimit, rlimit};
use quire_mm::UserAddr;
use quire_mm::addr::PAGE_SIZE;

use super::memory::mm as own_mm;
use super::{Answer, Args, extensible, time};
use crate::arch::trap::TrapFrame;
use crate::arch::{speculation, timer, uaccess};
use crate::ipc::table::NR_OPEN;
use crate::task::clone::{self, Request};
use crate::task::cpu_alarm;
use crate::task::cputime::Spent;
use crate::task::credentials::{Privilege, permit_inspection, require};
use crate::task::exit;
use crate::task::point::resched_point;
use crate::task::process::{NAME_LEN, Process, TABLE, Table};
use crate::task::sched;
use crate::task::signal;
use crate::task::thread::{DEFAULT_SLACK, current};
use crate::task::wait::Sleep;
use crate::vm::random;

pub fn clone(a: Args, frame: &TrapFrame) -> Answer {
    // flags, stack, parent_tid, tls, child_tid (CONFIG_CLONE_BACKWARDS).
    const SIGNAL: u64 = 0xff;
    let flags = a.0[0] & 0xffff_ffff;
    let known = Clone::from_bits(flags & !SIGNAL).ok_or(Errno::EINVAL)?;
    // PARENT_SETTID would store the number where the pidfd goes; DETACHED is not allowed with PIDFD, as on Linux.
    if known.contains(Clone::PIDFD) && known.intersects(Clone::PARENT_SETTID | Clone::DETACHED) {
        return Err(Errno::EINVAL);
    }
    let request = Request {
        flags: known,
        exit_signal: (flags & SIGNAL) as u32,
        stack: a.0[1],
        parent_tid: a.addr(2),
        tls: a.0[3],
        child_tid: a.addr(4),
        pidfd: a.addr(2),
    };
    clone::clone(&request, frame).map(|tid| tid as usize)
}

/// The record of clone3, of which a program may know an earlier or a later version. EINVAL, E2BIG for fields that this
/// kernel does not know.
fn clone_args(at: UserAddr, size: usize) -> Result<CloneArgs, Errno> {
    const FIRST_VERSION: usize = 64;
    if size < FIRST_VERSION {
        return Err(Errno::EINVAL);
    }
    let [flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup] =
        extensible::read(at, size)?;
    Ok(CloneArgs {
        flags,
        pidfd,
        child_tid,
        parent_tid,
        exit_signal,
        stack,
        stack_size,
        tls,
        set_tid,
        set_tid_size,
        cgroup,
    })
}

/// Numbers (set_tid) and groups (CLONE_INTO_CGROUP) cannot be chosen: EINVAL, as for unknown flags.
pub fn clone3(a: Args, frame: &TrapFrame) -> Answer {
    let args = clone_args(a.addr(0), a.word(1))?;
    let flags = Clone::from_bits(args.flags).ok_or(Errno::EINVAL)?;
    let is_wrong = flags.contains(Clone::DETACHED)
        || flags.contains(Clone::SIGHAND | Clone::CLEAR_SIGHAND)
        || flags.intersects(Clone::THREAD | Clone::PARENT) && args.exit_signal != 0
        || args.exit_signal >= u64::from(sig::COUNT)
        || (args.stack == 0) != (args.stack_size == 0)
        || args.set_tid != 0
        || args.set_tid_size != 0;
    if is_wrong {
        return Err(Errno::EINVAL);
    }
    let addr = |word: u64| UserAddr::new(word as usize);
    if args.stack != 0 && uaccess::check(addr(args.stack), args.stack_size as usize).is_err() {
        return Err(Errno::EINVAL);
    }
    let request = Request {
        flags,
        exit_signal: u32::try_from(args.exit_signal).map_err(|_| Errno::EINVAL)?,
        stack: args.stack + args.stack_size,
        parent_tid: addr(args.parent_tid),
        tls: args.tls,
        child_tid: addr(args.child_tid),
        pidfd: addr(args.pidfd),
    };
    clone::clone(&request, frame).map(|tid| tid as usize)
}

pub fn exit(a: Args) -> Answer {
    exit::exit_thread((a.uint(0) & 0xff) << 8)
}

pub fn exit_group(a: Args) -> Answer {
    let status = (a.uint(0) & 0xff) << 8;
    let process = current().process();
    signal::end_process(status);
    exit::exit_thread(process.exit_status().unwrap_or(status))
}

#[inline]
pub fn getpid() -> Answer {
    Ok(current().process().pid as usize)
}

pub fn gettid() -> Answer {
    Ok(current().tid() as usize)
}

pub fn getppid() -> Answer {
    Ok(current().process().ppid.load(Ordering::Relaxed) as usize)
}

pub fn set_tid_address(a: Args) -> Answer {
    current().clear_child_tid.store(a.word(0), Ordering::Relaxed);
    gettid()
}

/// The process with number `pid`, or the process of the thread with this number; 0 is the caller's.
fn named(table: &Table, pid: i32) -> Result<&Process, Errno> {
    match pid {
        0 => Ok(current().process()),
        pid => table.owner(u32::try_from(pid).map_err(|_| Errno::ESRCH)?).map(|p| &**p).ok_or(Errno::ESRCH),
    }
}

pub fn setpgid(a: Args) -> Answer {
    let (pid, pgid) = (a.int(0), a.int(1));
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let me = current().process();
    let mut table = TABLE.lock();
    let target = named(&table, pid)?.pid;
    let target = table.process(target).cloned().ok_or(Errno::ESRCH)?;
    // Threads have no group of their own.
    if pid != 0 && target.pid != pid as u32 {
        return Err(Errno::EINVAL);
    }
    let family = table.family(&target);
    let is_child = core::ptr::eq(family.parent, &raw const **me);
    if target.pid != me.pid && !is_child {
        return Err(Errno::ESRCH);
    }
    let sid = table.family(me).sid;
    if family.sid != sid {
        return Err(Errno::EPERM);
    }
    if is_child && target.has_execed.load(Ordering::Relaxed) {
        return Err(Errno::EACCES);
    }
    if family.sid == target.pid {
        return Err(Errno::EPERM);
    }
    let pgid = if pgid == 0 { target.pid } else { pgid as u32 };
    // All members of a group belong to one session.
    let member = table.next_member(pgid, 0);
    if pgid != target.pid && member.is_none_or(|member| table.family(member).sid != sid) {
        return Err(Errno::EPERM);
    }
    table.set_group(&target, pgid);
    Ok(0)
}

pub fn getpgid(a: Args) -> Answer {
    let table = TABLE.lock();
    Ok(named(&table, a.int(0))?.pgid() as usize)
}

pub fn getsid(a: Args) -> Answer {
    let table = TABLE.lock();
    Ok(table.family(named(&table, a.int(0))?).sid as usize)
}

pub fn setsid() -> Answer {
    let me = current().process();
    let mut table = TABLE.lock();
    if table.next_member(me.pid, 0).is_some() {
        return Err(Errno::EPERM);
    }
    table.set_group(me, me.pid);
    table.family_mut(me).sid = me.pid;
    Ok(me.pid as usize)
}

/// The limit with a number from a program. EINVAL.
pub fn limit_mut(limits: &mut [Rlimit; rlimit::COUNT], which: usize) -> Result<&mut Rlimit, Errno> {
    speculation::get_mut(limits, which).ok_or(Errno::EINVAL)
}

fn change_limit(process: &Process, which: usize, new: Option<Rlimit>) -> Result<Rlimit, Errno> {
    let may_raise = require(current().process(), Privilege::RaiseLimit);
    if let Some(new) = new.filter(|_| which == rlimit::CPU) {
        cpu_alarm::prepare_limit(process, new)?;
    }
    let mut limits = process.limits.lock();
    let limit = limit_mut(&mut limits, which)?;
    let old = *limit;
    if let Some(new) = new {
        if new.cur > new.max {
            return Err(Errno::EINVAL);
        }
        if which == rlimit::NOFILE && new.max > NR_OPEN {
            return Err(Errno::EPERM);
        }
        if new.max > old.max {
            may_raise?;
        }
        *limit = new;
        process.memory_limits.apply(&limits);
        if which == rlimit::CPU {
            cpu_alarm::apply_limit(process, new);
        }
    }
    Ok(old)
}

pub fn prlimit64(a: Args) -> Answer {
    let new: Option<Rlimit> = a.opt_addr(2).map(uaccess::get::<[u64; 2]>).transpose()?.map(to_limit);
    let process = {
        let table = TABLE.lock();
        let pid = named(&table, a.int(0))?.pid;
        table.process(pid).cloned().ok_or(Errno::ESRCH)?
    };
    permit_inspection(&process)?;
    let old = change_limit(&process, a.word(1), new)?;
    if let Some(at) = a.opt_addr(3) {
        uaccess::put(at, &old)?;
    }
    Ok(0)
}

fn to_limit([cur, max]: [u64; 2]) -> Rlimit {
    Rlimit { cur, max }
}

pub fn getrlimit(a: Args) -> Answer {
    let old = change_limit(current().process(), a.word(0), None)?;
    uaccess::put(a.addr(1), &old)?;
    Ok(0)
}

pub fn setrlimit(a: Args) -> Answer {
    let new = to_limit(uaccess::get(a.addr(1))?);
    change_limit(current().process(), a.word(0), Some(new)).map(|_| 0)
}

pub fn getrusage(a: Args) -> Answer {
    const SELF: i32 = 0;
    const CHILDREN: i32 = -1;
    const THREAD: i32 = 1;
    let process = current().process();
    let spent = match a.int(0) {
        SELF => time::process_time(),
        CHILDREN => process.children_time.spent(),
        THREAD => {
            sched::charge_current();
            current().time.spent()
        }
        _ => return Err(Errno::EINVAL),
    };
    let mut usage = spent.usage();
    if a.int(0) == SELF
        && let Some(mm) = current().mm()
    {
        usage.maxrss = (mm.stats().rss_peak * PAGE_SIZE / 1024) as i64;
    }
    uaccess::put(a.addr(1), &usage)?;
    Ok(0)
}

/// CPU time in hundredths of seconds, of the process and of the children that it has waited for; returns the time since
/// power-on.
pub fn times(a: Args) -> Answer {
    let all = [time::process_time(), current().process().children_time.spent()];
    if let Some(at) = a.opt_addr(0) {
        uaccess::put_all(at, all.map(exit::ticks).as_flattened())?;
    }
    let [now, _] = exit::ticks(Spent { user: timer::now_ns(), ..Spent::default() });
    Ok(now as usize)
}

/// There is only Linux's own personality, without its flags.
pub fn personality(a: Args) -> Answer {
    const LINUX: u32 = 0;
    const QUERY: u32 = u32::MAX;
    match a.uint(0) {
        LINUX | QUERY => Ok(LINUX as usize),
        _ => Err(Errno::EINVAL),
    }
}

/// Capabilities: root has all, others have none, and nobody can give them up. Queries return this.
fn prctl_of_capabilities(a: Args) -> Answer {
    const LAST: usize = 40;
    const IS_SET: usize = 1;
    const RAISE: usize = 2;
    const LOWER: usize = 3;
    const CLEAR_ALL: usize = 4;
    let is_valid = a.word(2) <= LAST && a.word(3) == 0 && a.word(4) == 0;
    match (a.int(0), a.word(1)) {
        (pr::CAPBSET_READ, capability) if capability <= LAST => Ok(1),
        (pr::GET_KEEPCAPS | pr::GET_SECUREBITS, _) | (pr::SET_KEEPCAPS, 0) => Ok(0),
        (pr::CAP_AMBIENT, CLEAR_ALL) if a.word(2) == 0 && is_valid => Ok(0),
        (pr::CAP_AMBIENT, IS_SET | LOWER) if is_valid => Ok(0),
        (pr::CAP_AMBIENT, RAISE) if is_valid => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// Options that are of no use to this kernel are treated as on a Linux kernel built without that feature: EINVAL.
pub fn prctl(a: Args) -> Answer {
    let process = current().process();
    let rest_is_zero = |from: usize| (from..5).all(|i| a.word(i) == 0);
    match a.int(0) {
        pr::SET_PDEATHSIG if a.word(1) < sig::COUNT as usize => {
            process.parent_death_signal.store(a.uint(1), Ordering::Relaxed);
        }
        pr::GET_PDEATHSIG => uaccess::put(a.addr(1), &process.parent_death_signal.load(Ordering::Relaxed))?,
        pr::SET_DUMPABLE if a.word(1) <= 1 => process.is_dumpable.store(a.word(1) == 1, Ordering::Relaxed),
        pr::GET_DUMPABLE => return Ok(usize::from(process.is_dumpable.load(Ordering::Relaxed))),
        pr::SET_NO_NEW_PRIVS if a.word(1) == 1 && rest_is_zero(2) => {
            process.no_new_privileges.store(true, Ordering::Relaxed);
        }
        pr::GET_NO_NEW_PRIVS if rest_is_zero(1) => {
            return Ok(usize::from(process.no_new_privileges.load(Ordering::Relaxed)));
        }
        pr::SET_NAME => {
            let mut name = [0; NAME_LEN];
            let len = match uaccess::get_string(&mut name, a.addr(1)) {
                Ok(text) => text.len(),
                Err(Errno::ENAMETOOLONG) => NAME_LEN - 1,
                Err(e) => return Err(e),
            };
            name[len..].fill(0);
            current().set_name(&name);
        }
        pr::GET_NAME => {
            let name = current().name();
            if uaccess::copy_to_user(a.addr(1), &name)? != NAME_LEN {
                return Err(Errno::EFAULT);
            }
        }
        pr::SET_CHILD_SUBREAPER => {
            exit::SUBREAPERS.store(true, Ordering::Release);
            process.is_subreaper.store(a.word(1) != 0, Ordering::Relaxed);
        }
        pr::GET_CHILD_SUBREAPER => {
            uaccess::put(a.addr(1), &u32::from(process.is_subreaper.load(Ordering::Relaxed)))?;
        }
        pr::SET_THP_DISABLE if rest_is_zero(2) => own_mm()?.refuse_huge_pages(a.word(1) != 0),
        pr::GET_THP_DISABLE if rest_is_zero(1) => return Ok(usize::from(own_mm()?.refuses_huge_pages())),
        // A slack of 0 is the default: the value that the thread started with. (Here that is Linux's.)
        pr::SET_TIMERSLACK => {
            let slack = if a.0[1] as i64 <= 0 { DEFAULT_SLACK } else { a.0[1] };
            current().timer_slack.store(slack, Ordering::Relaxed);
        }
        pr::GET_TIMERSLACK => return Ok(current().timer_slack.load(Ordering::Relaxed) as usize),
        // Times are sampled.
        pr::GET_TIMING => {}
        pr::SET_TIMING if a.word(1) == 0 => {}
        pr::GET_TID_ADDRESS => uaccess::put(a.addr(1), &(current().clear_child_tid.load(Ordering::Relaxed) as u64))?,
        pr::CAPBSET_READ | pr::GET_KEEPCAPS | pr::SET_KEEPCAPS | pr::GET_SECUREBITS | pr::CAP_AMBIENT => {
            return prctl_of_capabilities(a);
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

pub fn getrandom(a: Args) -> Answer {
    const KNOWN: u32 = 1 | SLOW | INSECURE;
    const SLOW: u32 = 2;
    const INSECURE: u32 = 4;
    // SLOW and INSECURE must not be requested together.
    if a.uint(2) & !KNOWN != 0 || a.uint(2) & (SLOW | INSECURE) == SLOW | INSECURE {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    let mut bytes = [0; 256];
    // As on Linux: at most 32 MiB per call, and bytes copied before a bad page count.
    let len = a.word(1).min((32 << 20) - 1);
    while done < len {
        let n = bytes.len().min(len - done);
        random::fill(&mut bytes[..n]);
        match uaccess::copy_to_user(a.addr(0) + done, &bytes[..n]) {
            Ok(copied) => done += copied,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        if resched_point(Sleep::Interruptible).is_err() {
            break;
        }
    }
    Ok(done)
}
