//! The chunk: a block with its boundary tags, as the allocator sees it.
//!
//! A chunk is named by the address of its block (a multiple of 16). Its header is the word in front of the block:
//!
//! ```text
//!  block-16  the previous chunk's size, if that one is free (its footer); else the previous block's last word
//!  block- 8  u32 low:  size bits 4..32, and the flags below
//!  block- 4  u32 high: size bits 32..48, exclusive-or'ed with the seal while the owner holds the block
//!  block     the owner's bytes up to block + size - 8; of a free chunk: up to three links, and its footer at the end
//! ```
//!
//! The seal is a secret mixed with the block's address. Only a block that its owner holds carries it: it is put on
//! when the block is handed out and taken off when it comes back. So a pointer that was never handed out, a pointer
//! freed before, and a header that was written over all show at the next call, each for one compare.
//!
//! Who may write what: `low` changes only under the arena's lock (the neighbour's free sets and clears [`PREV`]);
//! `high` belongs to whoever holds the block. They are separate atomics, so neither side can undo the other's write.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Bytes of header in front of a block.
pub const HEAD: usize = 8;
/// Blocks are multiples of this, in address and in size.
pub const ALIGN: usize = 16;
/// The smallest chunk: a header, two links and a footer.
pub const MIN: usize = 32;
/// No request can be larger; keeps every sum below from wrapping.
pub const MAX_REQUEST: usize = 1 << 47;

/// The chunk before this one is not in a bin.
pub const PREV: u32 = 1;
/// This chunk is not in a bin: its owner, a thread's cache or a fast bin has it.
pub const USED: u32 = 2;
/// It lies in a region of an arena other than the first.
pub const OTHER: u32 = 4;
/// With [`USED`]: it is a mapping of its own. The word at block-16 is the block's distance from the mapping's start.
pub const MAPPED: u32 = 8;
/// Without [`USED`]: it is on the unsorted list.
pub const UNSORTED: u32 = 8;

const FLAGS: u32 = 15;

/// A chunk in mapped memory. Making one promises that the header's word can be read and written.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Chunk(pub *mut u8);

impl Chunk {
    /// No chunk: the end of a list.
    pub const NONE: Chunk = Chunk(core::ptr::null_mut());

    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.0.is_null()
    }

    /// `self`, unless it is [`Chunk::NONE`].
    #[inline(always)]
    pub fn some(self) -> Option<Chunk> {
        if self.is_none() { None } else { Some(self) }
    }

    #[inline(always)]
    fn low_word(&self) -> &AtomicU32 {
        // SAFETY: a chunk's header can be accessed, and both halves are only ever accessed as u32 atomics.
        unsafe { AtomicU32::from_ptr(self.0.wrapping_sub(8).cast()) }
    }

    #[inline(always)]
    fn high_word(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.0.wrapping_sub(4).cast()) }
    }

    /// Size bits and flags, as the fast path reads them.
    #[inline(always)]
    pub fn low(self) -> u32 {
        self.low_word().load(Relaxed)
    }

    #[inline(always)]
    pub fn high(self) -> u32 {
        self.high_word().load(Relaxed)
    }

    #[inline(always)]
    pub fn set_high(self, value: u32) {
        self.high_word().store(value, Relaxed);
    }

    /// What `high` holds while the owner has this block, if it is smaller than 4 GiB.
    #[inline(always)]
    pub fn seal(self, secret: u64) -> u32 {
        secret as u32 ^ self.0.addr() as u32
    }

    /// Whether the owner of a pointer may give it back: the seal is on. Only a mapping can have 4 GiB or more, and so
    /// size bits in front of the seal's upper half.
    pub fn is_sealed(self, secret: u64) -> bool {
        let rest = self.high() ^ self.seal(secret);
        rest == 0 || rest >> 16 == 0 && self.has(MAPPED) && self.has(USED)
    }

    /// Puts the seal on a chunk that has none, and returns its block.
    #[inline(always)]
    pub fn hand_out(self, secret: u64) -> *mut u8 {
        self.set_high(self.high() ^ self.seal(secret));
        self.0
    }

    /// Takes the seal off.
    #[inline(always)]
    pub fn take_back(self, secret: u64) {
        self.set_high(self.high() ^ self.seal(secret));
    }

    /// The size of a chunk without a seal.
    #[inline(always)]
    pub fn size(self) -> usize {
        (self.low() & !FLAGS) as usize | (self.high() as usize) << 32
    }

    /// The size of a chunk below 4 GiB, seal or no seal.
    #[inline(always)]
    pub fn size_of_small(self) -> usize {
        (self.low() & !FLAGS) as usize
    }

    /// The size of a chunk with its seal on.
    #[inline(always)]
    pub fn sealed_size(self, secret: u64) -> usize {
        (self.low() & !FLAGS) as usize | ((self.high() ^ self.seal(secret)) as usize) << 32
    }

    /// Writes the header of a chunk without a seal.
    #[inline(always)]
    pub fn set(self, size: usize, flags: u32) {
        self.low_word().store(size as u32 | flags, Relaxed);
        self.set_high((size >> 32) as u32);
    }

    /// Changes the size under a seal that stays on.
    pub fn set_sealed(self, size: usize, flags: u32, secret: u64) {
        self.low_word().store(size as u32 | flags, Relaxed);
        self.set_high((size >> 32) as u32 ^ self.seal(secret));
    }

    #[inline(always)]
    pub fn flags(self) -> u32 {
        self.low() & FLAGS
    }

    #[inline(always)]
    pub fn has(self, flag: u32) -> bool {
        self.low() & flag != 0
    }

    /// Whether this chunk is used and of just this size.
    #[inline(always)]
    pub fn is_used_small(self, size: usize) -> bool {
        self.low() & !(PREV | OTHER) == size as u32 | USED
    }

    #[inline(always)]
    pub fn set_flag(self, flag: u32) {
        self.low_word().store(self.low() | flag, Relaxed);
    }

    #[inline(always)]
    pub fn clear_flag(self, flag: u32) {
        self.low_word().store(self.low() & !flag, Relaxed);
    }

    /// The chunk `bytes` further on.
    #[inline(always)]
    pub fn after(self, bytes: usize) -> Chunk {
        Chunk(self.0.wrapping_add(bytes))
    }

    /// The chunk `bytes` back.
    #[inline(always)]
    pub fn before(self, bytes: usize) -> Chunk {
        Chunk(self.0.wrapping_sub(bytes))
    }

    /// The word in front of the header: the previous chunk's footer, or a mapping's offset.
    #[inline(always)]
    pub fn footer_before(self) -> usize {
        // SAFETY: the word before a header belongs to the same region.
        unsafe { self.0.wrapping_sub(16).cast::<usize>().read() }
    }

    #[inline(always)]
    pub fn set_footer_before(self, value: usize) {
        // SAFETY: the word before a header belongs to the same region, and to the heap while the chunk before is free.
        unsafe { self.0.wrapping_sub(16).cast::<usize>().write(value) }
    }

    /// Whether a link read from a chunk can be one at all: a multiple of 16 in the lower half of the address space.
    /// Text and small numbers written over it are not.
    #[inline(always)]
    pub fn may_be_followed(self) -> bool {
        self.0.addr() & (15 | usize::MAX << 48) == 0
    }

    /// Link number `i` of a free chunk.
    #[inline(always)]
    pub fn link(self, i: usize) -> Chunk {
        // SAFETY: a free chunk's block belongs to the heap; it has room for two links, from 1 KiB on for three.
        unsafe { self.0.cast::<Chunk>().wrapping_add(i).read() }
    }

    #[inline(always)]
    pub fn set_link(self, i: usize, to: Chunk) {
        // SAFETY: as above.
        unsafe { self.0.cast::<Chunk>().wrapping_add(i).write(to) }
    }

    /// A link as single lists keep it: hidden by the secret and by where it lies, so that an overwritten one leads
    /// to an unaligned address with high probability.
    #[inline(always)]
    pub fn mangled(self, link: Chunk, secret: u64) -> Chunk {
        Chunk(link.0.map_addr(|a| a ^ (self.0.addr() >> 12) ^ secret as usize))
    }

    /// A link to this chunk as double lists keep it, and back: hidden by the secret alone, so that it can be copied
    /// and compared as it lies there. The secret is odd: an address written over one never leads anywhere.
    #[inline(always)]
    pub fn hidden(self, secret: u64) -> Chunk {
        Chunk(self.0.map_addr(|a| a ^ secret as usize))
    }
}

/// The chunk size for a request, which must not exceed [`MAX_REQUEST`].
#[inline(always)]
pub const fn chunk_size(request: usize) -> usize {
    let size = (request + HEAD + ALIGN - 1) & !(ALIGN - 1);
    if size < MIN { MIN } else { size }
}
