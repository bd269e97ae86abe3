//! Messages that wait for a reader.
//!
//! A reader copies bytes to a program, which may fault and sleep, so it does not hold the queue's lock meanwhile: it
//! *claims* the messages that it reads. These leave the list but still count. When the reader finishes, what is left of
//! them goes back to the front. Nobody else can claim until then. Writers may append to the list at any time.
//!
//! Invariants: `len`, `unread` and `charge` are the sums over the list and the claimed messages, the latter as they
//! were when they were claimed.

use alloc::boxed::Box;
use alloc::vec::Vec;

use intrusive_collections::{LinkedList, LinkedListLink, intrusive_adapter};
use quire_mm::fallible::{AllocError, try_box};

/// The charge of a message in addition to its bytes.
pub const OVERHEAD: usize = 256;

/// The number of bytes that are stored in the message itself.
pub const SMALL: usize = 64;

/// The bytes of a message, and its extra data.
pub struct Message<X> {
    /// The bytes, if they do not fit into the message itself.
    bytes: Vec<u8>,
    small: [u8; SMALL],
    len: usize,
    at: usize,
    /// The data that accompanies the bytes.
    pub extra: X,
    link: LinkedListLink,
}

/// The adapter that links messages.
#[allow(missing_docs)]
mod adapter {
    use super::{Box, LinkedListLink, Message, intrusive_adapter};

    intrusive_adapter!(pub InQueue<X> = Box<Message<X>>: Message<X> { link => LinkedListLink });
}

pub use adapter::InQueue;

/// Messages in their order.
pub type Messages<X> = LinkedList<InQueue<X>>;

// SAFETY: the link is only touched by the owner of the message, or by whoever has exclusive access to the list that
// contains it.
unsafe impl<X: Send> Send for Message<X> {}

impl<X> Message<X> {
    /// A message of no queue.
    pub fn new(bytes: Vec<u8>, extra: X) -> Result<Box<Self>, AllocError> {
        let len = bytes.len();
        try_box(Self { bytes, small: [0; SMALL], len, at: 0, extra, link: LinkedListLink::new() })
    }

    /// A message of the first `len` bytes, at most [`SMALL`].
    pub fn small(small: [u8; SMALL], len: usize, extra: X) -> Result<Box<Self>, AllocError> {
        let len = len.min(SMALL);
        try_box(Self { bytes: Vec::new(), small, len, at: 0, extra, link: LinkedListLink::new() })
    }

    /// The unread bytes.
    pub fn rest(&self) -> &[u8] {
        let all = if self.bytes.is_empty() { &self.small[..self.len] } else { &self.bytes[..] };
        &all[self.at..]
    }

    /// `n` more bytes were read.
    pub fn pass(&mut self, n: usize) {
        self.at = (self.at + n).min(self.len);
    }

    /// The charge of the message.
    pub fn charge(&self) -> usize {
        OVERHEAD + self.len
    }
}

/// The sums over the messages of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    len: usize,
    unread: usize,
    charge: usize,
}

impl Sum {
    fn of<X>(message: &Message<X>) -> Self {
        Self { len: 1, unread: message.rest().len(), charge: message.charge() }
    }

    fn plus(self, other: Self) -> Self {
        Self { len: self.len + other.len, unread: self.unread + other.unread, charge: self.charge + other.charge }
    }

    fn minus(self, other: Self) -> Self {
        Self { len: self.len - other.len, unread: self.unread - other.unread, charge: self.charge - other.charge }
    }
}

/// See the module.
pub struct Queue<X> {
    list: Messages<X>,
    sum: Sum,
    claimed: Option<Sum>,
}

// SAFETY: as for messages, which are all that it contains.
unsafe impl<X: Send> Send for Queue<X> {}

impl<X> Default for Queue<X> {
    fn default() -> Self {
        Self::new()
    }
}

impl<X> Queue<X> {
    /// Empty.
    pub fn new() -> Self {
        Self { list: LinkedList::new(InQueue::NEW), sum: Sum::default(), claimed: None }
    }

    /// Whether there are no messages, claimed ones included.
    pub fn is_empty(&self) -> bool {
        self.sum.len == 0
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.sum.len
    }

    /// Bytes that were not read.
    pub fn unread(&self) -> usize {
        self.sum.unread
    }

    /// The charge of all messages.
    pub fn charge(&self) -> usize {
        self.sum.charge
    }

    /// Whether somebody reads.
    pub fn is_claimed(&self) -> bool {
        self.claimed.is_some()
    }

    /// The first message that is not claimed.
    pub fn front(&self) -> Option<&Message<X>> {
        self.list.front().get()
    }

    /// Appends a message.
    pub fn push(&mut self, message: Box<Message<X>>) {
        self.sum = self.sum.plus(Sum::of(&message));
        self.list.push_back(message);
    }

    /// Claims the first message, if nothing is claimed.
    pub fn claim(&mut self) -> Option<Box<Message<X>>> {
        if self.claimed.is_some() {
            return None;
        }
        let message = self.list.pop_front()?;
        self.claimed = Some(Sum::of(&message));
        Some(message)
    }

    /// Gives back a claimed message that was not read to its end, or will be read again.
    pub fn give_back(&mut self, message: Box<Message<X>>) {
        debug_assert!(self.claimed.is_some());
        self.sum = self.sum.minus(self.claimed.take().unwrap_or_default()).plus(Sum::of(&message));
        self.list.push_front(message);
    }

    /// Ends the claim: the claimed message is gone, or about to be.
    pub fn finish(&mut self) {
        debug_assert!(self.claimed.is_some());
        self.sum = self.sum.minus(self.claimed.take().unwrap_or_default());
    }

    /// Takes out the first message, if nothing is claimed.
    pub fn pop(&mut self) -> Option<Box<Message<X>>> {
        let message = self.claim()?;
        self.finish();
        Some(message)
    }

    /// Claims all messages for inspection, if nothing is claimed.
    pub fn claim_all(&mut self) -> Option<Messages<X>> {
        if self.claimed.is_some() || self.list.is_empty() {
            return None;
        }
        self.claimed = Some(self.sum);
        Some(self.list.take())
    }

    /// Gives all claimed messages back unchanged.
    pub fn give_back_all(&mut self, mut messages: Messages<X>) {
        self.claimed = None;
        self.list.front_mut().splice_before(messages.take());
    }

    /// Takes out all messages that are not claimed.
    pub fn take(&mut self) -> Messages<X> {
        self.sum = self.claimed.unwrap_or_default();
        self.list.take()
    }

    /// Panics unless the invariants hold.
    #[cfg(test)]
    pub fn validate(&self) {
        let sum = self.list.iter().fold(self.claimed.unwrap_or_default(), |sum, message| sum.plus(Sum::of(message)));
        assert_eq!(sum, self.sum);
    }
}
