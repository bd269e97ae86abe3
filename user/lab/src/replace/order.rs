//! Policies that go by the order of events.
//!
//! - *FIFO*: the page that was loaded first goes. With more frames it may fault more often (Belady's anomaly).
//! - *OPT*: the page that is not used for the longest time to come goes. Nothing faults less often (Belady, 1966; Mattson and
//!   others, 1970), and nobody knows the future: the measure for all others.
//! - *LRU*: the page that was not used for the longest time goes: OPT, looking backwards.
//! - *LFU*: the page that was used least often since it was loaded goes; among equals the one that was loaded first.

use super::{Frame, Policy};

/// The index of the frame with the least key; the first among equals. There is at least one frame.
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

/// The optimal one, by knowledge of the future.
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
