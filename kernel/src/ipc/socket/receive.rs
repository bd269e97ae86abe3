//! Receiving.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::layout::poll;
use quire_abi::socket::Ucred;
use quire_mm::fallible::KArc;
use quire_sockets::{Address, Message};

use super::flight::Rights;
use super::send::Extra;
use super::{IN, Kind, MOST_DATAGRAMS, Phase, Socket};
use crate::ipc::descriptor::Descriptor;
use crate::task::point::resched_point;
use crate::task::wait::Sleep;

/// The parameters of a receive.
pub struct Receive<'a> {
    /// Bytes that are wanted.
    pub len: usize,
    /// Copies bytes to the program; fewer at a bad address.
    pub put: &'a mut dyn FnMut(&[u8]) -> Result<usize, Errno>,
    /// Whether received messages stay in the queue.
    pub peek: bool,
    /// Waits until all is there.
    pub all: bool,
    /// The call does not sleep.
    pub nonblocking: bool,
    /// The sender's name is wanted.
    pub names: bool,
}

/// The result of a receive.
#[derive(Default)]
pub struct Got {
    /// Bytes that were copied.
    pub len: usize,
    /// The length of the whole message, if it is one.
    pub whole: usize,
    /// The sender's name, if it has one.
    pub from: Option<KArc<Address>>,
    /// The sender's credentials, if they are known.
    pub credentials: Option<Ucred>,
    /// Descriptors.
    pub files: Vec<Descriptor>,
}

impl Socket {
    /// Receives a message. At the end of a stream, an empty result.
    pub fn receive(&self, mut how: Receive<'_>) -> Result<Got, Errno> {
        match self.kind {
            Kind::Stream => self.receive_stream(&mut how),
            _ => self.receive_message(&mut how),
        }
    }

    /// The result of `claim` on the queue. Sleeps while there is none, unless `nonblocking`. `None` at the end.
    fn claim<T>(
        &self,
        nonblocking: bool,
        mut claim: impl FnMut(&mut super::State) -> Option<T>,
    ) -> Result<Option<T>, Errno> {
        self.wait(true, nonblocking, || {
            let mut state = self.state.lock();
            if self.kind.is_connected() && state.phase != Phase::Connected {
                let error = if self.kind == Kind::Stream { Errno::EINVAL } else { Errno::ENOTCONN };
                return Some(Err(error));
            }
            if state.queue.is_claimed() {
                return None;
            }
            if let Some(found) = claim(&mut state) {
                return Some(Ok(Some(found)));
            }
            if let Some(error) = state.error.take() {
                self.publish(&state);
                return Some(Err(error));
            }
            if state.shut & IN != 0 {
                // (Also for a datagram socket that is not connected.)
                return Some(Ok(None));
            }
            nonblocking.then_some(Err(Errno::EAGAIN))
        })
    }

    /// Ends a claim: `left` is the rest of the message, `gone` a message that was consumed.
    fn end_claim(&self, left: Option<Box<Message<Extra>>>, gone: Option<Box<Message<Extra>>>) {
        let mut state = self.state.lock();
        let was_too_full = state.queue.len() >= MOST_DATAGRAMS;
        match left {
            Some(message) => state.queue.give_back(message),
            None => state.queue.finish(),
        }
        self.publish(&state);
        let has_room = was_too_full && state.queue.len() < MOST_DATAGRAMS;
        let peer = match &state.peer {
            Some(peer) if gone.is_some() && self.kind.is_connected() => {
                let was_full = peer.is_full.load(Ordering::Relaxed);
                let is_full = state.queue.charge() * 4 > peer.limit();
                peer.is_full.store(is_full, Ordering::Relaxed);
                (was_full && !is_full).then(|| peer.clone())
            }
            _ => None,
        };
        drop(state);
        // (For another reader, and for senders of datagrams.)
        self.source.sleepers.wake_all();
        if let Some(peer) = peer {
            peer.source.wake(poll::OUT | poll::WRNORM);
        }
        if has_room && self.kind == Kind::Datagram {
            self.tell_blocked();
        }
        if let Some(mut message) = gone {
            self.note_read(&mut message);
        }
    }

    /// Notes that a message was consumed: its sender has room for another one.
    pub(super) fn note_read(&self, message: &mut Message<Extra>) {
        let Some(sender) = message.extra.sender.take() else { return };
        let limit = sender.limit();
        let charge = message.charge();
        let before = sender.outstanding.fetch_sub(charge, Ordering::Relaxed);
        if before * 4 > limit && (before - charge) * 4 <= limit {
            sender.source.wake(poll::OUT | poll::WRNORM);
        }
    }

    fn name_of_peer(&self, how: &Receive<'_>) -> Option<KArc<Address>> {
        if how.names { self.peer().ok().and_then(|peer| peer.address()) } else { None }
    }

    fn receive_stream(&self, how: &mut Receive<'_>) -> Result<Got, Errno> {
        if how.peek {
            return self.peek_stream(how);
        }
        let mut got = Got { from: self.name_of_peer(how), ..Got::default() };
        let mut is_first = true;
        let by_sender = self.passes_credentials();
        while got.len < how.len {
            let nonblocking = how.nonblocking || !is_first && !how.all;
            let claimed = self.claim(nonblocking, |state| {
                let next = state.queue.front()?;
                // Bytes of different senders are not returned together.
                let is_other = !is_first && by_sender && next.extra.credentials != got.credentials;
                if is_other { Some(None) } else { state.queue.claim().map(Some) }
            });
            let mut message = match claimed {
                Ok(Some(Some(message))) => message,
                Ok(_) => break,
                Err(e) if is_first => return Err(e),
                Err(_) => break,
            };
            got.credentials = message.extra.credentials;
            let wanted = message.rest().len().min(how.len - got.len);
            let copied = (how.put)(&message.rest()[..wanted]);
            let n = match copied {
                Ok(n) if n == wanted => n,
                bad => {
                    // The copied bytes stay in the queue.
                    self.end_claim(Some(message), None);
                    let _ = bad;
                    return if is_first { Err(Errno::EFAULT) } else { Ok(got) };
                }
            };
            is_first = false;
            message.pass(n);
            got.len += n;
            let rights = message.extra.rights.take();
            if message.rest().is_empty() {
                self.end_claim(None, Some(message));
            } else {
                self.end_claim(Some(message), None);
            }
            if let Some(mut rights) = rights {
                rights.land();
                got.files = core::mem::take(&mut rights.files);
                // A message with descriptors ends a receive.
                break;
            }
            if resched_point(Sleep::Killable).is_err() {
                break;
            }
        }
        got.whole = got.len;
        Ok(got)
    }

    fn peek_stream(&self, how: &mut Receive<'_>) -> Result<Got, Errno> {
        let mut got = Got { from: self.name_of_peer(how), ..Got::default() };
        // (To receive everything that was asked for, that much must be there.)
        let wanted = if how.all { how.len } else { 1 };
        let mut claimed = self.claim(how.nonblocking, |state| {
            let is_enough =
                how.nonblocking || state.queue.unread() >= wanted || state.shut & IN != 0 || state.error.is_some();
            if is_enough { state.queue.claim_all() } else { None }
        })?;
        let Some(messages) = &mut claimed else { return Ok(got) };
        let mut result = Ok(());
        for message in messages.iter() {
            let n = message.rest().len().min(how.len - got.len);
            if n == 0 {
                break;
            }
            got.credentials = got.credentials.or(message.extra.credentials);
            if (how.put)(&message.rest()[..n]) != Ok(n) {
                result = if got.len == 0 { Err(Errno::EFAULT) } else { Ok(()) };
                break;
            }
            got.len += n;
            if let Some(rights) = message.extra.rights.get() {
                result = rights.copies().map(|copies| got.files = copies);
                break;
            }
            let _ = resched_point(Sleep::Killable);
        }
        {
            let mut state = self.state.lock();
            if let Some(messages) = claimed.take() {
                state.queue.give_back_all(messages);
            }
        }
        self.source.sleepers.wake_all();
        got.whole = got.len;
        result.map(|()| got)
    }

    fn receive_message(&self, how: &mut Receive<'_>) -> Result<Got, Errno> {
        let claimed = self.claim(how.nonblocking, |state| state.queue.claim())?;
        let Some(mut message) = claimed else { return Ok(Got::default()) };
        let from = match &message.extra.sender {
            Some(sender) if how.names => sender.address(),
            Some(_) => None,
            None => self.name_of_peer(how),
        };
        let whole = message.rest().len();
        let wanted = whole.min(how.len);
        let copied = (how.put)(&message.rest()[..wanted]);
        let mut got = Got { len: wanted, whole, from, credentials: message.extra.credentials, files: Vec::new() };
        if how.peek {
            let copies = message.extra.rights.get().map(Rights::copies);
            self.end_claim(Some(message), None);
            got.files = copies.transpose()?.unwrap_or_default();
        } else {
            let rights = message.extra.rights.take();
            self.end_claim(None, Some(message));
            if let Some(mut rights) = rights {
                rights.land();
                got.files = core::mem::take(&mut rights.files);
            }
        }
        // (A datagram that cannot be stored is lost, as on Linux.)
        if copied != Ok(wanted) { Err(Errno::EFAULT) } else { Ok(got) }
    }
}
