//! Policies by the working set: the pages that were used within a window of time.
//!
//! Tracking the exact set would take work at every reference. A kernel approximates it with the reference bit, which
//! each tick clears, and with the time at which the bit was last found set. A page is outside of the working set if
//! that time is before the window.
//!
//! - *Working set*: scans all frames. The first page outside of the set is evicted; if there is none, the page that was
//!   last seen the longest time ago.
//! - *WSClock* (Carr and Hennessy, 1981): a hand moves over the frames and stops at the first clean page outside of the
//!   set. A dirty page is written to the disk and skipped; it is clean when the hand comes again. Tanenbaum (Modern
//!   Operating Systems) describes both.

use super::order::least;
use super::{Frame, Policy};

/// Evaluates the reference bit; returns whether the page is in the working set.
fn is_in_set(frame: &mut Frame, window: u64, now: u64) -> bool {
    if frame.referenced {
        frame.seen = now;
    }
    now - frame.seen <= window
}

/// The working set algorithm, which scans all frames.
pub struct WorkingSet {
    /// The window, in references.
    pub window: u64,
}

impl Policy for WorkingSet {
    fn name(&self) -> &'static str {
        "working set"
    }

    fn victim(&mut self, frames: &mut [Frame], now: u64) -> usize {
        let mut outside = None;
        for (index, frame) in frames.iter_mut().enumerate() {
            if !is_in_set(frame, self.window, now) {
                outside = outside.or(Some(index));
            }
        }
        outside.unwrap_or_else(|| least(frames, |frame| (frame.referenced, frame.seen)))
    }

    fn ticks(&self) -> bool {
        true
    }
}

/// The WSClock algorithm.
pub struct WsClock {
    window: u64,
    hand: usize,
    written: u64,
}

impl WsClock {
    /// Creates the policy with a window, in references.
    pub fn new(window: u64) -> WsClock {
        WsClock { window, hand: 0, written: 0 }
    }

    /// Returns the frame under the hand and advances the hand.
    fn advance(&mut self, frames: &[Frame]) -> usize {
        let at = self.hand % frames.len();
        self.hand = at + 1;
        at
    }
}

impl Policy for WsClock {
    fn name(&self) -> &'static str {
        "WSClock"
    }

    fn victim(&mut self, frames: &mut [Frame], now: u64) -> usize {
        // The first turn clears the reference bits and writes old dirty pages; the second finds them clean.
        for _ in 0..2 * frames.len() {
            let at = self.advance(frames);
            let frame = &mut frames[at];
            let is_in_set = is_in_set(frame, self.window, now);
            if frame.referenced {
                frame.referenced = false;
            } else if !is_in_set && !frame.dirty {
                return at;
            } else if !is_in_set {
                frame.dirty = false;
                self.written += 1;
            }
        }
        // All pages are in the working set: evict a clean one, or the one under the hand.
        let clean = (0..frames.len()).map(|step| (self.hand + step) % frames.len()).find(|&at| !frames[at].dirty);
        let at = clean.unwrap_or(self.hand % frames.len());
        self.hand = at + 1;
        at
    }

    fn ticks(&self) -> bool {
        true
    }

    fn written_back(&self) -> u64 {
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(page: u64, seen: u64, referenced: bool, dirty: bool) -> Frame {
        Frame { page, loaded: 0, used: 0, uses: 1, next_use: 0, referenced, dirty, seen }
    }

    #[test]
    fn an_old_clean_page_goes_and_an_old_dirty_one_is_written() {
        let mut frames = [
            frame(0, 90, true, false),
            frame(1, 10, false, true),
            frame(2, 95, false, false),
            frame(3, 20, false, false),
        ];
        let mut clock = WsClock::new(50);
        assert_eq!(clock.victim(&mut frames, 100), 3);
        assert_eq!((clock.written_back(), frames[1].dirty, frames[0].referenced), (1, false, false));
        // The working set algorithm evicts the first old page, dirty or not.
        frames[1].dirty = true;
        assert_eq!(WorkingSet { window: 50 }.victim(&mut frames, 100), 1);
    }

    #[test]
    fn if_all_are_in_the_set_a_clean_one_goes() {
        let mut frames = [frame(0, 99, true, true), frame(1, 98, true, false)];
        assert_eq!(WsClock::new(50).victim(&mut frames, 100), 1);
    }
}
