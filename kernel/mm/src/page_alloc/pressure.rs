//! What happens when memory runs short: who is asked to give some back.

use crate::addr::Pfn;
use crate::event::Event;
use crate::machine::Machine;
use crate::sync::{Rank, SpinLock};

use super::{Gfp, PageAllocator};

/// A cache that can give memory back.
pub trait Shrinker: Sync {
    /// Pages (about) that it could free now.
    fn count(&self) -> usize;

    /// Frees about `target` pages and answers how many it freed. It runs on behalf of an allocation with `gfp`,
    /// with whatever locks that caller holds; what it allocates meanwhile, it allocates without DIRECT_RECLAIM.
    fn scan(&self, target: usize, gfp: Gfp) -> usize;
}

/// What the kernel around the memory manager does about pressure. Each has a default that does nothing.
pub trait PressureHandler: Sync {
    /// A zone of this node fell below its low watermark: background reclaim should run. Called with no lock held
    /// by the allocator, possibly with interrupts masked.
    fn wake_kswapd(&self, node: usize) {
        let _ = node;
    }

    /// Nothing could be reclaimed: kill somebody. `true` if that will free memory.
    fn out_of_memory(&self, order: u32, gfp: Gfp) -> bool {
        let _ = (order, gfp);
        false
    }

    /// Whether the thread that allocates is dying for the sake of memory: it gets what it needs for that, whatever the
    /// watermarks say.
    fn may_use_reserves(&self) -> bool {
        false
    }

    /// Somebody who must not fail has found nothing, after [`PressureHandler::out_of_memory`] was asked if his flags
    /// allow that. He holds no lock and may sleep: let somebody else give up memory, or time pass.
    fn wait_for_memory(&self) {
        core::hint::spin_loop();
    }

    /// An allocation failed that did not say NOWARN.
    fn report_failure(&self, order: u32, gfp: Gfp) {
        let _ = (order, gfp);
    }

    /// With page poisoning on: byte `offset` of a free frame was found to be `found`. Somebody wrote to it after it
    /// was freed; the frame is about to be handed out.
    fn report_poison(&self, pfn: Pfn, offset: usize, found: u8) {
        panic!("page poison: {pfn:?} was written to after it was freed: byte {offset} is {found:#04x}");
    }

    /// Somebody freed a frame that was not fit for it; it was taken out of circulation.
    fn report_bad_page(&self, pfn: Pfn) {
        panic!("bad page: {pfn:?} freed while in use, or twice");
    }
}

struct Silent;
impl PressureHandler for Silent {}

/// Room for this many shrinkers.
const SHRINKERS: usize = 8;

struct Registered {
    handler: &'static dyn PressureHandler,
    shrinkers: [Option<&'static dyn Shrinker>; SHRINKERS],
}

/// Who is registered. The lock is held to copy an entry, never while it is called; it has the rank of a zone's,
/// and is not taken together with one.
pub(super) struct Pressure<M: Machine>(SpinLock<Registered, M>);

impl<M: Machine> Pressure<M> {
    pub(super) const fn new(machine: M) -> Self {
        Self(SpinLock::new(machine, Rank::Zone, Registered { handler: &Silent, shrinkers: [None; SHRINKERS] }))
    }

    pub(super) fn handler(&self) -> &'static dyn PressureHandler {
        self.0.lock().handler
    }

    pub(super) fn report_bad_page(&self, pfn: Pfn) {
        self.handler().report_bad_page(pfn);
    }

    fn shrinker(&self, i: usize) -> Option<&'static dyn Shrinker> {
        self.0.lock().shrinkers.get(i).copied().flatten()
    }
}

impl<M: Machine> PageAllocator<M> {
    /// Registers what the kernel does about pressure; the last one counts.
    pub fn set_pressure_handler(&self, handler: &'static dyn PressureHandler) {
        self.pressure.0.lock().handler = handler;
    }

    /// Registers a cache that can give memory back. `false` if there is no room for it.
    #[must_use]
    pub fn register_shrinker(&self, shrinker: &'static dyn Shrinker) -> bool {
        let mut registered = self.pressure.0.lock();
        let Some(free) = registered.shrinkers.iter_mut().find(|slot| slot.is_none()) else { return false };
        *free = Some(shrinker);
        true
    }

    /// Asks all shrinkers to give back `target` pages together; answers how many they did.
    pub fn shrink(&self, target: usize, gfp: Gfp) -> usize {
        let mut freed = 0;
        for shrinker in (0..SHRINKERS).map_while(|i| self.pressure.shrinker(i)) {
            if freed >= target {
                break;
            }
            let available = shrinker.count();
            if available != 0 {
                let pages = shrinker.scan(available.min(target - freed), gfp);
                self.machine.count(Event::ShrinkerCall, 1);
                self.machine.count(Event::ShrinkerPages, pages);
                freed += pages;
            }
        }
        freed
    }
}
