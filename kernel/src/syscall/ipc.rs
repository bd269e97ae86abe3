//! Endpoints, messages and handles: Quire's own calls. A message is in x1 to x7 (see `docs/messages.md`).

use quire_abi::Errno;
use quire_abi::flags::seal;
use quire_abi::ipc::{HANDLES, options, rights};
use quire_mm::fallible::KArc;

use super::{Answer, Args};
use crate::arch::trap::TrapFrame;
use crate::arch::uaccess;
use crate::ipc::attachments::{self, Answering, Part};
use crate::ipc::handles::{Handle, Handles, Receiving, Target};
use crate::ipc::memory_file::MemoryFile;
use crate::ipc::message::{self, Endpoint, Reply, Saved};
use crate::names::{Place, cache, inodes, mounts};
use crate::task::thread::current;
use crate::vm::{Cpu, Object};

fn handles() -> &'static Handles {
    &current().process().handles
}

/// Makes an endpoint; returns the handle to receive from it.
pub fn endpoint() -> Answer {
    let endpoint = Endpoint::try_new(Cpu, current().process().pid)?;
    insert(Handle::new(Target::Receiver(Receiving(endpoint)), 0))
}

fn insert(handle: Handle) -> Answer {
    handles().insert(handle).map(|number| number as usize)
}

/// The endpoint that a handle receives from: EPERM for a handle of another kind.
fn receiver(number: u32) -> Result<KArc<Endpoint>, Errno> {
    handles().with(number, |handle| match &handle.target {
        Target::Receiver(receiving) => Ok(receiving.0.clone()),
        _ => Err(Errno::EPERM),
    })
}

/// Makes a sender or a signaller with the badge x2 for the endpoint that x0 receives from. EINVAL for other rights, and
/// for a signaller without events; EBUSY for a sender if a thread that received there still has a call to answer.
pub fn mint(a: Args) -> Answer {
    let endpoint = receiver(a.uint(0))?;
    let (rights, badge) = (a.uint(1), a.word(2) as u64);
    let target = match rights {
        rights::SEND => {
            endpoint.admit_sender()?;
            Target::Sender(endpoint)
        }
        rights::SIGNAL if badge != 0 => Target::Signaller(endpoint),
        _ => return Err(Errno::EINVAL),
    };
    insert(Handle::new(target, badge))
}

/// Revokes everything that the server which receives from x0 has said of the file system that is mounted by its sender
/// with the badge x1.
pub fn forget(a: Args) -> Answer {
    cache::revoke(&receiver(a.uint(0))?, a.word(1) as u64);
    Ok(0)
}

/// Whether the file with the number x2 is open or mapped, and whether it has pages to be written back: bits of
/// [`opened`]. The file is in the file system that the server which receives from x0 has mounted by its sender with the
/// badge x1.
pub fn opened(a: Args) -> Answer {
    use quire_abi::names::opened;
    let mut answer = 0;
    mounts::each_of(&receiver(a.uint(0))?, Some(a.word(1) as u64), |mount| {
        let (is_held, is_marked) = Place::new(mount, a.word(2) as u64).map_or((false, false), inodes::state);
        answer |= if is_held { opened::HELD } else { 0 };
        answer |= if is_marked { opened::UNWRITTEN } else { 0 };
    });
    Ok(answer)
}

/// Calls by the sender x0.
pub fn call(frame: &mut TrapFrame) -> Answer {
    let has_attachments = attachments::has_attachments(frame);
    let result = send(frame, has_attachments);
    if has_attachments && result.is_err() {
        // The call may not have been sent.
        attachments::unload();
    }
    result
}

fn send(frame: &mut TrapFrame, has_attachments: bool) -> Answer {
    check_options(frame, options::WORDS | options::INTERRUPTIBLE | options::CARRIES | options::ROOM)?;
    if has_attachments {
        attachments::load(frame)?;
    }
    let (endpoint, badge) = handles().with(frame.x[0] as u32, |handle| match &handle.target {
        Target::Sender(endpoint) => Ok((endpoint.clone(), handle.badge)),
        _ => Err(Errno::EPERM),
    })?;
    message::call(&endpoint, badge, frame).map(|()| 0)
}

/// Receives from x0.
pub fn receive(frame: &mut TrapFrame) -> Answer {
    check_options(frame, options::NOW | options::WORDS)?;
    message::receive(&*receiver(frame.x[0] as u32)?, frame)?;
    Ok(frame.x[0] as usize)
}

/// Answers the call in the slot, then receives from x0.
pub fn reply_receive(frame: &mut TrapFrame) -> Answer {
    check_options(frame, options::NOW | options::WORDS | options::CARRIES)?;
    message::reply_receive(&*receiver(frame.x[0] as u32)?, frame)?;
    Ok(frame.x[0] as usize)
}

/// Answers the saved call x0, whose handle is then closed; if x0 is 0, the call in the slot.
pub fn reply(frame: &mut TrapFrame) -> Answer {
    check_options(frame, options::WORDS | options::CARRIES)?;
    match frame.x[0] as u32 {
        0 => message::answer(frame)?,
        number if attachments::has_attachments(frame) => {
            let saved = saved(number)?;
            let answered = message::answer_with_attachments(Answering::Saved(&saved), frame);
            if matches!(answered, Ok(()) | Err(Errno::ECANCELED)) {
                // The handle is used up. (Another thread may have closed it, and have another handle with this number.)
                let is_this = |handle: &Handle| match &handle.target {
                    Target::Reply(there) if KArc::ptr_eq(there, &saved) => Ok(()),
                    _ => Err(Errno::EBADF),
                };
                drop(handles().take_if(number, is_this));
            }
            answered?;
        }
        number => {
            let is_reply = |handle: &Handle| match handle.target {
                Target::Reply(_) => Ok(()),
                _ => Err(Errno::EPERM),
            };
            let handle = handles().take_if(number, is_reply)?;
            let Target::Reply(saved) = &handle.target else { return Err(Errno::EPERM) };
            message::answer_saved(saved, frame)?;
        }
    }
    Ok(0)
}

/// EINVAL for an option that the call does not support.
fn check_options(frame: &TrapFrame, known: u64) -> Result<(), Errno> {
    if frame.x[10] & !known == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Saves the reply in the slot, to a call received from x0 (EINVAL if it is not), as a handle with the token x1.
/// ECANCELED if the caller is gone. If there is no memory or no room for a handle, nothing has happened; only if other
/// threads take the last room meanwhile, the call is broken.
pub fn save(a: Args) -> Answer {
    let endpoint = receiver(a.uint(0))?;
    let thread = current();
    if !thread.reply(|reply| reply.is_of(&endpoint)).ok_or(Errno::ENOENT)? {
        return Err(Errno::EINVAL);
    }
    handles().make_room()?;
    let reply = thread.take_reply().ok_or(Errno::ENOENT)?;
    match Saved::try_new(&endpoint, reply, a.word(1) as u64) {
        Ok(saved) => insert(Handle::new(Target::Reply(saved.ok_or(Errno::ECANCELED)?), 0)),
        Err(reply) => {
            thread.put_reply(reply);
            Err(Errno::ENOMEM)
        }
    }
}

/// The saved call that a handle answers. EPERM for a handle of another kind.
fn saved(number: u32) -> Result<KArc<Saved>, Errno> {
    handles().with(number, |handle| match &handle.target {
        Target::Reply(saved) => Ok(saved.clone()),
        _ => Err(Errno::EPERM),
    })
}

/// Calls `see` with the reply to the saved call `number`; if it is 0, with the reply in the slot: ENOENT if there is
/// none.
fn with_reply<T>(number: u32, see: impl FnOnce(&Reply) -> Result<T, Errno>) -> Result<T, Errno> {
    match number {
        0 => current().reply(see).ok_or(Errno::ENOENT)?,
        number => see(saved(number)?.reply()),
    }
}

/// Takes the handles of the call x0: their numbers are returned in x1 to x4.
pub fn accept(frame: &mut TrapFrame) -> Answer {
    let numbers = with_reply(frame.x[0] as u32, attachments::accept)?;
    frame.x[1..=HANDLES].copy_from_slice(&numbers.map(u64::from));
    Ok(0)
}

/// Returns the process, the thread, the user and the group of the caller of the call x0 in x1 to x4, and in x5 whether
/// the caller is in the group x1.
pub fn caller(frame: &mut TrapFrame) -> Answer {
    let group = frame.x[1] as u32;
    let identity = with_reply(frame.x[0] as u32, |reply| attachments::identity(reply, group))?;
    frame.x[1..=identity.len()].copy_from_slice(&identity.map(u64::from));
    Ok(0)
}

/// Copies between the window x1 of the call x0, from its byte x2 on, and the buffer x3 of x4 bytes; to the window if
/// `write`.
pub fn window(a: Args, write: bool) -> Answer {
    let part = Part { window: a.word(1), offset: a.word(2), buffer: a.word(3), len: a.word(4), write };
    with_reply(a.uint(0), |reply| attachments::copy(reply, &part))
}

/// Sets the events of the signaller x0.
pub fn signal(a: Args) -> Answer {
    let (endpoint, events) = handles().with(a.uint(0), |handle| match &handle.target {
        Target::Signaller(endpoint) => Ok((endpoint.clone(), handle.badge)),
        _ => Err(Errno::EPERM),
    })?;
    endpoint.signal(events)?;
    Ok(0)
}

/// A new memory object with the attributes of a file: permissions x0, user and group x1, number x2.
pub fn memory(a: Args) -> Answer {
    let (owner, number) = (a.0[1], a.0[2]);
    let content = Object::file(Cpu, seal::SEAL)?;
    let file = MemoryFile::named(content, a.uint(0), (owner as u32, (owner >> 32) as u32), number)?;
    insert(Handle::new(Target::Memory(file), 0))
}

/// The memory object of a handle with these rights: EPERM otherwise.
fn memory_of(number: u32, rights: u32) -> Result<KArc<MemoryFile>, Errno> {
    handles().with(number, |handle| match &handle.target {
        Target::Memory(file) if handle.allows(rights) => Ok(file.clone()),
        _ => Err(Errno::EPERM),
    })
}

/// Writes the record of the memory object x0 to x1.
pub fn memory_stat(a: Args) -> Answer {
    uaccess::put(a.addr(1), &memory_of(a.uint(0), 0)?.stat())?;
    Ok(0)
}

/// Sets the number of names of the memory object x0 to x1.
pub fn memory_links(a: Args) -> Answer {
    memory_of(a.uint(0), rights::CONTROL)?.set_links(a.uint(1));
    Ok(0)
}

/// Closes a handle.
pub fn close(a: Args) -> Answer {
    handles().take(a.uint(0)).map(drop)?;
    Ok(0)
}

/// Makes a second handle for the object of x0, with the rights x1.
pub fn copy(a: Args) -> Answer {
    insert(handles().with(a.uint(0), |handle| handle.copy(a.uint(1)))?)
}

/// Sets the rights x1 with which the handle x0 is passed to children and the next program; if 0, it is not passed.
/// EBADF, or EPERM for rights that the caller does not have.
pub fn grant(a: Args) -> Answer {
    handles().grant(a.uint(0), a.uint(1)).map(|()| 0)
}
