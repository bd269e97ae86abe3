//! Descriptors: entries for files, with Linux's rules for their numbers, dup, fork and exec. (Entries for other objects
//! are [handles](super::handles).)
//!
//! An open object is an [`OpenFile`], shared by all descriptors that `dup`, `fork` and descriptor passing make for it.
//! The rights belong to the descriptor. A process's descriptors are in its [table](super::table).

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use bitflags::bitflags;
use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::poll;
use quire_locks::Flock;
use quire_mm::fallible::KArc;

use super::epoll::Epoll;
use super::eventfd::EventFd;
use super::file_locks;
use super::memory_file::MemoryFile;
use super::pidfd;
use super::pipe::{Pipe, Side};
use super::signalfd::{self, SignalFd};
use super::socket::Socket;
use super::source::Source;
use super::timerfd::TimerFd;
use crate::archive::Node;
use crate::console::tty;
use crate::names::target::Name;
use crate::task::process::Process;
use crate::task::thread::current;

bitflags! {
    /// The rights of a descriptor.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rights: u8 {
        /// Reading, and mapping readable.
        const READ = 1;
        /// Writing.
        const WRITE = 2;
    }
}

/// An object that can be open.
#[derive(Clone)]
pub enum Object {
    /// The console.
    Console,
    /// One end of a pipe.
    Pipe(KArc<Pipe>, Side),
    /// A file or directory of the boot archive.
    Archive(&'static Node),
    /// A file in memory.
    Memory(KArc<MemoryFile>),
    /// A directory of a server, or another node that only the server can access.
    Name(Name),
    /// `/dev/null`.
    Null,
    /// `/dev/zero`.
    Zero,
    /// A counter.
    EventFd(KArc<EventFd>),
    /// A set of watched files.
    Epoll(KArc<Epoll>),
    /// A timer.
    TimerFd(KArc<TimerFd>),
    /// Signals.
    SignalFd(KArc<SignalFd>),
    /// A process.
    PidFd(KArc<Process>),
    /// A local socket.
    Socket(KArc<Socket>),
}

impl Object {
    /// The file whose bytes the kernel has or can get: in memory, or stored by a server.
    #[inline]
    pub fn memory(&self) -> Option<&KArc<MemoryFile>> {
        match self {
            Object::Memory(file) => Some(file),
            Object::Name(name) => name.file.as_ref(),
            _ => None,
        }
    }

    /// Whether the object may be unready, so that it makes sense to wait for it.
    pub fn has_source(&self) -> bool {
        matches!(self, Object::SignalFd(_)) || self.source().is_some()
    }

    /// Makes what [`Object::source`] needs. ENOMEM.
    pub fn prepare(&self) -> Result<(), Errno> {
        if let Object::SignalFd(_) = self { signalfd::own_source().map(drop) } else { Ok(()) }
    }

    /// Whether its events depend on who looks, so that a waker cannot check them on behalf of a waiter.
    pub fn is_of_looker(&self) -> bool {
        matches!(self, Object::SignalFd(_) | Object::Epoll(_))
    }

    /// Where threads of the calling process wait for it to become ready; `None` if it always is. It must have been
    /// [prepared](Object::prepare).
    pub fn source(&self) -> Option<&Source> {
        match self {
            Object::Console => Some(tty::source()),
            Object::Pipe(pipe, side) => Some(pipe.source(*side)),
            Object::EventFd(counter) => Some(&counter.source),
            Object::Epoll(epoll) => Some(&epoll.source),
            Object::TimerFd(timer) => Some(&timer.deferred.source),
            Object::SignalFd(_) => current().process().signal_source.get().map(|deferred| &deferred.source),
            Object::PidFd(process) => Some(&process.end),
            Object::Socket(socket) => Some(&socket.source),
            Object::Name(name) => name.trigger.as_ref().map(|trigger| &trigger.source),
            Object::Archive(_) | Object::Memory(_) | Object::Null | Object::Zero => None,
        }
    }

    /// The operations that would not sleep, as events of `poll`. The caller holds no lock.
    pub fn ready(&self) -> u16 {
        self.ready_now().unwrap_or_else(|| match self {
            Object::Epoll(epoll) => epoll.ready(),
            Object::SignalFd(signals) => signals.ready(),
            Object::Socket(socket) => Socket::ready(socket),
            _ => tty::ready(),
        })
    }

    /// As [`Object::ready`], including everything that happened before the call, even if the notification thread has
    /// not told an epoll of it yet. The caller may sleep.
    pub fn ready_by_now(&self) -> u16 {
        if let Object::Epoll(epoll) = self {
            epoll.catch_up();
        }
        self.ready()
    }

    /// Of the events found, those to report to a program. This ends a trigger's event, which is reported to no other
    /// thread.
    #[inline]
    pub fn told(&self, events: u16) -> u16 {
        if events & poll::PRI == 0 { events } else { self.told_of_trigger(events) }
    }

    #[cold]
    fn told_of_trigger(&self, events: u16) -> u16 {
        match self {
            Object::Name(Name { trigger: Some(trigger), .. }) if !trigger.take() => events & !poll::PRI,
            _ => events,
        }
    }

    /// As [`Object::ready`], under any lock; `None` for an object whose state needs a lock.
    #[inline]
    pub fn ready_now(&self) -> Option<u16> {
        match self {
            Object::Pipe(pipe, side) => Some(pipe.ready(*side)),
            Object::EventFd(counter) => Some(counter.ready()),
            Object::TimerFd(timer) => Some(timer.ready()),
            Object::PidFd(process) => Some(pidfd::ready(process)),
            Object::Socket(socket) => socket.ready_now(),
            Object::Archive(_) | Object::Memory(_) | Object::Null | Object::Zero => Some(ALWAYS),
            Object::Name(name) => Some(ALWAYS | name.trigger.as_ref().map_or(0, |trigger| trigger.ready())),
            Object::Console | Object::Epoll(_) | Object::SignalFd(_) => None,
        }
    }
}

/// The events of objects that are always ready.
const ALWAYS: u16 = poll::IN | poll::RDNORM | poll::OUT | poll::WRNORM;

/// An open object with its position and status flags.
pub struct OpenFile {
    /// The open object.
    pub object: Object,
    /// `O_APPEND`, `O_NONBLOCK` and the access mode, as `fcntl` returns them.
    pub status: AtomicU32,
    /// Where the next read begins; for a directory, the index of its next entry.
    pub offset: AtomicU64,
    /// The write-back errors that it has reported, or that occurred before it was opened.
    seen_errors: AtomicU64,
    /// Whether it is, or has been, in an epoll.
    is_watched: AtomicBool,
    /// Whether it has, or had, locks.
    has_locks: AtomicBool,
    /// Its lock by flock. Under the lock of the file's flocks.
    flock: AtomicU8,
}

/// The number of open objects, for the resource counts.
static OPEN: AtomicU64 = AtomicU64::new(0);

impl OpenFile {
    /// Opens an object.
    pub fn new(object: Object, status: Open) -> Result<KArc<Self>, Errno> {
        let seen = object.memory().map_or(0, |file| file.content.errors());
        let file = Self {
            object,
            status: AtomicU32::new(status.bits()),
            offset: AtomicU64::new(0),
            seen_errors: AtomicU64::new(seen),
            is_watched: AtomicBool::new(false),
            has_locks: AtomicBool::new(false),
            flock: AtomicU8::new(Flock::None as u8),
        };
        OPEN.fetch_add(1, Ordering::Relaxed);
        Ok(KArc::try_new(file)?)
    }

    /// The last write-back error, unless it was already reported here.
    pub fn take_error(&self) -> Result<(), Errno> {
        self.object.memory().map_or(Ok(()), |file| file.content.error_since(&self.seen_errors))
    }

    /// Notes that an epoll is about to watch it.
    pub fn note_watched(&self) {
        self.is_watched.store(true, Ordering::Relaxed);
    }

    /// Notes that locks are about to be set for it.
    pub fn note_locks(&self) {
        self.has_locks.store(true, Ordering::Relaxed);
    }

    /// Exchanges its lock by flock. The caller holds the lock of the file's flocks.
    pub fn exchange_flock(&self, with: &mut Flock) {
        let old = self.flock.load(Ordering::Relaxed);
        self.flock.store(*with as u8, Ordering::Relaxed);
        *with = match old {
            old if old == Flock::Shared as u8 => Flock::Shared,
            old if old == Flock::Exclusive as u8 => Flock::Exclusive,
            _ => Flock::None,
        };
    }

    fn has_status(&self, status: Open) -> bool {
        Open::from_bits_retain(self.status.load(Ordering::Relaxed)).contains(status)
    }

    /// Whether writes append to the file.
    pub fn appends(&self) -> bool {
        self.has_status(Open::APPEND)
    }

    /// Whether written data must be in permanent storage before the call returns.
    pub fn writes_through(&self) -> bool {
        self.has_status(Open::DSYNC)
    }

    /// Whether it was opened with `O_PATH`, as a name only.
    pub fn is_name_only(&self) -> bool {
        self.has_status(Open::PATH)
    }

    /// Whether calls on it do not sleep.
    pub fn is_nonblocking(&self) -> bool {
        self.has_status(Open::NONBLOCK)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let is_watched = *self.is_watched.get_mut();
        if *self.has_locks.get_mut() {
            file_locks::closed(self);
        }
        match &self.object {
            Object::SignalFd(signals) => signals.close(),
            object if is_watched => object.source().into_iter().for_each(|source| source.leave_all(self)),
            _ => {}
        }
        match &self.object {
            Object::Pipe(pipe, side) => pipe.close(*side),
            Object::Epoll(epoll) => epoll.close(),
            Object::TimerFd(timer) => timer.close(),
            Object::Socket(socket) => Socket::close(socket),
            _ => {}
        }
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Open objects, system-wide.
pub fn open_objects() -> u64 {
    OPEN.load(Ordering::Relaxed)
}

/// An entry of the table.
#[derive(Clone)]
pub struct Descriptor {
    /// The open file that it refers to.
    pub file: KArc<OpenFile>,
    /// Its rights.
    pub rights: Rights,
    /// Whether exec closes it.
    pub close_on_exec: bool,
}

impl Descriptor {
    /// The file, if the descriptor has these rights; EBADF if not, as for read(2) and write(2).
    pub fn file_for(self, rights: Rights) -> Result<KArc<OpenFile>, Errno> {
        if self.rights.contains(rights) { Ok(self.file) } else { Err(Errno::EBADF) }
    }
}
