//! Policies that make do with the bits that hardware has: referenced, and dirty.
//!
//! - *Second chance*: FIFO, but a page whose reference bit is set goes to the end of the queue with the bit cleared.
//! - *Clock*: the same with a hand that goes around the frames instead of a queue. Both choose the same pages, always.
//! - *NRU*, not recently used: each tick clears the reference bits. A page's class is 2 if it is referenced, and 1 more if it
//!   is dirty; the first page of the lowest class that there is goes. A store of long ago counts for less than a look of just
//!   now.

use alloc::collections::VecDeque;

use super::order::least;
use super::{Frame, Policy};

/// FIFO with a second chance.
#[derive(Default)]
pub struct SecondChance {
    /// Frames in the order in which their pages came, or were given another chance.
    queue: VecDeque<usize>,
}

impl Policy for SecondChance {
    fn name(&self) -> &'static str {
        "second chance"
    }

    fn victim(&mut self, frames: &mut [Frame], _: u64) -> usize {
        // Every frame is in the queue, and after one turn no bit is set.
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

/// The clock.
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
