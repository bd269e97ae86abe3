//! The kernel's shrinkers, for when memory runs short.

use quire_mm::page_alloc::Shrinker;

use super::heap;
use super::machine::PAGES;
use super::stack::SPARES;
use super::vmalloc::VMALLOC;

/// Registers the shrinkers of the kernel's caches; the page allocator calls them in this order, the cheapest first.
pub fn init() {
    let shrinkers: [&dyn Shrinker; 3] = [&SPARES, &VMALLOC, &heap::SLAB];
    for shrinker in shrinkers {
        if !PAGES.register_shrinker(shrinker) {
            log::warn!("no room for a shrinker");
        }
    }
}
