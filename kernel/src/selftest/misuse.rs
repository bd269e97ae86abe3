//! Misuse of the kernel's memory, which must end in a panic: `selftest=` with one of the names below. The caller checks
//! that the report names the object and the code that misused it.

use core::hint::black_box;
use core::ptr::NonNull;

use quire_mm::page_alloc::Gfp;
use quire_mm::slab::{CacheHandle, CacheSpec};

use super::say;
use crate::vm::heap::SLAB;
use crate::vm::{Cpu, PAGES};

type Cache = CacheHandle<Cpu>;

/// A way and its name.
type Way = (&'static str, fn() -> Option<()>);

/// The ways. Each is expected not to return.
const WAYS: &[Way] = &[
    ("double-free", double_free),
    ("late-double-free", late_double_free),
    ("use-after-free", use_after_free),
    ("overrun", overrun),
    ("wrong-cache", wrong_cache),
    ("page-double-free", page_double_free),
    ("page-use-after-free", page_use_after_free),
];

/// Runs the given way, if it is known. If it returns, that is a failure, and the result is the number of failures.
pub fn run(way: &str) -> Option<usize> {
    let (name, misuse) = WAYS.iter().find(|(name, _)| *name == way)?;
    let done = misuse();
    say(format_args!("not ok - {name}: {}", if done.is_some() { "nobody noticed" } else { "no memory" }));
    Some(1)
}

/// Bytes of the objects that are misused.
const SIZE: usize = 72;

fn victims() -> Option<Cache> {
    SLAB.create(CacheSpec::new("victim", SIZE, 8)).ok()
}

#[inline(never)]
fn allocates(cache: &Cache) -> Option<NonNull<u8>> {
    black_box(cache.alloc(Gfp::KERNEL))
}

#[inline(never)]
fn frees(cache: &Cache, object: NonNull<u8>) {
    // SAFETY: allocated from this cache, by `allocates`.
    unsafe { cache.free(black_box(object)) }
    black_box("once");
}

#[inline(never)]
fn frees_again(cache: &Cache, object: NonNull<u8>) {
    // SAFETY: it was freed already: this tests whether the allocator detects that.
    unsafe { cache.free(black_box(object)) }
    black_box("again");
}

#[inline(never)]
fn writes(object: NonNull<u8>, at: usize) {
    // SAFETY: mapped memory of a slab, but not this check's: this tests whether the allocator detects that.
    unsafe { object.as_ptr().add(black_box(at)).write_volatile(0x41) }
}

/// At once.
fn double_free() -> Option<()> {
    let cache = victims()?;
    let object = allocates(&cache)?;
    frees(&cache, object);
    frees_again(&cache, object);
    Some(())
}

/// After others were freed.
fn late_double_free() -> Option<()> {
    let cache = victims()?;
    let objects = [(); 20].map(|()| allocates(&cache));
    objects.into_iter().flatten().for_each(|object| frees(&cache, object));
    frees_again(&cache, objects[3]?);
    Some(())
}

/// A write to a free object is found when it is allocated again, at the latest when all others have been.
fn use_after_free() -> Option<()> {
    let cache = victims()?;
    let object = allocates(&cache)?;
    frees(&cache, object);
    writes(object, 16);
    (0..1000).try_for_each(|_| allocates(&cache).map(drop))
}

/// A write behind an object is found when it is freed.
fn overrun() -> Option<()> {
    let cache = victims()?;
    let object = allocates(&cache)?;
    writes(object, SIZE);
    frees(&cache, object);
    Some(())
}

fn wrong_cache() -> Option<()> {
    let (one, other) = (victims()?, SLAB.create(CacheSpec::new("other", 200, 8)).ok()?);
    let object = allocates(&one)?;
    frees(&other, object);
    Some(())
}

fn page_double_free() -> Option<()> {
    let pfn = PAGES.alloc_raw(0, Gfp::KERNEL).ok()?;
    // SAFETY: the second call violates the contract: this tests whether the allocator detects that.
    (0..2).for_each(|_| unsafe { PAGES.free_pages(pfn, 0) });
    Some(())
}

/// Found when the page is handed out again.
fn page_use_after_free() -> Option<()> {
    let page = PAGES.alloc_page(Gfp::KERNEL).ok()?;
    let at = NonNull::new(page.as_ptr())?;
    drop(page);
    writes(at, 100);
    // It is among the next pages allocated, since it was freed last.
    let _next = [(); 8].map(|()| PAGES.alloc_page(Gfp::KERNEL).ok());
    Some(())
}
