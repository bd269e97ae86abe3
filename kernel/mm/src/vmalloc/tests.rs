//! Areas on a machine whose TLB keeps entries until they are invalidated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::addr::{PAGE_SIZE, Pfn};
use crate::machine::{Asid, Machine, Threads};
use crate::page::{self, Page};
use crate::page_alloc::{self, FailsOnDemand, PageAllocator};

/// Kernel tables and a TLB.
#[derive(Default)]
struct Tables {
    entries: Mutex<BTreeMap<usize, usize>>,
    /// Pages for which some CPU may still have a translation.
    stale: Mutex<BTreeSet<usize>>,
    /// Calls of `map` that still succeed; negative for all.
    fuel: AtomicIsize,
    /// Pages whose caches were flushed, with their frames.
    cleaned: Mutex<Vec<(usize, usize)>>,
    flushes: AtomicU64,
    held: AtomicU64,
}

type Fake = &'static Tables;

fn fake() -> Fake {
    let tables = Tables::default();
    tables.fuel.store(-1, Ordering::Relaxed);
    Box::leak(Box::new(tables))
}

// SAFETY: there is one CPU, and no memory behind any address.
unsafe impl Machine for Fake {
    fn cpu(self) -> usize {
        0
    }
    fn irq_save(self) -> usize {
        0
    }
    fn irq_restore(self, _: usize) {}
    fn direct_map(self, _: PhysAddr) -> *mut u8 {
        unreachable!()
    }
    fn direct_map_to_phys(self, _: *const u8) -> PhysAddr {
        unreachable!()
    }
    fn held_ranks(self) -> &'static AtomicU64 {
        &self.held
    }
    fn publish_tables(self) {}
    fn sync_instructions(self, _: PhysAddr) {}
    fn tlb_flush_pages(self, _: Asid, _: usize, _: usize) {}
    fn tlb_flush_asid(self, _: Asid) {}
    fn tlb_flush_all(self) {
        self.stale.lock().unwrap().clear();
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }
    fn tlb_flush_local(self) {}
    fn tlb_flush_kernel(self, start: VirtAddr, pages: usize) {
        let range = start.get()..start.get() + pages * PAGE_SIZE;
        self.stale.lock().unwrap().retain(|page| !range.contains(page));
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }
}

impl Threads for Fake {}

impl FailsOnDemand for Fake {}

// SAFETY: no frame is ever looked at.
unsafe impl page::Machine for Fake {
    fn mem_map(self) -> *mut Page {
        unreachable!()
    }
}

impl page_alloc::Machine for Fake {
    fn pages(self) -> &'static PageAllocator<Self> {
        unreachable!()
    }
}

impl KernelMapper for Fake {
    fn map(&self, va: VirtAddr, pa: PhysAddr, pages: usize, _: KernelAttrs) -> Result<(), MapError> {
        let fuel = self.fuel.load(Ordering::Relaxed);
        // A failure halfway leaves some pages mapped.
        let pages = if fuel == 0 { pages / 2 } else { pages };
        if fuel > 0 {
            self.fuel.store(fuel - 1, Ordering::Relaxed);
        }
        for offset in (0..pages).map(|i| i * PAGE_SIZE) {
            let page = va.get() + offset;
            assert!(!self.stale.lock().unwrap().contains(&page), "an address is reused before its invalidation");
            assert!(self.entries.lock().unwrap().insert(page, pa.get() + offset).is_none(), "mapped over");
        }
        if fuel == 0 { Err(MapError::NoMemory) } else { Ok(()) }
    }

    fn unmap(&self, va: VirtAddr, pages: usize) {
        for page in (0..pages).map(|i| va.get() + i * PAGE_SIZE) {
            if self.entries.lock().unwrap().remove(&page).is_some() {
                self.stale.lock().unwrap().insert(page);
            }
        }
    }

    fn flush_caches(&self, va: VirtAddr, pages: usize) {
        for page in (0..pages).map(|i| va.get() + i * PAGE_SIZE) {
            let frame = *self.entries.lock().unwrap().get(&page).expect("caches are flushed by mapped addresses");
            self.cleaned.lock().unwrap().push((page, frame));
        }
    }
}

const START: usize = 0x10_0000;

fn space(machine: Fake, pages: usize) -> VmSpace<Fake, Fake> {
    VmSpace::new(machine, machine, VirtAddr::new(START)..VirtAddr::new(START + pages * PAGE_SIZE))
}

#[derive(Clone, Debug)]
enum Step {
    Map(Vec<usize>),
    Io(usize, usize),
    Free(usize),
    Purge,
    Fuel(isize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(1..50usize, 1..12).prop_map(Step::Map),
        4 => (0..1usize << 20, 1..60_000usize).prop_map(|(phys, size)| Step::Io(phys, size)),
        6 => any::<usize>().prop_map(Step::Free),
        1 => Just(Step::Purge),
        1 => (-1..3isize).prop_map(Step::Fuel),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn areas_agree_with_a_model(steps in prop::collection::vec(step(), 1..120)) {
        let machine = fake();
        let space = space(machine, 120);
        // Each live area, with the frames of its pages.
        let mut live: Vec<(VirtAddr, AreaKind, Vec<usize>)> = Vec::new();
        for step in steps {
            match step {
                Step::Map(frames) => {
                    let pfns: Vec<_> = frames.iter().map(|&frame| Pfn(frame)).collect();
                    if let Ok(start) = space.vmap(&pfns, KernelAttrs::DATA) {
                        live.push((start, AreaKind::Vmap, frames.iter().map(|frame| frame * PAGE_SIZE).collect()));
                    }
                }
                Step::Io(phys, size) => {
                    if let Ok(at) = space.ioremap(PhysAddr::new(phys), size, KernelAttrs::DEVICE) {
                        prop_assert_eq!(at.page_offset(), phys % PAGE_SIZE);
                        let pages = (phys / PAGE_SIZE..(phys + size).div_ceil(PAGE_SIZE)).map(|page| page * PAGE_SIZE);
                        live.push((at, AreaKind::Ioremap, pages.collect()));
                    }
                }
                Step::Free(index) if !live.is_empty() => {
                    let (start, kind, _) = live.swap_remove(index % live.len());
                    // SAFETY: the area is not in use.
                    let (done, again) = unsafe {
                        match kind {
                            AreaKind::Vmap => (space.vunmap(start), space.vunmap(start)),
                            _ => (space.iounmap(start), space.iounmap(start)),
                        }
                    };
                    prop_assert_eq!((done, again), (Ok(()), Err(VmError::Invalid)));
                }
                Step::Purge => {
                    space.purge();
                    prop_assert_eq!((space.lazy_pages(), space.areas()), (0, live.len()));
                }
                Step::Fuel(fuel) => machine.fuel.store(fuel, Ordering::Relaxed),
                _ => {}
            }
            // The tables map the live areas and nothing else, so guard pages are unmapped.
            let mut want = BTreeMap::new();
            for (start, kind, pages) in &live {
                let first = start.page_floor().get();
                want.extend(pages.iter().enumerate().map(|(i, &pa)| (first + i * PAGE_SIZE, pa)));
                let info = space.area_of(*start).unwrap();
                prop_assert_eq!((info.start.get(), info.pages, info.kind), (first, pages.len(), *kind));
            }
            let entries = machine.entries.lock().unwrap();
            prop_assert_eq!(&*entries, &want);
            for (start, _, pages) in &live {
                let first = start.page_floor().get();
                prop_assert!(!entries.contains_key(&(first - PAGE_SIZE)));
                prop_assert!(!entries.contains_key(&(first + pages.len() * PAGE_SIZE)));
                prop_assert!(first > START);
            }
        }
    }
}

#[test]
fn invalidations_are_batched() {
    let machine = fake();
    let space = space(machine, 1 << 20);
    for i in 0..4096 {
        let at = space.ioremap(PhysAddr::new(i * PAGE_SIZE), PAGE_SIZE, KernelAttrs::DEVICE).unwrap();
        // SAFETY: the area is not in use.
        unsafe { space.iounmap(at).unwrap() };
    }
    assert_eq!(machine.flushes.load(Ordering::Relaxed), (4096 / LAZY_MAX_PAGES) as u64);
}

#[test]
fn addresses_that_wait_for_a_purge_are_found_when_there_are_no_others() {
    let machine = fake();
    let space = space(machine, 10);
    for _ in 0..20 {
        let at = space.ioremap(PhysAddr::new(0), 7 * PAGE_SIZE, KernelAttrs::DEVICE).unwrap();
        assert_eq!(space.ioremap(PhysAddr::new(0), PAGE_SIZE, KernelAttrs::DEVICE), Err(VmError::NoSpace));
        // SAFETY: the area is not in use.
        unsafe { space.iounmap(at).unwrap() };
    }
}

#[test]
fn nonsense_is_refused() {
    let machine = fake();
    let space = space(machine, 100);
    let last_page = PhysAddr::new(usize::MAX - 10);
    assert_eq!(space.ioremap(last_page, 100, KernelAttrs::DEVICE), Err(VmError::Invalid));
    assert_eq!(space.ioremap(PhysAddr::new(5), 0, KernelAttrs::DEVICE), Err(VmError::Invalid));
    assert_eq!(space.vmap(&[], KernelAttrs::DATA), Err(VmError::Invalid));
    let at = space.vmap(&[Pfn(1), Pfn(2)], KernelAttrs::DATA).unwrap();
    // SAFETY: the area is not in use.
    unsafe {
        assert_eq!(space.iounmap(at), Err(VmError::Invalid), "it is no device's");
        assert_eq!(space.vunmap(at + PAGE_SIZE), Err(VmError::Invalid), "it starts elsewhere");
        assert_eq!(space.vunmap(at), Ok(()));
    }
}

/// Caches are flushed when a mismatched alias begins and when it ends, and for no other mapping.
#[test]
fn mismatched_aliases_are_flushed_at_both_ends() {
    let machine = fake();
    let space = space(machine, 100);
    let pfns = [Pfn(3), Pfn(9), Pfn(4)];
    let flushed = || std::mem::take(&mut *machine.cleaned.lock().unwrap());
    for attrs in [KernelAttrs::NON_CACHEABLE, KernelAttrs::WRITE_THROUGH, KernelAttrs::NON_CACHEABLE.read_only()] {
        let start = space.vmap(&pfns, attrs).unwrap();
        let all: Vec<_> =
            pfns.iter().enumerate().map(|(i, pfn)| (start.get() + i * PAGE_SIZE, pfn.addr().get())).collect();
        assert_eq!(flushed(), all);
        // SAFETY: the area is not in use.
        unsafe { space.vunmap(start).unwrap() };
        assert_eq!(flushed(), all);
    }
    for attrs in [KernelAttrs::DATA, KernelAttrs::DATA.read_only()] {
        let start = space.vmap(&pfns, attrs).unwrap();
        // SAFETY: the area is not in use.
        unsafe { space.vunmap(start).unwrap() };
    }
    // The part that was mapped by a mapping that fails halfway was not used.
    machine.fuel.store(1, Ordering::Relaxed);
    assert_eq!(space.vmap(&pfns, KernelAttrs::NON_CACHEABLE), Err(VmError::NoMemory));
    machine.fuel.store(-1, Ordering::Relaxed);
    let at = space.ioremap(PhysAddr::new(0x9000), PAGE_SIZE, KernelAttrs::NON_CACHEABLE).unwrap();
    // SAFETY: the area is not in use.
    unsafe { space.iounmap(at).unwrap() };
    assert_eq!(flushed(), [], "what has one mapping only needs nothing");
    for attrs in [KernelAttrs::DEVICE, KernelAttrs::DEVICE_STRICT] {
        assert_eq!(space.vmap(&pfns, attrs), Err(VmError::Invalid), "memory is no device");
    }
}

#[test]
fn vmallocinfo_goes_from_area_to_area() {
    let machine = fake();
    let space = space(machine, 100);
    let starts: Vec<_> = (1..5).map(|pages| space.vmap(&vec![Pfn(7); pages], KernelAttrs::DATA).unwrap()).collect();
    let (mut seen, mut from) = (Vec::new(), VirtAddr::new(0));
    while let Some(info) = space.next_area(from) {
        seen.push(info.start);
        assert_eq!(info.caller.file(), file!(), "who asked for it");
        from = info.start + (info.pages + 1) * PAGE_SIZE;
    }
    assert_eq!(seen, starts);
}

pub(crate) use frames::run_script;

mod frames {
    //! Areas with their own frames, on a machine with memory.

    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;
    use crate::page_alloc::{FaultInjection, Gfp, Shrinker};
    use crate::sim::{Call, CallSite, Sim, SimConfig, TlbEvent, TlbObserver};

    fn sim() -> &'static Sim {
        Sim::boot(&SimConfig::new().bank(1 << 30, 16 << 20, 0))
    }

    /// The machine's TLB operations reach the tables' TLB, except for one that is omitted.
    struct Invalidates {
        tables: Fake,
        without: Option<Call>,
        calls: Arc<Mutex<HashSet<Call>>>,
    }

    impl TlbObserver for Invalidates {
        fn event(&self, _cpu: usize, event: TlbEvent, at: CallSite) {
            let Some(call) = Call::of(event, at).filter(|call| Some(*call) != self.without) else { return };
            self.calls.lock().unwrap().insert(call);
            match event {
                TlbEvent::All => self.tables.tlb_flush_all(),
                TlbEvent::Kernel { start, pages } => self.tables.tlb_flush_kernel(start, pages),
                _ => {}
            }
        }
    }

    fn sim_space(machine: &'static Sim) -> (&'static Tables, VmSpace<&'static Sim, Fake>) {
        let (tables, space, _) = broken_space(machine, None);
        (tables, space)
    }

    type Broken = (&'static Tables, VmSpace<&'static Sim, Fake>, Arc<Mutex<HashSet<Call>>>);

    fn broken_space(machine: &'static Sim, without: Option<Call>) -> Broken {
        let (tables, calls) = (fake(), Arc::default());
        machine.observe_tlb(Box::new(Invalidates { tables, without, calls: Arc::clone(&calls) }));
        let range = VirtAddr::new(START)..VirtAddr::new(START + (1 << 30));
        (tables, VmSpace::new(machine, tables, range), calls)
    }

    /// Areas near each other and far from each other end, and others take their addresses; returns the calls that this
    /// has caused.
    ///
    /// # Panics
    /// If addresses are reused before they are invalidated.
    pub(crate) fn run_script(without: Option<Call>) -> HashSet<Call> {
        let (_, space, calls) = broken_space(sim(), without);
        let map = |pages| space.ioremap(PhysAddr::new(0), pages * PAGE_SIZE, KernelAttrs::DEVICE).unwrap();
        // SAFETY: nobody uses the area.
        let unmap = |area| unsafe { space.iounmap(area).unwrap() };
        for far in [1, 2 * LAZY_MAX_PAGES] {
            for _ in 0..2 {
                let [first, between, last] = [1, far, 1].map(map);
                unmap(first);
                unmap(last);
                space.purge();
                unmap(between);
                space.purge();
            }
        }
        calls.lock().unwrap().clone()
    }

    #[test]
    fn more_than_there_is_takes_nothing() {
        let machine = sim();
        let (_, space) = sim_space(machine);
        let (free, started) = (machine.pages().total_free(), machine.pages().zones().next().unwrap().events());
        assert_eq!(space.vmalloc(512 << 20, Gfp::KERNEL), Err(VmError::NoMemory));
        assert_eq!(machine.pages().total_free(), free);
        assert_eq!(machine.pages().zones().next().unwrap().events(), started);
    }

    #[test]
    fn frames_come_back_with_the_purge_and_not_before() {
        let machine = sim();
        let (tables, space) = sim_space(machine);
        let free = machine.pages().total_free();
        let areas: Vec<_> = (1..20).map(|i| (i, space.vmalloc(i * 5000, Gfp::KERNEL | Gfp::ZERO).unwrap())).collect();
        let pages: usize = areas.iter().map(|(i, _)| (i * 5000usize).div_ceil(PAGE_SIZE)).sum();
        assert_eq!(machine.pages().total_free(), free - pages);
        for (i, start) in &areas {
            let entries = tables.entries.lock().unwrap();
            for page in 0..(i * 5000usize).div_ceil(PAGE_SIZE) {
                let frame = entries[&(start.get() + page * PAGE_SIZE)];
                let ptr = machine.direct_map(PhysAddr::new(frame));
                // SAFETY: the frame is the area's, which is ours.
                assert!(unsafe { std::slice::from_raw_parts(ptr, PAGE_SIZE) }.iter().all(|&byte| byte == 0));
                // SAFETY: as above. Two pages on one frame would show as a byte that is not 0.
                unsafe { ptr.write_bytes(1, PAGE_SIZE) };
            }
        }
        for (_, start) in areas {
            // SAFETY: the area is not in use.
            unsafe { space.vfree(start).unwrap() };
        }
        assert!(tables.entries.lock().unwrap().is_empty());
        assert_eq!(machine.pages().total_free(), free - pages);
        assert_eq!(machine.tlb_counts(), Default::default());
        assert_eq!((space.count(), space.scan(1, Gfp::KERNEL)), (pages, pages));
        assert_ne!(machine.tlb_counts(), Default::default());
        assert_eq!(machine.pages().total_free(), free);
    }

    #[test]
    fn no_memory_at_any_step_is_an_error_and_leaks_nothing() {
        let machine = sim();
        let (tables, space) = sim_space(machine);
        let free = machine.pages().total_free();
        for nth in 1..9 {
            machine.pages().inject_failures(FaultInjection::nth(nth));
            assert_eq!(space.vmalloc(8 * PAGE_SIZE, Gfp::KERNEL), Err(VmError::NoMemory));
            machine.pages().inject_failures(FaultInjection::OFF);
            tables.fuel.store(nth as isize - 1, Ordering::Relaxed);
            let start = space.vmalloc(8 * PAGE_SIZE, Gfp::KERNEL);
            tables.fuel.store(-1, Ordering::Relaxed);
            match start {
                // SAFETY: the area is not in use.
                Ok(start) => unsafe { space.vfree(start).unwrap() },
                Err(error) => assert_eq!(error, VmError::NoMemory),
            }
            space.purge();
            assert_eq!(machine.pages().total_free(), free);
            assert_eq!((space.areas(), tables.entries.lock().unwrap().len()), (0, 0));
        }
        assert_eq!(space.vmalloc(0, Gfp::KERNEL), Err(VmError::Invalid));
        assert_eq!(space.vmalloc(64 << 20, Gfp::KERNEL), Err(VmError::NoMemory), "more than there is");
        space.purge();
        assert_eq!(machine.pages().total_free(), free);
    }

    #[test]
    fn cpus_allocate_and_free_side_by_side() {
        let machine = sim();
        let (tables, space) = sim_space(machine);
        let free = machine.pages().total_free();
        std::thread::scope(|scope| {
            for cpu in 0..4 {
                let space = &space;
                scope.spawn(move || {
                    Sim::set_cpu(cpu);
                    let mut mine = std::collections::VecDeque::new();
                    for i in 0..600 {
                        mine.push_back(space.vmalloc((1 + (i + cpu) % 9) * PAGE_SIZE, Gfp::KERNEL).unwrap());
                        if mine.len() > 8 {
                            // SAFETY: the area is not in use.
                            unsafe { space.vfree(mine.pop_front().unwrap()).unwrap() };
                        }
                    }
                    for start in mine {
                        // SAFETY: the area is not in use.
                        unsafe { space.vfree(start).unwrap() };
                    }
                });
            }
        });
        space.purge();
        assert_eq!((space.areas(), space.lazy_pages()), (0, 0));
        assert!(tables.entries.lock().unwrap().is_empty());
        assert_eq!(machine.pages().total_free(), free);
    }
}
