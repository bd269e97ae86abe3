//! Quire's messages: rights, what a receive answers, options. See `docs/messages.md`.

/// Rights of handles of endpoints.
pub mod rights {
    /// Calling.
    pub const SEND: u32 = 1;
    /// Receiving, and minting handles with the other rights.
    pub const RECEIVE: u32 = 2;
    /// Signalling.
    pub const SIGNAL: u32 = 4;
    /// Answering one call.
    pub const REPLY: u32 = 8;
}

/// What a receive answers.
pub mod received {
    /// A call: label and words are in x1 to x7, the badge in x9.
    pub const CALL: u64 = 0;
    /// Events alone: x10 has the bits, as it has beside all else.
    pub const EVENTS: u64 = 1;
    /// The caller of a saved call is gone, or has given up: x1 has the call's token.
    pub const CANCELLED: u64 = 2;
    /// The caller of a saved call has a signal to handle, and waits for a short answer: x1 has the call's token.
    pub const INTERRUPTED: u64 = 3;
}

/// Options (x10).
pub mod options {
    /// How many of the six words of a message carry something; the receiver sees zeros in the others.
    pub const WORDS: u64 = 7;
    /// A call: a signal ends it if nobody has received it, and is told to whoever has saved it.
    pub const INTERRUPTIBLE: u64 = 8;
    /// A receive: EAGAIN instead of waiting.
    pub const NOW: u64 = 16;
}
