//! Runs work on every CPU at once: the boot CPU distributes a job and takes part in it; the others wait for jobs here
//! instead of idling.

use core::sync::atomic::{AtomicUsize, Ordering};

use quire_mm::sync::Rank;

use super::{Outcome, Wrong};
use crate::arch::{cpu, timer};
use crate::task::percpu;
use crate::vm::{Cpu, SpinLock};

/// A job; it gets the CPU's place in the crew.
pub type Job = fn(Place) -> Outcome;

/// A CPU's place in the crew.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its number, from 0.
    pub me: usize,
    /// How many there are.
    pub all: usize,
}

impl Place {
    /// The CPU after this one, in a ring.
    pub fn next(self) -> usize {
        (self.me + 1) % self.all
    }

    /// The number of rounds for a job on all CPUs. If the emulator's host has fewer CPUs, each lock that changes its
    /// holder can cost a time slice.
    pub fn rounds(self) -> impl Iterator<Item = usize> {
        const FEWEST: usize = 100;
        const MOST: usize = 10_000;
        const PATIENCE: u64 = 2_000_000_000;
        let end = timer::now_ns() + PATIENCE;
        (0..MOST).take_while(move |&round| round < FEWEST || timer::now_ns() < end)
    }
}

struct Shared {
    job: Option<Job>,
    all: usize,
    wrong: Option<Wrong>,
}

/// Rank: nothing is taken while it is held.
static SHARED: SpinLock<Shared> = SpinLock::new(Cpu, Rank::Object, Shared { job: None, all: 1, wrong: None });
/// Jobs handed out so far.
static ROUND: AtomicUsize = AtomicUsize::new(0);
/// CPUs that are still at the job.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// CPUs in the crew.
pub fn size() -> usize {
    percpu::online().count()
}

/// Runs on a secondary CPU instead of idling. Interrupts stay masked; it runs until the machine is switched off.
pub fn serve() {
    let mut done = 0;
    loop {
        while ROUND.load(Ordering::Acquire) == done {
            cpu::relax();
        }
        done += 1;
        work(cpu::this().id());
        BUSY.fetch_sub(1, Ordering::Release);
    }
}

/// Runs a job on every CPU and waits for all; returns the first failure.
pub fn on_all(job: Job) -> Outcome {
    let all = size();
    *SHARED.lock() = Shared { job: Some(job), all, wrong: None };
    BUSY.store(all - 1, Ordering::Relaxed);
    ROUND.fetch_add(1, Ordering::Release);
    work(cpu::this().id());
    while BUSY.load(Ordering::Acquire) != 0 {
        cpu::relax();
    }
    SHARED.lock().wrong.map_or(Ok(()), Err)
}

fn work(me: usize) {
    let (job, all) = {
        let shared = SHARED.lock();
        (shared.job, shared.all)
    };
    if let Some(job) = job
        && let Err(wrong) = job(Place { me, all })
    {
        SHARED.lock().wrong.get_or_insert(wrong);
    }
}
