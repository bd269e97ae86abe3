//! Queues of page frames: weak references, which may be stale.

use alloc::vec::Vec;

use crate::addr::Pfn;
use crate::fallible::{AllocError, TryVec};

/// Frames that are skipped at a time.
const STALE: usize = 256;

/// A queue with a fixed number of places.
pub(super) struct Ring {
    places: Vec<u32>,
    first: usize,
    len: usize,
}

impl Ring {
    /// Without places.
    pub const NONE: Ring = Ring { places: Vec::new(), first: 0, len: 0 };

    pub fn new(count: usize) -> Result<Self, AllocError> {
        let mut places: Vec<u32> = TryVec::try_with_capacity(count)?;
        for _ in 0..count {
            places.try_push(0)?;
        }
        Ok(Ring { places, ..Self::NONE })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_full(&self) -> bool {
        self.len == self.places.len()
    }

    /// Appends a frame; `false` if there is no place.
    pub fn push(&mut self, pfn: Pfn) -> bool {
        let has_place = !self.is_full();
        if has_place {
            let at = self.place(self.len);
            self.places[at] = pfn.0 as u32;
            self.len += 1;
        }
        has_place
    }

    /// Takes the frame that was appended first.
    pub fn pop(&mut self) -> Option<Pfn> {
        let pfn = *self.places.get(self.first)?;
        self.len = self.len.checked_sub(1)?;
        self.first = if self.first + 1 == self.places.len() { 0 } else { self.first + 1 };
        Some(Pfn(pfn as usize))
    }

    /// As [`Ring::pop`], for the first frame that `wanted` accepts among the next [`STALE`].
    pub fn pop_if(&mut self, wanted: impl Fn(Pfn) -> bool) -> Option<Pfn> {
        (0..STALE).map_while(|_| self.pop()).find(|pfn| wanted(*pfn))
    }

    fn place(&self, n: usize) -> usize {
        let at = self.first + n;
        if at < self.places.len() { at } else { at - self.places.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_leave_in_the_order_in_which_they_came() {
        let mut ring = Ring::new(3).unwrap();
        assert!((1..=3).all(|n| ring.push(Pfn(n))) && !ring.push(Pfn(4)) && ring.is_full());
        assert_eq!((ring.pop(), ring.push(Pfn(4))), (Some(Pfn(1)), true));
        assert_eq!([(); 4].map(|()| ring.pop().map(|pfn| pfn.0)), [Some(2), Some(3), Some(4), None]);
        assert_eq!(({ Ring::NONE }.pop(), ring.len()), (None, 0));
    }
}
