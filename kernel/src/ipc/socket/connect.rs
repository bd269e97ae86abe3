//! Listening, connecting, accepting; pairs.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::layout::poll;
use quire_abi::socket::Ucred;
use quire_mm::fallible::KArc;
use quire_sockets::Message;

use super::{Extra, IN, Kind, Phase, Socket, own_credentials};
use crate::task::point::resched_point;
use crate::task::signal::Resume;
use crate::task::thread::current;
use crate::task::wait::Sleep;

/// Two sockets that are connected to each other.
pub fn pair(kind: Kind) -> Result<[KArc<Socket>; 2], Errno> {
    let sockets = [Socket::new(kind)?, Socket::new(kind)?];
    let credentials = own_credentials();
    for (socket, peer) in [(0, 1), (1, 0)] {
        sockets[socket].join(&sockets[peer], credentials);
    }
    Ok(sockets)
}

impl Socket {
    fn join(&self, peer: &KArc<Socket>, credentials: Ucred) {
        let mut state = self.state.lock();
        state.peer = Some(peer.clone());
        state.phase = Phase::Connected;
        state.peer_credentials = Some(credentials);
        self.publish(&state);
    }

    /// listen. EOPNOTSUPP for datagrams; EINVAL without a name, or if the socket is connected.
    pub fn listen(&self, backlog: usize) -> Result<(), Errno> {
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let credentials = own_credentials();
        let mut state = self.state.lock();
        if state.address.is_none() || !matches!(state.phase, Phase::Unconnected | Phase::Listening) {
            return Err(Errno::EINVAL);
        }
        let is_larger = backlog > state.backlog;
        state.phase = Phase::Listening;
        state.backlog = backlog;
        state.peer_credentials = Some(credentials);
        self.publish(&state);
        drop(state);
        if is_larger {
            self.source.sleepers.wake_all();
        }
        Ok(())
    }

    /// The next connection. Sleeps while there is none, unless `nonblocking`: EAGAIN. EINVAL if the socket does not
    /// listen.
    pub fn accept(&self, nonblocking: bool) -> Result<KArc<Socket>, Errno> {
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let attempt = || {
            let mut state = self.state.lock();
            if state.phase != Phase::Listening || state.shut & IN != 0 && state.queue.is_empty() {
                return Some(Err(Errno::EINVAL));
            }
            match state.queue.pop() {
                Some(message) => {
                    self.publish(&state);
                    Some(Ok(message))
                }
                None => nonblocking.then_some(Err(Errno::EAGAIN)),
            }
        };
        let mut message = self.wait(true, nonblocking, attempt)?;
        // (For those who wait for a place in the queue.)
        self.source.sleepers.wake_all();
        message.extra.child.take().ok_or(Errno::ECONNABORTED)
    }

    /// Sleeps until `attempt` returns a result, for at most the time that the socket's options allow. EAGAIN when that
    /// is over; EINTR.
    pub(super) fn wait<T>(
        &self,
        receives: bool,
        nonblocking: bool,
        attempt: impl FnMut() -> Option<Result<T, Errno>>,
    ) -> Result<T, Errno> {
        self.wait_at(self, receives, nonblocking, attempt)
    }

    /// The same, woken by events at `at`.
    pub(super) fn wait_at<T>(
        &self,
        at: &Socket,
        receives: bool,
        nonblocking: bool,
        attempt: impl FnMut() -> Option<Result<T, Errno>>,
    ) -> Result<T, Errno> {
        let limit = self.timeout(receives).load(core::sync::atomic::Ordering::Relaxed);
        let deadline = (limit != 0).then(|| crate::arch::timer::now_ns().saturating_add(limit));
        // (What `attempt` waits for is held no longer than a copy takes, so even a caller that does not want to sleep
        // may wait for it.)
        let cut = if nonblocking { Sleep::Killable } else { Sleep::Interruptible };
        match at.source.sleepers.wait_until(cut, deadline, attempt) {
            Ok(result) => result,
            Err(Errno::ETIMEDOUT) => Err(Errno::EAGAIN),
            Err(e) => {
                if limit != 0 {
                    current().signals.lock().resume = Some(Resume::Never);
                }
                Err(e)
            }
        }
    }

    /// Connects to a socket that was found by its name.
    pub fn connect(this: &KArc<Self>, to: &KArc<Socket>, nonblocking: bool) -> Result<(), Errno> {
        if this.kind == Kind::Datagram {
            return Self::set_destination(this, Some(to));
        }
        loop {
            match Self::try_connect(this, to, nonblocking) {
                Err(Errno::EINPROGRESS) => resched_point(Sleep::Killable)?,
                done => return done,
            }
        }
    }

    /// Tries once. EINPROGRESS if another thread has taken the last place in the meantime.
    fn try_connect(this: &KArc<Self>, to: &KArc<Socket>, nonblocking: bool) -> Result<(), Errno> {
        let child = Socket::new(this.kind)?;
        let own = own_credentials();
        child.join(this, own);
        let mut offer = Some(Message::new(Vec::new(), Extra::of_child(child.clone()))?);
        {
            let mut state = this.state.lock();
            match state.phase {
                Phase::Unconnected => state.phase = Phase::Connecting,
                Phase::Connecting => return Err(Errno::EALREADY),
                Phase::Connected => return Err(Errno::EISCONN),
                Phase::Listening => return Err(Errno::EINVAL),
            }
        }
        let offered = this.wait_at(to, false, nonblocking, || {
            let there = to.state.lock();
            if there.is_dead || there.phase != Phase::Listening || there.shut & IN != 0 {
                return Some(Err(Errno::ECONNREFUSED));
            }
            if there.queue.len() > there.backlog {
                return nonblocking.then_some(Err(Errno::EAGAIN));
            }
            let (address, credentials) = (there.address.clone(), there.peer_credentials);
            drop(there);
            // This end must be complete before anybody can accept it.
            child.state.lock().address = address;
            let mut state = this.state.lock();
            state.peer = Some(child.clone());
            state.phase = Phase::Connected;
            state.peer_credentials = credentials;
            this.publish(&state);
            drop(state);
            let mut there = to.state.lock();
            if there.is_dead || there.phase != Phase::Listening || there.queue.len() > there.backlog {
                // Somebody was faster: once more.
                drop(there);
                this.unjoin();
                return Some(Err(Errno::EINPROGRESS));
            }
            if let Some(offer) = offer.take() {
                there.queue.push(offer);
            }
            to.publish(&there);
            Some(Ok(()))
        });
        match offered {
            Ok(()) => {
                to.source.wake(poll::IN | poll::RDNORM);
                this.source.wake(poll::OUT | poll::WRNORM);
                Ok(())
            }
            Err(e) => {
                this.unjoin();
                {
                    let mut state = this.state.lock();
                    state.phase = Phase::Unconnected;
                    this.publish(&state);
                }
                // (The objects that the child refers to.)
                let peer = child.state.lock().peer.take();
                drop(peer);
                Err(e)
            }
        }
    }

    fn unjoin(&self) {
        let peer = {
            let mut state = self.state.lock();
            state.phase = Phase::Connecting;
            state.peer_credentials = None;
            self.publish(&state);
            state.peer.take()
        };
        drop(peer);
    }

    /// Sets where datagrams without a destination go. EPERM if that socket is connected to another one.
    pub fn set_destination(this: &KArc<Self>, to: Option<&KArc<Socket>>) -> Result<(), Errno> {
        if let Some(to) = to {
            to.may_receive_from(this)?;
        }
        let old = {
            let mut state = this.state.lock();
            let old = core::mem::replace(&mut state.peer, to.cloned());
            state.phase = if to.is_some() { Phase::Connected } else { Phase::Unconnected };
            this.publish(&state);
            old
        };
        if let Some(old) = old {
            // (This socket may be among them, and can be in one list only. The others check again.)
            old.tell_blocked();
        }
        this.source.wake(poll::OUT | poll::WRNORM);
        Ok(())
    }

    /// EPERM if this socket is connected to another one; ECONNREFUSED if it is closed.
    pub(super) fn may_receive_from(&self, sender: &KArc<Socket>) -> Result<(), Errno> {
        let state = self.state.lock();
        match &state.peer {
            _ if state.is_dead => Err(Errno::ECONNREFUSED),
            Some(peer) if !KArc::ptr_eq(peer, sender) => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }
}
