//! Which owners of record locks wait for which others, so that nobody begins to wait in a circle (EDEADLK).
//!
//! A wait is an *edge* from the owner that waits to the one that is in its way. It carries what the caller needs to say
//! whether it still holds: the lock that was in the way may be gone, and the waiter about to notice. A search goes from
//! owner to owner along edges that hold. It looks at [`STEPS`] of them at most, as Linux looks at 10: a longer circle
//! is not found, as fcntl(2) says. Since a process with several threads may wait in several places, an owner may have
//! several edges.

use alloc::boxed::Box;

use crate::range::Owner;
use crate::tree::{Item, Node, Tree};

/// Edges that a search looks at.
pub const STEPS: usize = 64;

/// A wait.
pub struct Edge<T> {
    /// Who waits, and in which of its waits.
    pub waiter: (Owner, u64),
    /// For whom.
    pub blocker: Owner,
    /// By which the caller knows whether it still holds.
    pub proof: T,
}

impl<T> Item for Edge<T> {
    type Key = (Owner, u64);
    type Sum = ();
    fn key(&self) -> (Owner, u64) {
        self.waiter
    }
    fn sum(&self, _: Option<&()>, _: Option<&()>) {}
}

/// All waits.
pub struct Waits<T> {
    edges: Tree<Edge<T>>,
}

impl<T> Default for Waits<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Waits<T> {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { edges: Tree::new() }
    }

    /// Adds an edge, unless it closes a circle of edges that hold: then it is given back.
    pub fn enter(&mut self, edge: Box<Node<Edge<T>>>, holds: impl Fn(&T) -> bool) -> Result<(), Box<Node<Edge<T>>>> {
        let (waiter, blocker) = (edge.item().waiter.0, edge.item().blocker);
        if self.leads_to(blocker, waiter, holds) {
            return Err(edge);
        }
        self.edges.insert(edge);
        Ok(())
    }

    /// Takes an edge out, to be dropped by the caller.
    pub fn leave(&mut self, waiter: (Owner, u64)) -> Option<Box<Node<Edge<T>>>> {
        self.edges.remove(&waiter)
    }

    /// Whether `from` waits for `to`, directly or not.
    fn leads_to(&self, from: Owner, to: Owner, holds: impl Fn(&T) -> bool) -> bool {
        let mut open = [from; STEPS];
        let (mut next, mut len, mut looked) = (0, 1, 0);
        while next < len {
            let owner = open[next];
            next += 1;
            if owner == to {
                return true;
            }
            let mut wait = 0;
            while let Some(edge) = self.edges.at_or_above(&(owner, wait)).filter(|edge| edge.waiter.0 == owner) {
                looked += 1;
                if len == STEPS || looked > STEPS {
                    break;
                }
                if holds(&edge.proof) && !open[..len].contains(&edge.blocker) {
                    open[len] = edge.blocker;
                    len += 1;
                }
                match edge.waiter.1.checked_add(1) {
                    Some(after) => wait = after,
                    None => break,
                }
            }
        }
        false
    }
}
