//! Page replacement: which page is evicted when a process needs a page and has no free frame.
//!
//! [`engine`] plays references on a fixed number of frames and asks a [`Policy`] for the victim. The policies are in
//! [`order`] (by the order of events: FIFO, OPT, LRU, LFU), [`bits`] (by reference and dirty bits: second chance,
//! clock, NRU) and [`recent`] (by the working set: working set, WSClock). [`belady`] plays all of them on one frame,
//! two frames and so on. [`working_set`] shows how many pages a process needs over time.

pub mod belady;
pub mod bits;
pub mod engine;
pub mod order;
pub mod recent;
pub mod working_set;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::Error;
use crate::report::Report;
use crate::trace::{Setting, Settings, Trace};

/// A frame: the page in it and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The page's number.
    pub page: u64,
    /// The time when it was loaded. The unit of time is a reference.
    pub loaded: u64,
    /// The time of its last use.
    pub used: u64,
    /// The number of uses since it was loaded.
    pub uses: u64,
    /// The time of its next use; for OPT only.
    pub next_use: u64,
    /// The reference bit: set by hardware, cleared by a policy or a tick.
    pub referenced: bool,
    /// The dirty bit: set by hardware on a store.
    pub dirty: bool,
    /// The time when a policy or a tick last found the reference bit set: a kernel's approximation of `used`.
    pub seen: u64,
}

/// A replacement policy.
pub trait Policy {
    /// The display name.
    fn name(&self) -> &'static str;

    /// Chooses the frame whose page is evicted. There is at least one frame.
    fn victim(&mut self, frames: &mut [Frame], now: u64) -> usize;

    /// Notifies the policy that a page was loaded into this frame.
    fn loaded(&mut self, _frame: usize) {}

    /// Whether ticks clear the reference bits.
    fn ticks(&self) -> bool {
        false
    }

    /// The number of pages that the policy wrote back before it evicted them.
    fn written_back(&self) -> u64 {
        0
    }
}

/// All policies, with the parameters of these settings.
pub fn policies(settings: &Settings) -> Vec<Box<dyn Policy>> {
    let window = settings.or(Setting::Window, 4);
    Vec::from([
        Box::new(order::Fifo) as Box<dyn Policy>,
        Box::new(order::Opt),
        Box::new(order::Lru),
        Box::new(order::Lfu),
        Box::new(bits::SecondChance::default()),
        Box::new(bits::Clock::default()),
        Box::new(bits::Nru),
        Box::new(recent::WorkingSet { window }),
        Box::new(recent::WsClock::new(window)),
    ])
}

/// Plays all policies.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let references = trace.references()?;
    let rules = engine::Rules::of(&trace.settings);
    let play = |mut policy: Box<dyn Policy>| engine::play(policy.as_mut(), rules, &references).report();
    Ok(policies(&trace.settings).into_iter().map(play).collect())
}
