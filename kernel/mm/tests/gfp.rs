//! The effect of each GFP flag when memory is short: waiting, wake-ups, the length of reclaim, kills. (Zones and
//! watermarks are in zones.rs, mobility in ranges.rs and fragmentation.rs, failures on demand in inject.rs.)

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use quire_mm::page_alloc::{Gfp, PageBlock, PressureHandler, Shrinker};
use quire_mm::sim::{Sim, SimConfig};

type Block = PageBlock<&'static Sim>;

/// Everybody who may be asked for memory: a cache, background reclaim, the OOM killer, the clock.
#[derive(Default)]
struct Around {
    /// What the cache gives back at each scan, at most.
    portion: usize,
    cache: Mutex<Vec<Block>>,
    /// Flags of the allocations that the cache was scanned for.
    scanned_for: Mutex<Vec<Gfp>>,
    woken: AtomicUsize,
    kills: AtomicUsize,
    waits: AtomicUsize,
    complaints: AtomicUsize,
    /// What is freed when somebody has waited a few times.
    later: Mutex<Vec<Block>>,
}

impl Shrinker for Around {
    fn count(&self) -> usize {
        self.cache.lock().unwrap().len().max(1)
    }
    fn scan(&self, _: usize, gfp: Gfp) -> usize {
        self.scanned_for.lock().unwrap().push(gfp);
        let mut cache = self.cache.lock().unwrap();
        let keep = cache.len().saturating_sub(self.portion);
        cache.drain(keep..).count()
    }
}

impl PressureHandler for Around {
    fn wake_kswapd(&self, _: usize) {
        self.woken.fetch_add(1, Relaxed);
    }
    fn out_of_memory(&self, _: u32, _: Gfp) -> bool {
        self.kills.fetch_add(1, Relaxed);
        false
    }
    fn wait_for_memory(&self) {
        if self.waits.fetch_add(1, Relaxed) > 3 {
            self.later.lock().unwrap().clear();
        }
    }
    fn report_failure(&self, _: u32, _: Gfp) {
        self.complaints.fetch_add(1, Relaxed);
    }
}

impl Around {
    fn scans(&self) -> usize {
        self.scanned_for.lock().unwrap().len()
    }
    fn kills(&self) -> usize {
        self.kills.load(Relaxed)
    }
    fn waits(&self) -> usize {
        self.waits.load(Relaxed)
    }
    fn woken(&self) -> usize {
        self.woken.load(Relaxed)
    }
    fn complaints(&self) -> usize {
        self.complaints.load(Relaxed)
    }
}

/// A machine without a free page, and what was allocated.
fn exhausted(portion: usize) -> (&'static Sim, &'static Around, Vec<Block>) {
    let sim = Sim::with_mib(32);
    let gfp = Gfp::HIGHUSER_MOVABLE | Gfp::MEMALLOC | Gfp::NORETRY;
    let all: Vec<_> = std::iter::from_fn(|| sim.pages().alloc_page(gfp).ok()).collect();
    let around: &Around = Box::leak(Box::new(Around { portion, ..Around::default() }));
    sim.pages().set_pressure_handler(around);
    assert!(sim.pages().register_shrinker(around));
    (sim, around, all)
}

#[test]
fn without_direct_reclaim_nobody_waits_or_shrinks_or_kills() {
    for gfp in [Gfp::ATOMIC, Gfp::NOWAIT, Gfp::KERNEL - Gfp::DIRECT_RECLAIM, Gfp::ATOMIC | Gfp::NOFAIL] {
        let (sim, around, _all) = exhausted(1);
        assert!(sim.pages().alloc_page(gfp).is_err());
        assert_eq!((around.scans(), around.waits(), around.kills()), (0, 0, 0), "{gfp:?}");
    }
    let (sim, around, _all) = exhausted(1);
    assert!(sim.pages().alloc_page(Gfp::KERNEL).is_err());
    assert!(around.scans() > 0);
}

#[test]
fn kswapd_is_woken_by_who_says_so() {
    for (gfp, woken) in [
        (Gfp::KERNEL, 1),
        (Gfp::NOIO, 1),
        (Gfp::NOWAIT, 1),
        (Gfp::ATOMIC, 1),
        (Gfp::KERNEL - Gfp::KSWAPD_RECLAIM, 0),
        (Gfp::HIGH, 0),
    ] {
        let (sim, around, _all) = exhausted(0);
        assert!(sim.pages().alloc_page(gfp).is_err());
        assert_eq!(around.woken(), woken, "{gfp:?}");
    }
}

/// After 16 rounds without a page kswapd is left alone until something was freed.
#[test]
fn kswapd_gives_up() {
    let (sim, around, mut all) = exhausted(1);
    let fails = || assert!(sim.pages().alloc_page(Gfp::NOWAIT).is_err());
    fails();
    assert!(sim.pages().wants_balance(0));
    assert_eq!((sim.pages().balance(0), around.scans(), around.woken()), (0, 16, 1));
    fails();
    assert_eq!((sim.pages().balance(0), around.scans(), around.woken()), (0, 16, 1));
    all.truncate(all.len() - 40);
    sim.pages().drain_all();
    fails();
    assert_eq!((sim.pages().balance(0), around.scans(), around.woken()), (0, 32, 2));
    // Or until a thread that waited has found something.
    around.cache.lock().unwrap().extend(all.pop());
    assert!(sim.pages().alloc_page(Gfp::NOIO).is_err());
    assert_eq!(around.woken(), 2);
    fails();
    assert_eq!(around.woken(), 3);
}

/// For a large block as much is freed as the watermarks say, and no more: single pages need not merge.
#[test]
fn kswapd_does_not_free_everything_for_a_large_block() {
    let (sim, around, all) = exhausted(32);
    let high: usize = sim.pages().zones().map(|zone| zone.watermarks().high).sum();
    let (odd, even): (Vec<_>, Vec<_>) = all.into_iter().partition(|block| block.pfn().0 % 2 == 1);
    assert!(odd.len() > 8 * high);
    *around.cache.lock().unwrap() = odd;
    assert!(sim.pages().alloc_pages(3, Gfp::NOWAIT).is_err());
    let freed = sim.pages().balance(0);
    assert!((2 * high..2 * high + 64).contains(&freed), "{freed} pages of {high}");
    drop(even);
}

#[test]
fn failures_are_reported_unless_nowarn() {
    let (sim, around, _all) = exhausted(0);
    for gfp in [Gfp::KERNEL | Gfp::NOWARN, Gfp::NOWAIT] {
        assert!(sim.pages().alloc_page(gfp).is_err());
    }
    assert_eq!(around.complaints(), 0);
    assert!(sim.pages().alloc_page(Gfp::ATOMIC).is_err());
    assert_eq!(around.complaints(), 1);
}

/// What IO and FS allow is the shrinkers' to know: they get the flags as they were given.
#[test]
fn shrinkers_learn_what_they_may_do() {
    for gfp in [Gfp::KERNEL, Gfp::NOIO, Gfp::NOFS, Gfp::USER | Gfp::ACCOUNT] {
        let (sim, around, _all) = exhausted(0);
        assert!(sim.pages().alloc_page(gfp).is_err());
        assert!(around.scanned_for.lock().unwrap().iter().all(|&seen| seen == gfp));
        assert!(around.scans() > 0);
    }
    let allowed = |gfp: Gfp| (gfp.may_wait(), gfp.contains(Gfp::IO), gfp.contains(Gfp::FS));
    assert_eq!(allowed(Gfp::KERNEL), (true, true, true));
    assert_eq!(allowed(Gfp::NOFS), (true, true, false));
    assert_eq!(allowed(Gfp::NOIO), (true, false, false));
    assert_eq!((allowed(Gfp::ATOMIC), allowed(Gfp::NOWAIT)), ((false, false, false), (false, false, false)));
}

#[test]
fn reclaim_goes_on_as_long_as_the_flags_say() {
    // Nothing can be reclaimed: one round, or as many as it takes to see that.
    for (gfp, scans, kills) in [
        (Gfp::KERNEL | Gfp::NORETRY, 1, 0),
        (Gfp::KERNEL | Gfp::RETRY_MAYFAIL, 3, 0),
        (Gfp::KERNEL, 3, 1),
        (Gfp::NOFS, 3, 0),
    ] {
        let (sim, around, _all) = exhausted(0);
        assert!(sim.pages().alloc_page(gfp).is_err());
        assert_eq!((around.scans(), around.kills(), around.waits()), (scans, kills, 0), "{gfp:?}");
    }
    // A page a round comes back, which never makes a large block soon: only RETRY_MAYFAIL goes on for one.
    for (gfp, few) in [(Gfp::KERNEL, true), (Gfp::KERNEL | Gfp::RETRY_MAYFAIL, false)] {
        let (sim, around, all) = exhausted(1);
        // Every other page, so that no two merge.
        let (given_back, _kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|block| block.pfn().0 % 2 == 0);
        let given = given_back.len();
        *around.cache.lock().unwrap() = given_back;
        let outcome = sim.pages().alloc_pages(5, gfp | Gfp::MEMALLOC);
        let left = around.cache.lock().unwrap().len();
        assert!(outcome.is_err() || !few);
        assert_eq!(left > given / 2, few, "{gfp:?}: {left} of {given} pages are left");
        assert_eq!(around.kills(), 0, "nobody is killed for a large block");
    }
}

#[test]
fn nofail_waits_until_there_is_memory() {
    for (gfp, killer_is_asked) in [(Gfp::KERNEL, true), (Gfp::NOFS, false), (Gfp::KERNEL | Gfp::RETRY_MAYFAIL, false)] {
        for order in [0, 1] {
            let (sim, around, all) = exhausted(0);
            *around.later.lock().unwrap() = all;
            assert!(sim.pages().alloc_pages(order, gfp | Gfp::NOFAIL).is_ok());
            assert!(around.waits() > 3);
            assert_eq!(around.kills() > 0, killer_is_asked, "{gfp:?}");
            assert_eq!(around.complaints(), 0);
        }
    }
    let (sim, around, _all) = exhausted(0);
    assert!(sim.pages().alloc_pages(2, Gfp::KERNEL | Gfp::NOFAIL).is_err(), "too large to be promised");
    assert!(sim.pages().alloc_pages(11, Gfp::KERNEL | Gfp::NOFAIL).is_err(), "no such order");
    assert_eq!(around.waits(), 0);
}

/// A lock that the victim needs would never be free again.
#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "memory is waited for under locks")]
fn nofail_is_not_for_who_holds_a_lock() {
    let (sim, _, _all) = exhausted(0);
    let lock = quire_mm::sync::SpinLock::new(sim, quire_mm::sync::Rank::Object, ());
    let _held = lock.lock();
    let _ = sim.pages().alloc_page(Gfp::KERNEL | Gfp::NOFAIL);
}

#[test]
fn combinations_are_made_of_the_flags() {
    assert_eq!(Gfp::ATOMIC, Gfp::HIGH | Gfp::KSWAPD_RECLAIM);
    assert_eq!(Gfp::KERNEL, Gfp::NOFS | Gfp::FS);
    assert_eq!(Gfp::NOFS, Gfp::NOIO | Gfp::IO);
    assert_eq!(Gfp::NOIO, Gfp::DIRECT_RECLAIM | Gfp::KSWAPD_RECLAIM);
    assert_eq!(Gfp::USER, Gfp::KERNEL);
    assert_eq!(Gfp::KERNEL_ACCOUNT, Gfp::KERNEL | Gfp::ACCOUNT);
    assert_eq!(Gfp::HIGHUSER, Gfp::USER | Gfp::HIGHMEM);
    assert_eq!(Gfp::HIGHUSER_MOVABLE, Gfp::HIGHUSER | Gfp::MOVABLE);
    assert_eq!(Gfp::NOWAIT, Gfp::KSWAPD_RECLAIM | Gfp::NOWARN);
}

#[test]
fn thisnode_kills_nobody_and_gives_way_to_nofail() {
    let config = SimConfig::new().bank(1 << 30, 32 << 20, 0).bank(2 << 30, 32 << 20, 1);
    let sim = Sim::boot(&config);
    let around: &Around = Box::leak(Box::default());
    sim.pages().set_pressure_handler(around);
    let gfp = Gfp::NOWAIT | Gfp::MEMALLOC | Gfp::THISNODE;
    let _node_0: Vec<_> = std::iter::from_fn(|| sim.pages().alloc_page(gfp).ok()).collect();
    assert!(sim.pages().alloc_page(Gfp::KERNEL | Gfp::THISNODE).is_err());
    assert_eq!((around.kills(), around.waits()), (0, 0), "node 1 has memory");
    for node in [0, 5] {
        let block = sim.pages().alloc_pages_node(node, 0, Gfp::KERNEL | Gfp::THISNODE | Gfp::NOFAIL).unwrap();
        assert_eq!(sim.pages().node_of(block.pfn()), 1);
    }
}
