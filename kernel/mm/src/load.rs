//! Load averages: the number of threads that are running or runnable, averaged over one, five and fifteen minutes, as
//! on Linux: every five seconds each average moves by a part of its distance to the present number.

/// Bits behind the point.
pub const SHIFT: u32 = 11;

/// Nanoseconds between two looks.
pub const PERIOD: u64 = 5_000_000_000;

const ONE: u64 = 1 << SHIFT;

/// The part of an old value that remains after a period: e to the power of minus five seconds in 1, 5 and 15 minutes.
const KEPT: [u64; 3] = [1884, 2014, 2037];

/// The averages over 1, 5 and 15 minutes, with [`SHIFT`] fractional bits.
pub type Averages = [u64; 3];

/// The averages after some periods, at the end of the last of which there are `active` threads, and none at the end of
/// the others: nothing is sampled while the machine is idle.
pub fn after(averages: Averages, periods: u64, active: u64) -> Averages {
    let idle = periods.saturating_sub(1);
    let mut new = averages;
    for (average, kept) in new.iter_mut().zip(KEPT) {
        *average = step(*average, power(kept, idle), 0);
        if periods > 0 {
            *average = step(*average, kept, active << SHIFT);
        }
    }
    new
}

/// One period, after which the part `kept` remains. A rising average is rounded up, so that it reaches its goal.
fn step(average: u64, kept: u64, goal: u64) -> u64 {
    let sum = average * kept + goal * (ONE - kept);
    let round = if goal >= average { ONE - 1 } else { 0 };
    (sum + round) >> SHIFT
}

/// A number below one to the power of `n`. O(log n).
fn power(base: u64, n: u64) -> u64 {
    let (mut base, mut n, mut result) = (base, n, ONE);
    while n > 0 {
        if n & 1 != 0 {
            result = (result * base + ONE / 2) >> SHIFT;
        }
        base = (base * base + ONE / 2) >> SHIFT;
        n >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_floats(averages: Averages) -> [f64; 3] {
        averages.map(|average| average as f64 / ONE as f64)
    }

    #[test]
    fn averages_follow_the_exponential() {
        let mut averages = [0; 3];
        for second in (5..=900).step_by(5) {
            averages = after(averages, 1, 3);
            let wanted = [60.0, 300.0, 900.0].map(|span: f64| 3.0 * (1.0 - (-f64::from(second) / span).exp()));
            let found = as_floats(averages);
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 0.1), "{second}: {found:?} {wanted:?}");
        }
    }

    #[test]
    fn a_constant_load_is_reached_and_left() {
        let mut averages = [0; 3];
        (0..5000).for_each(|_| averages = after(averages, 1, 2));
        assert_eq!(averages, [2 * ONE; 3]);
        assert_eq!(after(averages, 1, 2), averages);
        (0..5000).for_each(|_| averages = after(averages, 1, 0));
        assert_eq!(averages, [0; 3]);
    }

    #[test]
    fn idle_periods_count_together_as_one_by_one() {
        let from = [4 * ONE, 3 * ONE, 2 * ONE];
        for periods in [0, 1, 2, 3, 10, 100] {
            let together = as_floats(after(from, periods, 1));
            let mut single = from;
            (1..periods).for_each(|_| single = after(single, 1, 0));
            if periods > 0 {
                single = after(single, 1, 1);
            }
            assert!(together.iter().zip(as_floats(single)).all(|(a, b)| (a - b).abs() < 0.05), "{periods}");
        }
        assert_eq!(after(from, u64::MAX, 0), [0; 3]);
    }
}
