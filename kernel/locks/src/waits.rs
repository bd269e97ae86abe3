//! Which owners of record locks wait for which others, so that no circular wait begins (EDEADLK).
//!
//! A wait is an *edge* from the waiting owner to the owner that blocks it. It carries a proof by which the caller can
//! tell whether the wait still holds: the blocking lock may be gone, and the waiter about to notice. A search follows
//! valid edges from owner to owner. It examines [`STEPS`] of them at most (Linux examines 10): a longer circle is not
//! detected, as fcntl(2) warns. Since a process with several threads may wait in several places, an owner may have
//! several edges.

use alloc::boxed::Box;

use crate::range::Owner;
use crate::tree::{Item, Node, Tree};

/// The maximum number of edges that a search examines.
pub const STEPS: usize = 64;

/// A wait.
pub struct Edge<T> {
    /// The waiting owner, and which of its waits this is.
    pub waiter: (Owner, u64),
    /// For whom.
    pub blocker: Owner,
    /// The proof by which the caller knows whether the wait still holds.
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

    /// Adds an edge, unless it would close a circle of valid edges: then the edge is returned.
    pub fn enter(&mut self, edge: Box<Node<Edge<T>>>, holds: impl Fn(&T) -> bool) -> Result<(), Box<Node<Edge<T>>>> {
        let (waiter, blocker) = (edge.item().waiter.0, edge.item().blocker);
        if self.leads_to(blocker, waiter, holds) {
            return Err(edge);
        }
        self.edges.insert(edge);
        Ok(())
    }

    /// Removes an edge, which the caller drops.
    pub fn leave(&mut self, waiter: (Owner, u64)) -> Option<Box<Node<Edge<T>>>> {
        self.edges.remove(&waiter)
    }

    /// Whether `from` waits for `to`, directly or indirectly.
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
