//! The layout of objects in a slab.

use crate::addr::PAGE_SIZE;
use crate::slab::debug_flags::{DebugFlags, bytes_behind_link};
use crate::slab::spec::{CacheSpec, SlabFlags};
use crate::slab::state::MAX_COLOURS;

/// The largest cache line of the supported machines.
pub(super) const CACHE_LINE: usize = 64;

/// The largest order that a slab uses for better packing; larger objects get larger slabs.
const PREFERRED_ORDER: u32 = 3;

/// The largest alignment that a cache can ask for.
const MAX_ALIGN: usize = PAGE_SIZE << PREFERRED_ORDER;

/// The largest order that the buddy allocator has.
pub(super) const MAX_ORDER: u32 = 10;

/// The layout of one cache's slabs.
///
/// ```text
///        | object | padding | link if it must not be in the object |
/// ^ cell 0        size                                         cell + stride
/// ```
///
/// A debug option puts red zones around the object and its own words behind the link: see [`super::debug`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// Bytes of an object that its owner may use.
    pub(super) size: usize,
    /// The distance between two objects.
    pub(super) stride: usize,
    /// Bytes of a cell before its object.
    pub(super) lead: usize,
    /// The offset of a free object's link.
    pub(super) link: usize,
    /// The wanted size of a slab.
    pub(super) order: u32,
    /// The smallest slab that holds an object.
    pub(super) min_order: u32,
    /// The alignment of objects.
    pub(super) align: usize,
    /// The distance between two colours.
    colour_step: usize,
    /// See [`Geometry::index`].
    reciprocal: u64,
}

/// Cells and slabs are multiples of 8 bytes: this many bits suffice for a slab's length in words.
const WORD_BITS: u32 = PAGE_SIZE.ilog2() + MAX_ORDER - 3;

impl Geometry {
    /// `None` for a size or alignment that no slab can have.
    pub(super) fn new(spec: &CacheSpec, debug: DebugFlags) -> Option<Geometry> {
        if !spec.align.is_power_of_two() || spec.align > MAX_ALIGN || spec.size > PAGE_SIZE << MAX_ORDER {
            return None;
        }
        let align = spec.effective_align();
        let is_debug = debug.intersects(DebugFlags::LAYOUT);
        let words = spec.size.max(1).next_multiple_of(8);
        // A red zone begins at the first byte after the owner's, and has at least 8 bytes.
        let size = if is_debug { spec.size.max(1) } else { words };
        let lead = if debug.contains(DebugFlags::RED_ZONE) { align } else { 0 };
        // A constructed object keeps its contents while it is free, so the link is placed after it, and likewise if the
        // contents are checked. Otherwise the link is in the middle, out of reach of small overflows of the preceding
        // object.
        let (link, end) = if is_debug {
            (words + 8, words + 16 + bytes_behind_link(debug))
        } else if spec.constructor.is_some() {
            (words, words + 8)
        } else {
            ((words / 2) & !7, words)
        };
        let stride = (lead + end).next_multiple_of(align);
        // A slab is aligned to its own size.
        let min_order = order_for(stride.max(align));
        if min_order > MAX_ORDER {
            return None;
        }
        let order = best_order(stride, min_order);
        let colour_step = align.max(CACHE_LINE);
        let reciprocal = (1 << (2 * WORD_BITS)) / (stride as u64 / 8) + 1;
        Some(Geometry { size, stride, lead, link, order, min_order, align, colour_step, reciprocal })
    }

    /// Where the first object of a slab of this colour is.
    pub(super) fn first(&self, colour: u32) -> usize {
        colour as usize * self.colour_step + self.lead
    }

    /// The index of the object that begins `offset` bytes after the first one of its slab, if one does.
    ///
    /// Every object that leaves the fast path is checked in this way: by a multiplication, which takes a third of the
    /// time of a division. With n and d of `WORD_BITS` bits, n * (2^(2 * WORD_BITS) / d + 1) is too large by less than
    /// n / d's distance from the next whole number (Granlund and Montgomery 1994).
    #[inline]
    pub(super) fn index(&self, offset: usize) -> Option<usize> {
        let words = offset as u64 / 8;
        let index = (words * self.reciprocal) >> (2 * WORD_BITS);
        (index as usize * self.stride == offset).then_some(index as usize)
    }

    /// How many colours a slab of this order can have: the space that objects leave over, in steps.
    pub(super) fn colours(&self, order: u32) -> u32 {
        let left = (PAGE_SIZE << order) % self.stride;
        ((left / self.colour_step) as u32 + 1).min(MAX_COLOURS)
    }

    /// How many objects a slab of this order holds.
    pub(super) fn objects(&self, order: u32) -> u32 {
        ((PAGE_SIZE << order) / self.stride) as u32
    }
}

impl CacheSpec {
    /// The alignment that objects actually get.
    fn effective_align(&self) -> usize {
        let mut align = self.align.max(8);
        if self.flags.contains(SlabFlags::HWCACHE_ALIGN) {
            // Small objects share a line evenly instead of wasting most of it.
            let mut line = CACHE_LINE;
            while line > 8 && self.size <= line / 2 {
                line /= 2;
            }
            align = align.max(line);
        }
        align
    }
}

/// The smallest order with this many bytes.
pub(super) const fn order_for(bytes: usize) -> u32 {
    bytes.div_ceil(PAGE_SIZE).next_power_of_two().trailing_zeros()
}

/// The smallest order that holds eight objects and wastes at most an eighth; otherwise the best of the preferred
/// orders.
fn best_order(stride: usize, min_order: u32) -> u32 {
    let waste = |order: u32| ((PAGE_SIZE << order) % stride) << (PREFERRED_ORDER.max(order) - order);
    let good = |order: u32| {
        let bytes = PAGE_SIZE << order;
        bytes / stride >= 8 && bytes % stride <= bytes / 8
    };
    let orders = min_order..=PREFERRED_ORDER.max(min_order);
    orders.clone().find(|&o| good(o)).or_else(|| orders.min_by_key(|&o| waste(o))).unwrap_or(min_order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_their_index_and_what_lies_between_has_none() {
        for stride in (8..=PAGE_SIZE).step_by(8).chain([3 << 14, 1 << 20, (1 << 22) - 8, 1 << 22]) {
            let geometry = Geometry::new(&CacheSpec::new("test", stride, 8), DebugFlags::empty()).unwrap();
            assert_eq!(geometry.stride, stride);
            let objects = (PAGE_SIZE << MAX_ORDER) / stride;
            for index in (0..objects).step_by((objects / 100).max(1)).chain([objects - 1]) {
                let offset = index * stride;
                assert_eq!(geometry.index(offset), Some(index), "{index} of {stride}");
                for other in [offset + 1, offset + stride - 1, offset + stride - 8] {
                    assert!(other % stride == 0 || geometry.index(other).is_none(), "{other} of {stride}");
                }
            }
        }
    }
}
