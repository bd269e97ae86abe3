//! Bound sockets by name: by an abstract name and the socket's kind, or by the node that a server has made for it. A
//! server knows only the node, whose number is never reused, so a name that is removed or replaced leads to no other
//! socket.
//!
//! Lock order: a part of the table ranks as an object, and is held for a search. A socket is in the table from bind
//! until it is closed, so a reference to one that is found can be taken.

use intrusive_collections::{KeyAdapter, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;
use quire_sockets::Address;

use super::{Kind, Socket};
use crate::names::Place;
use crate::task::point::{ENTRIES, resched_point};
use crate::task::wait::Sleep;
use crate::vm::{Cpu, SpinLock};

/// A name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A node of a server's.
    Node(u64),
    /// A name in no file system; each kind of socket has its own names.
    Abstract(Kind, Address),
}

intrusive_adapter!(InNames = UnsafeRef<Socket>: Socket { name_link => RBTreeLink });

impl<'a> KeyAdapter<'a> for InNames {
    type Key = Key;
    fn get_key(&self, socket: &'a Socket) -> Key {
        // (Set before the socket enters, and not changed until it leaves.)
        socket.name_key.lock().unwrap_or(Key::Node(0))
    }
}

static NAMES: SpinLock<RBTree<InNames>> = SpinLock::new(Cpu, Rank::Descriptors, RBTree::new(InNames::NEW));

/// Gives a socket a name. EADDRINUSE; EINVAL if it has one.
fn enter(socket: &KArc<Socket>, key: Key, address: KArc<Address>) -> Result<(), Errno> {
    let mut names = NAMES.lock();
    if names.find(&key).get().is_some() {
        return Err(Errno::EADDRINUSE);
    }
    {
        let mut state = socket.state.lock();
        if state.address.is_some() || state.is_dead {
            return Err(Errno::EINVAL);
        }
        state.address = Some(address);
    }
    *socket.name_key.lock() = Some(key);
    // SAFETY: it leaves the tree when it is closed, before it is dropped.
    names.insert(unsafe { UnsafeRef::from_raw(KArc::as_ptr(socket)) });
    Ok(())
}

/// A socket is closed.
pub fn leave(socket: &Socket) {
    if socket.name_key.lock().is_none() {
        return;
    }
    let mut names = NAMES.lock();
    if socket.name_link.is_linked() {
        // SAFETY: a linked socket is in this tree, whose lock is held.
        unsafe { names.cursor_mut_from_ptr(socket).remove() };
    }
}

fn find(key: &Key) -> Option<KArc<Socket>> {
    let names = NAMES.lock();
    let found = names.find(key);
    // SAFETY: it is in the tree, whose lock is held, and leaves it before its memory is freed.
    found.get().and_then(|socket| unsafe { KArc::upgrade(socket) })
}

impl Socket {
    /// Whether it has a name.
    pub fn is_bound(&self) -> bool {
        self.state.lock().address.is_some()
    }

    /// Binds the socket to an abstract name. EADDRINUSE, EINVAL, ENOMEM.
    pub fn bind_abstract(this: &KArc<Self>, address: Address) -> Result<(), Errno> {
        enter(this, Key::Abstract(this.kind, address), KArc::try_new(address)?)
    }

    /// Binds the socket to any free abstract name, unless it has a name. ENOSPC if all are taken; EINTR if the thread
    /// is killed. O(names that are taken).
    pub fn bind_any(this: &KArc<Self>) -> Result<(), Errno> {
        use core::sync::atomic::{AtomicU32, Ordering};
        const NAMES: u32 = 1 << 20;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for tried in 1..=NAMES {
            if tried.is_multiple_of(ENTRIES as u32) {
                resched_point(Sleep::Killable)?;
            }
            let number = NEXT.fetch_add(1, Ordering::Relaxed) % NAMES;
            // (A name that is taken needs no memory.)
            if find(&Key::Abstract(this.kind, Address::any(number))).is_some() {
                continue;
            }
            match Self::bind_abstract(this, Address::any(number)) {
                Err(Errno::EADDRINUSE) => {}
                // (Another thread has bound it in the meantime, or it already had a name.)
                Err(Errno::EINVAL) => return Ok(()),
                done => return done,
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Binds the socket to a node, which belongs to it alone. EINVAL, ENOMEM.
    pub fn bind_node(this: &KArc<Self>, place: Place, address: Address) -> Result<(), Errno> {
        enter(this, Key::Node(place.to_word()), KArc::try_new(address)?)
    }

    /// The socket with an abstract name, of the same kind as this one. ECONNREFUSED.
    pub fn find_abstract(&self, address: &Address) -> Result<KArc<Socket>, Errno> {
        find(&Key::Abstract(self.kind, *address)).ok_or(Errno::ECONNREFUSED)
    }

    /// The socket of a node, of the same kind as this one. ECONNREFUSED; EPROTOTYPE if it is of another kind.
    pub fn find_node(&self, place: Place) -> Result<KArc<Socket>, Errno> {
        let found = find(&Key::Node(place.to_word())).ok_or(Errno::ECONNREFUSED)?;
        if found.kind == self.kind { Ok(found) } else { Err(Errno::EPROTOTYPE) }
    }
}
