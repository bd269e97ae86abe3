//! How a process inspects another one, and changes it: the records behind `/proc/PID`.
//!
//! The inspected process may end or exec meanwhile. So each answer is built from objects that are owned here: the
//! process, and its space's memory or its table of descriptors, which are taken under its lock and examined without it.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::{Control, Open};
use quire_abi::process::{DescriptorInfo, GROUPS, MemoryLayout, ProcessDetail, ThreadInfo, limit, object, set, text};
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::{KArc, try_zeroed};
use quire_mm::mm::FaultError;
use quire_mm::numbers;

use super::lookup::stat_here;
use super::quire::control;
use super::{Answer, Args, priority};
use crate::arch::uaccess;
use crate::board::BOARD;
use crate::boot::info;
use crate::ipc::descriptor::{Descriptor, Object};
use crate::ipc::pipe;
use crate::ipc::table::NR_OPEN;
use crate::names::mounts;
use crate::task::credentials::{MAX_GROUPS, permit_inspection};
use crate::task::point::resched_point;
use crate::task::process::{NAME_LEN, Process, TABLE};
use crate::task::users;
use crate::task::wait::Sleep;
use crate::vm::Mm;

const _: () = {
    assert!(limit::NUMBERS == numbers::LIMIT as usize);
    assert!(limit::AREAS == quire_mm::mm::MAX_MAP_COUNT);
    assert!(limit::DESCRIPTORS == NR_OPEN as usize);
    assert!(limit::GROUPS == MAX_GROUPS);
    assert!(limit::PIPE == pipe::CAPACITY);
};

fn process(pid: u32) -> Result<KArc<Process>, Errno> {
    TABLE.lock().process(pid).cloned().ok_or(Errno::ESRCH)
}

/// The address space of a process that the caller may inspect, or that an auditor inspects; `None` if the process has
/// ended. ESRCH, EPERM.
pub(super) fn inspected(pid: u32, by_auditor: bool) -> Result<Option<KArc<Mm>>, Errno> {
    let process = process(pid)?;
    if !by_auditor {
        permit_inspection(&process)?;
    }
    Ok(memory(&process).map(|(mm, _)| mm))
}

/// A process's memory, and the addresses of what exec has placed there.
fn memory(process: &Process) -> Option<(KArc<Mm>, MemoryLayout)> {
    // The space's lock may be held for as long as a fault takes, so it is not taken under the table's lock.
    let space = process.space.lock();
    let space = space.as_ref()?;
    Some((KArc::clone(&space.mm), space.loaded().map_or_else(MemoryLayout::default, |loaded| loaded.layout)))
}

/// The record of a process, at index 0.
pub fn detail(pid: u32, index: usize) -> Result<Option<ProcessDetail>, Errno> {
    let process = process(pid)?;
    if index != 0 {
        return Ok(None);
    }
    let (mm, layout) = memory(&process).unzip();
    let stats = mm.as_ref().map(|mm| mm.stats()).unwrap_or_default();
    let heap = mm.as_ref().map_or([0; 2], |mm| [mm.heap().0.get() as u64, mm.heap().1.get() as u64]);
    let credentials = process.credentials.lock().clone();
    let further = credentials.groups.as_ref().map_or(&[][..], |groups| groups);
    let mut first = [0; GROUPS];
    first.iter_mut().zip(further).for_each(|(to, group)| *to = *group);
    let (ignored, caught) = process.actions.lock().chosen();
    let children = process.children_time.spent();
    let of = |ids: &crate::task::credentials::Ids| [ids.real, ids.effective, ids.saved, ids.files];
    Ok(Some(ProcessDetail {
        users: of(&credentials.user),
        groups: of(&credentials.group),
        flags: info::flags(&process),
        umask: process.directory.umask(),
        oom_score_adj: process.oom_score_adj.load(Ordering::Relaxed),
        descriptors: process.descriptors().map_or(0, |table| table.capacity() as u32),
        group_count: further.len() as u32,
        pad: 0,
        pending: process.pending.get(),
        ignored,
        caught,
        queued: users::records(credentials.user.real),
        limits: *process.limits.lock(),
        children_ns: [children.user, children.system],
        children_faults: [children.faults, children.major],
        peak: stats.peak as u64,
        resident_peak: stats.rss_peak as u64,
        data: stats.data as u64,
        stack: stats.stack as u64,
        locked: stats.locked as u64,
        anon: stats.rss_anon as u64,
        file: stats.rss_file as u64,
        shared: stats.rss_shared as u64,
        heap,
        layout: layout.unwrap_or_default(),
        further: first,
    }))
}

/// The thread of a process with this number, or else with the next higher one.
pub fn thread(pid: u32, from: usize) -> Result<Option<ThreadInfo>, Errno> {
    let Ok(from) = u32::try_from(from) else { return Ok(None) };
    let table = TABLE.lock();
    let process = table.process(pid).ok_or(Errno::ESRCH)?;
    let Some(thread) = table.family(process).threads_from(from).next() else { return Ok(None) };
    let (pending, blocked) = {
        let signals = thread.signals.lock();
        (signals.pending.set(), signals.blocked)
    };
    let spent = thread.time.spent();
    Ok(Some(ThreadInfo {
        tid: thread.tid(),
        state: info::state_of_thread(process, thread),
        cpu: thread.cpu.load(Ordering::Relaxed),
        class: priority::shown(thread),
        affinity: thread.affinity.load(Ordering::Relaxed),
        user_ns: spent.user,
        system_ns: spent.system,
        faults: spent.faults,
        major_faults: spent.major,
        pending,
        blocked,
        name: thread.name(),
    }))
}

/// The descriptor of a process with this number, or else with the next higher one. `None` for a process that ends.
pub fn descriptor(pid: u32, from: usize) -> Result<Option<DescriptorInfo>, Errno> {
    let process = process(pid)?;
    permit_inspection(&process)?;
    let Ok(table) = process.descriptors() else { return Ok(None) };
    let Some((number, descriptor)) = table.next(from) else { return Ok(None) };
    Ok(Some(record(number, &descriptor)))
}

fn record(number: usize, descriptor: &Descriptor) -> DescriptorInfo {
    let file = &descriptor.file;
    let (kind, mount) = match &file.object {
        Object::Console => (object::CONSOLE, 0),
        Object::Pipe(..) => (object::PIPE, 0),
        Object::Archive(_) => (object::ARCHIVE, 0),
        Object::Memory(memory) => (object::MEMORY, mounts::with_device(memory.device()).unwrap_or(0)),
        Object::Name(name) => (object::NAME, name.place.mount),
        Object::Null => (object::NULL, 0),
        Object::Zero => (object::ZERO, 0),
        Object::EventFd(_) => (object::EVENTFD, 0),
        Object::Epoll(_) => (object::EPOLL, 0),
        Object::TimerFd(_) => (object::TIMERFD, 0),
        Object::SignalFd(_) => (object::SIGNALFD, 0),
        Object::PidFd(_) => (object::PIDFD, 0),
        Object::Socket(_) => (object::SOCKET, 0),
    };
    let pid = match &file.object {
        Object::PidFd(process) if !process.is_reaped.load(Ordering::Acquire) => process.pid,
        _ => 0,
    };
    let on_exec = if descriptor.close_on_exec { Open::CLOEXEC.bits() } else { 0 };
    DescriptorInfo {
        number: number as u32,
        kind,
        flags: file.status.load(Ordering::Relaxed) | on_exec,
        rights: u32::from(descriptor.rights.bits()),
        position: file.offset.load(Ordering::Relaxed),
        inode: stat_here(&file.object).map_or(0, |stat| stat.ino),
        mount: mount.into(),
        pid,
    }
}

/// Copies a part of what exec has placed in a process's memory: from the offset x2 on, up to x4 bytes; returns how
/// many. EPERM if the caller may not inspect the process, except for the arguments.
///
/// The process may change this memory in any way; the text ends at a part that it has unmapped.
pub fn process_text(a: Args) -> Answer {
    let which = a.word(1);
    if a.uint(0) == 0 && which == text::ARGUMENTS {
        let rest = BOARD.get().chosen.bootargs.as_bytes().get(a.word(2)..).unwrap_or(&[]);
        return uaccess::copy_to_user(a.addr(3), &rest[..rest.len().min(a.word(4))]);
    }
    let process = process(a.uint(0))?;
    if which != text::ARGUMENTS {
        permit_inspection(&process)?;
    }
    let Some((mm, layout)) = memory(&process) else { return Ok(0) };
    drop(process);
    let [from, to] = match which {
        text::ARGUMENTS => layout.arguments,
        text::ENVIRONMENT => layout.environment,
        text::AUXILIARY => layout.auxiliary,
        _ => return Err(Errno::EINVAL),
    };
    let from = from.saturating_add(a.word(2) as u64).min(to) as usize;
    let len = (to as usize - from).min(a.word(4));
    let mut page = try_zeroed(PAGE_SIZE)?;
    let mut done = 0;
    while done < len {
        resched_point(Sleep::Killable)?;
        let at = from + done;
        let piece = (PAGE_SIZE - at % PAGE_SIZE).min(len - done);
        match mm.pin(at, false) {
            // SAFETY: the page is pinned, and `piece` bytes end within it; whatever the program writes there meanwhile
            // is valid as bytes.
            Ok(pinned) => unsafe { crate::arch::mem::copy_shared(page.as_mut_ptr(), pinned.as_ptr(), piece) },
            Err(FaultError::OutOfMemory) if done == 0 => return Err(Errno::ENOMEM),
            Err(_) => break,
        };
        if uaccess::copy_to_user(a.addr(3) + done, &page[..piece])? != piece {
            return Err(Errno::EFAULT);
        }
        done += piece;
    }
    Ok(done)
}

/// Changes a property of the process or thread x1: see [`set`].
pub fn process_set(a: Args) -> Answer {
    control(a, Control::PROCESSES)?;
    match a.word(2) {
        set::NAME => set_name(a),
        set::OOM_SCORE_ADJ => set_oom_score_adj(a),
        _ => Err(Errno::EINVAL),
    }
}

fn set_name(a: Args) -> Answer {
    let name: [u64; 2] = uaccess::get(a.addr(3))?;
    let mut bytes = [0; NAME_LEN];
    bytes.iter_mut().zip(name.map(u64::to_ne_bytes).as_flattened()).for_each(|(to, from)| *to = *from);
    bytes[NAME_LEN - 1] = 0;
    let table = TABLE.lock();
    table.thread(a.uint(1)).ok_or(Errno::ESRCH)?.set_name(&bytes);
    Ok(0)
}

fn set_oom_score_adj(a: Args) -> Answer {
    const BIAS: i32 = 1000;
    let process = process(a.uint(1))?;
    let adj = i32::try_from(a.word(3)).ok().filter(|adj| *adj <= 2 * BIAS).ok_or(Errno::EINVAL)? - BIAS;
    let is_privileged = a.word(4) != 0;
    if !is_privileged && adj < process.oom_score_adj_min.load(Ordering::Relaxed) {
        return Err(Errno::EACCES);
    }
    if is_privileged {
        process.oom_score_adj_min.store(adj, Ordering::Relaxed);
    }
    process.oom_score_adj.store(adj, Ordering::Relaxed);
    Ok(0)
}
