//! Unreachable sockets: every reference to such a socket is in a message that waits in the queue of such a socket.
//!
//! A socket in flight is live if one of its references is in no queue, or in the queue of a socket that is not in
//! flight: then it can be received, or is open somewhere. Sockets to which the queue of a live one refers are live too.
//! All others are garbage. The graph must not change meanwhile. O(sockets in flight and references).

use alloc::vec::Vec;

use quire_mm::fallible::{AllocError, TryVec};

/// The sockets in flight, by index.
pub trait Graph {
    /// How many there are.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// How many messages refer to a socket.
    fn in_flight(&self, socket: usize) -> usize;
    /// Whether a socket has references outside of messages.
    fn is_held(&self, socket: usize) -> bool;
    /// Calls `visit` for each reference in the messages that wait at a socket; sockets that are not in the graph are
    /// passed as an index beyond it.
    fn each(&self, socket: usize, visit: &mut dyn FnMut(usize));
    /// Called regularly, so that other threads may run.
    fn pause(&self) {}
}

/// The number of sockets that are examined between two pauses.
const PAUSE_EVERY: usize = 64;

/// For each socket, whether it is garbage.
pub fn garbage(graph: &impl Graph) -> Result<Vec<bool>, AllocError> {
    let len = graph.len();
    let mut inside: Vec<usize> = TryVec::try_with_capacity(len)?;
    let mut garbage: Vec<bool> = TryVec::try_with_capacity(len)?;
    let mut open: Vec<usize> = TryVec::try_with_capacity(len)?;
    let pause_at = |n: usize| {
        if n % PAUSE_EVERY == PAUSE_EVERY - 1 {
            graph.pause();
        }
    };
    for n in 0..len {
        pause_at(n);
        inside.try_push(0)?;
        garbage.try_push(true)?;
    }
    for socket in 0..len {
        pause_at(socket);
        graph.each(socket, &mut |other| {
            if let Some(count) = inside.get_mut(other) {
                *count += 1;
            }
        });
    }
    for socket in 0..len {
        pause_at(socket);
        if graph.is_held(socket) || inside[socket] < graph.in_flight(socket) {
            garbage[socket] = false;
            open.try_push(socket)?;
        }
    }
    let mut looked = 0;
    while let Some(socket) = open.pop() {
        pause_at(looked);
        looked += 1;
        let mut failed = Ok(());
        graph.each(socket, &mut |other| {
            if garbage.get(other) == Some(&true) {
                garbage[other] = false;
                // (There is room for all.)
                failed = failed.and(open.try_push(other));
            }
        });
        failed?;
    }
    Ok(garbage)
}
