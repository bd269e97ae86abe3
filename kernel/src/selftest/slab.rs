//! Checks of the slab allocator, with any back end: sizes, contents, constructors, `krealloc`, and objects that one CPU
//! allocates and another frees.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use quire_mm::addr::PAGE_SIZE;
use quire_mm::buddy::MAX_ORDER;
use quire_mm::machine::MAX_CPUS;
use quire_mm::page_alloc::Gfp;
use quire_mm::slab::{CacheSpec, SlabFlags};
use quire_platform::bootargs;

use super::crew::{self, Place};
use super::random::Random;
use super::{Check, Outcome, expect, some};
use crate::board::BOARD;
use crate::vm::heap::SLAB;

pub const CHECKS: &[Check] = &[
    ("slab: kmalloc of every class", kmalloc_of_every_class),
    ("slab: kzalloc and kcalloc", zeroed),
    ("slab: krealloc keeps what was there", krealloc),
    ("slab: sizes beyond the largest", no_such_size),
    ("slab: caches of all sizes and alignments", caches),
    ("slab: constructors run once", constructors),
    ("slab: many objects at once", bulk),
    ("slab: all CPUs free each other's", || crew::on_all(exchange).and_then(|()| crew::on_all(collect))),
];

/// The largest request: the buddy's largest block.
const LARGEST: usize = PAGE_SIZE << MAX_ORDER;

/// Each class's size, one less and one more, and sizes of whole pages.
fn sizes() -> impl Iterator<Item = usize> {
    let classes = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192];
    let pages = [16 << 10, 100_000, 128 << 10, LARGEST];
    classes.into_iter().flat_map(|size| [size - 1, size, size + 1]).chain([0, 1]).chain(pages)
}

/// Memory that the caller alone has, as bytes.
fn bytes<'a>(object: NonNull<u8>, size: usize) -> &'a mut [u8] {
    // SAFETY: the callers own the objects that they pass, which have this many bytes, and stop using the slice before
    // they free them.
    unsafe { core::slice::from_raw_parts_mut(object.as_ptr(), size) }
}

fn free(object: NonNull<u8>) {
    // SAFETY: the checks free each object from kmalloc once.
    unsafe { SLAB.kfree(object.as_ptr()) }
}

fn kmalloc_of_every_class() -> Outcome {
    for size in sizes() {
        let mut held = [None; 5];
        for (i, slot) in held.iter_mut().enumerate() {
            let object = some(SLAB.kmalloc(size, Gfp::KERNEL), "an object")?;
            // SAFETY: it lives.
            let room = unsafe { SLAB.ksize(object) };
            expect(room >= size.max(1), "room for what was asked")?;
            let align = if size.is_power_of_two() { size.clamp(8, PAGE_SIZE) } else { 8 };
            expect(object.as_ptr().addr().is_multiple_of(align), "aligned to its size")?;
            bytes(object, size).fill(i as u8);
            *slot = Some(object);
        }
        for (i, object) in held.into_iter().enumerate() {
            let object = some(object, "held")?;
            expect(bytes(object, size).iter().all(|&b| b == i as u8), "nobody else wrote to it")?;
            free(object);
        }
    }
    // SAFETY: null is no memory.
    unsafe { SLAB.kfree(core::ptr::null_mut()) };
    Ok(())
}

fn zeroed() -> Outcome {
    for size in sizes().filter(|&size| size <= 128 << 10) {
        let dirty = some(SLAB.kmalloc(size, Gfp::KERNEL), "an object to dirty")?;
        bytes(dirty, size).fill(0xff);
        free(dirty);
        let clean = some(SLAB.kzalloc(size, Gfp::KERNEL), "a clean object")?;
        expect(bytes(clean, size).iter().all(|&b| b == 0), "all zeros")?;
        free(clean);
    }
    let array = some(SLAB.kcalloc(100, 24, Gfp::KERNEL), "an array")?;
    expect(bytes(array, 2400).iter().all(|&b| b == 0), "all zeros")?;
    free(array);
    Ok(())
}

fn krealloc() -> Outcome {
    let byte = |i: usize| (i * 7 + i / 256) as u8;
    let mut random = Random::new(1);
    // SAFETY: null is an empty object.
    let mut object = some(unsafe { SLAB.krealloc(core::ptr::null_mut(), 1, Gfp::KERNEL) }, "a first object")?;
    let mut size = 1;
    bytes(object, size)[0] = byte(0);
    for _ in 0..300 {
        let new = 1 + random.below_power(18);
        // SAFETY: the old object lives, and only the new one is used afterwards.
        object = some(unsafe { SLAB.krealloc(object.as_ptr(), new, Gfp::KERNEL) }, "the object, resized")?;
        let kept = size.min(new);
        expect(bytes(object, kept).iter().enumerate().all(|(i, &b)| b == byte(i)), "its contents")?;
        bytes(object, new).iter_mut().enumerate().for_each(|(i, b)| *b = byte(i));
        size = new;
    }
    free(object);
    Ok(())
}

fn no_such_size() -> Outcome {
    let gfp = Gfp::KERNEL | Gfp::NOWARN;
    expect(SLAB.kmalloc(LARGEST + 1, gfp).is_none(), "beyond the largest block")?;
    expect(SLAB.kmalloc(usize::MAX, gfp).is_none(), "all of the address space")?;
    expect(SLAB.kcalloc(usize::MAX / 8, 16, gfp).is_none(), "a product that overflows")?;
    let small = some(SLAB.kmalloc(24, gfp), "an object")?;
    // SAFETY: it lives, and stays on failure.
    expect(unsafe { SLAB.krealloc(small.as_ptr(), LARGEST + 1, gfp) }.is_none(), "grown beyond it")?;
    free(small);
    expect(SLAB.create(CacheSpec::new("huge", LARGEST * 2, 8)).is_err(), "a cache of objects beyond it")
}

fn caches() -> Outcome {
    for (size, align) in [(1, 1), (8, 8), (24, 8), (40, 64), (100, 4), (700, 128), (3000, 8), (5000, 4096), (9000, 16)]
    {
        for flags in [SlabFlags::empty(), SlabFlags::HWCACHE_ALIGN] {
            let spec = CacheSpec { flags, ..CacheSpec::new("selftest", size, align) };
            let cache = some(SLAB.create(spec).ok(), "a cache")?;
            let mut held = [None; 40];
            expect(cache.alloc_bulk(Gfp::KERNEL, &mut held) == held.len(), "objects")?;
            for (i, object) in held.iter().flatten().enumerate() {
                expect(object.as_ptr().addr().is_multiple_of(align), "aligned as it was asked")?;
                bytes(*object, size).fill(i as u8);
            }
            for (i, object) in held.iter().flatten().enumerate() {
                expect(bytes(*object, size).iter().all(|&b| b == i as u8), "objects apart")?;
            }
            expect(cache.live_objects() == held.len(), "live objects")?;
            let kept = some(held[0].take(), "held")?;
            // SAFETY: each came from this cache and is given back once.
            unsafe { cache.free_bulk(&mut held) };
            let Err(cache) = cache.destroy() else { return expect(false, "a cache in use was destroyed") };
            // SAFETY: as above; it was kept.
            unsafe { cache.free(kept) };
            expect(cache.destroy().is_ok(), "an empty cache ends")?;
        }
    }
    Ok(())
}

/// Objects that the constructor made.
static MADE: AtomicUsize = AtomicUsize::new(0);
const CONSTRUCTED: u8 = 0x5c;

fn constructors() -> Outcome {
    const SIZE: usize = 200;
    fn construct(object: *mut u8) {
        MADE.fetch_add(1, Ordering::Relaxed);
        // SAFETY: a constructor is given an object's memory.
        unsafe { object.write_bytes(CONSTRUCTED, SIZE) };
    }
    MADE.store(0, Ordering::Relaxed);
    let spec = CacheSpec { constructor: Some(construct), ..CacheSpec::new("constructed", SIZE, 8) };
    let cache = some(SLAB.create(spec).ok(), "a cache")?;
    for _ in 0..50 {
        let mut held = [None; 30];
        expect(cache.alloc_bulk(Gfp::KERNEL | Gfp::ZERO, &mut held) == held.len(), "objects")?;
        let sound = |object: &NonNull<u8>| bytes(*object, SIZE).iter().all(|&b| b == CONSTRUCTED);
        expect(held.iter().flatten().all(sound), "as the constructor or the last owner left it")?;
        // SAFETY: each came from this cache and is given back once.
        unsafe { cache.free_bulk(&mut held) };
    }
    // SLOB has no fixed places for objects, so it runs the constructor at every allocation.
    let is_slob = bootargs::find(BOARD.get().chosen.bootargs.as_str(), "slab") == Some("slob");
    let most = if is_slob { 1500 } else { 300 };
    expect((30..=most).contains(&MADE.load(Ordering::Relaxed)), "once an object, not once an allocation")?;
    expect(cache.destroy().is_ok(), "the cache ends")
}

fn bulk() -> Outcome {
    const OBJECTS: usize = 20_000;
    for size in [16, 64, 500, 2048] {
        // A list through the objects' own first words.
        let mut list: Option<NonNull<u8>> = None;
        for i in 0..OBJECTS {
            let object = some(SLAB.kmalloc(size, Gfp::KERNEL), "an object")?.cast::<(usize, usize)>();
            let next = list.map_or(0, |next| next.as_ptr().expose_provenance());
            // SAFETY: the object is this check's and has two words.
            unsafe { object.write((next, i)) };
            list = Some(object.cast());
        }
        for i in (0..OBJECTS).rev() {
            let object = some(list, "an object of the list")?;
            // SAFETY: the object is this check's and holds what was written above.
            let (next, number) = unsafe { object.cast::<(usize, usize)>().read() };
            expect(number == i, "in their order")?;
            free(object);
            list = NonNull::new(core::ptr::with_exposed_provenance_mut(next));
        }
    }
    Ok(())
}

/// Objects on their way from one CPU to the next, 0 for none. The first word of each is its size.
static MAIL: [[AtomicUsize; SLOTS]; MAX_CPUS] = [const { [const { AtomicUsize::new(0) }; SLOTS] }; MAX_CPUS];
const SLOTS: usize = 64;

/// Allocates objects and passes them to the next CPU, and frees objects from the previous one. A failed allocation is
/// not an error: [`super::memory`] runs this with failures injected.
pub fn exchange(place: Place) -> Outcome {
    let mut random = Random::new(place.me + 100);
    for round in place.rounds() {
        let size = size_of::<usize>() + random.below_power(14);
        if let Some(object) = SLAB.kmalloc(size, Gfp::KERNEL) {
            // SAFETY: the object is this check's and begins with a word's room.
            unsafe { object.cast::<usize>().write(size) };
            bytes(object, size)[size_of::<usize>()..].fill(size as u8);
            let address = object.as_ptr().expose_provenance();
            end(MAIL[place.next()][random.below(SLOTS)].swap(address, Ordering::AcqRel))?;
        }
        end(MAIL[place.me][round % SLOTS].swap(0, Ordering::AcqRel))?;
    }
    Ok(())
}

/// Frees what is left for this CPU.
pub fn collect(place: Place) -> Outcome {
    MAIL[place.me].iter().try_for_each(|slot| end(slot.swap(0, Ordering::AcqRel)))
}

/// Checks an object and frees it.
fn end(address: usize) -> Outcome {
    let Some(object) = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(address)) else { return Ok(()) };
    // SAFETY: `exchange` wrote it, and the swap gave the object to nobody else.
    let size = unsafe { object.cast::<usize>().read() };
    let sound = bytes(object, size)[size_of::<usize>()..].iter().all(|&b| b == size as u8);
    free(object);
    expect(sound, "an object holds what its owner wrote")
}
