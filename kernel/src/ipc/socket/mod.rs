//! Local sockets (AF_UNIX): streams, datagrams and sequenced packets (`docs/sockets.md`). The parts that are
//! independent of the machine are in [`quire_sockets`].
//!
//! - this file: a socket's state, its events, its end.
//! - `names`: bound sockets by name.
//! - `connect`: listening, connecting, accepting, pairs.
//! - `send`, `receive`: messages.
//! - `flight`: descriptors in messages, and the collection of sockets that nobody can receive.
//!
//! Lock order: a socket's state ([`Rank::Object`]) is locked alone: the states of two sockets are never locked at once,
//! and under the lock nothing is allocated or dropped, and nobody is woken. An operation on both ends locks one after
//! the other. `flight`'s mutex comes before all of them.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use intrusive_collections::{LinkedList, LinkedListLink, RBTreeLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_abi::layout::poll;
use quire_abi::socket::{Ucred, option};
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;
use quire_sockets::{Address, Messages, Queue};

use super::descriptor::OpenFile;
use super::source::Source;
use crate::task::point::resched_point;
use crate::task::thread::current;
use crate::task::wait::Sleep;
use crate::vm::{Cpu, SpinLock};

mod connect;
pub mod flight;
mod names;
mod receive;
mod send;

pub use connect::pair;
pub use receive::{Got, Receive};
pub use send::{Extra, Outgoing};

/// The kind of a socket: how messages are delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Not at all.
    Stream,
    /// Each message is read as a whole; no connection is needed.
    Datagram,
    /// Each message is read as a whole, over a connection.
    Seqpacket,
}

impl Kind {
    fn is_connected(self) -> bool {
        self != Self::Datagram
    }
}

/// The maximum charge of a queue, unless the program sets it (Linux's `wmem_default`).
const BUFFER: u32 = 212_992;

/// The maximum number of datagrams that wait at a socket that is not connected to their sender (Linux's
/// `max_dgram_qlen` plus one).
const MOST_DATAGRAMS: usize = 11;

/// How many messages are dropped, or sockets notified, between two points at which others may run.
const AT_ONCE: usize = 32;

/// Bits of [`State::shut`]: the direction in which nothing is received any more; the one in which nothing is sent.
const IN: u8 = 1;
const OUT: u8 = 2;

/// In [`Socket::events`]: whether the socket is writable depends on another socket's queue.
const DEPENDS: u32 = 1 << 16;
/// In [`Socket::events`]: the socket listens, and so is never writable.
const LISTENS: u32 = 1 << 17;

/// Whether a socket is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Unconnected,
    Connecting,
    Connected,
    Listening,
}

struct State {
    /// Messages that were not received. For a listening socket: connections that were not accepted.
    queue: Queue<Extra>,
    /// The destination of messages that name none.
    peer: Option<KArc<Socket>>,
    address: Option<KArc<Address>>,
    phase: Phase,
    backlog: usize,
    shut: u8,
    /// It is closed.
    is_dead: bool,
    error: Option<Errno>,
    /// The credentials of the other end's creator.
    peer_credentials: Option<Ucred>,
    /// Sockets to be notified when there is room again. The list owns a reference to each.
    blocked: LinkedList<InBlocked>,
}

// SAFETY: links are touched under the locks that [`Socket`] names; the rest is `Send`.
unsafe impl Send for State {}

intrusive_adapter!(InBlocked = UnsafeRef<Socket>: Socket { blocked_link => LinkedListLink });

/// A socket.
pub struct Socket {
    /// Its kind.
    pub kind: Kind,
    number: u64,
    state: SpinLock<State>,
    /// The events that follow from its own state. Written under its lock.
    events: AtomicU32,
    /// Whether the other end has no room for more. Written under that end's lock; not used for a datagram socket.
    is_full: AtomicBool,
    /// The total charge of its datagrams that were not received.
    outstanding: AtomicUsize,
    /// The waiters for this socket, or for room at the other end.
    pub source: Source,
    options: AtomicU32,
    send_buffer: AtomicU32,
    receive_buffer: AtomicU32,
    /// Nanoseconds; 0 for no limit.
    send_timeout: AtomicU64,
    receive_timeout: AtomicU64,
    /// Whether it is in another socket's list of blocked senders. Set before it enters, and cleared after it leaves.
    is_blocked: AtomicBool,
    /// Under the lock of the socket in whose list it is.
    blocked_link: LinkedListLink,
    /// Under the lock of the table of names.
    name_link: RBTreeLink,
    name_key: SpinLock<Option<names::Key>>,
    flying: flight::Flying,
}

// SAFETY: the links are touched under the locks that they belong to; `flying` under the mutex of `flight`; the rest is
// `Sync`.
unsafe impl Sync for Socket {}
// SAFETY: as above.
unsafe impl Send for Socket {}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// The calling process's credentials, as seen by others.
pub fn own_credentials() -> Ucred {
    let process = current().process();
    let credentials = process.credentials.lock();
    Ucred { pid: process.pid, uid: credentials.user.effective, gid: credentials.group.effective }
}

impl Socket {
    /// One that is not connected.
    pub fn new(kind: Kind) -> Result<KArc<Self>, Errno> {
        let state = State {
            queue: Queue::new(),
            peer: None,
            address: None,
            phase: Phase::Unconnected,
            backlog: 0,
            shut: 0,
            is_dead: false,
            error: None,
            peer_credentials: None,
            blocked: LinkedList::new(InBlocked::NEW),
        };
        let events = Self::events_of(kind, &state);
        Ok(KArc::try_new(Self {
            kind,
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            state: SpinLock::new(Cpu, Rank::Object, state),
            events: AtomicU32::new(events),
            is_full: AtomicBool::new(false),
            outstanding: AtomicUsize::new(0),
            source: Source::new(),
            options: AtomicU32::new(0),
            send_buffer: AtomicU32::new(BUFFER),
            receive_buffer: AtomicU32::new(BUFFER),
            send_timeout: AtomicU64::new(0),
            receive_timeout: AtomicU64::new(0),
            is_blocked: AtomicBool::new(false),
            blocked_link: LinkedListLink::new(),
            name_link: RBTreeLink::new(),
            name_key: SpinLock::new(Cpu, Rank::Object, None),
            flying: flight::Flying {
                messages: AtomicUsize::new(0),
                file: AtomicPtr::new(core::ptr::null_mut::<OpenFile>()),
                index: AtomicUsize::new(0),
                link: LinkedListLink::new(),
                carried: flight::Carried::new(),
            },
        })?)
    }

    /// Its inode number.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn events_of(kind: Kind, state: &State) -> u32 {
        let mut events = 0;
        let mut add = |is: bool, bits: u16| events |= if is { u32::from(bits) } else { 0 };
        add(state.error.is_some(), poll::ERR);
        add(state.shut & IN != 0, poll::IN | poll::RDNORM | poll::RDHUP);
        add(state.shut == IN | OUT, poll::HUP);
        add(!state.queue.is_empty(), poll::IN | poll::RDNORM);
        add(kind.is_connected() && matches!(state.phase, Phase::Unconnected | Phase::Connecting), poll::HUP);
        if kind == Kind::Datagram && state.peer.is_some() {
            events |= DEPENDS;
        }
        if state.phase == Phase::Listening {
            events |= LISTENS;
        }
        events
    }

    fn publish(&self, state: &State) {
        self.events.store(Self::events_of(self.kind, state), Ordering::Relaxed);
    }

    fn has_option(&self, bit: u32) -> bool {
        self.options.load(Ordering::Relaxed) & bit != 0
    }

    /// Whether its reader wants the credentials of senders.
    pub fn passes_credentials(&self) -> bool {
        self.has_option(1 << option::PASSCRED)
    }

    fn limit(&self) -> usize {
        self.send_buffer.load(Ordering::Relaxed) as usize
    }

    /// Its events, under any lock; `None` if another socket has to be examined.
    #[inline]
    pub fn ready_now(&self) -> Option<u16> {
        let events = self.events.load(Ordering::Relaxed);
        if events & DEPENDS != 0 { None } else { Some(events as u16 | self.room_events(events)) }
    }

    fn room_events(&self, events: u32) -> u16 {
        let is_full = match self.kind {
            Kind::Datagram => self.outstanding.load(Ordering::Relaxed) * 4 > self.limit(),
            _ => self.is_full.load(Ordering::Relaxed),
        };
        if is_full || events & LISTENS != 0 { 0 } else { poll::OUT | poll::WRNORM }
    }

    /// Its events. The caller holds no lock.
    pub fn ready(this: &KArc<Self>) -> u16 {
        let events = this.events.load(Ordering::Relaxed);
        let mut room = this.room_events(events);
        if events & DEPENDS != 0 && room != 0 {
            let peer = this.state.lock().peer.clone();
            if peer.is_some_and(|peer| peer.is_too_full_for(this, true)) {
                room = 0;
            }
        }
        events as u16 | room
    }

    /// Whether a datagram from `sender` must wait for a reader here; if `tells`, the sender is notified when it need
    /// not wait any more.
    fn is_too_full_for(&self, sender: &KArc<Socket>, tells: bool) -> bool {
        let mut state = self.state.lock();
        let is_mutual = state.peer.as_ref().is_some_and(|peer| KArc::ptr_eq(peer, sender));
        let is_full = !is_mutual && state.queue.len() >= MOST_DATAGRAMS && !state.is_dead;
        if is_full && tells && !sender.is_blocked.swap(true, Ordering::AcqRel) {
            KArc::add_owners(sender, 1);
            // SAFETY: the list gets a reference, which is dropped when the socket is taken out.
            state.blocked.push_back(unsafe { UnsafeRef::from_raw(KArc::as_ptr(sender)) });
        }
        is_full
    }

    /// Notifies the senders that found it full.
    fn tell_blocked(&self) {
        for n in 1.. {
            if n % AT_ONCE == 0 {
                // (A kill does not end this.)
                let _ = resched_point(Sleep::Killable);
            }
            let taken = self.state.lock().blocked.pop_front();
            let Some(socket) = taken else { return };
            let socket = UnsafeRef::into_raw(socket);
            // SAFETY: the list owned a reference, which is taken over here.
            let socket = unsafe { KArc::from_raw(socket) };
            socket.is_blocked.store(false, Ordering::Release);
            socket.source.wake(poll::OUT | poll::WRNORM);
        }
    }

    /// shutdown, where `how` consists of [`IN`] and [`OUT`].
    pub fn shutdown(&self, how: u8) {
        let peer = {
            let mut state = self.state.lock();
            state.shut |= how;
            self.publish(&state);
            state.peer.clone().filter(|_| self.kind.is_connected())
        };
        self.source.wake(u16::MAX);
        if let Some(peer) = peer {
            // What this end does not send, the other end does not receive, and vice versa.
            let there = if how & IN != 0 { OUT } else { 0 } | if how & OUT != 0 { IN } else { 0 };
            let mut state = peer.state.lock();
            state.shut |= there;
            peer.publish(&state);
            drop(state);
            peer.source.wake(u16::MAX);
        }
    }

    /// The pending error, which is cleared (`SO_ERROR`).
    pub fn take_error(&self) -> Option<Errno> {
        let mut state = self.state.lock();
        let error = state.error.take();
        self.publish(&state);
        error
    }

    /// Its own name, or that of the other end.
    pub fn address(&self) -> Option<KArc<Address>> {
        self.state.lock().address.clone()
    }

    /// The other end. ENOTCONN.
    pub fn peer(&self) -> Result<KArc<Socket>, Errno> {
        self.state.lock().peer.clone().ok_or(Errno::ENOTCONN)
    }

    /// The credentials of the other end's creator.
    pub fn peer_credentials(&self) -> Option<Ucred> {
        self.state.lock().peer_credentials
    }

    /// Whether it waits for connections.
    pub fn is_listening(&self) -> bool {
        self.state.lock().phase == Phase::Listening
    }

    /// How many bytes can be read at once (`SIOCINQ`): for datagrams, those of the first one. EINVAL for a listening
    /// socket.
    pub fn unread(&self) -> Result<usize, Errno> {
        let state = self.state.lock();
        match self.kind {
            _ if state.phase == Phase::Listening => Err(Errno::EINVAL),
            Kind::Datagram => Ok(state.queue.front().map_or(0, |message| message.rest().len())),
            _ => Ok(state.queue.unread()),
        }
    }

    /// The charge of messages that were sent and not yet received (`SIOCOUTQ`).
    pub fn unsent(&self) -> usize {
        match self.kind {
            Kind::Datagram => self.outstanding.load(Ordering::Relaxed),
            _ => self.peer().map_or(0, |peer| peer.state.lock().queue.charge()),
        }
    }

    /// The stored options.
    pub fn options(&self) -> &AtomicU32 {
        &self.options
    }

    /// The maximum charge of messages that were sent and not yet received; with `receives`, a number that is stored
    /// without effect, as on Linux.
    pub fn buffer(&self, receives: bool) -> &AtomicU32 {
        if receives { &self.receive_buffer } else { &self.send_buffer }
    }

    /// The maximum time that a call waits, in nanoseconds; 0 for no limit.
    pub fn timeout(&self, receives: bool) -> &AtomicU64 {
        if receives { &self.receive_timeout } else { &self.send_timeout }
    }

    /// Its open file is gone.
    pub fn close(this: &KArc<Self>) {
        names::leave(this);
        let (peer, messages, was_unread) = {
            let mut state = this.state.lock();
            state.is_dead = true;
            state.shut = IN | OUT;
            let was_unread = !state.queue.is_empty();
            (state.peer.take(), state.queue.take(), was_unread)
        };
        this.discard(messages);
        this.tell_blocked();
        if let Some(peer) = peer.filter(|_| this.kind.is_connected()) {
            peer.end_of_peer(was_unread);
        }
        // For threads that want to connect, and for senders whose datagrams will not be received.
        this.source.wake(u16::MAX);
    }

    /// Notes that the other end is closed. `is_reset` if it has not read everything.
    fn end_of_peer(&self, is_reset: bool) {
        let mut state = self.state.lock();
        state.shut = IN | OUT;
        if is_reset {
            state.error = Some(Errno::ECONNRESET);
        }
        self.publish(&state);
        drop(state);
        self.source.wake(u16::MAX);
    }

    /// Drops messages that nobody will receive. No spin lock may be held.
    fn discard(&self, messages: Messages<Extra>) {
        for (n, mut message) in messages.into_iter().enumerate() {
            if n % AT_ONCE == AT_ONCE - 1 {
                // (A kill does not end this.)
                let _ = resched_point(Sleep::Killable);
            }
            if let Some(child) = message.extra.child.take() {
                // A connection that was not accepted.
                Self::reset(&child);
                continue;
            }
            self.note_read(&mut message);
        }
    }

    /// Closes a connection that was not accepted.
    fn reset(this: &KArc<Self>) {
        let (peer, messages) = {
            let mut state = this.state.lock();
            state.is_dead = true;
            (state.peer.take(), state.queue.take())
        };
        this.discard(messages);
        if let Some(peer) = peer {
            peer.end_of_peer(true);
        }
    }
}
