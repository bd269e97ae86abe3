//! Triggers: whether the time of stalls within a window has exceeded a threshold, as described in Linux's psi.rst.
//!
//! The kernel [looks](Window::look) at the total time of stalls so far, every tenth of a window, as long as there are
//! stalls; otherwise it need not. The growth from look to look is kept for eleven looks, which cover each window that
//! has ended since the last one. The growth in the first and that in the last of these steps cannot both be within one
//! window, so together they count for one step at most.
//!
//! So, if looks are on time: two events are at least a window apart; a window in which the threshold is exceeded
//! contains an event, or is followed by one within a tenth of a window; and before an event the threshold was exceeded
//! within eleven tenths of a window that contain no other event.

/// Steps of a window.
const STEPS: u64 = 10;

/// The number of steps that are kept: those of a window, and one more, since its end is between two looks.
const KEPT: usize = STEPS as usize + 1;

/// The state of a trigger. Times are nanoseconds of one clock.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    threshold: u64,
    size: u64,
    /// The total time of stalls at the last look.
    total: u64,
    /// By how much it grew in the preceding steps, the oldest one first.
    grown: [u64; KEPT],
    /// When the next look is due; `None` while nothing stalls.
    due: Option<u64>,
    /// When the last event was, if there was one.
    told: Option<u64>,
}

impl Window {
    /// Begins a window of the length `size`, without stalls so far; the total up to now is `total`. The threshold must
    /// not exceed the window.
    pub const fn new(threshold: u64, size: u64, total: u64) -> Self {
        Self { threshold, size, total, grown: [0; KEPT], due: None, told: None }
    }

    /// When the next look is due, if no new stall begins before that; `None` if only a stall makes a look necessary.
    pub fn due(&self) -> Option<u64> {
        self.due
    }

    /// Whether it would rest if there were no stall at the next look.
    pub fn is_quiet(&self) -> bool {
        self.grown.iter().all(|grown| *grown == 0)
    }

    /// Looks at `now`: `total` is the total time of stalls, and `is_stalled` whether a thread stalls now. Returns
    /// whether this is an event. A look that is not due changes nothing.
    pub fn look(&mut self, now: u64, total: u64, is_stalled: bool) -> bool {
        if self.due.is_some_and(|due| now < due) {
            return false;
        }
        let grown = total.saturating_sub(self.total);
        self.total = self.total.max(total);
        self.grown.rotate_left(1);
        self.grown[KEPT - 1] = grown;
        let may_tell = self.told.is_none_or(|told| now.saturating_sub(told) >= self.size);
        let is_event = may_tell && self.most() >= self.threshold;
        if is_event {
            self.told = Some(now);
            // Stalls that were reported are not reported again.
            self.grown = [0; KEPT];
        }
        // (After an event there may be more to come.)
        let is_over = !is_stalled && !is_event && self.is_quiet();
        self.due = (!is_over).then(|| now.saturating_add(self.size / STEPS));
        is_event
    }

    /// The maximum time of stalls within a window that has ended in the last step.
    fn most(&self) -> u64 {
        let [first, within @ .., last] = self.grown;
        within.iter().sum::<u64>().saturating_add((first + last).min(self.size / STEPS))
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;
    const SIZE: u64 = 1000 * MS;
    const STEP: u64 = SIZE / STEPS;

    /// Stalls and pauses in turn, in milliseconds, the first one a pause: the total at any time, and when stalls begin.
    struct Story {
        /// At the end of each millisecond.
        totals: Vec<u64>,
        begins: Vec<usize>,
    }

    impl Story {
        fn new(spans: &[u64]) -> Self {
            let (mut totals, mut begins) = (std::vec![0], Vec::new());
            for (n, span) in spans.iter().enumerate() {
                let stalls = n % 2 == 1;
                if stalls {
                    begins.push(totals.len() - 1);
                }
                for _ in 0..*span {
                    totals.push(totals[totals.len() - 1] + if stalls { MS } else { 0 });
                }
            }
            // (Long enough for the stalls of the last event to be over.)
            let last = totals[totals.len() - 1];
            totals.resize(totals.len() + 3000, last);
            Self { totals, begins }
        }

        /// Whether a stall is in progress from the millisecond `at` on.
        fn stalls(&self, at: usize) -> bool {
            self.totals.get(at + 1).is_some_and(|next| *next > self.totals[at])
        }

        /// The milliseconds at which a thread that looks when a stall begins, and when a look is due, finds events; and
        /// the number of its looks.
        fn events(&self, threshold: u64) -> (Vec<usize>, usize) {
            let mut window = Window::new(threshold, SIZE, 0);
            let (mut events, mut looks) = (Vec::new(), 0);
            for at in 0..self.totals.len() {
                let is_due = match window.due() {
                    Some(due) => at as u64 * MS >= due,
                    None => self.begins.contains(&at),
                };
                if is_due {
                    looks += 1;
                    if window.look(at as u64 * MS, self.totals[at], self.stalls(at)) {
                        events.push(at);
                    }
                }
            }
            assert_eq!(window.due(), None, "nobody looks at what is over");
            (events, looks)
        }

        fn grown(&self, from: usize, to: usize) -> u64 {
            self.totals[to.min(self.totals.len() - 1)] - self.totals[from.min(self.totals.len() - 1)]
        }
    }

    fn check(story: &Story, threshold: u64) -> Result<(), TestCaseError> {
        let (size, step) = ((SIZE / MS) as usize, (STEP / MS) as usize);
        let (events, looks) = story.events(threshold);
        for pair in events.windows(2) {
            prop_assert!(pair[1] - pair[0] >= size, "two events in a window: {events:?}");
        }
        for begin in 0..story.totals.len() - size {
            if story.grown(begin, begin + size) >= threshold {
                let is_told = events.iter().any(|at| (begin..=begin + size + step).contains(at));
                prop_assert!(is_told, "no event for the window at {begin}: {events:?}");
            }
        }
        for (n, at) in events.iter().enumerate() {
            let after = if n == 0 { 0 } else { events[n - 1] };
            let from = at.saturating_sub(size + step).max(after);
            prop_assert!(story.grown(from, *at) >= threshold, "an event at {at} for nothing: {events:?}");
        }
        // Each stall requires looks for at most this long.
        let most = story.totals[story.totals.len() - 1] / STEP + (KEPT as u64 + 3) * (story.begins.len() as u64 + 1);
        prop_assert!(looks as u64 <= most, "{looks} looks");
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn a_window_that_passes_the_threshold_is_told_of_once(
            spans in prop::collection::vec(prop_oneof![1_u64..60, 1_u64..400, 1_u64..2500], 2..24),
            threshold in 1_u64..=1000,
        ) {
            check(&Story::new(&spans), threshold * MS)?;
        }
    }

    #[test]
    fn a_whole_window_is_asked_for() {
        let events = |spans: &[u64]| Story::new(spans).events(SIZE).0;
        assert_eq!(events(&[5, 999]), []);
        assert_eq!(events(&[5, 1100]), [1005]);
        assert_eq!(events(&[0, 3000]), [1000, 2000, 3000]);
        // 98 of 100 milliseconds, all the time.
        let spans: Vec<u64> = (0..80).map(|n| if n % 2 == 1 { 98 } else { 2 }).collect();
        assert_eq!(events(&spans), []);
    }

    #[test]
    fn a_burst_that_spans_two_looks_counts() {
        // The window that contains both stalls begins and ends between looks.
        let story = Story::new(&[0, 40, 920, 40, 500]);
        assert_eq!(story.events(80 * MS).0.len(), 1);
        assert_eq!(story.events(81 * MS).0.len(), 0);
    }

    #[test]
    fn a_look_before_its_time_changes_nothing() {
        let mut window = Window::new(10 * MS, SIZE, 5);
        assert!(window.is_quiet() && !window.look(100, 5, true));
        assert_eq!(window.due(), Some(100 + STEP));
        assert!(!window.look(STEP, 20 * MS, true));
        assert!(window.look(100 + STEP, 20 * MS, false));
        // Late looks find the same as looks on time.
        assert!(!window.look(2 * STEP + 100, 40 * MS, false));
        assert!(window.look(9 * SIZE, 40 * MS, false) && window.due().is_some());
    }
}
