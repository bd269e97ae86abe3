//! The attachments of a message: handles, which are moved, and windows of the caller's memory.
//!
//! The caller's descriptor of them is read once, into the record of its calls, before the call is sent. From then on
//! the server acts, for as long as the caller waits: it takes the handles ([`accept`]), and copies from and to the
//! windows ([`copy`]). So nothing is in flight in a queue, nobody's table is filled by others, and errors are reported
//! to the one that asks.
//!
//! While a server works on a caller ([`Reply::with_caller`](super::message::Reply::with_caller)) the caller does not
//! continue. That time is short, with interrupts masked: a few handles, or the bytes of one page. Memory is supplied
//! and pages are pinned beforehand.
//!
//! A window is copied page by page, through the direct map, from and to resident pages. The server's own pages are
//! brought in on its own time. A missing page of the caller is brought in by the caller: it is woken to do so, and the
//! server, which gets EAGAIN, serves others meanwhile.
//!
//! Lock order: a server that works on a caller takes the locks of tables of handles, of a process, and of run queues,
//! but no endpoint's.

use quire_abi::Errno;
use quire_abi::ipc::{Attachments, HANDLES, Window, options};
use quire_ipc::{Caller, Refused};
use quire_mm::UserAddr;
use quire_mm::addr::{PAGE_SIZE, USER_END};
use quire_mm::fallible::KArc;
use quire_mm::fallible::slots::Room;
use quire_mm::machine::Threads;
use quire_mm::mm::FaultError;

use super::ask;
use super::message::{self, Reply, Saved};
use crate::arch::trap::TrapFrame;
use crate::arch::{mem, uaccess};
use crate::task::point::resched_point;
use crate::task::thread::{Thread, current};
use crate::task::wait::Sleep;
use crate::vm::{Cpu, Mm};

/// The register with the descriptor's address.
const DESCRIPTOR: usize = 11;

/// Whether the frame's message has attachments.
#[inline]
pub fn has_attachments(frame: &TrapFrame) -> bool {
    frame.x[10] & options::CARRIES != 0
}

/// Reads the descriptor. EFAULT; EBADF or EPERM for a handle that does not exist or may not be transferred.
fn read(frame: &TrapFrame) -> Result<Attachments, Errno> {
    let attachments: Attachments = uaccess::get(UserAddr::new(frame.x[DESCRIPTOR] as usize))?;
    current().process().handles.check(&attachments.handles)?;
    Ok(attachments)
}

/// Loads the attachments of the calling thread's call into the record of its calls. EINVAL for a window of unknown
/// access, EFAULT for one that is not in the lower half; whether it is mapped is checked later.
pub fn load(frame: &TrapFrame) -> Result<(), Errno> {
    let attachments = read(frame)?;
    for window in &attachments.windows {
        if window.access & !(Window::READ | Window::WRITE) != 0 {
            return Err(Errno::EINVAL);
        }
        uaccess::check(UserAddr::new(window.start as usize), window.len as usize)?;
    }
    current().messaging()?.record.load(attachments);
    Ok(())
}

/// Removes the attachments of the calling thread's next call.
#[cold]
pub fn unload() {
    if let Some(messaging) = current().former_messaging() {
        messaging.record.unload();
    }
}

/// The thread of a caller.
pub fn thread<'a>(caller: &'a Caller<'_, Cpu>) -> &'a Thread {
    // SAFETY: the caller waits for as long as this reference exists.
    unsafe { message::thread_of(caller.thread()) }
}

/// Takes the handles of a call, all or none; returns their numbers, 0 for none. ENOENT if there are none (any more),
/// ENXIO if the caller no longer has one of them, EMFILE without enough free numbers, ENOMEM, ECANCELED if the caller
/// is gone.
pub fn accept(reply: &Reply) -> Result<[u32; HANDLES], Errno> {
    let own = &current().process().handles;
    supplied(|room| {
        let taken = reply.with_caller(|mut caller| {
            let Some(attachments) = caller.attachments() else { return Err(Refused::Offer(Errno::ENOENT)) };
            let attached = attachments.handles;
            if attached.iter().all(|one| one.number == 0) {
                return Err(Refused::Offer(Errno::ENOENT));
            }
            let theirs = &thread(&caller).process().handles;
            let numbers = theirs.transfer(&attached, own, room).map_err(|refused| match refused {
                Refused::Offer(_) => Refused::Offer(Errno::ENXIO),
                other => other,
            })?;
            if let Some(attachments) = caller.attachments() {
                attachments.handles = Default::default();
            }
            Ok(numbers)
        });
        taken.unwrap_or(Err(Refused::Offer(Errno::ECANCELED)))
    })
}

/// Repeats `attempt` with the memory that it lacked.
fn supplied<T>(mut attempt: impl FnMut(&mut Room<super::handles::Handle>) -> Result<T, Refused>) -> Result<T, Errno> {
    let mut room = Room::none();
    loop {
        match attempt(&mut room) {
            Ok(done) => return Ok(done),
            Err(Refused::Lack(lack)) => room = lack.supply()?,
            Err(Refused::Full) => return Err(Errno::EMFILE),
            Err(Refused::Offer(e)) => return Err(e),
        }
    }
}

/// The reply in the slot of a thread, or a saved one.
#[derive(Clone, Copy)]
pub enum Answering<'a> {
    /// The reply in the slot.
    Slot(&'a Reply),
    /// One that was saved.
    Saved(&'a Saved),
}

/// Answers a call with the message in the frame and the handles that its descriptor names; `rouse` as in
/// [`Reply::answer`]. In case of an error nothing has happened: EMFILE if the caller has too few free numbers or has
/// not admitted that many handles, EINVAL for windows, and the errors of [`read`]. ECANCELED if the caller is gone:
/// then the reply is useless.
pub fn answer(reply: Answering<'_>, frame: &mut TrapFrame, mut rouse: impl FnMut(usize)) -> Result<(), Errno> {
    let attachments = read(frame)?;
    if attachments.windows.iter().any(|window| window.access != 0) {
        return Err(Errno::EINVAL);
    }
    let count = attachments.handles.iter().rposition(|one| one.number != 0).map_or(0, |last| last + 1);
    let own = &current().process().handles;
    // SAFETY: the frame is this thread's.
    let from = unsafe { &*message::registers(frame) };
    supplied(|room| {
        let bring = |caller: Caller<'_, Cpu>| {
            if count > caller.room() {
                return Err(Refused::Full);
            }
            if let Some(asking) = ask::of(&caller) {
                return asking.lend(own, &attachments.handles).map(|()| [0; HANDLES]).map_err(Refused::Offer);
            }
            own.transfer(&attachments.handles, &thread(&caller).process().handles, room)
        };
        let answered = match reply {
            Answering::Slot(reply) => reply.answer_with(from, bring, &mut rouse),
            Answering::Saved(saved) => saved.answer_with(from, bring, &mut rouse),
        };
        answered.unwrap_or(Err(Refused::Offer(Errno::ECANCELED)))
    })
}

/// The caller's process, thread, and the user and group that it has for access to files; and whether it is in `group`.
pub fn identity(reply: &Reply, group: u32) -> Result<[u32; 5], Errno> {
    let seen = reply.with_caller(|caller| {
        let thread = thread(&caller);
        // A thread of the kernel's own belongs to no process.
        let Some(process) = &thread.process else { return [0; 5] };
        let credentials = process.credentials.lock();
        let is_in = u32::from(credentials.is_in(group));
        [process.pid, thread.tid(), credentials.user.files, credentials.group.files, is_in]
    });
    seen.ok_or(Errno::ECANCELED)
}

/// A part of a window, and the address in the server's memory that it is copied from or to.
pub struct Part {
    /// Which window.
    pub window: usize,
    /// Where in it.
    pub offset: usize,
    /// The server's buffer.
    pub buffer: usize,
    /// Bytes.
    pub len: usize,
    /// Whether the window is written.
    pub write: bool,
}

/// Copies between a window and the server's buffer; returns how many bytes were copied, which may be fewer only because
/// a page of the caller is missing. EAGAIN if that is the first page: the caller brings it in, and then the endpoint
/// reports [`READY`](quire_abi::ipc::received::READY) for a saved call. ENXIO if the caller has tried that and failed.
/// ENOENT for no window, EPERM for the wrong direction, EINVAL for a range that is not within it, EFAULT for the
/// server's buffer, ECANCELED if the caller is gone.
pub fn copy(reply: &Reply, part: &Part) -> Result<usize, Errno> {
    uaccess::check(UserAddr::new(part.buffer), part.len)?;
    let theirs = reply.with_caller(|caller| open(caller, part)).ok_or(Errno::ECANCELED)??;
    let mut done = 0;
    while done < part.len {
        let own = part.buffer + done;
        let rest = |at: usize| PAGE_SIZE - at % PAGE_SIZE;
        let place = reply.with_caller(|_| theirs.place(part.offset + done)).ok_or(Errno::ECANCELED)?;
        let n = (part.len - done).min(rest(place)).min(rest(own));
        match piece(reply, (&theirs, part.offset + done), own, n, part.write) {
            Ok(()) => done += n,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        if done < part.len && resched_point(Sleep::Killable).is_err() {
            break;
        }
    }
    Ok(done)
}

/// Where a window begins.
enum Theirs {
    /// In the caller's space.
    Program(usize, KArc<Mm>),
    /// In the kernel's memory, for the kernel's own calls.
    Kernel(usize),
    /// A [`Run`](ask::Run) of frames at this address, also for the kernel's own calls.
    Frames(usize),
}

impl Theirs {
    /// The offset in its page of the byte at an offset of the window. Called while the caller waits.
    fn place(&self, offset: usize) -> usize {
        match self {
            Self::Program(start, _) | Self::Kernel(start) => start + offset,
            // SAFETY: only the kernel's own calls have such windows, and the caller waits.
            Self::Frames(start) => unsafe { ask::Run::place(*start, offset) },
        }
    }
}

/// The window of a part.
fn open(mut caller: Caller<'_, Cpu>, part: &Part) -> Result<Theirs, Errno> {
    let attachments = caller.attachments().ok_or(Errno::ENOENT)?;
    let window = *attachments.windows.get(part.window).ok_or(Errno::ENOENT)?;
    let wanted = if part.write { Window::WRITE } else { Window::READ };
    if window.access == 0 {
        return Err(Errno::ENOENT);
    }
    if window.access & wanted == 0 {
        return Err(Errno::EPERM);
    }
    let end = part.offset.checked_add(part.len).ok_or(Errno::EINVAL)?;
    if end as u64 > window.len {
        return Err(Errno::EINVAL);
    }
    let start = window.start as usize;
    // (Only the kernel's own calls have windows in the upper half or of frames: `load` admits none from a program.)
    if window.access & ask::RUN != 0 {
        return Ok(Theirs::Frames(start));
    }
    if start >= USER_END {
        return Ok(Theirs::Kernel(start));
    }
    // A caller that waits does not change its address space, which its process keeps while it has this thread.
    Ok(Theirs::Program(start, thread(&caller).mm().ok_or(Errno::ECANCELED)?.clone()))
}

/// Copies bytes between one page of the caller and one page of this thread.
fn piece(reply: &Reply, (theirs, offset): (&Theirs, usize), own: usize, n: usize, write: bool) -> Result<(), Errno> {
    let here = current().mm().ok_or(Errno::EFAULT)?;
    let own = match here.pin_resident(own, !write) {
        Some(page) => page,
        None => here.pin(own, !write).map_err(|error| match error {
            FaultError::OutOfMemory => Errno::ENOMEM,
            _ => Errno::EFAULT,
        })?,
    };
    let pinned = match theirs {
        Theirs::Program(start, mm) => match mm.pin_resident(start + offset, write) {
            None => return Err(want(reply, start + offset, write)),
            pinned => pinned,
        },
        Theirs::Kernel(_) | Theirs::Frames(_) => None,
    };
    let copied = reply.with_caller(|_| {
        let there = match (theirs, &pinned) {
            (_, Some(page)) => page.as_ptr(),
            // SAFETY: as in `Theirs::place`.
            (Theirs::Frames(start), None) => unsafe { ask::Run::byte(*start, offset) }.ok_or(Errno::EINVAL)?,
            (Theirs::Kernel(start) | Theirs::Program(start, _), None) => {
                core::ptr::with_exposed_provenance_mut(start + offset)
            }
        };
        let (to, from) = if write { (there, own.as_ptr()) } else { (own.as_ptr(), there) };
        // SAFETY: each range is within one page. Pages of programs are pinned, and no Rust reference points there;
        // memory of the kernel is lent to the call by its caller, which waits meanwhile.
        unsafe { mem::copy_shared(to, from, n) };
        Ok(())
    });
    copied.unwrap_or(Err(Errno::ECANCELED))
}

/// Wakes the caller to bring a page in.
#[cold]
fn want(reply: &Reply, at: usize, write: bool) -> Errno {
    let wanted = reply.with_caller(|caller| {
        if !caller.want(at & !(PAGE_SIZE - 1), write) {
            return Errno::ENXIO;
        }
        // SAFETY: the caller does not end meanwhile.
        unsafe { Cpu.unpark(caller.thread()) };
        Errno::EAGAIN
    });
    wanted.unwrap_or(Errno::ECANCELED)
}
