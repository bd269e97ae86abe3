//! Policies by the order of events.
//!
//! - *FIFO* evicts the page that was loaded first. More frames can mean more faults (Belady's anomaly).
//! - *OPT* evicts the page whose next use is farthest in the future. No policy causes fewer faults (Belady, 1966;
//!   Mattson and others, 1970). It needs to know the future, so it serves as the measure for the others.
//! - *LRU* evicts the page that has not been used for the longest time.
//! - *LFU* evicts the page with the fewest uses since it was loaded; ties go to the page that was loaded first.

use super::{Frame, Policy};

/// The index of the frame with the smallest key; ties go to the first. There is at least one frame.
pub(super) fn least<K: Ord>(frames: &[Frame], key: impl Fn(&Frame) -> K) -> usize {
    let least = frames.iter().enumerate().min_by_key(|(_, frame)| key(frame));
    least.map_or(0, |(index, _)| index)
}

/// First in, first out.
pub struct Fifo;

impl Policy for Fifo {
    fn name(&self) -> &'static str {
        "FIFO"
    }

    fn victim(&mut self, frames: &mut [Frame], _: u64) -> usize {
        least(frames, |frame| frame.loaded)
    }
}

/// The optimal policy.
pub struct Opt;

impl Policy for Opt {
    fn name(&self) -> &'static str {
        "OPT"
    }

    fn victim(&mut self, frames: &mut [Frame], _: u64) -> usize {
        least(frames, |frame| core::cmp::Reverse(frame.next_use))
    }
}

/// Least recently used.
pub struct Lru;

impl Policy for Lru {
    fn name(&self) -> &'static str {
        "LRU"
    }

    fn victim(&mut self, frames: &mut [Frame], _: u64) -> usize {
        least(frames, |frame| frame.used)
    }
}

/// Least frequently used.
pub struct Lfu;

impl Policy for Lfu {
    fn name(&self) -> &'static str {
        "LFU"
    }

    fn victim(&mut self, frames: &mut [Frame], _: u64) -> usize {
        least(frames, |frame| (frame.uses, frame.loaded))
    }
}
