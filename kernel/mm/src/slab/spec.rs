//! The parameters of a cache: its specification, its options, and the available back ends.

/// The back ends, as `slab=` on the kernel command line names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Per-CPU active slabs, and per-CPU arrays for objects freed to other slabs: the fastest.
    Slub,
    /// Three lists of slabs, colouring, and per-CPU arrays.
    Slab,
    /// First fit, shared by all sizes: the smallest.
    Slob,
}

impl Backend {
    /// The back end of this name.
    pub fn from_name(name: &str) -> Option<Backend> {
        match name {
            "slub" => Some(Backend::Slub),
            "slab" => Some(Backend::Slab),
            "slob" => Some(Backend::Slob),
            _ => None,
        }
    }
}

bitflags::bitflags! {
    /// Options of a cache.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SlabFlags: u32 {
        /// Objects start at cache lines, or share one evenly if they are small.
        const HWCACHE_ALIGN = 1 << 0;
        /// Objects are in zone DMA, where the most limited device can reach them (`SLAB_CACHE_DMA`). SLOB, whose pages
        /// all caches share, uses SLAB for such a cache.
        const DMA = 1 << 1;
        /// Objects are below 4 GiB (`SLAB_CACHE_DMA32`); otherwise as with DMA.
        const DMA32 = 1 << 2;
    }
}

/// The specification of a cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheSpec {
    /// The name in slabinfo.
    pub name: &'static str,
    /// Bytes of an object.
    pub size: usize,
    /// A power of two that objects are aligned to, at most 8 pages; at least 8 bytes in effect.
    pub align: usize,
    /// Options.
    pub flags: SlabFlags,
    /// Runs once for every object when its slab is made. A free object keeps its contents, so a user must free it in
    /// the constructed state.
    pub constructor: Option<fn(*mut u8)>,
}

impl CacheSpec {
    /// A plain cache for objects of this size and alignment.
    pub const fn new(name: &'static str, size: usize, align: usize) -> Self {
        Self { name, size, align, flags: SlabFlags::empty(), constructor: None }
    }

    /// A cache for values of type `T`.
    pub const fn of<T>(name: &'static str) -> Self {
        Self::new(name, size_of::<T>(), align_of::<T>())
    }
}
