//! Compares contestants in alternation.
//!
//! Criterion measures one contestant after the other, which shows how much each varies. A ratio is only meaningful if
//! both ran under the same conditions: so they also take turns, many times, and the ratio is that of the medians.

use std::time::Instant;

/// Rounds; each contestant has one turn in each.
const ROUNDS: usize = 40;

/// How often the work is done in a turn.
const REPEATS: usize = 20;

/// A contestant's name and work.
pub type Contestant<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Prints the time of the first contestant's turn as a fraction of each other one's.
pub fn print_ratios(work: &str, contestants: &mut [Contestant<'_>]) {
    let mut times = vec![Vec::with_capacity(ROUNDS); contestants.len()];
    for _ in 0..ROUNDS {
        for ((_, turn), times) in contestants.iter_mut().zip(&mut times) {
            // Warms the caches, which the other contestants' turns have left cold to different degrees.
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
