//! The table of slab caches that slabinfo and slabtop share.

use quire_rt::abi::statistics::SlabCacheInfo;
use quire_rt::{info, println};

/// The heading of the lines that [`print`] writes.
pub const HEADING: &str = "name                active    total   size stride   slabs      KiB";

/// One cache.
pub fn print(cache: &SlabCacheInfo) {
    println!(
        "{:16} {:9} {:8} {:6} {:6} {:7} {:8}",
        info::text(&cache.name),
        cache.active,
        cache.total,
        cache.object_size,
        cache.stride,
        cache.slabs,
        crate::kib(cache.pages)
    );
}
