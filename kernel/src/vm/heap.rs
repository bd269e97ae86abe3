//! The kernel's heap: `#[global_allocator]`.
//!
//! Before the page allocator is up, a small heap (the crate `buddy_system_allocator`) serves boot's permanent
//! allocations, such as the index of the boot archive; after that, the slab allocator serves everything. A pointer of
//! the boot heap is recognised by its address.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use buddy_system_allocator::Heap;
use quire_mm::Machine;
use quire_mm::addr::PhysRange;
use quire_mm::fallible::{AllocError, TryVec, try_box_from};
use quire_mm::machine::Threads;
use quire_mm::page_alloc::{FailsOnDemand, FaultInjection, Gfp};
use quire_mm::slab::{Backend, Config, DebugFlags, KernelHeap, Report};
use quire_mm::sync::Rank;
use quire_platform::bootargs;

use super::machine::{Cpu, PAGES, SpinLock};
use crate::arch::timer;
use crate::arguments::argument;
use crate::backtrace::symbols::Named;

/// The slab allocator.
pub static SLAB: KernelHeap<Cpu> = KernelHeap::new(Cpu);

/// Reasons to take the slow path: the slab allocator is not up yet; and the number of threads with [injected
/// failures](FailsOnDemand), in units of `ASK`.
static DETOUR: AtomicU32 = AtomicU32::new(BOOTING);
const BOOTING: u32 = 1;
const ASK: u32 = 2;

/// Largest order of the boot heap: blocks of up to 2^20 bytes.
const ORDERS: usize = 21;

static BOOT: SpinLock<Heap<ORDERS>> = SpinLock::new(Cpu, Rank::BootHeap, Heap::empty());
static BOOT_START: AtomicUsize = AtomicUsize::new(0);
static BOOT_END: AtomicUsize = AtomicUsize::new(0);

struct Global;

#[global_allocator]
static GLOBAL: Global = Global;

/// Gives the boot heap a range of the direct map.
///
/// # Safety
/// The range is unused memory in the direct map.
pub unsafe fn init_boot_heap(range: PhysRange) {
    let start = Cpu.direct_map(range.start).addr();
    let len = range.end - range.start;
    BOOT_START.store(start, Ordering::Relaxed);
    BOOT_END.store(start + len, Ordering::Relaxed);
    // SAFETY: the caller's promise.
    unsafe { BOOT.lock().init(start, len) }
}

/// Switches to the slab allocator. The page allocator is up. `args` are the kernel's, which select the back end and the
/// checks; `seed` hardens the free lists.
pub fn init_slab(args: &str, seed: &[u8]) {
    let config = Config::from_args(|key| bootargs::find(args, key));
    argument(args, "slab", "slub, slab or slob", Backend::from_name);
    if let Some(debug) = bootargs::find(args, "slub_debug") {
        if let Some(letter) = DebugFlags::unknown_letter(debug) {
            log::warn!("slub_debug={debug}: '{letter}' is none of F, Z, P and U");
        }
        if debug.contains(',') {
            log::warn!("slub_debug={debug}: caches cannot be chosen: it holds for all");
        }
        if config.backend == Backend::Slob {
            log::warn!("slub_debug={debug}: has no effect with slab=slob");
        }
    }
    let seed = seed.iter().fold(timer::ticks(), |mix, b| mix.rotate_left(5).wrapping_add(u64::from(*b)));
    // Injected failures start after boot ([`inject_failures`]).
    SLAB.init(Config { seed, failures: FaultInjection::OFF, report: misused, ..config });
    DETOUR.fetch_and(!BOOTING, Ordering::Release);
}

/// Other memory may be damaged too, so the kernel panics, with the report and the names of its call sites.
fn misused(report: &Report) {
    panic!("{}", Misuse(report))
}

struct Misuse<'a>(&'a Report);

impl fmt::Display for Misuse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let tracks = [("found by", Some(self.0.found)), ("allocated by", self.0.allocated), ("freed by", self.0.freed)];
        for (what, track) in tracks {
            for pc in track.iter().flat_map(|track| track.callers).filter(|&pc| pc != 0) {
                write!(f, "\n  {what} {}", Named(pc.wrapping_sub(4)))?;
            }
        }
        Ok(())
    }
}

/// From now on [`FailsOnDemand::fails_allocation`] is called for each allocation, until a matching call of [`ask_no_more`].
pub fn ask_about_failures() {
    DETOUR.fetch_add(ASK, Ordering::Relaxed);
}

/// See [`ask_about_failures`].
pub fn ask_no_more() {
    DETOUR.fetch_sub(ASK, Ordering::Relaxed);
}

/// The slow path of an allocation.
#[cold]
fn alloc_by_detour(layout: Layout, gfp: Gfp) -> *mut u8 {
    if DETOUR.load(Ordering::Relaxed) & BOOTING != 0 {
        return BOOT.lock().alloc(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr);
    }
    if Cpu.fails_allocation(gfp) {
        return core::ptr::null_mut();
    }
    SLAB.alloc_layout(layout, gfp).map_or(core::ptr::null_mut(), NonNull::as_ptr)
}

/// Allocates without waiting; null if there is no memory.
#[inline]
pub fn alloc_now(layout: Layout) -> *mut u8 {
    const NOW: Gfp = Gfp::KERNEL.difference(Gfp::DIRECT_RECLAIM).union(Gfp::NOWARN);
    if DETOUR.load(Ordering::Relaxed) != 0 {
        return alloc_by_detour(layout, NOW);
    }
    SLAB.alloc_layout(layout, NOW).map_or(core::ptr::null_mut(), NonNull::as_ptr)
}

/// As [`alloc_now`], from the reserves too that are for callers which can neither wait nor repeat what they do.
fn alloc_urgent(layout: Layout) -> *mut u8 {
    const URGENT: Gfp = Gfp::ATOMIC.union(Gfp::NOWARN);
    if DETOUR.load(Ordering::Relaxed) != 0 {
        return alloc_by_detour(layout, URGENT);
    }
    SLAB.alloc_layout(layout, URGENT).map_or(core::ptr::null_mut(), NonNull::as_ptr)
}

/// A box in memory that is free, from the reserves too: for callers that hold a spin lock, and of which no program can have any
/// number.
pub fn box_urgent<T>(value: T) -> Result<Box<T>, AllocError> {
    // SAFETY: `alloc_urgent` returns null, or unused memory from the global allocator.
    unsafe { try_box_from(alloc_urgent, || value) }
}

/// Adds a value to a vector, as [`box_urgent`].
pub fn push_urgent<T>(vec: &mut Vec<T>, value: T) -> Result<(), AllocError> {
    const { assert!(size_of::<T>() != 0) }
    if vec.len() == vec.capacity() {
        let capacity = (2 * vec.capacity()).max(4);
        let layout = Layout::array::<T>(capacity).map_err(|_| AllocError)?;
        let place = NonNull::new(alloc_urgent(layout)).ok_or(AllocError)?;
        // SAFETY: unused memory from the global allocator, with the layout of an array.
        let mut larger = unsafe { Vec::from_raw_parts(place.as_ptr().cast(), 0, capacity) };
        // There is room: this cannot allocate.
        #[allow(clippy::disallowed_methods)]
        larger.append(vec);
        *vec = larger;
    }
    vec.try_push(value)
}

/// Lets allocations fail from now on as the kernel arguments `fail_page_alloc=` and `failslab=` say.
pub fn inject_failures(args: &str) {
    let read = |key| argument(args, key, "INTERVAL,PROBABILITY,SPACE,TIMES", FaultInjection::parse);
    if let Some(failures) = read("fail_page_alloc") {
        PAGES.inject_failures(failures);
    }
    if let Some(failures) = read("failslab") {
        SLAB.inject_failures(failures);
    }
}

fn is_boot(ptr: *mut u8) -> bool {
    (BOOT_START.load(Ordering::Relaxed)..BOOT_END.load(Ordering::Relaxed)).contains(&ptr.addr())
}

// SAFETY: both heaps return null or unused memory of the layout, and each gets back its own memory.
unsafe impl GlobalAlloc for Global {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        debug_assert!(
            DETOUR.load(Ordering::Relaxed) & BOOTING != 0 || Cpu.may_wait(),
            "memory that may be waited for is allocated with interrupts masked"
        );
        if DETOUR.load(Ordering::Relaxed) != 0 {
            return alloc_by_detour(layout, Gfp::KERNEL);
        }
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { SLAB.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if DETOUR.load(Ordering::Relaxed) == 0 {
            // SAFETY: the caller's promise about the layout is passed on.
            return unsafe { SLAB.alloc_zeroed(layout) };
        }
        // SAFETY: as above; the memory is as large as the layout.
        unsafe {
            let ptr = self.alloc(layout);
            if !ptr.is_null() {
                ptr.write_bytes(0, layout.size());
            }
            ptr
        }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !is_boot(ptr) {
            if DETOUR.load(Ordering::Relaxed) != 0 && Cpu.fails_allocation(Gfp::KERNEL) {
                return core::ptr::null_mut();
            }
            // SAFETY: a pointer outside of the boot heap came from the slab; the rest is the caller's promise.
            return unsafe { SLAB.realloc(ptr, layout, new_size) };
        }
        // SAFETY: the caller promises that the new size makes a layout; the two blocks are distinct, and the
        // smaller of the two sizes lies in both.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                core::ptr::copy_nonoverlapping(ptr, new, layout.size().min(new_size));
                self.dealloc(ptr, layout);
            }
            new
        }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if !is_boot(ptr) {
            // SAFETY: a pointer outside of the boot heap came from the slab.
            unsafe { SLAB.dealloc(ptr, layout) }
        } else if let Some(ptr) = NonNull::new(ptr) {
            // SAFETY: it came from the boot heap, with this layout.
            unsafe { BOOT.lock().dealloc(ptr, layout) }
        }
    }
}
