//! Sending.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_abi::layout::poll;
use quire_abi::socket::Ucred;
use quire_mm::fallible::{KArc, try_zeroed};
use quire_sockets::Message;
use quire_sockets::queue::SMALL;

use super::flight::{self, Rights};
use super::{IN, Kind, MOST_DATAGRAMS, OUT, Phase, Socket, own_credentials};
use crate::ipc::descriptor::Descriptor;
use crate::task::point::{COPY, resched_point};
use crate::task::signal;
use crate::task::wait::Sleep;

/// Data that accompanies a message's bytes.
#[derive(Default)]
pub struct Extra {
    /// For a datagram: its sender.
    pub(super) sender: Option<KArc<Socket>>,
    /// The sending process.
    pub(super) credentials: Option<Ucred>,
    /// Descriptors.
    pub(super) rights: Attached,
    /// In a listening socket's queue: a connection.
    pub(super) child: Option<KArc<Socket>>,
}

impl Extra {
    pub(super) fn of_child(child: KArc<Socket>) -> Self {
        Self { child: Some(child), ..Self::default() }
    }
}

/// The descriptors of a message, if it has any.
#[derive(Default)]
pub struct Attached(Option<Box<Rights>>);

impl Attached {
    pub(super) fn take(&mut self) -> Option<Box<Rights>> {
        self.0.take()
    }

    pub(super) fn get(&self) -> Option<&Rights> {
        self.0.as_deref()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(rights) = self.take() {
            flight::discard(rights);
        }
    }
}

/// The parameters of a send.
pub struct Outgoing<'a> {
    /// How many bytes.
    pub len: usize,
    /// Copies the next bytes; fewer at a bad address.
    pub take: &'a mut dyn FnMut(&mut [u8]) -> Result<usize, Errno>,
    /// The destination, if it is not the peer.
    pub to: Option<KArc<Socket>>,
    /// Descriptors.
    pub files: Vec<Descriptor>,
    /// The sender's credentials, if the program has set them.
    pub credentials: Option<Ucred>,
    /// The call does not sleep.
    pub nonblocking: bool,
    /// No SIGPIPE.
    pub quiet: bool,
}

impl Socket {
    /// Sends a message; returns the number of bytes sent. EPIPE, with SIGPIPE for a stream; ENOTCONN, EAGAIN, EMSGSIZE
    /// and others, as in send(2).
    pub fn send(this: &KArc<Self>, what: Outgoing<'_>) -> Result<usize, Errno> {
        match this.kind {
            Kind::Stream => {
                let quiet = what.quiet;
                let sent = Self::send_stream(this, what);
                if sent == Err(Errno::EPIPE) && !quiet {
                    signal::send_own(sig::PIPE);
                }
                sent
            }
            _ => Self::send_message(this, what),
        }
    }

    /// A message of the next `len` bytes.
    fn message(what: &mut Outgoing<'_>, len: usize, extra: Extra) -> Result<Box<Message<Extra>>, Errno> {
        if len <= SMALL {
            let mut small = [0; SMALL];
            if (what.take)(&mut small[..len])? < len {
                return Err(Errno::EFAULT);
            }
            return Ok(Message::small(small, len, extra)?);
        }
        Ok(Message::new(Self::bytes(what, len)?, extra)?)
    }

    /// Bytes, copied in.
    fn bytes(what: &mut Outgoing<'_>, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = try_zeroed(len)?;
        let mut done = 0;
        while done < len {
            let part = (len - done).min(COPY);
            if (what.take)(&mut bytes[done..done + part])? < part {
                return Err(Errno::EFAULT);
            }
            done += part;
            if done < len {
                resched_point(Sleep::Killable)?;
            }
        }
        Ok(bytes)
    }

    /// The descriptors of a message to a socket.
    fn attach(what: &mut Outgoing<'_>, to: &KArc<Socket>) -> Result<Attached, Errno> {
        match core::mem::take(&mut what.files) {
            files if files.is_empty() => Ok(Attached(None)),
            files => Rights::new(files, to).map(|rights| Attached(Some(rights))),
        }
    }

    /// The sender's credentials in a message: included if either end asks for them, or the sender has set them.
    fn named_sender(&self, to: &Socket, said: Option<Ucred>) -> Option<Ucred> {
        said.or_else(|| (self.passes_credentials() || to.passes_credentials()).then(own_credentials))
    }

    fn send_stream(this: &KArc<Self>, mut what: Outgoing<'_>) -> Result<usize, Errno> {
        let peer = {
            let mut state = this.state.lock();
            match (state.phase, state.error.take()) {
                (_, Some(error)) => {
                    this.publish(&state);
                    return Err(error);
                }
                (Phase::Connected, None) => state.peer.clone().filter(|_| state.shut & OUT == 0).ok_or(Errno::EPIPE)?,
                _ => return Err(Errno::ENOTCONN),
            }
        };
        let mut rights = Self::attach(&mut what, &peer)?;
        let credentials = this.named_sender(&peer, what.credentials);
        let mut done = 0;
        while done < what.len {
            let sent = this.send_part(&peer, &mut what, done, &mut rights, credentials);
            match sent {
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
            if resched_point(Sleep::Killable).is_err() {
                break;
            }
        }
        Ok(done)
    }

    /// A part of a stream's bytes, as one message.
    fn send_part(
        &self,
        peer: &KArc<Socket>,
        what: &mut Outgoing<'_>,
        done: usize,
        rights: &mut Attached,
        credentials: Option<Ucred>,
    ) -> Result<usize, Errno> {
        if self.is_full.load(Ordering::Relaxed) {
            self.wait_for_room(peer, what.nonblocking)?;
        }
        let len = (what.len - done).min(COPY);
        let mut message = Self::message(what, len, Extra { credentials, ..Extra::default() })?;
        message.extra.rights = core::mem::take(rights);
        self.deliver(peer, message)?;
        Ok(len)
    }

    /// Sleeps until there is room at the other end of a connection.
    fn wait_for_room(&self, peer: &Socket, nonblocking: bool) -> Result<(), Errno> {
        self.wait(false, nonblocking, || {
            if self.state.lock().shut & OUT != 0 {
                return Some(Err(Errno::EPIPE));
            }
            let there = peer.state.lock();
            if there.is_dead || there.shut & IN != 0 {
                return Some(Err(Errno::EPIPE));
            }
            match there.queue.charge() < self.limit() {
                true => Some(Ok(())),
                false => nonblocking.then_some(Err(Errno::EAGAIN)),
            }
        })
    }

    /// Appends a message to the queue of the other end of a connection.
    fn deliver(&self, peer: &KArc<Socket>, message: Box<Message<Extra>>) -> Result<(), Errno> {
        let mut there = peer.state.lock();
        if there.is_dead || there.shut & IN != 0 {
            drop(there);
            return Err(Errno::EPIPE);
        }
        there.queue.push(message);
        self.is_full.store(there.queue.charge() * 4 > self.limit(), Ordering::Relaxed);
        peer.publish(&there);
        drop(there);
        peer.source.wake(poll::IN | poll::RDNORM);
        Ok(())
    }

    /// A message as a whole.
    fn send_message(this: &KArc<Self>, mut what: Outgoing<'_>) -> Result<usize, Errno> {
        let len = what.len;
        if len > this.limit().saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        let named = what.to.take();
        let peer = {
            let state = this.state.lock();
            if this.kind == Kind::Seqpacket && state.phase != Phase::Connected {
                return Err(Errno::ENOTCONN);
            }
            if state.shut & OUT != 0 {
                return Err(Errno::EPIPE);
            }
            state.peer.clone()
        };
        let is_named = named.is_some();
        let to = named.or(peer).ok_or(Errno::ENOTCONN)?;
        let rights = Self::attach(&mut what, &to)?;
        let credentials = this.named_sender(&to, what.credentials);
        let mut extra = Extra { credentials, rights, ..Extra::default() };
        if this.kind == Kind::Seqpacket {
            if this.is_full.load(Ordering::Relaxed) {
                this.wait_for_room(&to, what.nonblocking)?;
            }
            let message = Self::message(&mut what, len, extra)?;
            this.deliver(&to, message)?;
            return Ok(len);
        }
        this.wait(false, what.nonblocking, || match this.outstanding.load(Ordering::Relaxed) < this.limit() {
            true => Some(Ok(())),
            false => what.nonblocking.then_some(Err(Errno::EAGAIN)),
        })?;
        extra.sender = Some(this.clone());
        let mut message = Some(Self::message(&mut what, len, extra)?);
        let delivered =
            this.wait_at(&to, false, what.nonblocking, || Self::put(this, &to, &mut message, what.nonblocking));
        if delivered == Err(Errno::ECONNREFUSED) && !is_named {
            // The destination is closed, and so is removed as this socket's peer.
            let _ = Self::set_destination(this, None);
        }
        delivered?;
        to.source.wake(poll::IN | poll::RDNORM);
        Ok(len)
    }

    /// Puts a datagram into a queue, if there is a place for it.
    fn put(
        this: &KArc<Self>,
        to: &KArc<Socket>,
        message: &mut Option<Box<Message<Extra>>>,
        nonblocking: bool,
    ) -> Option<Result<(), Errno>> {
        let mut there = to.state.lock();
        let is_mutual = there.peer.as_ref().is_some_and(|peer| KArc::ptr_eq(peer, this));
        if there.is_dead {
            return Some(Err(Errno::ECONNREFUSED));
        }
        if there.peer.is_some() && !is_mutual {
            return Some(Err(Errno::EPERM));
        }
        if there.shut & IN != 0 {
            return Some(Err(Errno::EPIPE));
        }
        if !is_mutual && !KArc::ptr_eq(to, this) && there.queue.len() >= MOST_DATAGRAMS {
            return nonblocking.then_some(Err(Errno::EAGAIN));
        }
        if let Some(message) = message.take() {
            this.outstanding.fetch_add(message.charge(), Ordering::Relaxed);
            there.queue.push(message);
        }
        to.publish(&there);
        Some(Ok(()))
    }
}
