//! Policies by the bits that hardware maintains: referenced and dirty.
//!
//! - *Second chance*: FIFO, except that a page whose reference bit is set moves to the end of the queue with the bit
//!   cleared.
//! - *Clock*: the same policy with a hand that moves over the frames instead of a queue. Both always evict the same
//!   pages.
//! - *NRU* (not recently used): each tick clears the reference bits. The class of a page is 2 if it is referenced, plus
//!   1 if it is dirty. The first page of the lowest class is evicted: a store before the last tick counts for less than
//!   a load since.

use alloc::collections::VecDeque;

use super::order::least;
use super::{Frame, Policy};

/// FIFO with a second chance.
#[derive(Default)]
pub struct SecondChance {
    /// The frames, in order of the load or of the last second chance.
    queue: VecDeque<usize>,
}

impl Policy for SecondChance {
    fn name(&self) -> &'static str {
        "second chance"
    }

    fn victim(&mut self, frames: &mut [Frame], _: u64) -> usize {
        // The queue contains every frame, and after one turn no bit is set.
        while let Some(index) = self.queue.pop_front() {
            if !frames[index].referenced {
                return index;
            }
            frames[index].referenced = false;
            self.queue.push_back(index);
        }
        0
    }

    fn loaded(&mut self, frame: usize) {
        self.queue.push_back(frame);
    }
}

/// The clock algorithm.
#[derive(Default)]
pub struct Clock {
    hand: usize,
}

impl Policy for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn victim(&mut self, frames: &mut [Frame], _: u64) -> usize {
        loop {
            let at = self.hand % frames.len();
            self.hand = at + 1;
            if !frames[at].referenced {
                return at;
            }
            frames[at].referenced = false;
        }
    }
}

/// Not recently used.
pub struct Nru;

impl Policy for Nru {
    fn name(&self) -> &'static str {
        "NRU"
    }

    fn victim(&mut self, frames: &mut [Frame], _: u64) -> usize {
        least(frames, |frame| 2 * u8::from(frame.referenced) + u8::from(frame.dirty))
    }

    fn ticks(&self) -> bool {
        true
    }
}
