//! When process 1 starts a shell again: usually at once; if shells end as soon as they start, later each time.

/// Nanoseconds; a shell that runs for less ended as soon as it started.
const SOON: u64 = 2_000_000_000;

/// This many in a row may end early without a pause: somebody tries `exit`.
const FREE: u32 = 3;

/// Seconds.
const LONGEST: u64 = 60;

/// See the module.
#[derive(Default)]
pub struct Pause {
    /// Shells in a row that ended soon.
    short: u32,
}

impl Pause {
    /// Seconds to wait after a shell that ran for `ran` nanoseconds.
    pub fn after(&mut self, ran: u64) -> u64 {
        self.short = if ran < SOON { self.short.saturating_add(1) } else { 0 };
        match self.short.checked_sub(FREE + 1) {
            None => 0,
            Some(doubled) => (1 << doubled.min(6)).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_that_end_at_once_come_later_each_time() {
        let mut pause = Pause::default();
        let waits = [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60];
        assert_eq!(waits.map(|_| pause.after(SOON - 1)), waits);
        assert_eq!(pause.after(SOON), 0, "this one ran");
        assert_eq!([1, 2, 3, 4].map(|_| pause.after(0)), [0, 0, 0, 1]);
        pause.short = u32::MAX;
        assert_eq!(pause.after(0), LONGEST);
    }
}
