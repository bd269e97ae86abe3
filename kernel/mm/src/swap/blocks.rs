//! Packed contents: objects of a size class, in blocks of one to four frames.
//!
//! A size class is a multiple of [`STEP`] bytes. A block's frames need not be contiguous; an object may extend across
//! the end of one (as in Linux's zsmalloc), so that little is wasted at the end of a block. The blocks of a class have
//! the number of frames that wastes least, with at most 64 objects. Allocation and free take a few steps, whatever the
//! store's size.

use core::sync::atomic::Ordering::Relaxed;

use super::lists::{List, body};
use crate::addr::{PAGE_SIZE, Pfn};
use crate::cgroup::Machine;
use crate::frame;

/// The sizes of classes differ by this many bytes.
const STEP: usize = 32;

const CLASSES: usize = PAGE_SIZE / STEP;

/// The smallest class: 64 smaller objects would not fill a frame.
const FIRST_CLASS: usize = 1;

/// The maximum number of frames of a block.
const MOST_FRAMES: usize = 4;

/// The place of an object: its block's first frame, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub block: Pfn,
    /// Bits 6 and above are the number of the class.
    pub index: usize,
}

impl Place {
    fn class(self) -> usize {
        self.index >> 6
    }

    fn number(self) -> usize {
        self.index & 63
    }

    /// Bytes from the block's start.
    fn offset(self) -> usize {
        self.number() * size_of_class(self.class())
    }
}

const fn size_of_class(class: usize) -> usize {
    (class + 1) * STEP
}

const fn class_of(len: usize) -> usize {
    let class = (len - 1) / STEP;
    if class < FIRST_CLASS { FIRST_CLASS } else { class }
}

/// Frames and objects of a block, for each class.
const SHAPES: [(u8, u8); CLASSES] = {
    let mut shapes = [(0, 0); CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let size = size_of_class(class);
        let (mut best, mut least) = ((1, 1), usize::MAX);
        let mut frames = 1;
        while frames <= MOST_FRAMES {
            let fit = frames * PAGE_SIZE / size;
            let objects = if fit < 64 { fit } else { 64 };
            // The waste, in thousandths of the block.
            let left = (frames * PAGE_SIZE - objects * size) * 1000 / (frames * PAGE_SIZE);
            if left < least {
                (best, least) = ((frames as u8, objects as u8), left);
            }
            frames += 1;
        }
        shapes[class] = best;
        class += 1;
    }
    shapes
};

/// All blocks, under the store's lock.
pub(super) struct Blocks<M: Machine> {
    machine: M,
    /// For each class, the blocks with room.
    with_room: [List; CLASSES],
    frames: usize,
}

impl<M: Machine> Blocks<M> {
    pub const fn new(machine: M) -> Self {
        Self { machine, with_room: [const { List::EMPTY }; CLASSES], frames: 0 }
    }

    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Allocates `len` bytes, 1 to a page.
    pub fn alloc(&mut self, len: usize) -> Option<Place> {
        debug_assert!((1..=PAGE_SIZE).contains(&len));
        let class = class_of(len);
        let block = match self.with_room[class].first() {
            Some(block) => block,
            None => self.grow(class)?,
        };
        let body = body(self.machine, block);
        let free = body.free.load(Relaxed);
        let number = free.trailing_zeros() as usize;
        body.free.store(free & (free - 1), Relaxed);
        body.live.fetch_add(1, Relaxed);
        if free & (free - 1) == 0 {
            self.with_room[class].remove(self.machine, block);
        }
        Some(Place { block, index: class << 6 | number })
    }

    fn grow(&mut self, class: usize) -> Option<Pfn> {
        let (frames, objects) = SHAPES[class];
        let mut first = None;
        for _ in 0..frames {
            let Ok(pfn) = frame::alloc_from_reserves(self.machine) else {
                first.into_iter().for_each(|first| self.shrink(first));
                return None;
            };
            body(self.machine, pfn).live.store(0, Relaxed);
            body(self.machine, pfn).free.store(0, Relaxed);
            body(self.machine, pfn).next_frame.store(first.map_or(0, |Pfn(next)| next as u32), Relaxed);
            self.frames += 1;
            first = Some(pfn);
        }
        let block = first?;
        body(self.machine, block).free.store(u64::MAX >> (64 - objects), Relaxed);
        self.with_room[class].push(self.machine, block);
        Some(block)
    }

    pub fn free(&mut self, place: Place, len: usize) {
        let class = place.class();
        debug_assert!(class == class_of(len));
        let body = body(self.machine, place.block);
        let free = body.free.load(Relaxed);
        debug_assert!(free & 1 << place.number() == 0, "freed twice");
        body.free.store(free | 1 << place.number(), Relaxed);
        if free == 0 {
            self.with_room[class].push(self.machine, place.block);
        }
        if body.live.fetch_sub(1, Relaxed) == 1 {
            self.with_room[class].remove(self.machine, place.block);
            self.shrink(place.block);
        }
    }

    /// Frees the frames of a block without objects, which is on no list.
    fn shrink(&mut self, block: Pfn) {
        let mut next = Some(block);
        while let Some(pfn) = next {
            let body = body(self.machine, pfn);
            next = Some(Pfn(body.next_frame.load(Relaxed) as usize)).filter(|pfn| pfn.0 != 0);
            body.next_frame.store(0, Relaxed);
            body.free.store(0, Relaxed);
            self.frames -= 1;
            frame::free_kernel(self.machine, pfn);
        }
    }
}

/// The address of byte `offset` of an object, and the number of bytes from there to the end of its frame.
fn spot<M: Machine>(machine: M, place: Place, offset: usize) -> (*mut u8, usize) {
    let mut pfn = place.block;
    for _ in 0..offset / PAGE_SIZE {
        pfn = Pfn(body(machine, pfn).next_frame.load(Relaxed) as usize);
    }
    let inside = offset % PAGE_SIZE;
    // (Within the frame.)
    (machine.direct_map(pfn.addr()).wrapping_add(inside), PAGE_SIZE - inside)
}

/// Writes an object that only the caller knows.
pub(super) fn write<M: Machine>(machine: M, place: Place, bytes: &[u8]) {
    let mut done = 0;
    while done < bytes.len() {
        let (to, room) = spot(machine, place, place.offset() + done);
        let n = room.min(bytes.len() - done);
        // SAFETY: the object's bytes are in the block, and belong to the caller alone; the source does not overlap
        // them.
        unsafe { core::ptr::copy_nonoverlapping(bytes[done..].as_ptr(), to, n) };
        done += n;
    }
}

/// Reads an object of a slot with users.
pub(super) fn read<M: Machine>(machine: M, place: Place, into: &mut [u8]) {
    let mut done = 0;
    while done < into.len() {
        let (from, room) = spot(machine, place, place.offset() + done);
        let n = room.min(into.len() - done);
        // SAFETY: the object's bytes are in the block, and nobody writes to them; the destination does not overlap
        // them.
        unsafe { core::ptr::copy_nonoverlapping(from, into[done..].as_mut_ptr(), n) };
        done += n;
    }
}

/// The bytes of an object of a slot with users, if they are in one frame.
pub(super) fn contiguous<'a, M: Machine>(machine: M, place: Place, len: usize) -> Option<&'a [u8]> {
    let (from, room) = spot(machine, place, place.offset());
    // SAFETY: as in `read`; the slot's user keeps the object for as long as it uses the bytes.
    (len <= room).then(|| unsafe { core::slice::from_raw_parts(from, len) })
}
