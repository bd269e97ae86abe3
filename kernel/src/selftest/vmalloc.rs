//! Checks of virtually contiguous memory and of per-CPU memory, over the live tables.

use core::sync::atomic::{AtomicUsize, Ordering};

use quire_mm::Machine;
use quire_mm::addr::{PAGE_SIZE, Pfn, VirtAddr};
use quire_mm::kernel_table::KernelAttrs;
use quire_mm::machine::MAX_CPUS;
use quire_mm::page_alloc::{Gfp, PageList};
use quire_mm::percpu::PerCpu;
use quire_mm::sync::Rank;
use quire_mm::vmalloc::VmError;

use super::{Check, Outcome, crew, expect, got, some};
use crate::vm::percpu::AREAS;
use crate::vm::vmalloc::VMALLOC;
use crate::vm::{Cpu, PAGES, SpinLock};

pub const CHECKS: &[Check] = &[
    ("vmalloc: areas on all CPUs, their frames back after a purge", areas),
    ("vmalloc: addresses are used again, and show new frames on all CPUs", addresses_again),
    ("vmap: frames in any order, writable and read-only", vmap),
    ("per-CPU: each CPU has its own", per_cpu),
];

/// A word of an area.
fn word(start: VirtAddr, index: usize) -> *mut usize {
    core::ptr::with_exposed_provenance_mut::<usize>(start.get()).wrapping_add(index)
}

/// Words in a page.
const WORDS: usize = PAGE_SIZE / size_of::<usize>();

fn areas() -> Outcome {
    let frames = VMALLOC.frames();
    crew::on_all(|place| {
        let mut kept = [None; 4];
        for round in 0..40 {
            let pages = 1 + (round * 7 + place.me) % 20;
            let start = some(VMALLOC.vmalloc(pages * PAGE_SIZE, Gfp::KERNEL | Gfp::ZERO).ok(), "an area")?;
            for page in 0..pages {
                // SAFETY: the area is this check's and has `pages` pages.
                unsafe {
                    expect(word(start, page * WORDS).read_volatile() == 0, "zeros where they were asked for")?;
                    word(start, page * WORDS).write_volatile(start.get() + page);
                }
            }
            if let Some((old, pages)) = kept[round % 4].replace((start, pages)) {
                check_and_free(old, pages)?;
            }
        }
        kept.into_iter().flatten().try_for_each(|(start, pages)| check_and_free(start, pages))
    })?;
    VMALLOC.purge();
    expect(VMALLOC.lazy_pages() == 0, "nothing waits for a purge")?;
    expect(VMALLOC.frames() == frames, "the areas' frames are back")
}

fn check_and_free(start: VirtAddr, pages: usize) -> Outcome {
    for page in 0..pages {
        // SAFETY: as above.
        let found = unsafe { word(start, page * WORDS).read_volatile() };
        expect(found == start.get() + page, "what was written is there")?;
    }
    // SAFETY: nobody uses the area any more.
    expect(unsafe { VMALLOC.vfree(start) }.is_ok(), "an area ends")
}

/// The address that all CPUs read, and the value that they should see.
static SHOWN: AtomicUsize = AtomicUsize::new(0);
static WANTED: AtomicUsize = AtomicUsize::new(0);

fn addresses_again() -> Outcome {
    let mut first = None;
    for round in 0..64 {
        let start = some(VMALLOC.vmalloc(PAGE_SIZE, Gfp::KERNEL).ok(), "an area")?;
        // The lowest free address: always the same one, once it was purged.
        expect(*first.get_or_insert(start) == start, "the address is used again")?;
        // SAFETY: the area is this check's.
        unsafe { word(start, 0).write_volatile(round) };
        WANTED.store(round, Ordering::Relaxed);
        SHOWN.store(start.get(), Ordering::Release);
        crew::on_all(|_| {
            let start = VirtAddr::new(SHOWN.load(Ordering::Acquire));
            // SAFETY: it lives until all are done.
            let seen = unsafe { word(start, 0).read_volatile() };
            expect(seen == WANTED.load(Ordering::Relaxed), "each CPU sees the new frame")
        })?;
        // SAFETY: all CPUs are done with it.
        expect(unsafe { VMALLOC.vfree(start) }.is_ok(), "an area ends")?;
        // SAFETY: the call is refused. (Nothing else makes areas now, so the address is not in use again.)
        expect(unsafe { VMALLOC.vfree(start) } == Err(VmError::Invalid), "but once only")?;
        VMALLOC.purge();
    }
    Ok(())
}

fn vmap() -> Outcome {
    const N: usize = 6;
    let mut list = PageList::new();
    let mut frames = [Pfn(0); N];
    for frame in &mut frames {
        *frame = got(PAGES.alloc_raw(0, Gfp::KERNEL), "a frame")?;
    }
    frames.reverse();
    for (i, frame) in frames.iter().enumerate() {
        // SAFETY: the frame is this check's.
        unsafe { Cpu.direct_map(frame.addr()).cast::<usize>().write_volatile(i) };
    }
    let outcome = [KernelAttrs::DATA, KernelAttrs::DATA.read_only()].into_iter().try_for_each(|attrs| {
        let start = some(VMALLOC.vmap(&frames, attrs).ok(), "a mapping")?;
        // SAFETY: `N` pages are mapped there.
        let right = (0..N).all(|i| unsafe { word(start, i * WORDS).read_volatile() } == i);
        // SAFETY: nobody uses it any more.
        expect(unsafe { VMALLOC.vunmap(start) }.is_ok(), "a mapping ends")?;
        expect(right, "the frames in their order")
    });
    VMALLOC.purge();
    for frame in frames {
        // SAFETY: they are this check's, and nothing maps them any more.
        unsafe { list.push(Cpu, frame) };
    }
    // SAFETY: as above.
    unsafe { PAGES.free_batch(&mut list) };
    outcome
}

fn per_cpu() -> Outcome {
    static FOUND: SpinLock<[usize; MAX_CPUS]> = SpinLock::new(Cpu, Rank::Log, [0; MAX_CPUS]);
    let used = AREAS.used();
    let each = got(PerCpu::<AtomicUsize, Cpu>::try_new(&AREAS, AtomicUsize::new), "a word a CPU")?;
    SHOWN.store(core::ptr::from_ref(&each).expose_provenance(), Ordering::Release);
    crew::on_all(|place| {
        let at = core::ptr::with_exposed_provenance::<PerCpu<AtomicUsize, Cpu>>(SHOWN.load(Ordering::Acquire));
        // SAFETY: `each` lives until all are done.
        let own = unsafe { &*at }.this();
        expect(own.load(Ordering::Relaxed) == place.me, "its own first value")?;
        own.store(place.me + 100, Ordering::Relaxed);
        FOUND.lock()[place.me] = core::ptr::from_ref(own).addr();
        Ok(())
    })?;
    let found = FOUND.lock();
    for (cpu, value) in each.iter().enumerate().take(crew::size()) {
        expect(value.load(Ordering::Relaxed) == cpu + 100, "each wrote its own")?;
        expect(found[cpu] == core::ptr::from_ref(value).addr(), "at its own place")?;
    }
    drop(found);
    drop(each);
    expect(AREAS.used() == used, "the place is free again")
}
