//! Messages: endpoints to call, to receive from and to signal. `docs/messages.md` describes each call.

use quire_abi::ipc::{Attachments, HANDLES, options, received, rights};
use quire_abi::layout::Stat;
use quire_abi::{Errno, nr};

use crate::{arch, sys};

/// The content of a message: a label and up to six words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The kind of message, as its receiver defines it.
    pub label: u64,
    /// The words; unused ones are zero.
    pub words: [u64; 6],
}

impl Message {
    /// A message with a label and some words; words after the sixth are dropped.
    #[inline]
    pub fn new(label: u64, words: &[u64]) -> Self {
        let mut message = Self { label, ..Self::default() };
        for (to, from) in message.words.iter_mut().zip(words) {
            *to = *from;
        }
        message
    }
}

/// How long a thread is ready to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// For ever.
    #[default]
    Endless,
    /// Until this time, in nanoseconds since power-on: ETIMEDOUT.
    Until(u64),
    /// Not at all: EAGAIN. (Not supported by a call.)
    None,
}

impl Patience {
    /// x9 and x10.
    #[inline]
    fn registers(self) -> (u64, u64) {
        match self {
            Self::Endless => (0, 0),
            Self::Until(at) => (at, 0),
            Self::None => (0, options::NOW),
        }
    }
}

/// The result of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// What was received.
    pub what: What,
    /// The events that were signalled since the last receive.
    pub events: u64,
}

/// The kinds of what can be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Events alone.
    Events,
    /// A call, from the sender with this badge. The thread must answer it ([`Receiver::reply_receive`], [`reply`]) or
    /// save it ([`Receiver::save`]) before it receives again.
    Call {
        /// The sender's badge.
        badge: u64,
        /// The message.
        message: Message,
    },
    /// The caller of the saved call with this token is gone, or has given up.
    Cancelled(u64),
    /// The caller of the saved call with this token has a signal to handle, and waits for a short answer.
    Interrupted(u64),
    /// A page of a window of the saved call with this token is present now, or will never be.
    Ready(u64),
}

#[inline]
fn words_of(message: &Message, x0: u32, (x9, x10): (u64, u64)) -> [u64; 10] {
    let [a, b, c, d, e, f] = message.words;
    [u64::from(x0), message.label, a, b, c, d, e, f, x9, x10 | options::WORDS]
}

#[inline]
fn message_in(registers: &[u64; 10]) -> Message {
    let [_, label, a, b, c, d, e, f, ..] = *registers;
    Message { label, words: [a, b, c, d, e, f] }
}

#[inline]
fn received_in(registers: &[u64; 10]) -> Received {
    let what = match registers[0] {
        received::CALL => What::Call { badge: registers[8], message: message_in(registers) },
        received::CANCELLED => What::Cancelled(registers[1]),
        received::INTERRUPTED => What::Interrupted(registers[1]),
        received::READY => What::Ready(registers[1]),
        _ => What::Events,
    };
    Received { what, events: registers[9] }
}

/// A handle to call by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender(pub u32);

impl Sender {
    /// Sends a message and waits for the answer.
    #[inline]
    pub fn call(self, message: &Message) -> Result<Message, Errno> {
        self.call_with(message, Patience::Endless, false)
    }

    /// As [`Sender::call`], until a deadline; if `interruptible`, a signal ends a call that has not been received yet.
    #[inline]
    pub fn call_with(self, message: &Message, patience: Patience, interruptible: bool) -> Result<Message, Errno> {
        let (x9, x10) = patience.registers();
        let option = if interruptible { options::INTERRUPTIBLE } else { 0 };
        let mut registers = words_of(message, self.0, (x9, x10 | option));
        Errno::from_ret(arch::message(nr::QUIRE_CALL, &mut registers))?;
        Ok(message_in(&registers))
    }
}

/// The numbers of handles that came with an answer, 0 for none.
fn handles_in(registers: &[u64; 10]) -> [u32; HANDLES] {
    let [.., x9, x10] = *registers;
    [x9 as u32, (x9 >> 32) as u32, x10 as u32, (x10 >> 32) as u32]
}

impl Sender {
    /// Sends a message with handles, which are moved when the other side accepts them, and with windows of this
    /// process's memory, and waits for an answer, which may bring up to `room` handles.
    ///
    /// # Safety
    /// Nothing else uses the windows before this returns, and a writable window is memory that may be written.
    #[inline]
    pub unsafe fn call_carrying(
        self,
        message: &Message,
        attachments: &Attachments,
        room: u64,
    ) -> Result<(Message, [u32; HANDLES]), Errno> {
        let mut registers = words_of(message, self.0, (0, options::CARRIES | options::room(room)));
        Errno::from_ret(arch::message_with(nr::QUIRE_CALL, &mut registers, attachments))?;
        Ok((message_in(&registers), handles_in(&registers)))
    }

    /// Sends a message and waits for an answer, which may bring up to `room` handles.
    #[inline]
    pub fn call_for(self, message: &Message, room: u64) -> Result<(Message, [u32; HANDLES]), Errno> {
        let mut registers = words_of(message, self.0, (0, options::room(room)));
        Errno::from_ret(arch::message(nr::QUIRE_CALL, &mut registers))?;
        Ok((message_in(&registers), handles_in(&registers)))
    }
}

/// A handle to signal by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signaller(pub u32);

impl Signaller {
    /// Sets the events of this handle.
    #[inline]
    pub fn signal(self) -> Result<(), Errno> {
        sys::plain!(nr::QUIRE_SIGNAL, self.0).map(drop)
    }
}

/// A handle to receive from an endpoint; when it is closed, the endpoint dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver(pub u32);

impl Receiver {
    /// A new endpoint.
    pub fn new() -> Result<Self, Errno> {
        sys::plain!(nr::QUIRE_ENDPOINT).map(|number| Self(number as u32))
    }

    /// Revokes everything that the kernel has cached about the file system that is mounted by the sender with this
    /// badge.
    pub fn forget(self, badge: u64) -> Result<(), Errno> {
        sys::plain!(nr::QUIRE_FORGET, self.0, badge).map(drop)
    }

    /// Whether a stored file is open: the one with this number in the file system that is mounted by the sender with
    /// this badge; bits of `quire_abi::names::opened`.
    pub fn opened(self, badge: u64, number: u64) -> usize {
        sys::plain!(nr::QUIRE_OPENED, self.0, badge, number).unwrap_or(0)
    }

    /// Makes a handle to call this endpoint; its calls are identified by the badge.
    pub fn sender(self, badge: u64) -> Result<Sender, Errno> {
        sys::plain!(nr::QUIRE_MINT, self.0, rights::SEND, badge).map(|number| Sender(number as u32))
    }

    /// Makes a handle to signal this endpoint with these events.
    pub fn signaller(self, events: u64) -> Result<Signaller, Errno> {
        sys::plain!(nr::QUIRE_MINT, self.0, rights::SIGNAL, events).map(|number| Signaller(number as u32))
    }

    /// Waits for what comes.
    #[inline]
    pub fn receive(self, patience: Patience) -> Result<Received, Errno> {
        self.receive_by(nr::QUIRE_RECEIVE, &Message::default(), patience)
    }

    /// Answers the call that this thread has received, then waits for the next one.
    #[inline]
    pub fn reply_receive(self, answer: &Message, patience: Patience) -> Result<Received, Errno> {
        self.receive_by(nr::QUIRE_REPLY_RECEIVE, answer, patience)
    }

    /// As [`Receiver::reply_receive`], with handles. If there is an error before the receive, the call has not been
    /// answered.
    #[inline]
    pub fn reply_carrying_receive(
        self,
        answer: &Message,
        attachments: &Attachments,
        patience: Patience,
    ) -> Result<Received, Errno> {
        let (x9, x10) = patience.registers();
        let mut registers = words_of(answer, self.0, (x9, x10 | options::CARRIES));
        Errno::from_ret(arch::message_with(nr::QUIRE_REPLY_RECEIVE, &mut registers, attachments))?;
        Ok(received_in(&registers))
    }

    #[inline]
    fn receive_by(self, number: usize, message: &Message, patience: Patience) -> Result<Received, Errno> {
        let mut registers = words_of(message, self.0, patience.registers());
        Errno::from_ret(arch::message(number, &mut registers))?;
        Ok(received_in(&registers))
    }

    /// Saves the call that this thread has received: any thread can answer it later. The token is received if the
    /// caller goes away.
    pub fn save(self, token: u64) -> Result<Reply, Errno> {
        sys::plain!(nr::QUIRE_SAVE, self.0, token).map(|number| Reply(number as u32))
    }
}

/// A saved call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply(pub u32);

impl Reply {
    /// Answers it and closes the handle. ECANCELED if the caller is gone.
    #[inline]
    pub fn reply(self, answer: &Message) -> Result<(), Errno> {
        reply_by(self.0, answer)
    }
}

/// Answers the call that this thread has received.
#[inline]
pub fn reply(answer: &Message) -> Result<(), Errno> {
    reply_by(0, answer)
}

fn reply_by(number: u32, answer: &Message) -> Result<(), Errno> {
    let mut registers = words_of(answer, number, (0, 0));
    Errno::from_ret(arch::message(nr::QUIRE_REPLY, &mut registers)).map(drop)
}

/// Answers with handles, which are moved: `number` is the handle of the saved call, or 0 for the call that this thread
/// has received. In case of an error, except ECANCELED, the call has not been answered.
pub fn reply_carrying(number: u32, answer: &Message, attachments: &Attachments) -> Result<(), Errno> {
    let mut registers = words_of(answer, number, (0, options::CARRIES));
    Errno::from_ret(arch::message_with(nr::QUIRE_REPLY, &mut registers, attachments)).map(drop)
}

/// Takes the handles of a call (0: the call that this thread has received), all or none.
#[inline]
pub fn accept(reply: u32) -> Result<[u32; HANDLES], Errno> {
    let mut registers = [0; 10];
    registers[0] = u64::from(reply);
    Errno::from_ret(arch::message(nr::QUIRE_ACCEPT, &mut registers))?;
    Ok(core::array::from_fn(|i| registers[1 + i] as u32))
}

/// The caller of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The user for access to files.
    pub uid: u32,
    /// The group for access to files.
    pub gid: u32,
}

/// The caller of a call (0: the call that this thread has received).
pub fn caller(reply: u32) -> Result<Caller, Errno> {
    let mut registers = [0; 10];
    registers[0] = u64::from(reply);
    Errno::from_ret(arch::message(nr::QUIRE_CALLER, &mut registers))?;
    let [_, pid, tid, uid, gid, ..] = registers.map(|x| x as u32);
    Ok(Caller { pid, tid, uid, gid })
}

/// Whether the caller of a call (0: the call that this thread has received) is in a group.
pub fn caller_in(reply: u32, group: u32) -> bool {
    let mut registers = [0; 10];
    (registers[0], registers[1]) = (u64::from(reply), u64::from(group));
    Errno::from_ret(arch::message(nr::QUIRE_CALLER, &mut registers)).is_ok() && registers[5] == 1
}

/// Makes a memory object, which is a file with these permissions, owner and inode number; returns its handle.
pub fn memory(mode: u32, (user, group): (u32, u32), number: u64) -> Result<u32, Errno> {
    let owner = u64::from(user) | u64::from(group) << 32;
    sys::plain!(nr::QUIRE_MEMORY, mode, owner, number).map(|handle| handle as u32)
}

/// The record of a memory object.
pub fn memory_stat(handle: u32) -> Result<Stat, Errno> {
    let mut stat = Stat::default();
    // SAFETY: the kernel writes one record.
    unsafe { sys::call(nr::QUIRE_MEMORY_STAT, [handle as usize, &raw mut stat as usize]) }?;
    Ok(stat)
}

/// Sets a memory object's number of names.
pub fn memory_links(handle: u32, links: u32) -> Result<(), Errno> {
    sys::plain!(nr::QUIRE_MEMORY_LINKS, handle, links).map(drop)
}

/// Reads from a window of a call (0: the call that this thread has received), from its byte `offset` on; returns how
/// many bytes. EAGAIN while the caller brings in a page: a saved call is [ready](What::Ready) afterwards.
#[inline]
pub fn read_window(reply: u32, window: usize, offset: usize, to: &mut [u8]) -> Result<usize, Errno> {
    let args = [reply as usize, window, offset, to.as_mut_ptr().addr(), to.len()];
    // SAFETY: the call writes to the slice alone.
    unsafe { sys::call(nr::QUIRE_READ_WINDOW, args) }
}

/// Writes to a window, as [`read_window`] reads.
#[inline]
pub fn write_window(reply: u32, window: usize, offset: usize, from: &[u8]) -> Result<usize, Errno> {
    let args = [reply as usize, window, offset, from.as_ptr().addr(), from.len()];
    // SAFETY: the call writes to the window alone, which its caller has provided for that.
    unsafe { sys::call(nr::QUIRE_WRITE_WINDOW, args) }
}

/// Closes a handle.
pub fn close(number: u32) -> Result<(), Errno> {
    sys::plain!(nr::QUIRE_CLOSE, number).map(drop)
}

/// A second handle for the same object, with some of the rights.
pub fn copy(number: u32, rights: u32) -> Result<u32, Errno> {
    sys::plain!(nr::QUIRE_COPY, number, rights).map(|number| number as u32)
}

/// Sets which rights of a handle are passed to children and the next program.
pub fn grant(number: u32, rights: u32) -> Result<(), Errno> {
    sys::plain!(nr::QUIRE_GRANT, number, rights).map(drop)
}
