//! New processes and threads: fork, vfork and clone.

use core::ptr;
use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::{Clone, Open};
use quire_abi::layout::rlimit;
use quire_mm::UserAddr;
use quire_mm::fallible::KArc;
use quire_sched::Class;

use super::entity::work;
use super::freezer::{self, Held};
use super::membership::{self, Reserved};
use super::process::Process;
use super::rseq;
use super::sched;
use super::signal::{self, AltStack};
use super::table::TABLE;
use super::thread::{Thread, current};
use super::wait::Sleep;
use crate::arch::trap::{NO_SYSCALL, TrapFrame};
use crate::arch::{regs, uaccess};
use crate::ipc::pidfd;
use crate::ipc::table::Descriptors;
use crate::task::space::Space;

/// The arguments of `clone`.
pub struct Request {
    /// What to share.
    pub flags: Clone,
    /// The signal at the child's end.
    pub exit_signal: u32,
    /// The child's stack pointer; 0 keeps the parent's.
    pub stack: u64,
    /// Where to store the child's number in the parent.
    pub parent_tid: UserAddr,
    /// Where to store or clear it in the child.
    pub child_tid: UserAddr,
    /// Where to store the pidfd.
    pub pidfd: UserAddr,
    /// The child's thread pointer.
    pub tls: u64,
}

impl Request {
    /// Turns a copy of the parent's frame into the child's first.
    fn begin(&self, child: &mut TrapFrame) {
        child.x[0] = 0;
        child.syscall = NO_SYSCALL;
        if self.stack != 0 {
            child.sp = self.stack;
        }
    }
}

/// Makes the child and starts it; returns its number. With VFORK, sleeps until it execs or ends.
pub fn clone(request: &Request, frame: &TrapFrame) -> Result<u32, Errno> {
    check(request)?;
    let flags = request.flags;
    let parent = current();
    let mut reserved = Reserved::new()?;
    let tid = reserved.number();
    let (thread, process) = if flags.contains(Clone::THREAD) {
        new_thread(tid, request, parent, frame)?
    } else {
        new_process(tid, request, parent, frame)?
    };
    prepare(request, parent, &thread)?;
    let pidfd = process.as_ref().filter(|_| flags.contains(Clone::PIDFD));
    let pidfd = pidfd.map(|child| NewDescriptor::of_process(child, request.pidfd)).transpose()?;
    start(request, &thread, process.as_ref(), &mut reserved)?;
    reserved.keep();
    pidfd.into_iter().for_each(NewDescriptor::keep);
    if flags.contains(Clone::VFORK)
        && let Some(child) = process
    {
        // The child uses the parent's memory until then. A killed parent need not wait: the space is reference-counted.
        let _held = Held::new(parent.process());
        let _ = child
            .stop_wait
            .wait_until(Sleep::Killable, None, || child.mm_released.load(Ordering::Acquire).then_some(()));
    }
    Ok(tid)
}

/// Checks the combination of flags; EINVAL where clone(2) on Linux says so.
fn check(request: &Request) -> Result<(), Errno> {
    let flags = request.flags;
    let needs = [(Clone::THREAD, Clone::SIGHAND), (Clone::SIGHAND, Clone::VM)];
    if needs.iter().any(|&(a, b)| flags.contains(a) && !flags.contains(b)) {
        return Err(Errno::EINVAL);
    }
    // As Linux before 6.9: a pidfd is of a whole process.
    if flags.contains(Clone::PIDFD | Clone::THREAD) {
        return Err(Errno::EINVAL);
    }
    // init's siblings would have no parent.
    if flags.contains(Clone::PARENT) && current().process().pid == 1 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// The pidfd of a child, closed again if the child does not start.
struct NewDescriptor {
    table: KArc<Descriptors>,
    fd: i32,
}

impl NewDescriptor {
    fn of_process(child: &KArc<Process>, at: UserAddr) -> Result<Self, Errno> {
        let me = current().process();
        let table = me.descriptors()?;
        let fd = table.insert(pidfd::descriptor(child, Open::empty())?, 0, me.limit(rlimit::NOFILE))?;
        let new = Self { table, fd };
        uaccess::put(at, &new.fd)?;
        Ok(new)
    }

    fn keep(mut self) {
        self.fd = -1;
    }
}

impl Drop for NewDescriptor {
    fn drop(&mut self) {
        if self.fd >= 0 {
            drop(self.table.remove(self.fd));
        }
    }
}

type Made = (KArc<Thread>, Option<KArc<Process>>);

fn new_thread(tid: u32, request: &Request, parent: &Thread, frame: &TrapFrame) -> Result<Made, Errno> {
    let mm = parent.mm().ok_or(Errno::ESRCH)?.clone();
    let thread = Thread::new_user(tid, parent.process().clone(), mm, frame, |child| request.begin(child))?;
    thread.set_name(&parent.name());
    Ok((thread, None))
}

fn new_process(pid: u32, request: &Request, parent: &Thread, frame: &TrapFrame) -> Result<Made, Errno> {
    let from = parent.process();
    let mm = parent.mm().ok_or(Errno::ESRCH)?;
    let descriptors = from.descriptors()?;
    let descriptors = if request.flags.contains(Clone::FILES) { descriptors } else { descriptors.copy_for_child()? };
    let actions = from.actions.lock().clone();
    let actions = match request.flags {
        flags if flags.contains(Clone::SIGHAND) => actions,
        flags if flags.contains(Clone::CLEAR_SIGHAND) => actions.copy_for_exec()?,
        _ => actions.copy()?,
    };
    let space = if request.flags.contains(Clone::VM) {
        from.space.lock().clone().ok_or(Errno::ESRCH)?
    } else {
        let loaded = from.space.lock().as_ref().and_then(|space| space.loaded());
        Space::new(mm.fork()?, loaded)?
    };
    let directory = if request.flags.contains(Clone::FS) { from.directory.share()? } else { from.directory.copy() };
    let process = Process::new(pid, space.clone(), descriptors, actions, directory, Some(from))?;
    if parent.tid() != from.pid {
        *process.name.lock() = parent.name();
    }
    process.handles.inherit(&from.handles)?;
    let thread = Thread::new_user(pid, process.clone(), KArc::clone(&space.mm), frame, |child| request.begin(child))?;
    Ok((thread, Some(process)))
}

/// How a child is scheduled: as its parent, unless that wants it otherwise (sched(7)).
fn inherited(parent: &Thread) -> Class {
    let class = parent.share.class();
    match parent.resets_on_fork.load(Ordering::Relaxed) {
        false => class,
        true if class.is_real_time() => Class::NORMAL,
        true => Class { nice: class.nice.max(0), ..class },
    }
}

/// Sets up the child's state beside its registers.
fn prepare(request: &Request, parent: &Thread, thread: &KArc<Thread>) -> Result<(), Errno> {
    let flags = request.flags;
    thread.inherit_fp(parent)?;
    thread.set_tls(if flags.contains(Clone::SETTLS) { request.tls } else { regs::tls() });
    if !flags.contains(Clone::VM) {
        thread.rseq.inherit(&parent.rseq);
        rseq::note(thread);
    }
    thread.timer_slack.store(parent.timer_slack.load(Ordering::Relaxed), Ordering::Relaxed);
    thread.share.set_class(inherited(parent));
    if !parent.resets_on_fork.load(Ordering::Relaxed) {
        thread.share.set_slice(parent.share.slice(0));
    }
    thread.affinity.store(parent.affinity.load(Ordering::Relaxed), Ordering::Relaxed);
    {
        let (blocked, alt_stack) = {
            let signals = parent.signals.lock();
            (signals.blocked, signals.alt_stack)
        };
        let mut signals = thread.signals.lock();
        signals.blocked = blocked;
        // A child that shares memory but is no vfork child gets no alternate stack (clone(2)).
        let shares = flags.contains(Clone::VM) && !flags.contains(Clone::VFORK);
        signals.alt_stack = if shares { AltStack::default() } else { alt_stack };
    }
    if flags.contains(Clone::PARENT_SETTID) {
        // As on Linux, a bad address is ignored.
        let _ = uaccess::put(request.parent_tid, &thread.tid());
    }
    if flags.contains(Clone::CHILD_CLEARTID) {
        thread.clear_child_tid.store(request.child_tid.get(), Ordering::Relaxed);
    }
    if flags.contains(Clone::CHILD_SETTID) {
        thread.set_child_tid.store(request.child_tid.get(), Ordering::Relaxed);
    }
    Ok(())
}

/// Inserts the child into the table and lets it run. EINTR if the calling thread is about to end.
fn start(
    request: &Request,
    thread: &KArc<Thread>,
    process: Option<&KArc<Process>>,
    reserved: &mut Reserved,
) -> Result<(), Errno> {
    let own = thread.clone();
    let parent = current().process();
    let mut table = TABLE.lock();
    if signal::interrupts(current(), Sleep::Killable) {
        return Err(Errno::EINTR);
    }
    match process {
        Some(child) => {
            membership::begin(&table, parent, child, reserved)?;
            child.pgid.store(parent.pgid(), Ordering::Relaxed);
            table.insert_process(child);
            let (sid, own_signal) = (table.family(parent).sid, table.family(parent).exit_signal);
            let is_sibling = request.flags.contains(Clone::PARENT);
            let family = table.family_mut(child);
            family.sid = sid;
            family.exit_signal = if is_sibling { own_signal } else { request.exit_signal };
            let grandparent = if is_sibling { table.family(parent).parent } else { ptr::null() };
            // SAFETY: a parent outlives its children's membership, and the table is locked.
            table.adopt(unsafe { grandparent.as_ref() }.unwrap_or(parent), child);
            table.add_thread(child, thread);
        }
        None => {
            membership::begin_thread(parent, reserved)?;
            table.insert_thread(thread);
            table.add_thread(parent, thread);
            freezer::count(&table, parent);
        }
    }
    if request.flags.contains(Clone::CHILD_SETTID) || signal::awaits(process.map_or(parent, |child| child)) {
        thread.set_work(work::SIGNAL);
    }
    drop(table);
    // The running thread's own reference; `thread_has_ended` drops it.
    let running = KArc::into_raw(own);
    // SAFETY: the reference just made keeps it alive.
    sched::start(unsafe { &*running });
    Ok(())
}
