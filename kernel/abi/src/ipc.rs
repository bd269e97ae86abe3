//! Quire's messages: rights, the results of a receive, options. See `docs/messages.md`.

/// Rights of handles of endpoints and memory objects.
pub mod rights {
    /// Calling.
    pub const SEND: u32 = 1;
    /// Receiving, and minting handles with the other rights.
    pub const RECEIVE: u32 = 2;
    /// Signalling.
    pub const SIGNAL: u32 = 4;
    /// Answering one call.
    pub const REPLY: u32 = 8;
    /// Of a memory object: reading its content and attributes.
    pub const READ: u32 = 16;
    /// Of a memory object: writing its content.
    pub const WRITE: u32 = 32;
    /// Of a memory object: changing its number of names. Of a device, its interrupts and its memory: everything.
    pub const CONTROL: u32 = 64;
    /// Of any handle: passing it on in a message.
    pub const TRANSFER: u32 = 1 << 31;
}

/// Results of a receive. In each case x10 has the event bits that have arrived.
pub mod received {
    /// A call: label and words are in x1 to x7, the badge in x9.
    pub const CALL: u64 = 0;
    /// Only events.
    pub const EVENTS: u64 = 1;
    /// The caller of a saved call is gone or has given up: x1 has the call's token.
    pub const CANCELLED: u64 = 2;
    /// The caller of a saved call has a signal to handle, and waits for a short answer: x1 has the call's token.
    pub const INTERRUPTED: u64 = 3;
    /// A page of a window of the saved call is present now, or will never be: x1 has the call's token.
    pub const READY: u64 = 4;
}

/// Options (x10).
pub mod options {
    /// How many of the six words of a message are used; the receiver sees zeros in the others.
    pub const WORDS: u64 = 7;
    /// A call: a signal ends it if nobody has received it yet, and is reported to the server if it has saved the call.
    pub const INTERRUPTIBLE: u64 = 8;
    /// A receive: EAGAIN instead of waiting.
    pub const NOW: u64 = 16;
    /// A call or an answer: x11 has the address of an [`Attachments`](super::Attachments).
    pub const CARRIES: u64 = 32;
    /// A call: how many handles the answer may bring. (Values above four mean four.)
    pub const ROOM: u64 = 7 << 61;

    /// The option [`ROOM`] for this number of handles.
    pub const fn room(handles: u64) -> u64 {
        handles << 61
    }
}

/// The maximum number of handles in a message.
pub const HANDLES: usize = 4;
/// The maximum number of windows in a message.
pub const WINDOWS: usize = 2;

/// A handle in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AttachedHandle {
    /// Its number in the sender's table; 0 for no handle.
    pub number: u32,
    /// The rights that the handle will have at the receiver.
    pub rights: u32,
}

/// A range of the caller's memory that the receiver may access until it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Window {
    /// Its first address.
    pub start: u64,
    /// Its length in bytes.
    pub len: u64,
    /// [`Window::READ`] and [`Window::WRITE`]; 0 for no window.
    pub access: u64,
}

impl Window {
    /// The receiver may read.
    pub const READ: u64 = 1;
    /// The receiver may write.
    pub const WRITE: u64 = 2;
}

/// The attachments of a message. An answer has no windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Attachments {
    /// Handles, which are moved to the receiver.
    pub handles: [AttachedHandle; HANDLES],
    /// Windows.
    pub windows: [Window; WINDOWS],
}

crate::layout::pod!(Attachments);
const _: () = assert!(size_of::<Attachments>() == HANDLES * 8 + WINDOWS * 24);
