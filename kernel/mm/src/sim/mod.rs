//! A simulated machine for host tests: banks of DRAM on the host's heap, threads for CPUs.
//!
//! A thread is on CPU 0 until it calls [`Sim::set_cpu`]. Any number of threads may share a CPU: masked interrupts have
//! the effect of a real CPU, since no other thread runs on that CPU until they are unmasked. Untouched frames and
//! records take no host memory. A `Sim` is never freed.

mod calls;
mod config;
mod dram;
pub mod mmu;
mod tlb;
pub mod turns;

pub use calls::{Call, CallSite};
pub use config::{Bank, SimConfig};
pub use tlb::{TlbCounts, TlbEvent, TlbObserver};

use std::alloc::Layout;
use std::boxed::Box;
use std::cell::Cell;
use std::panic::Location;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::thread::Thread;
use std::vec::Vec;

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use crate::cgroup::{self, Groups};
use crate::event::Event;
use crate::machine::{Asid, Killed, Limit, MAX_CPUS, Machine, Threads};
use crate::memblock::MemBlock;
use crate::mm::{self, Mm};
use crate::page::{self, Page};
use crate::page_alloc::cma::AreaError;
use crate::page_alloc::{self, FailsOnDemand, PageAllocator, Summary};
use crate::rmap;
use crate::spaces::{self, Spaces};
use crate::table;
use dram::Dram;

/// A machine: what `M` is in tests is `&'static Sim`.
pub struct Sim {
    dram: Dram,
    mem_map: dram::Zeroed,
    pages: OnceLock<Box<PageAllocator<&'static Sim>>>,
    spaces: OnceLock<Box<Spaces<&'static Sim>>>,
    groups: OnceLock<Box<Groups<&'static Sim>>>,
    #[cfg(test)]
    slow_moves: OnceLock<&'static dyn SlowMoves>,
    /// Which thread runs with interrupts masked on each CPU; 0 for none.
    masked_by: [AtomicU64; MAX_CPUS],
    tlb: tlb::Tlb,
    events: [AtomicUsize; Event::COUNT],
    limits: [AtomicU64; Limit::COUNT],
    booted: OnceLock<Booted>,
}

/// Moves of pages that end when somebody needs the page.
#[cfg(test)]
pub(crate) trait SlowMoves: Sync {
    /// Waits for the end of a frame's move; `false` if it is not moved in this way.
    fn wait(&self, old: crate::addr::Pfn) -> bool;
}

/// What boot left behind.
struct Booted {
    summary: Summary,
    memory: MemBlock,
    refused: Vec<(PhysRange, AreaError)>,
}

/// A thread, and whether it has announced a sleep. As in the kernel, a wake-up of a thread that
/// has announced none leaves no trace.
struct Sleeper {
    thread: Thread,
    is_asleep: AtomicBool,
}

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
    static CALL_SITE: Cell<usize> = const { Cell::new(0) };
    static GROUP: Cell<u16> = const { Cell::new(0) };
    /// Whether it waits for memory.
    static STALLS: Cell<bool> = const { Cell::new(false) };
    /// How many more times [`Threads::is_killed`] returns false.
    static LIVES: Cell<usize> = const { Cell::new(usize::MAX) };
    /// How many times interrupts are masked.
    static MASKED: Cell<usize> = const { Cell::new(0) };
    /// How many threads this one has woken.
    static UNPARKED: Cell<usize> = const { Cell::new(0) };
    /// How often they were.
    static TIMES_MASKED: Cell<usize> = const { Cell::new(0) };
    static ME: &'static Sleeper =
        Box::leak(Box::new(Sleeper { thread: std::thread::current(), is_asleep: AtomicBool::new(false) }));
    static HELD_RANKS: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
    static THREAD: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Relaxed)
    };
}

impl Sim {
    /// A machine that has booted as far as its page allocator.
    ///
    /// # Panics
    /// If the configuration is invalid.
    pub fn boot(config: &SimConfig) -> &'static Sim {
        let mut memory = config.memblock();
        let sim: &'static Sim = Box::leak(Box::new(Sim {
            dram: Dram::new(&config.banks),
            mem_map: dram::Zeroed::new(config.end().pfn().0.next_multiple_of(1024) * size_of::<Page>()),
            pages: OnceLock::new(),
            spaces: OnceLock::new(),
            groups: OnceLock::new(),
            #[cfg(test)]
            slow_moves: OnceLock::new(),
            masked_by: [const { AtomicU64::new(0) }; MAX_CPUS],
            tlb: tlb::Tlb::default(),
            events: [const { AtomicUsize::new(0) }; Event::COUNT],
            limits: [const { AtomicU64::new(u64::MAX) }; Limit::COUNT],
            booted: OnceLock::new(),
        }));
        let pages = sim.pages.get_or_init(|| Box::new(PageAllocator::new(sim)));
        // SAFETY: nobody else knows the machine yet. Its banks are DRAM that `direct_map` reaches; the records span
        // all of them, rounded out, and were allocated as zeros.
        let summary = unsafe { pages.init(&mut memory, &config.page_alloc()) }.expect("the configuration makes sense");
        let mut refused = Vec::new();
        // SAFETY: once, after `init` with this memblock, and nobody uses the areas.
        unsafe { pages.init_cma(&memory, &config.page_alloc(), &mut |range, why| refused.push((range, why))) };
        let _ = sim.booted.set(Booted { summary, memory, refused });
        sim.groups.get_or_init(|| Box::new(Groups::new(sim)));
        sim.spaces.get_or_init(|| Box::new(Spaces::new(sim)));
        sim
    }

    /// A machine with one bank of this many MiB at 1 GiB, as QEMU's `virt` has it.
    pub fn with_mib(mib: usize) -> &'static Sim {
        Self::boot(&SimConfig::new().bank(1 << 30, mib << 20, 0))
    }

    /// The calling thread now runs on this CPU. Not while interrupts are masked.
    pub fn set_cpu(cpu: usize) {
        assert!(cpu < MAX_CPUS && MASKED.get() == 0);
        CPU.set(cpu);
    }

    /// The calling thread's process is in this control group from now on, which the caller has entered for it.
    pub fn set_group(id: u16) {
        GROUP.set(id);
    }

    /// What the calling thread's backtraces say from now on: one call, from this address.
    pub fn set_call_site(address: usize) {
        CALL_SITE.set(address);
    }

    /// The calling thread counts as killed after it has checked this many times.
    pub fn kill_after(asked: usize) {
        LIVES.set(asked);
    }

    /// Its page allocator.
    pub fn pages(&'static self) -> &'static PageAllocator<&'static Self> {
        self.pages.get().expect("Sim::boot made it")
    }

    /// What its address spaces share.
    pub fn spaces(&'static self) -> &'static Spaces<&'static Self> {
        self.spaces.get().expect("Sim::boot made it")
    }

    /// Its control groups.
    pub fn groups(&'static self) -> &'static Groups<&'static Self> {
        self.groups.get().expect("Sim::boot made it")
    }

    /// The record of page frame 0.
    pub fn mem_map(&self) -> *mut Page {
        self.mem_map.start().cast()
    }

    /// What boot handed out.
    pub fn summary(&self) -> Summary {
        self.booted().summary
    }

    /// What memblock knew when boot was done.
    pub fn memblock(&self) -> &MemBlock {
        &self.booted().memory
    }

    /// What was set aside for contiguous memory areas and is none, and why.
    pub fn refused_areas(&self) -> &[(PhysRange, AreaError)] {
        &self.booted().refused
    }

    fn booted(&self) -> &Booted {
        self.booted.get().expect("Sim::boot is done")
    }

    /// The test with this machine is over: what its memory had is gone, so that the host has it for other tests.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        self.dram.forget();
        self.mem_map.forget();
    }

    /// Puts somebody behind the TLB operations, once.
    ///
    /// # Panics
    /// If there is one already.
    pub fn observe_tlb(&self, observer: Box<dyn TlbObserver + Send + Sync>) {
        self.tlb.observe(observer);
    }

    /// Puts somebody behind moves that take long, once.
    ///
    /// # Panics
    /// If there is one already.
    #[cfg(test)]
    pub(crate) fn provide_slow_moves(&self, moves: &'static dyn SlowMoves) {
        assert!(self.slow_moves.set(moves).is_ok(), "one a machine");
    }

    /// The calling thread has written to a whole frame through the direct map, as the kernel does.
    pub fn note_content(&self, addr: PhysAddr) {
        self.tell(TlbEvent::NewContent(addr));
    }

    /// Tells whoever is behind the TLB operations, and where the machine was called.
    #[track_caller]
    fn tell(&self, event: TlbEvent) {
        self.tlb.event(CPU.get(), event, Location::caller());
    }

    /// How often an event was counted.
    pub fn counted(&self, event: Event) -> usize {
        self.events[event as usize].load(Relaxed)
    }

    /// How many TLB operations there were.
    pub fn tlb_counts(&self) -> TlbCounts {
        self.tlb.counts()
    }

    /// How often the calling thread has masked interrupts: what it did beside the fast paths, which do so once each,
    /// shows in it.
    pub fn times_masked() -> usize {
        TIMES_MASKED.get()
    }

    /// Whether the calling thread has interrupts masked.
    pub fn interrupts_masked() -> bool {
        MASKED.get() != 0
    }
}

/// Notifies the simulated MMU of an access to a table by the calling thread's CPU.
#[cfg(test)]
pub(crate) fn tables<M: Machine>(machine: M, tell: impl FnOnce(&dyn TlbObserver, usize)) {
    turns::point();
    let machine: &dyn core::any::Any = &machine;
    if let Some(observer) = machine.downcast_ref::<&'static Sim>().and_then(|sim| sim.tlb.observer()) {
        tell(observer, CPU.get());
    }
}

// SAFETY: `direct_map` returns pointers into banks that are never freed. A thread's CPU is below MAX_CPUS and cannot
// change while interrupts are masked; threads of one CPU exclude each other there. TLB observers finish before
// they return.
unsafe impl Machine for &'static Sim {
    fn count(self, event: Event, n: usize) {
        self.events[event as usize].fetch_add(n, Relaxed);
    }

    fn cpu(self) -> usize {
        CPU.get()
    }

    fn irq_save(self) -> usize {
        let depth = MASKED.get();
        if depth == 0 {
            turns::point();
            let me = THREAD.with(|thread| *thread);
            let holder = &self.masked_by[CPU.get()];
            while holder.compare_exchange_weak(0, me, Acquire, Relaxed).is_err() {
                turns::wait();
            }
        }
        MASKED.set(depth + 1);
        TIMES_MASKED.set(TIMES_MASKED.get() + 1);
        depth
    }

    fn irq_restore(self, state: usize) {
        assert_eq!(MASKED.get(), state + 1, "interrupts are unmasked out of order");
        MASKED.set(state);
        if state == 0 {
            self.masked_by[CPU.get()].store(0, Release);
        }
    }

    fn relax(self) {
        turns::wait();
    }

    fn backtrace(self, into: &mut [usize]) -> usize {
        let known = CALL_SITE.get() != 0 && !into.is_empty();
        if known {
            into[0] = CALL_SITE.get();
        }
        usize::from(known)
    }

    fn direct_map(self, addr: PhysAddr) -> *mut u8 {
        self.dram.host_address(addr)
    }

    fn direct_map_to_phys(self, ptr: *const u8) -> PhysAddr {
        self.dram.physical_address(ptr)
    }

    fn held_ranks(self) -> &'static AtomicU64 {
        HELD_RANKS.with(|ranks| *ranks)
    }

    fn alloc_now(self, layout: Layout) -> *mut u8 {
        #[cfg(test)]
        if crate::fallible::inject::pass_now().is_err() {
            return core::ptr::null_mut();
        }
        // SAFETY: callers ask for what has a size.
        unsafe { std::alloc::alloc(layout) }
    }

    fn clear_page(self, addr: PhysAddr) {
        // SAFETY: the caller owns the frame, and the direct map reaches all of it.
        unsafe { core::ptr::write_bytes(self.direct_map(addr), 0, PAGE_SIZE) }
        self.note_content(addr);
    }

    fn copy_page(self, to: PhysAddr, from: PhysAddr) {
        // SAFETY: the caller owns both frames, they differ, and the direct map reaches all of them.
        unsafe { core::ptr::copy_nonoverlapping(self.direct_map(from), self.direct_map(to), PAGE_SIZE) }
        self.note_content(to);
    }

    #[track_caller]
    fn publish_tables(self) {
        self.tell(TlbEvent::PublishTables);
    }

    #[track_caller]
    fn sync_instructions(self, addr: PhysAddr) {
        self.tell(TlbEvent::SyncInstructions(addr));
    }

    #[track_caller]
    fn tlb_flush_pages(self, asid: Asid, start: usize, pages: usize) {
        self.tell(TlbEvent::Pages { asid, start, pages });
    }

    #[track_caller]
    fn tlb_flush_asid(self, asid: Asid) {
        self.tell(TlbEvent::Asid(asid));
    }

    #[track_caller]
    fn tlb_flush_all(self) {
        self.tell(TlbEvent::All);
    }

    #[track_caller]
    fn tlb_flush_local(self) {
        self.tell(TlbEvent::Local);
    }

    #[track_caller]
    fn tlb_flush_kernel(self, start: VirtAddr, pages: usize) {
        self.tell(TlbEvent::Kernel { start, pages });
    }
}

impl Sim {
    /// How many threads this one has woken.
    pub fn unparked() -> usize {
        UNPARKED.get()
    }

    /// Sets a limit of the one process that all its threads are.
    pub fn set_limit(&self, which: Limit, bytes: u64) {
        self.limits[which as usize].store(bytes, Relaxed);
    }
}

/// The clock of pressure: a microsecond for each look.
fn later() -> u64 {
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.fetch_add(1000, Relaxed)
}

impl Threads for &'static Sim {
    fn is_killed(self) -> bool {
        let left = LIVES.get();
        LIVES.set(left.saturating_sub(1));
        left == 0
    }

    fn resched_point(self) -> Result<(), Killed> {
        if self.is_killed() { Err(Killed) } else { Ok(()) }
    }

    fn limit(self, which: Limit) -> u64 {
        self.limits[which as usize].load(Relaxed)
    }

    fn begin_stall(self) -> Option<u16> {
        let groups = self.groups.get().filter(|_| !STALLS.replace(true))?;
        let irq = self.irq_save();
        groups.begin_stall(self.cpu(), GROUP.get(), later());
        self.irq_restore(irq);
        Some(GROUP.get())
    }

    fn end_stall(self, group: u16) {
        assert!(STALLS.replace(false), "a stall ends twice");
        let irq = self.irq_save();
        Sim::groups(self).end_stall(self.cpu(), group, GROUP.get().into(), later());
        self.irq_restore(irq);
    }

    fn this_thread(self) -> usize {
        ME.with(|me| core::ptr::from_ref::<Sleeper>(me).expose_provenance())
    }

    fn park(self, killable: bool, ready: &mut dyn FnMut() -> bool) -> bool {
        assert!(!Sim::interrupts_masked(), "a sleep with interrupts masked");
        let me = ME.with(|me| *me);
        loop {
            me.is_asleep.store(true, SeqCst);
            let is_ready = ready();
            if is_ready || killable && self.is_killed() {
                me.is_asleep.store(false, SeqCst);
                return is_ready;
            }
            // No time-out: a wake-up that is lost must show. (Where threads take turns it would not.)
            while me.is_asleep.load(SeqCst) && !turns::wait_if_taken() {
                std::thread::park();
            }
        }
    }

    unsafe fn unpark(self, thread: usize) {
        UNPARKED.set(UNPARKED.get() + 1);
        // SAFETY: `this_thread` answered the address of what is never freed.
        let sleeper = unsafe { &*core::ptr::with_exposed_provenance::<Sleeper>(thread) };
        if sleeper.is_asleep.swap(false, SeqCst) {
            sleeper.thread.unpark();
        }
    }
}

// SAFETY: the array was allocated as zeros, spans all frames, and is never freed.
unsafe impl page::Machine for &'static Sim {
    fn mem_map(self) -> *mut Page {
        Sim::mem_map(self)
    }
}

impl FailsOnDemand for &'static Sim {
    #[cfg(test)]
    fn fails_allocation(self, gfp: page_alloc::Gfp) -> bool {
        use crate::fallible::inject;
        use page_alloc::Gfp;
        let passed = match (gfp.may_wait(), gfp.contains(Gfp::NORETRY)) {
            (true, _) => inject::pass(),
            (false, true) => inject::pass_one(),
            (false, false) => inject::pass_now(),
        };
        passed.is_err()
    }
}

impl page_alloc::Machine for &'static Sim {
    fn pages(self) -> &'static PageAllocator<Self> {
        Sim::pages(self)
    }
}

impl cgroup::Machine for &'static Sim {
    type Lists = crate::reclaim::Lists<Self>;

    fn make_lists(self) -> Result<Self::Lists, crate::fallible::AllocError> {
        crate::reclaim::Lists::new(self)
    }

    fn end_lists(lists: &Self::Lists) {
        lists.end();
    }

    fn groups(self) -> &'static Groups<Self> {
        Sim::groups(self)
    }

    fn group(self) -> u16 {
        GROUP.get()
    }
}

impl spaces::Machine for &'static Sim {
    fn spaces(self) -> &'static Spaces<Self> {
        Sim::spaces(self)
    }
}

impl rmap::Machine for &'static Sim {
    type Space = Mm<Self>;
}

impl table::Machine for &'static Sim {
    #[cfg(test)]
    fn note_filled(self, frame: crate::addr::Pfn) {
        self.note_content(frame.addr());
    }

    #[cfg(test)]
    fn note_found(self, frame: crate::addr::Pfn) {
        self.tlb.observer().inspect(|observer| observer.found(CPU.get(), frame));
    }
}

impl crate::reclaim::Machine for &'static Sim {}

impl mm::Machine for &'static Sim {
    #[cfg(test)]
    fn wait_for_move(self, old: crate::addr::Pfn) -> bool {
        self.slow_moves.get().is_some_and(|moves| moves.wait(old))
    }
}
