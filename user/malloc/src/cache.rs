//! The per-thread cache: for each small size a stack of chunks that need no lock.
//!
//! The stacks are arrays outside the chunks, so a chunk in a cache holds no link that its former owner could damage.
//! A block of zeroes is a valid cache: each stack is empty and full at once, so the first call of a thread takes the
//! slow path, which fills the block in. How much a stack may hold starts small and doubles with use.

use core::ptr::{NonNull, null_mut};

use crate::arena::Arena;
use crate::bins::{CLASSES, MAX_SMALL};
use crate::chunk::{Chunk, MIN, OTHER};
use crate::heap::arena_of;
use crate::{Malloc, System};

/// What a stack may hold at first.
const START: usize = 8;
/// How many chunks go to and fro at most in one turn.
const BATCH: usize = 32;
/// What a stack may hold at most, in bytes and in chunks.
const MOST_BYTES: usize = 4096;
const MOST: usize = 64;

/// How far down a stack the search for an aligned chunk goes.
const ALIGNED_TRIES: usize = 16;
/// The largest chunk that a cache holds among its medium ones.
pub const MAX_MEDIUM: usize = (64 << 10) + 16;
/// Places for medium chunks, one chunk each, by size.
const MEDIUM: usize = 8;
/// What they may hold together.
const MEDIUM_BYTES: usize = MAX_MEDIUM;

/// One stack.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Bin {
    /// The topmost chunk; below the bottom one lies a null.
    pub top: *mut Chunk,
    /// Where `top` stands when the stack is full.
    pub full: *mut Chunk,
}

/// Whether a thread has a cache.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Stage {
    /// As the thread started.
    Zero = 0,
    Caching = 1,
    /// The thread ends or must do without.
    Without = 2,
}

/// The part of the allocator that each thread keeps in its thread-local storage, zero-filled at its start.
#[repr(C, align(16))]
pub struct ThreadBlock {
    /// By chunk size: the stack for size `s` lies `s` bytes into the block.
    bins: [Bin; CLASSES],
    pub(crate) secret: u64,
    pub(crate) stage: Stage,
    /// How often this thread found its arena locked.
    pub(crate) contended: usize,
    /// The arena that served this thread last; null for the first one.
    pub(crate) arena: *const Arena,
    /// The chunk that holds the stacks.
    slots: Chunk,
    /// Chunks above [`MAX_SMALL`], for the request of just that size that often follows a free.
    medium: [Medium; MEDIUM],
    medium_bytes: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Medium {
    /// The size last asked for here, and of the chunk if there is one.
    size: usize,
    chunk: Chunk,
}

// The fast path turns a size into the address of its stack without a shift.
const _: () = assert!(size_of::<Bin>() == 16 && core::mem::offset_of!(ThreadBlock, bins) == 0);

impl ThreadBlock {
    /// A block as a thread starts with it.
    pub const fn new() -> ThreadBlock {
        ThreadBlock {
            bins: [Bin { top: null_mut(), full: null_mut() }; CLASSES],
            secret: 0,
            stage: Stage::Zero,
            contended: 0,
            arena: null_mut(),
            slots: Chunk::NONE,
            medium: [Medium { size: 0, chunk: Chunk::NONE }; MEDIUM],
            medium_bytes: 0,
        }
    }

    /// The stack for chunks of `size` bytes.
    ///
    /// # Safety
    ///
    /// `block` is the calling thread's and `size`, a multiple of 16, is at most [`MAX_SMALL`].
    #[inline(always)]
    pub unsafe fn bin(block: NonNull<ThreadBlock>, size: usize) -> *mut Bin {
        debug_assert!(size <= MAX_SMALL && size.is_multiple_of(16));
        block.as_ptr().cast::<u8>().wrapping_add(size).cast()
    }
}

impl Default for ThreadBlock {
    fn default() -> Self {
        Self::new()
    }
}

/// What the stack of a class may hold.
const fn most(class: usize) -> usize {
    let n = MOST_BYTES / (class * 16);
    if n > MOST { MOST } else { n }
}

/// Where each class's stack starts, in slots, and at the end how many there are.
const START_OF: [usize; CLASSES + 1] = {
    let mut at = [0; CLASSES + 1];
    let mut class = MIN / 16;
    while class < CLASSES {
        at[class + 1] = at[class] + most(class) + 1;
        class += 1;
    }
    at
};

impl<S: System> Malloc<S> {
    /// Fills the calling thread's block in, if it has not been; answers the block if the thread has a cache.
    #[allow(clippy::mut_from_ref)] // The block is the thread's, not the allocator's.
    pub(crate) fn start_thread(&self) -> Option<&mut ThreadBlock> {
        self.start();
        // SAFETY: the block is this thread's, and no reference to it outlives a call of the allocator's slow paths,
        // which do not nest: `adopt_thread` is called with the stage set, and no reference alive in between.
        let block = unsafe { &mut *self.system.thread_block().as_ptr() };
        match block.stage {
            Stage::Caching => return Some(block),
            Stage::Without => return None,
            Stage::Zero => {}
        }
        block.stage = Stage::Without;
        block.secret = self.secret();
        if self.options.perturb().is_some() || self.guard.is_on() || !self.system.adopt_thread() {
            return None;
        }
        // SAFETY: as above.
        let block = unsafe { &mut *self.system.thread_block().as_ptr() };
        let bytes = START_OF[CLASSES] * size_of::<Chunk>();
        let slots = self.with_arena(block, |m, state| state.take_or_extend(m, crate::chunk::chunk_size(bytes)))?;
        for (class, bin) in block.bins.iter_mut().enumerate().skip(MIN / 16) {
            let bottom = slots.0.cast::<Chunk>().wrapping_add(START_OF[class]);
            // SAFETY: the chunk has room for every stack.
            unsafe { bottom.write(Chunk::NONE) };
            let start = START.min(most(class));
            *bin = Bin { top: bottom, full: bottom.wrapping_add(start) };
        }
        block.slots = slots;
        block.stage = Stage::Caching;
        Some(block)
    }

    /// Lets a stack that was found empty or full hold more from now on; answers whether it did.
    fn widen(block: &mut ThreadBlock, class: usize) -> bool {
        let now = block.limit(class);
        if now >= most(class) {
            return false;
        }
        let bottom = block.bottom(class);
        block.bins[class].full = bottom.wrapping_add((2 * now).min(most(class)));
        true
    }

    /// A chunk of `size` bytes for a thread whose stack is empty; some more go onto the stack.
    pub(crate) fn refill(&self, block: &mut ThreadBlock, size: usize) -> Option<Chunk> {
        let class = size / 16;
        let now = block.limit(class);
        let mut batch = [Chunk::NONE; BATCH];
        let want = (now / 2 + 1).min(BATCH);
        let got = self.with_arena(block, |m, state| {
            let n = state.refill(m, size, &mut batch[..want])?;
            Ok(if n == 0 { None } else { Some(n) })
        })?;
        Self::widen(block, class);
        // The lowest address last onto the stack, so that blocks come out in order.
        let bin = &mut block.bins[class];
        for chunk in batch[1..got].iter().rev() {
            bin.top = bin.top.wrapping_add(1);
            // SAFETY: fewer chunks than the stack holds.
            unsafe { bin.top.write(*chunk) };
        }
        Some(batch[0])
    }

    /// Makes room on a full stack: its lower half goes back. It may not hold more from now on: frees alone are no
    /// sign that the chunks will be wanted.
    pub(crate) fn make_room(&self, block: &mut ThreadBlock, class: usize) {
        let held = block.held(class);
        self.flush(block, class, held.div_ceil(2));
    }

    /// Gives the `n` chunks back that lie lowest on a stack.
    fn flush(&self, block: &mut ThreadBlock, class: usize, n: usize) {
        let first = block.bottom(class).wrapping_add(1);
        let held = block.held(class);
        // SAFETY: the stack's slots from `first` to `top` hold chunks, and this thread alone uses them.
        unsafe {
            self.put_all(core::slice::from_raw_parts(first, n));
            first.copy_from(first.wrapping_add(n), held - n);
        }
        block.bins[class].top = block.bins[class].top.wrapping_sub(n);
    }

    /// Gives unsealed chunks to their arenas, or leaves them there for whoever holds the lock.
    fn put_all(&self, chunks: &[Chunk]) {
        let mut rest = chunks;
        while let Some(first) = rest.first() {
            let arena = self.arena_of(*first);
            let given = arena.state.try_with(&self.system, |state| {
                arena.drain(state, self)?;
                let mine = state.put_run(self, rest)?;
                state.settle(self)?;
                Ok(mine)
            });
            let n = match given {
                Ok(done) => self.check(done),
                Err(_) => {
                    arena.leave(*first, self.secret());
                    1
                }
            };
            rest = &rest[n..];
        }
    }

    /// The arena that an unmapped chunk belongs to.
    #[inline(always)]
    pub(crate) fn arena_of(&self, chunk: Chunk) -> &Arena {
        if chunk.has(OTHER) { arena_of(chunk) } else { &self.main }
    }

    /// The calling thread ends, or stops to have a cache: what it holds goes back.
    pub fn thread_exit(&self) {
        // SAFETY: the block is this thread's and no other reference to it is alive.
        let block = unsafe { &mut *self.system.thread_block().as_ptr() };
        if block.stage != Stage::Caching {
            return;
        }
        self.empty(block);
        block.stage = Stage::Without;
        block.bins = ThreadBlock::new().bins;
        let slots = core::mem::replace(&mut block.slots, Chunk::NONE);
        self.give_to_arena(slots);
    }

    /// Gives everything in the calling thread's cache back, before the heap grows for a large request: some of it may
    /// be what keeps free neighbours apart.
    #[cold]
    pub(crate) fn empty_cache(&self) {
        // SAFETY: the block is this thread's and no other reference to it is alive.
        let block = unsafe { &mut *self.system.thread_block().as_ptr() };
        if block.stage == Stage::Caching {
            self.empty(block);
        }
    }

    fn empty(&self, block: &mut ThreadBlock) {
        for class in MIN / 16..CLASSES {
            let held = block.held(class);
            if held > 0 {
                self.flush(block, class, held);
            }
        }
        for place in &mut block.medium {
            let held = core::mem::replace(place, Medium { size: 0, chunk: Chunk::NONE });
            if let Some(chunk) = held.chunk.some() {
                self.give_to_arena(chunk);
            }
        }
        block.medium_bytes = 0;
    }
}

const _: () = assert!(START_OF[CLASSES] * 8 < 1 << 16);

impl ThreadBlock {
    /// Where a stack's lowest slot lies, which holds a null.
    fn bottom(&self, class: usize) -> *mut Chunk {
        self.slots.0.cast::<Chunk>().wrapping_add(START_OF[class])
    }

    /// How many chunks a stack holds.
    fn held(&self, class: usize) -> usize {
        (self.bins[class].top.addr() - self.bottom(class).addr()) / size_of::<Chunk>()
    }

    /// How many it may hold.
    fn limit(&self, class: usize) -> usize {
        (self.bins[class].full.addr() - self.bottom(class).addr()) / size_of::<Chunk>()
    }

    /// Takes a chunk off a stack.
    pub(crate) fn pop(&mut self, size: usize) -> Option<Chunk> {
        let bin = &mut self.bins[size / 16];
        // SAFETY: below the lowest chunk of a stack lies a null, and the stacks are there while the stage is
        // `Caching`, which is when callers have the block.
        let chunk = unsafe { bin.top.read() }.some()?;
        bin.top = bin.top.wrapping_sub(1);
        Some(chunk)
    }

    /// Takes one of the upper chunks of a stack that happens to be aligned.
    pub(crate) fn pop_aligned(&mut self, size: usize, align: usize) -> Option<Chunk> {
        let bin = &mut self.bins[size / 16];
        let mut at = bin.top;
        for _ in 0..ALIGNED_TRIES {
            // SAFETY: as in `pop`; the search ends at the null below the lowest chunk.
            unsafe {
                let chunk = at.read().some()?;
                if chunk.0.addr() & (align - 1) == 0 {
                    at.write(bin.top.read());
                    bin.top = bin.top.wrapping_sub(1);
                    return Some(chunk);
                }
            }
            at = at.wrapping_sub(1);
        }
        None
    }

    /// Takes the medium chunk of just this size.
    #[inline]
    pub(crate) fn pop_medium(&mut self, size: usize) -> Option<Chunk> {
        let place = &mut self.medium[size / 16 % MEDIUM];
        if place.size == size {
            let chunk = core::mem::replace(&mut place.chunk, Chunk::NONE).some()?;
            self.medium_bytes -= size;
            return Some(chunk);
        }
        if place.chunk.is_none() {
            place.size = size;
        }
        None
    }

    /// Puts a medium chunk in its place, if its size was the last asked for there. If not, answers the chunk of another
    /// size that has waited there in vain, if there is one.
    #[inline]
    pub(crate) fn push_medium(&mut self, chunk: Chunk, size: usize) -> Result<(), Option<Chunk>> {
        let place = &mut self.medium[size / 16 % MEDIUM];
        if place.size != size {
            let stale = core::mem::replace(&mut place.chunk, Chunk::NONE).some();
            if stale.is_some() {
                self.medium_bytes -= place.size;
            }
            return Err(stale);
        }
        if !place.chunk.is_none() || self.medium_bytes + size > MEDIUM_BYTES {
            return Err(None);
        }
        self.medium_bytes += size;
        place.chunk = chunk;
        Ok(())
    }

    /// Puts a chunk onto a stack that has room.
    pub(crate) fn push(&mut self, chunk: Chunk, size: usize) {
        let bin = &mut self.bins[size / 16];
        debug_assert!(bin.top != bin.full);
        bin.top = bin.top.wrapping_add(1);
        // SAFETY: the stack has room, so the slot is one of its own.
        unsafe { bin.top.write(chunk) };
    }
}
