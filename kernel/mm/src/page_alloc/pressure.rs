//! Memory pressure: shrinkers, and the kernel's handler.

use crate::addr::Pfn;
use crate::event::Event;
use crate::page_alloc::Machine;
use crate::sync::{Rank, SpinLock};

use super::{Gfp, MovePages, PageAllocator};

/// A cache that can free memory.
pub trait Shrinker: Sync {
    /// The approximate number of pages that it could free now.
    fn count(&self) -> usize;

    /// Frees about `target` pages and returns how many it freed. It runs on behalf of an allocation with `gfp`, whose
    /// caller may hold locks; its own allocations must be made without DIRECT_RECLAIM.
    fn scan(&self, target: usize, gfp: Gfp) -> usize;
}

/// Reclaims pages of programs.
pub trait Reclaimer: Sync {
    /// Frees about `target` pages of a node, in zones of kinds up to `highest`; returns how many it freed. The caller
    /// holds no lock, and may sleep.
    fn reclaim(&self, node: usize, highest: usize, target: usize) -> usize;

    /// The same for pages of a control group and those below it, on any node.
    fn reclaim_group(&self, group: u16, target: usize) -> usize {
        let _ = (group, target);
        0
    }

    /// Called when programs have put these pages on the list of given-up pages: whatever the frames contain by now,
    /// they are tried before others. The caller holds no spin lock.
    fn note_given_up(&self, pages: &[Pfn]) {
        let _ = pages;
    }

    /// Moves the charges of pages of removed control groups to the groups that they count for.
    fn adopt(&self) {}
}

/// The kernel's reaction to memory pressure. Methods have defaults that do nothing.
pub trait PressureHandler: Sync {
    /// Zones of this node fell below their low watermarks: its background reclaim should run
    /// ([`PageAllocator::balance`]). Called with no lock held by the allocator, possibly with interrupts masked.
    fn wake_kswapd(&self, node: usize) {
        let _ = node;
    }

    /// Nothing could be reclaimed: kills a process. `true` if that will free memory.
    fn out_of_memory(&self, order: u32, gfp: Gfp) -> bool {
        let _ = (order, gfp);
        false
    }

    /// Nothing could be reclaimed from a control group that is at its limit: the calling thread must kill one of its
    /// processes when it holds no lock.
    fn group_out_of_memory(&self, group: u16) {
        let _ = group;
    }

    /// An allocation failed that must not wait, and that did not accept failure (without NORETRY): there may be memory
    /// once the caller can wait. Called with any lock held, and from interrupts.
    fn cannot_wait(&self, order: u32) {
        let _ = order;
    }

    /// Whether the allocating thread is an OOM victim that is exiting: it may allocate regardless of watermarks.
    fn may_use_reserves(&self) -> bool {
        false
    }

    /// A NOFAIL caller has found no memory, after a call of [`PressureHandler::out_of_memory`] if its flags allow that.
    /// It holds no lock and may sleep: waits until another thread frees memory, or for some time.
    fn wait_for_memory(&self) {
        core::hint::spin_loop();
    }

    /// An allocation without NOWARN failed.
    fn report_failure(&self, order: u32, gfp: Gfp) {
        let _ = (order, gfp);
    }

    /// With page poisoning on: byte `offset` of a free frame was found to be `found`. It was written to after it was
    /// freed; the frame is about to be handed out.
    fn report_poison(&self, pfn: Pfn, offset: usize, found: u8) {
        panic!("page poison: {pfn:?} was written to after it was freed: byte {offset} is {found:#04x}");
    }

    /// A frame was freed that was not fit to be freed; it is not reused.
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
    reclaimer: Option<&'static dyn Reclaimer>,
    mover: Option<&'static dyn MovePages>,
}

/// The registered handler and shrinkers. The lock is held to copy an entry, never during a call; it has the rank of a
/// zone's lock, and is never taken together with one.
pub(super) struct Pressure<M: Machine>(SpinLock<Registered, M>);

impl<M: Machine> Pressure<M> {
    pub(super) const fn new(machine: M) -> Self {
        let registered = Registered { handler: &Silent, shrinkers: [None; SHRINKERS], reclaimer: None, mover: None };
        Self(SpinLock::new(machine, Rank::Zone, registered))
    }

    pub(super) fn handler(&self) -> &'static dyn PressureHandler {
        self.0.lock().handler
    }

    pub(super) fn report_bad_page(&self, pfn: Pfn) {
        self.handler().report_bad_page(pfn);
    }

    pub(super) fn set_mover(&self, mover: &'static dyn MovePages) {
        self.0.lock().mover = Some(mover);
    }

    pub(super) fn mover(&self) -> Option<&'static dyn MovePages> {
        self.0.lock().mover
    }

    fn shrinker(&self, i: usize) -> Option<&'static dyn Shrinker> {
        self.0.lock().shrinkers.get(i).copied().flatten()
    }
}

impl<M: Machine> PageAllocator<M> {
    /// Registers the kernel's handler; the last one registered is used.
    pub fn set_pressure_handler(&self, handler: &'static dyn PressureHandler) {
        self.pressure.0.lock().handler = handler;
    }

    /// Registers a shrinker. `false` if there is no room for it.
    #[must_use]
    pub fn register_shrinker(&self, shrinker: &'static dyn Shrinker) -> bool {
        let mut registered = self.pressure.0.lock();
        let Some(free) = registered.shrinkers.iter_mut().find(|slot| slot.is_none()) else { return false };
        *free = Some(shrinker);
        true
    }

    /// Registers the reclaimer of pages of programs; the last one registered is used.
    pub fn set_reclaimer(&self, reclaimer: &'static dyn Reclaimer) {
        self.pressure.0.lock().reclaimer = Some(reclaimer);
    }

    /// Reclaims pages of programs: see [`Reclaimer::reclaim`].
    pub fn reclaim(&self, node: usize, highest: usize, target: usize) -> usize {
        let reclaimer = self.pressure.0.lock().reclaimer;
        reclaimer.map_or(0, |reclaimer| reclaimer.reclaim(node, highest, target))
    }

    /// Reclaims pages of a control group: see [`Reclaimer::reclaim_group`].
    pub fn reclaim_group(&self, group: u16, target: usize) -> usize {
        let reclaimer = self.pressure.0.lock().reclaimer;
        reclaimer.map_or(0, |reclaimer| reclaimer.reclaim_group(group, target))
    }

    /// Pages were given up: see [`Reclaimer::note_given_up`].
    pub(crate) fn note_given_up(&self, pages: &[Pfn]) {
        let reclaimer = self.pressure.0.lock().reclaimer;
        reclaimer.inspect(|reclaimer| reclaimer.note_given_up(pages));
    }

    /// Moves the charges of pages of removed control groups: see [`Reclaimer::adopt`].
    pub(crate) fn adopt_pages(&self) {
        let reclaimer = self.pressure.0.lock().reclaimer;
        reclaimer.inspect(|reclaimer| reclaimer.adopt());
    }

    /// A control group is out of memory: see [`PressureHandler::group_out_of_memory`].
    pub(crate) fn group_out_of_memory(&self, group: u16) {
        self.pressure.handler().group_out_of_memory(group);
    }

    /// Whether the calling thread is about to give back all its memory: see [`PressureHandler::may_use_reserves`].
    pub(crate) fn may_use_reserves(&self) -> bool {
        self.pressure.handler().may_use_reserves()
    }

    /// Calls the shrinkers to free `target` pages in total; returns how many they freed.
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
