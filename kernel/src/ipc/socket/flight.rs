//! Descriptors in messages (SCM_RIGHTS), and the collection of sockets that only such messages refer to.
//!
//! A message's descriptors are [`Rights`]. If there are sockets among them, these are *in flight*: each knows how many
//! messages refer to it, and the socket where the message waits *carries* the rights. This only changes under
//! [`FLIGHT`], so its holder sees an unchanging graph: a receiver gets descriptors only after the rights have *landed*,
//! and a thread that could get another reference to a socket from elsewhere must already have one, which the count of
//! its open file shows.
//!
//! Whoever closes a descriptor of a socket in flight, or drops rights that include sockets, [collects](collect). The
//! descriptors of dropped rights may themselves be the last ones of sockets with messages, and so on: such rights go to
//! a list, which one thread empties, so nothing recurses.
//!
//! Lock order: `FLIGHT` before a socket's state and the list; nothing is dropped under `FLIGHT`.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::{KArc, TryVec, try_box};
use quire_mm::sync::Rank;
use quire_sockets::{Graph, garbage};

use super::Socket;
use crate::ipc::descriptor::{Descriptor, Object, OpenFile};
use crate::task::mutex::{Mutex, MutexGuard};
use crate::task::point::{ENTRIES, resched_point};
use crate::task::wait::Sleep;
use crate::vm::{Cpu, PAGES, SpinLock};

/// The maximum number of descriptors in a message (Linux's `SCM_MAX_FD`).
pub const MOST: usize = 253;

/// The approximate size of a descriptor in flight, in bytes.
const SIZE: usize = 256;

/// A socket's part in this.
pub struct Flying {
    /// Messages that refer to it.
    pub(super) messages: AtomicUsize,
    /// Its open file, while there are messages that refer to it: each of them owns it.
    pub(super) file: AtomicPtr<OpenFile>,
    /// Its index in the graph of the last collection.
    pub(super) index: AtomicUsize,
    /// Linked while there are any.
    pub(super) link: LinkedListLink,
    /// The rights in messages that wait at it.
    pub(super) carried: Carried,
}

/// The rights in messages that wait at a socket.
pub struct Carried(UnsafeCell<LinkedList<InCarried>>);

impl Carried {
    pub(super) fn new() -> Self {
        Self(UnsafeCell::new(LinkedList::new(InCarried::NEW)))
    }
}

intrusive_adapter!(InCarried = UnsafeRef<Rights>: Rights { link => LinkedListLink });
intrusive_adapter!(InFlying = UnsafeRef<Socket>: Socket { flying.link => LinkedListLink });

/// Descriptors in a message.
pub struct Rights {
    /// The descriptors, in the order in which they were given.
    pub files: Vec<Descriptor>,
    /// The socket that carries the rights, if there are sockets among them, until they have landed.
    holder: Cell<Option<KArc<Socket>>>,
    link: LinkedListLink,
    /// Linked while the rights wait to be dropped.
    doomed: LinkedListLink,
}

// SAFETY: `holder` and `link` are touched under `FLIGHT`, `doomed` under the list's lock or by the owner.
unsafe impl Send for Rights {}
// SAFETY: as above.
unsafe impl Sync for Rights {}

intrusive_adapter!(InDoomed = Box<Rights>: Rights { doomed => LinkedListLink });

struct Sockets {
    list: LinkedList<InFlying>,
    len: usize,
    /// After this many more messages with sockets there is a collection, even if nothing is closed.
    until_next: usize,
}

struct UnderMutex(UnsafeCell<Sockets>);

// SAFETY: it is only touched under `FLIGHT`.
unsafe impl Sync for UnderMutex {}

static FLIGHT: Mutex = Mutex::new();
static FLYING: UnderMutex =
    UnderMutex(UnsafeCell::new(Sockets { list: LinkedList::new(InFlying::NEW), len: 0, until_next: FIRST }));

/// The minimum number of sockets in flight for a collection without another cause.
const FIRST: usize = 64;

/// Descriptors in flight.
static DESCRIPTORS: AtomicUsize = AtomicUsize::new(0);

struct Doomed(LinkedList<InDoomed>);

// SAFETY: it owns its elements, which are `Send`.
unsafe impl Send for Doomed {}

static DOOMED: SpinLock<Doomed> = SpinLock::new(Cpu, Rank::Object, Doomed(LinkedList::new(InDoomed::NEW)));
static IS_EMPTIED: AtomicBool = AtomicBool::new(false);

/// The mutex, and the state that it protects.
struct Graphs<'a> {
    _guard: MutexGuard<'a>,
}

impl Graphs<'_> {
    fn take() -> Self {
        loop {
            // (The mutex's holder passes points, but never waits for anybody.)
            if let Ok(guard) = FLIGHT.lock(Sleep::Deaf) {
                return Self { _guard: guard };
            }
        }
    }

    fn sockets(&mut self) -> &mut Sockets {
        // SAFETY: the mutex is held by this value, which is borrowed for as long as the reference lives.
        unsafe { &mut *FLYING.0.get() }
    }

    fn carried<'s>(&'s mut self, socket: &'s Socket) -> &'s mut LinkedList<InCarried> {
        // SAFETY: as in `sockets`: it is only touched under the mutex.
        unsafe { &mut *socket.flying.carried.0.get() }
    }
}

fn sockets_of(files: &[Descriptor]) -> impl Iterator<Item = (&KArc<OpenFile>, &KArc<Socket>)> {
    files.iter().filter_map(|descriptor| match &descriptor.file.object {
        Object::Socket(socket) => Some((&descriptor.file, socket)),
        _ => None,
    })
}

impl Rights {
    /// Descriptors for a message that will wait at `holder`. ETOOMANYREFS if too many are in flight; ENOMEM.
    pub fn new(files: Vec<Descriptor>, holder: &KArc<Socket>) -> Result<Box<Self>, Errno> {
        let most = PAGES.total_managed() * PAGE_SIZE / 50 / SIZE;
        let count = files.len();
        let has_sockets = sockets_of(&files).next().is_some();
        let rights = try_box(Self {
            files,
            holder: Cell::new(None),
            link: LinkedListLink::new(),
            doomed: LinkedListLink::new(),
        })?;
        if DESCRIPTORS.fetch_add(count, Ordering::Relaxed) + count > most {
            DESCRIPTORS.fetch_sub(count, Ordering::Relaxed);
            return Err(Errno::ETOOMANYREFS);
        }
        if has_sockets && rights.depart(holder) {
            collect();
        }
        Ok(rights)
    }

    /// Puts its sockets in flight. Returns whether a collection is due.
    fn depart(&self, holder: &KArc<Socket>) -> bool {
        let mut graphs = Graphs::take();
        self.holder.set(Some(holder.clone()));
        // SAFETY: the rights leave the list when they land, which is before they are dropped.
        graphs.carried(holder).push_back(unsafe { UnsafeRef::from_raw(self) });
        for (file, socket) in sockets_of(&self.files) {
            if socket.flying.messages.fetch_add(1, Ordering::Relaxed) == 0 {
                socket.flying.file.store(KArc::as_ptr(file).cast_mut(), Ordering::Relaxed);
                let sockets = graphs.sockets();
                // SAFETY: the socket leaves the list when no message refers to it any more; until then messages own its
                // open file.
                sockets.list.push_back(unsafe { UnsafeRef::from_raw(KArc::as_ptr(socket)) });
                sockets.len += 1;
            }
        }
        let sockets = graphs.sockets();
        sockets.until_next = sockets.until_next.saturating_sub(1);
        sockets.until_next == 0
    }

    /// Takes its sockets out of flight: a receiver gets the descriptors, or they are dropped.
    pub fn land(&mut self) {
        DESCRIPTORS.fetch_sub(self.files.len(), Ordering::Relaxed);
        if let Some(holder) = self.holder.take() {
            let mut graphs = Graphs::take();
            if self.link.is_linked() {
                let this = core::ptr::from_ref(&*self);
                // SAFETY: linked rights are in their holder's list.
                unsafe { graphs.carried(&holder).cursor_mut_from_ptr(this).remove() };
            }
            for (_, socket) in sockets_of(&self.files) {
                if socket.flying.messages.fetch_sub(1, Ordering::Relaxed) == 1 && socket.flying.link.is_linked() {
                    let sockets = graphs.sockets();
                    // SAFETY: a linked socket is in this list.
                    unsafe { sockets.list.cursor_mut_from_ptr(KArc::as_ptr(socket)).remove() };
                    sockets.len -= 1;
                }
            }
        }
    }

    /// Copies the descriptors, for a receiver that only peeks.
    pub fn copies(&self) -> Result<Vec<Descriptor>, Errno> {
        let mut files = <Vec<_> as TryVec<_>>::try_with_capacity(self.files.len())?;
        for descriptor in &self.files {
            files.try_push(descriptor.clone())?;
        }
        Ok(files)
    }
}

/// Drops rights that nobody has received.
pub fn discard(mut rights: Box<Rights>) {
    let has_sockets = rights.holder.get_mut().is_some();
    rights.land();
    if !has_sockets {
        return;
    }
    DOOMED.lock().0.push_back(rights);
    empty_doomed();
}

fn empty_doomed() {
    while !IS_EMPTIED.swap(true, Ordering::AcqRel) {
        loop {
            let first = DOOMED.lock().0.pop_front();
            let Some(mut rights) = first else { break };
            while let Some(descriptor) = rights.files.pop() {
                // (If dropping this adds to the list, that call returns at once.)
                drop(descriptor);
                let _ = resched_point(Sleep::Deaf);
            }
        }
        IS_EMPTIED.store(false, Ordering::Release);
        if DOOMED.lock().0.is_empty() {
            break;
        }
    }
    if !IS_EMPTIED.load(Ordering::Acquire) && DESCRIPTORS.load(Ordering::Relaxed) != 0 {
        collect();
    }
}

/// Drops a closed descriptor. If its socket is in flight, it may have been the last descriptor by which the socket
/// could be reached.
#[inline]
pub fn closes(closed: Descriptor) {
    let is_flying =
        matches!(&closed.file.object, Object::Socket(socket) if socket.flying.messages.load(Ordering::Relaxed) != 0);
    drop(closed);
    if is_flying {
        collect();
    }
}

/// Called when all descriptors of a process have been closed.
pub fn table_ends() {
    if DESCRIPTORS.load(Ordering::Relaxed) != 0 {
        collect();
    }
}

/// The sockets in flight.
struct InFlight<'a> {
    sockets: &'a [KArc<Socket>],
}

impl Graph for InFlight<'_> {
    fn len(&self) -> usize {
        self.sockets.len()
    }

    fn in_flight(&self, socket: usize) -> usize {
        self.sockets[socket].flying.messages.load(Ordering::Relaxed)
    }

    fn is_held(&self, socket: usize) -> bool {
        let flying = &self.sockets[socket].flying;
        let file = flying.file.load(Ordering::Relaxed);
        // SAFETY: messages own the open file for as long as the socket is in flight, which can only end under the
        // mutex, and that is held.
        let file = core::mem::ManuallyDrop::new(unsafe { KArc::from_raw(file.cast_const()) });
        KArc::count(&file) > flying.messages.load(Ordering::Relaxed)
    }

    fn each(&self, socket: usize, visit: &mut dyn FnMut(usize)) {
        // SAFETY: lists of carried rights are touched under the mutex, which is held.
        let carried = unsafe { &*self.sockets[socket].flying.carried.0.get() };
        for rights in carried {
            for (_, other) in sockets_of(&rights.files) {
                let index = other.flying.index.load(Ordering::Relaxed);
                let is_here = self.sockets.get(index).is_some_and(|here| KArc::ptr_eq(here, other));
                visit(if is_here { index } else { usize::MAX });
            }
            let _ = resched_point(Sleep::Deaf);
        }
    }

    fn pause(&self) {
        let _ = resched_point(Sleep::Deaf);
    }
}

static IS_DUE: AtomicBool = AtomicBool::new(false);
static IS_COLLECTED: AtomicBool = AtomicBool::new(false);

/// Drops the messages of sockets that nobody can reach any more. If memory is lacking, this is postponed. Dropping them
/// may call this function again: then the same thread repeats the collection from the beginning.
pub fn collect() {
    IS_DUE.store(true, Ordering::Release);
    while IS_DUE.load(Ordering::Acquire) && !IS_COLLECTED.swap(true, Ordering::AcqRel) {
        while IS_DUE.swap(false, Ordering::AcqRel) {
            for socket in find_garbage().unwrap_or_default() {
                let messages = socket.state.lock().queue.take();
                socket.discard(messages);
                drop(socket);
                let _ = resched_point(Sleep::Deaf);
            }
        }
        IS_COLLECTED.store(false, Ordering::Release);
    }
}

fn find_garbage() -> Result<Vec<KArc<Socket>>, Errno> {
    let mut graphs = Graphs::take();
    let all = graphs.sockets();
    all.until_next = all.len.max(FIRST);
    let mut sockets: Vec<KArc<Socket>> = Vec::new();
    if all.len == 0 {
        return Ok(sockets);
    }
    sockets.try_reserve_exact(all.len).map_err(|_| Errno::ENOMEM)?;
    for (index, socket) in all.list.iter().enumerate() {
        socket.flying.index.store(index, Ordering::Relaxed);
        // SAFETY: messages own its open file, and so the socket itself, until it leaves the list, which only happens
        // under the mutex, and that is held.
        let owner = core::mem::ManuallyDrop::new(unsafe { KArc::from_raw(core::ptr::from_ref(socket)) });
        sockets.try_push((*owner).clone())?;
        if index.is_multiple_of(ENTRIES) {
            let _ = resched_point(Sleep::Deaf);
        }
    }
    let is_garbage = garbage(&InFlight { sockets: &sockets })?;
    let mut kept = 0_usize;
    sockets.retain(|_| {
        kept += 1;
        if kept.is_multiple_of(ENTRIES) {
            let _ = resched_point(Sleep::Deaf);
        }
        is_garbage[kept - 1]
    });
    Ok(sockets)
}
