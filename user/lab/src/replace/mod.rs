//! Which page goes when a process needs a page and has no frame left.
//!
//! [`engine`] plays references on a number of frames and asks a [`Policy`] for the page that goes. The policies are in
//! [`order`] (by the order of events: FIFO, OPT, LRU, LFU), [`bits`] (by reference and dirty bits: second chance, clock, NRU)
//! and [`recent`] (by the working set: working set, WSClock). [`belady`] plays all of them on one frame, two, three and so on;
//! [`working_set`] shows how many pages a process needs at a time.

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

/// A page in memory, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The page's number.
    pub page: u64,
    /// When it was loaded. Times are numbers of references.
    pub loaded: u64,
    /// When it was used last.
    pub used: u64,
    /// How often it was used since it was loaded.
    pub uses: u64,
    /// When it is used next; no policy but OPT looks into the future.
    pub next_use: u64,
    /// The reference bit: the hardware sets it, a policy or a tick clears it.
    pub referenced: bool,
    /// The dirty bit: the hardware sets it on a store.
    pub dirty: bool,
    /// When a policy or a tick last found the reference bit set: what a kernel knows instead of `used`.
    pub seen: u64,
}

/// A way to choose the page that goes.
pub trait Policy {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// The index of the frame whose page goes. All frames have pages, and there is at least one.
    fn victim(&mut self, frames: &mut [Frame], now: u64) -> usize;

    /// A page came into this frame.
    fn loaded(&mut self, _frame: usize) {}

    /// Whether reference bits are cleared at every tick.
    fn ticks(&self) -> bool {
        false
    }

    /// Pages that the policy had written back before they went.
    fn written_back(&self) -> u64 {
        0
    }
}

/// All policies, as these settings have them.
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

/// All policies on the frames that the trace says, or three.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let references = trace.references()?;
    let rules = engine::Rules::of(&trace.settings);
    let play = |mut policy: Box<dyn Policy>| engine::play(policy.as_mut(), rules, &references).report();
    Ok(policies(&trace.settings).into_iter().map(play).collect())
}
