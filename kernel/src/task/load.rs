//! Load averages: of threads that run or could. Ticks keep them, and an idle machine, which has none, is taken into account when somebody looks.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_mm::load::{self, Averages, PERIOD};

use super::percpu;

static AVERAGES: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// When the next period ends, in nanoseconds since power-on. Whoever moves it writes the averages.
static NEXT: AtomicU64 = AtomicU64::new(PERIOD);

/// Threads that run or could.
pub fn runnable() -> u64 {
    let of = |cpu: &percpu::PerCpu| {
        u64::from(cpu.waiting.load(Ordering::Relaxed)) + u64::from(!cpu.idling.load(Ordering::Relaxed))
    };
    percpu::online().map(of).sum()
}

/// A tick: takes the number of threads into the averages, if a period has ended.
#[inline]
pub fn tick(now: u64) {
    if NEXT.load(Ordering::Relaxed) <= now {
        end_period(now);
    }
}

#[cold]
fn end_period(now: u64) {
    let due = NEXT.load(Ordering::Relaxed);
    let periods = ended(due, now);
    let is_mine = NEXT.compare_exchange(due, due + periods * PERIOD, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    if periods > 0 && is_mine {
        let new = load::after(kept(), periods, runnable());
        AVERAGES.iter().zip(new).for_each(|(average, new)| average.store(new, Ordering::Relaxed));
    }
}

/// Periods that have ended since the one that ends at `due`, and that one.
fn ended(due: u64, now: u64) -> u64 {
    now.checked_sub(due).map_or(0, |since| since / PERIOD + 1)
}

fn kept() -> Averages {
    AVERAGES.each_ref().map(|average| average.load(Ordering::Relaxed))
}

/// The averages. Periods since the last tick were idle.
pub fn averages(now: u64) -> Averages {
    load::after(kept(), ended(NEXT.load(Ordering::Relaxed), now), 0)
}
