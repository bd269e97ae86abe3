//! The end of threads and processes, and waiting for it.

use core::sync::atomic::{AtomicBool, Ordering};

use quire_abi::Errno;
use quire_abi::flags::{cld, sig, wait};
use quire_abi::layout::{poll, sa};
use quire_mm::UserAddr;
use quire_mm::fallible::KArc;
use quire_mm::sync::SpinGuard;

use super::children::{Kind, News};
use super::cputime::Spent;
use super::entity::{Entity, work};
use super::inject;
use super::point::{ENTRIES, resched_point};
use super::process::{EXITING, Process};
use super::signal::{self, IGNORE, Info};
use super::table::{Entry, ROUSED_BY_EACH, TABLE, Table};
use super::thread::{Thread, current};
use super::wait::Sleep;
use super::{cpu_alarm, freezer, itimer, membership, oom, posix_timer, robust, sched, stop};
use crate::arch::uaccess;
use crate::ipc::{futex, handover};
use crate::vm::Cpu;

/// Ends the calling thread. With its last thread the process ends, with `status` unless it already has one.
pub fn exit_thread(status: u32) -> ! {
    inject::arm(0);
    let thread = current();
    let process = thread.process();
    // From here on signals change nothing for it: points on the way are not to look for them.
    thread.is_leaving.store(true, Ordering::Relaxed);
    thread.clear_work(work::SIGNAL);
    robust::release(thread);
    // Whoever waits for its answer hears of the end.
    drop(thread.take_reply());
    handover::forget(thread);
    if thread.mm().is_some() {
        clear_number(thread);
    }
    sched::charge_current();
    cpu_alarm::ends(&thread.cpu_alarms);
    // Before the process counts this thread as gone, so that its last thread knows who else holds the space.
    drop(thread.set_mm(None));
    let (left, entry, signals) = {
        let mut table = TABLE.lock();
        let left = table.remove_thread(process, thread);
        table.rouse_some(process, ROUSED_BY_EACH);
        if left > 0 {
            stop::thread_left(&table, process);
            freezer::count(&table, process);
        }
        let entry = if thread.tid() == process.pid { None } else { table.remove(thread.tid()) };
        (left, entry, thread.signals.lock().pending.remove(!0))
    };
    drop(entry);
    signal::release(signals);
    if left == 0 {
        exit_process(process, status);
    } else {
        process.stop_wait.wake_all();
    }
    sched::leave()
}

/// Clears the word that holds the number of a thread, which is current and is about to leave its space, and wakes a thread
/// that sleeps on it (`CLONE_CHILD_CLEARTID`). An error for a bad address is ignored, as on Linux.
pub fn clear_number(thread: &Thread) {
    let clear = thread.clear_child_tid.swap(0, Ordering::Relaxed);
    if clear != 0 && uaccess::put(UserAddr::new(clear), &0u32).is_ok() {
        let _ = futex::wake(UserAddr::new(clear), 1, u32::MAX, false);
    }
}

/// Drops the running reference of a thread that has run for the last time, and with the last reference its stack.
///
/// # Safety
/// `entity` is the head of a thread that left that reference behind.
#[unsafe(no_mangle)]
unsafe fn thread_has_ended(entity: *const Entity) {
    // SAFETY: as the caller says; the head is at the thread's address.
    drop(unsafe { KArc::from_raw(entity.cast::<Thread>()) });
}

/// Releases memory and descriptors first, so that they are free before the parent is notified.
fn exit_process(process: &Process, status: u32) {
    let _ = process.exiting.compare_exchange(0, EXITING | u64::from(status), Ordering::AcqRel, Ordering::Acquire);
    itimer::stop(process);
    posix_timer::delete_all(process);
    cpu_alarm::ends(&process.cpu_alarms);
    process.handles.clear();
    let descriptors = process.set_descriptors(None);
    drop(descriptors);
    release_mm(process);
    let Some(init) = TABLE.lock().process(1).cloned() else { return };
    // A sender that held the table before may have seen the process alive; from now on none does. So whoever waits for the
    // process finds its user's records free.
    signal::release(process.pending.remove(!0));
    let reaped = {
        if core::ptr::eq(KArc::as_ptr(&init), process) {
            crate::console::panic::init_ended(process.exit_status().unwrap_or(status));
        }
        let mut table = give_children_away(process, &init);
        membership::end(&mut table, process);
        table.make_zombie(process);
        notify_parent(&mut table, process)
    };
    process.end.wake(poll::IN | poll::RDNORM | poll::HUP);
    drop(reaped);
}

/// Set once there has been a subreaper: before, nobody looks for one.
pub static SUBREAPERS: AtomicBool = AtomicBool::new(false);

/// Who gets the children of a process that ends: its nearest ancestor that is a subreaper and has not ended, or init.
fn heir(process: &Process, init: &KArc<Process>) -> KArc<Process> {
    /// Searches from the beginning, since a process where one has paused has gone.
    const TRIES: usize = 8;
    if !SUBREAPERS.load(Ordering::Acquire) {
        return init.clone();
    }
    let mut from = process.pid;
    for _ in 0..TRIES {
        loop {
            let table = TABLE.lock();
            let Some(mut at) = table.process(from).map(|process| &**process) else { break };
            for _ in 0..ENTRIES {
                let Some(parent) = table.parent(at) else { return init.clone() };
                let is_heir = parent.is_subreaper.load(Ordering::Relaxed) && !table.family(parent).is_zombie;
                if is_heir && let Some(parent) = table.process(parent.pid) {
                    return parent.clone();
                }
                at = parent;
            }
            from = at.pid;
            drop(table);
            let _ = resched_point(Sleep::Killable);
        }
        from = process.pid;
    }
    init.clone()
}

/// Gives all children to an heir, in batches under the table's lock. The last batch's lock is the caller's: no process can
/// become a child of this one any more.
fn give_children_away(process: &Process, init: &KArc<Process>) -> SpinGuard<'static, Table, Cpu> {
    loop {
        let heir = heir(process, init);
        let mut table = TABLE.lock();
        if table.family(&heir).is_zombie {
            continue;
        }
        let (is_all, zombie) = table.give_children(process, &heir, ENTRIES);
        if let Some(zombie) = zombie {
            if !KArc::ptr_eq(&heir, init) {
                signal::send_to_process(&table, &heir, &info_of_end(&zombie, sig::CHLD));
            }
            heir.child_wait.wake_all();
        }
        if is_all {
            return table;
        }
        drop(table);
        let _ = resched_point(Sleep::Killable);
    }
}

/// Releases the address space and wakes a vfork parent.
pub fn release_mm(process: &Process) {
    let space = process.space.lock().take();
    drop(space);
    oom::memory_released(process);
    process.mm_released.store(true, Ordering::Release);
    process.stop_wait.wake_all();
}

/// Sends SIGCHLD to the parent and wakes it. Children of a parent that ignores SIGCHLD are reaped here.
fn notify_parent(table: &mut Table, process: &Process) -> Option<Entry> {
    let exit_signal = table.family(process).exit_signal;
    let parent = table.parent(process)?;
    let action = parent.actions.lock().get(sig::CHLD);
    // (clone takes any number that fits into a byte.)
    if (1..sig::COUNT).contains(&exit_signal) {
        signal::send_to_process(table, parent, &info_of_end(process, exit_signal));
    }
    parent.child_wait.wake_all();
    let no_wait = exit_signal == sig::CHLD && (action.handler == IGNORE || action.flags & sa::NOCLDWAIT != 0);
    if no_wait { table.reap(process) } else { None }
}

fn info_of_end(process: &Process, signal: u32) -> Info {
    let status = process.exit_status().unwrap_or(0);
    let (code, what) = match status & 0x7f {
        0 => (cld::EXITED, status >> 8 & 0xff),
        killer => (cld::KILLED, killer),
    };
    let times = ticks(process.whole.time.spent());
    Info::of_child(signal, code, process.pid, process.uid(), what, times)
}

/// CPU time for a record of SIGCHLD: user and system time in hundredths of seconds.
pub fn ticks(spent: Spent) -> [u64; 2] {
    [spent.user, spent.system].map(|ns| ns / 10_000_000)
}

/// The children that a wait applies to.
#[derive(Clone, Copy)]
pub enum Which<'a> {
    /// Any.
    Any,
    /// The one with this number.
    Pid(u32),
    /// Any of this group.
    Group(u32),
    /// This one.
    This(&'a KArc<Process>),
}

/// The result of a wait.
pub struct Waited {
    /// The child.
    pub pid: u32,
    /// Its real user.
    pub uid: u32,
    /// Its status, as `wait4` stores it.
    pub status: u32,
    /// What it has used; if it has ended, with its children.
    pub spent: Spent,
}

impl Waited {
    /// The code and the status of its record for SIGCHLD.
    pub fn cause(&self) -> (i32, u32) {
        const CORE: u32 = 0x80;
        match (self.status, self.status & 0x7f) {
            (stop::CONTINUED, _) => (cld::CONTINUED, sig::CONT),
            (status, 0x7f) => (cld::STOPPED, status >> 8 & 0xff),
            (status, 0) => (cld::EXITED, status >> 8 & 0xff),
            (status, killer) if status & CORE != 0 => (cld::DUMPED, killer),
            (_, killer) => (cld::KILLED, killer),
        }
    }
}

/// Waits for a child to end, to stop or to continue, as the options of `waitid` say. `None` with WNOHANG if none has.
pub fn wait_for_child(which: Which<'_>, options: u32) -> Result<Option<Waited>, Errno> {
    let parent = current().process();
    let found = parent.child_wait.wait_until(Sleep::Interruptible, None, || {
        let mut table = TABLE.lock();
        match find_child(&mut table, parent, which, options) {
            Ok(None) if options & wait::WNOHANG == 0 => None,
            other => Some(other),
        }
    })?;
    Ok(found?.map(|(waited, entry)| {
        if let Some(Entry::Process(reaped)) = entry {
            reaped.end.wake(poll::HUP);
        }
        waited
    }))
}

type Found = (Waited, Option<Entry>);

fn find_child(table: &mut Table, parent: &Process, which: Which<'_>, options: u32) -> Result<Option<Found>, Errno> {
    let named = match which {
        Which::Pid(pid) => Some((pid, None)),
        Which::This(process) => Some((process.pid, Some(process))),
        Which::Any | Which::Group(_) => None,
    };
    if let Some((pid, this)) = named {
        let is_own = |child: &&KArc<Process>| {
            let family = table.family(child);
            core::ptr::eq(family.parent, parent) && is_eligible(family.exit_signal, options)
        };
        let is_meant = |child: &&KArc<Process>| this.is_none_or(|this| KArc::ptr_eq(child, this));
        let child = table.process(pid).filter(is_own).filter(is_meant).ok_or(Errno::ECHILD)?.clone();
        return match child.news() {
            // Nothing else will be told of it.
            News::Ended if !is_asked_for(News::Ended, options) => Err(Errno::ECHILD),
            news => Ok(is_asked_for(news, options).then(|| report(table, parent, &child, news, options))),
        };
    }
    let group = if let Which::Group(pgid) = which { Some(pgid) } else { None };
    for news in [News::Ended, News::Stopped, News::Continued] {
        if !is_asked_for(news, options) {
            continue;
        }
        let children = &table.family(parent).children;
        if let Some(pid) = kinds(options).iter().find_map(|kind| children.with_news(table, *kind, news, group)) {
            let child = table.process(pid).cloned().ok_or(Errno::ECHILD)?;
            return Ok(Some(report(table, parent, &child, news, options)));
        }
    }
    let with_ended = is_asked_for(News::Ended, options);
    let children = &table.family(parent).children;
    let any = kinds(options).iter().any(|kind| children.any(table, *kind, group, with_ended));
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

/// The kinds of children that a wait with these options is for.
fn kinds(options: u32) -> &'static [Kind] {
    match options {
        _ if options & wait::WALL != 0 => Kind::ALL,
        _ if options & wait::WCLONE != 0 => &[Kind::Clone],
        _ => &[Kind::Usual],
    }
}

/// The same of one child.
fn is_eligible(exit_signal: u32, options: u32) -> bool {
    options & wait::WALL != 0 || (exit_signal != sig::CHLD) == (options & wait::WCLONE != 0)
}

/// Whether a wait with these options is for such news.
fn is_asked_for(news: News, options: u32) -> bool {
    match news {
        News::Ended => options & wait::WEXITED != 0,
        News::Stopped => options & wait::WUNTRACED != 0,
        News::Continued => options & wait::WCONTINUED != 0,
        News::None => false,
    }
}

/// The news of a child, which with WNOWAIT stays news.
fn report(table: &mut Table, parent: &Process, child: &Process, news: News, options: u32) -> Found {
    let is_last = options & wait::WNOWAIT == 0;
    if news == News::Ended { reap(table, parent, child, is_last) } else { report_change(table, child, is_last) }
}

fn reap(table: &mut Table, parent: &Process, zombie: &Process, is_last: bool) -> Found {
    let spent = zombie.whole.time.spent() + zombie.children_time.spent();
    let status = zombie.exit_status().unwrap_or(0);
    let waited = Waited { pid: zombie.pid, uid: zombie.uid(), status, spent };
    if !is_last {
        return (waited, None);
    }
    parent.children_time.add(spent);
    (waited, table.reap(zombie))
}

fn report_change(table: &Table, child: &Process, is_last: bool) -> Found {
    let status = child.stop.change();
    if is_last {
        stop::clear_change(table, child);
    }
    (Waited { pid: child.pid, uid: child.uid(), status, spent: child.whole.time.spent() }, None)
}
