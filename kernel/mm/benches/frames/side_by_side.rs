//! Contestants side by side.
//!
//! Criterion measures one after the other, which shows how much each varies. What a ratio says is only worth something if
//! both had the same machine: so they also take turns, many times, and the ratio is that of the medians.

use std::time::Instant;

/// Rounds in which everybody has a turn.
const ROUNDS: usize = 40;

/// How often the work is done in a turn.
const REPEATS: usize = 20;

/// One who does the work, and its name.
pub type Contestant<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Prints how long a turn of the first contestant takes, as a part of each other one's.
pub fn print_ratios(work: &str, contestants: &mut [Contestant<'_>]) {
    let mut times = vec![Vec::with_capacity(ROUNDS); contestants.len()];
    for _ in 0..ROUNDS {
        for ((_, turn), times) in contestants.iter_mut().zip(&mut times) {
            // The others' turns have left the caches cold: more or less so, one than the other.
            turn();
            let start = Instant::now();
            (0..REPEATS).for_each(|_| turn());
            times.push(start.elapsed().as_nanos());
        }
    }
    let medians = times.iter_mut().map(|times| {
        times.sort_unstable();
        times[ROUNDS / 2] as f64
    });
    let medians: Vec<f64> = medians.collect();
    let (first, others) = contestants.split_first().expect("there is a first");
    for ((other, _), median) in others.iter().zip(&medians[1..]) {
        println!("{work}: {} takes {:.2} of the time of {other}", first.0, medians[0] / median);
    }
}
