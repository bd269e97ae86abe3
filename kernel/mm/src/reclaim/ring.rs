//! Queues of page frames: weak references, which may be stale.
//!
//! The numbers are in frames that the queue takes as it needs them, and frees when they are empty. So a machine without
//! pressure has no memory in them, but for an array with a word for each frame.

use alloc::vec::Vec;

use crate::addr::{PAGE_SIZE, Pfn};
use crate::cgroup::Machine;
use crate::fallible::{AllocError, TryVec};
use crate::frame;

/// Numbers that are skipped at a time.
const STALE: usize = 256;

/// Numbers in a frame.
const PER_FRAME: usize = PAGE_SIZE / size_of::<u32>();

/// A queue with a fixed number of places.
pub(super) struct Ring {
    /// The frames with the places, or 0. There is one more than full frames: the first and the last one may be half full.
    frames: Vec<u32>,
    /// How many of them there are.
    held: usize,
    places: usize,
    first: usize,
    len: usize,
    /// There was no frame.
    is_starved: bool,
}

impl Ring {
    /// Without places.
    pub const NONE: Ring = Ring { frames: Vec::new(), held: 0, places: 0, first: 0, len: 0, is_starved: false };

    pub fn new(places: usize) -> Result<Self, AllocError> {
        let count = places.div_ceil(PER_FRAME) + 1;
        let mut frames: Vec<u32> = TryVec::try_with_capacity(count)?;
        for _ in 0..count {
            frames.try_push(0)?;
        }
        Ok(Ring { frames, places, ..Self::NONE })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Frames that it has.
    pub fn frames(&self) -> usize {
        self.held
    }

    /// Frames are tried for again.
    pub fn try_again(&mut self) {
        self.is_starved = false;
    }

    /// Appends a frame's number; `false` if there is no place, or no frame for one. Where no frame was found, none is tried for until
    /// [`Ring::try_again`]: to find that there is none is dear, and the caller has a spin lock and many numbers.
    #[inline]
    pub fn push<M: Machine>(&mut self, machine: M, pfn: Pfn) -> bool {
        if self.len == self.places {
            return false;
        }
        let at = self.place(self.len);
        let mut of = self.frames[at / PER_FRAME];
        if of == 0 {
            let Some(new) = self.take_frame(machine, at) else { return false };
            of = new;
        }
        // SAFETY: the place is in a frame of the queue's own.
        unsafe { place_in(machine, of, at).write(pfn.0 as u32) };
        self.len += 1;
        true
    }

    /// A frame for place `at`.
    #[cold]
    #[inline(never)]
    fn take_frame<M: Machine>(&mut self, machine: M, at: usize) -> Option<u32> {
        if self.is_starved {
            return None;
        }
        let new = frame::alloc_from_reserves(machine);
        self.is_starved = new.is_err();
        let new = new.ok()?.0 as u32;
        self.frames[at / PER_FRAME] = new;
        self.held += 1;
        Some(new)
    }

    /// Takes the number that was appended first.
    pub fn pop<M: Machine>(&mut self, machine: M) -> Option<Pfn> {
        self.len = self.len.checked_sub(1)?;
        let at = self.first;
        let of = self.frames[at / PER_FRAME];
        // SAFETY: as in `push`, which has written it.
        let pfn = unsafe { place_in(machine, of, at).read() };
        self.first = self.place(1);
        if self.len == 0 || self.first.is_multiple_of(PER_FRAME) {
            self.frames[at / PER_FRAME] = 0;
            self.held -= 1;
            frame::free_kernel(machine, Pfn(of as usize));
        }
        Some(Pfn(pfn as usize))
    }

    /// As [`Ring::pop`], for the first one that `wanted` accepts among the next [`STALE`].
    pub fn pop_if<M: Machine>(&mut self, machine: M, wanted: impl Fn(Pfn) -> bool) -> Option<Pfn> {
        (0..STALE).map_while(|_| self.pop(machine)).find(|pfn| wanted(*pfn))
    }

    /// The place of the `n`th number.
    #[inline]
    fn place(&self, n: usize) -> usize {
        let (at, end) = (self.first + n, self.frames.len() * PER_FRAME);
        if at < end { at } else { at - end }
    }
}

/// Where place `at` is, in this frame.
fn place_in<M: Machine>(machine: M, of: u32, at: usize) -> *mut u32 {
    machine.direct_map(Pfn(of as usize).addr()).cast::<u32>().wrapping_add(at % PER_FRAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page_alloc::Gfp;
    use crate::sim::Sim;

    fn free(sim: &'static Sim) -> usize {
        sim.pages().total_free()
    }

    #[test]
    fn frames_leave_in_the_order_in_which_they_came() {
        let sim = Sim::with_mib(4);
        let mut ring = Ring::new(3).unwrap();
        assert!((1..=3).all(|n| ring.push(sim, Pfn(n))) && !ring.push(sim, Pfn(4)));
        assert_eq!((ring.pop(sim), ring.push(sim, Pfn(4))), (Some(Pfn(1)), true));
        assert_eq!([(); 4].map(|()| ring.pop(sim).map(|pfn| pfn.0)), [Some(2), Some(3), Some(4), None]);
        assert_eq!(({ Ring::NONE }.pop(sim), { Ring::NONE }.push(sim, Pfn(1)), ring.len()), (None, false, 0));
    }

    /// A queue has the frames that its numbers need, wherever it is in its round.
    #[test]
    fn places_take_memory_while_they_are_used() {
        let sim = Sim::with_mib(4);
        let before = free(sim);
        let places = 3 * PER_FRAME - 7;
        let mut ring = Ring::new(places).unwrap();
        let (mut pushed, mut popped) = (0, 0);
        for steps in [1, places, PER_FRAME, 1, places, 5, places] {
            (0..steps).for_each(|_| pushed += ring.push(sim, Pfn(pushed)) as usize);
            assert_eq!(before - free(sim), ring.frames());
            let spanned = (popped + ring.len()).div_ceil(PER_FRAME) - popped / PER_FRAME;
            assert_eq!((ring.len(), ring.frames()), (pushed - popped, spanned));
            for _ in 0..steps / 2 + 1 {
                assert_eq!(ring.pop(sim), Some(Pfn(popped)));
                popped += 1;
            }
        }
        while ring.pop(sim) == Some(Pfn(popped)) {
            popped += 1;
        }
        assert_eq!((popped, ring.frames(), free(sim)), (pushed, 0, before));
    }

    #[test]
    fn without_a_frame_there_is_no_place() {
        let sim = Sim::with_mib(4);
        let mut ring = Ring::new(2 * PER_FRAME).unwrap();
        assert!((0..PER_FRAME).all(|n| ring.push(sim, Pfn(n))));
        let all = || sim.pages().alloc_raw(0, Gfp::MEMALLOC | Gfp::NOWARN | Gfp::NORETRY);
        sim.pages().drain_all();
        let mut taken: std::vec::Vec<Pfn> = core::iter::from_fn(|| all().ok()).collect();
        assert!(!ring.push(sim, Pfn(PER_FRAME)));
        assert_eq!((ring.len(), ring.frames()), (PER_FRAME, 1));
        frame::free_kernel(sim, taken.pop().unwrap());
        assert!(!ring.push(sim, Pfn(PER_FRAME)), "it was told that there is none");
        ring.try_again();
        assert!(ring.push(sim, Pfn(PER_FRAME)));
        assert!((0..=PER_FRAME).all(|n| ring.pop(sim) == Some(Pfn(n))));
        taken.into_iter().for_each(|pfn| frame::free_kernel(sim, pfn));
    }
}
