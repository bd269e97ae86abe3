//! The per-thread cache: for each small size a stack of chunks that need no lock.
//!
//! The stacks are arrays outside the chunks, so a chunk in a cache holds no link that its former owner could damage. A
//! thread starts with a block of zeroes: its gate shows that there is no cache, so the first call takes the slow path,
//! which makes one. A stack's capacity starts small and doubles with use.

use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::AtomicUsize;

use crate::arena::Arena;
use crate::bins::{CLASSES, MAX_SMALL};
use crate::chunk::{Chunk, MIN, OTHER};
use crate::gate::{Gate, Inside};
use crate::heap::arena_of;
use crate::{Malloc, System};

/// What a stack may hold at first.
const START: usize = 8;
/// How many chunks move between a stack and an arena at most in one batch.
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
    /// The thread is ending or cannot have a cache.
    Without = 2,
}

/// The part of the allocator that each thread keeps in its thread-local storage, zero-filled at its start.
#[repr(C, align(16))]
pub struct ThreadBlock {
    pub(crate) cache: UnsafeCell<Cache>,
    pub(crate) gate: Gate,
}

/// The cache proper, which a thread uses while its gate is shut.
#[repr(C)]
pub struct Cache {
    /// By chunk size: the stack for size `s` lies `s` bytes into the block.
    bins: [Bin; CLASSES],
    /// What the gate shows when it is open: the secret, or 0 if there are no stacks.
    pub open: u64,
    pub stage: Stage,
    /// How often this thread found its arena locked.
    pub contended: usize,
    /// The arena that served this thread last; null for the first one.
    pub arena: *const Arena,
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
const _: () = assert!(size_of::<Bin>() == 16 && core::mem::offset_of!(Cache, bins) == 0);
const _: () = assert!(core::mem::offset_of!(ThreadBlock, cache) == 0);

/// The lowest slot of every stack that does not exist.
static NO_SLOT: AtomicUsize = AtomicUsize::new(0);

impl Bin {
    /// A stack that is empty and full at once. Classes below [`MIN`] have it; a request whose size wraps and a
    /// corrupted size lead to it.
    const NONE: Bin = Bin { top: NO_SLOT.as_ptr().cast(), full: NO_SLOT.as_ptr().cast() };
}

impl ThreadBlock {
    /// A block as a thread starts with it.
    pub const fn new() -> ThreadBlock {
        let cache = Cache {
            bins: [Bin { top: null_mut(), full: null_mut() }; CLASSES],
            open: 0,
            stage: Stage::Zero,
            contended: 0,
            arena: null_mut(),
            slots: Chunk::NONE,
            medium: [Medium { size: 0, chunk: Chunk::NONE }; MEDIUM],
            medium_bytes: 0,
        };
        ThreadBlock { cache: UnsafeCell::new(cache), gate: Gate::new() }
    }

    /// The stack for chunks of `size` bytes.
    ///
    /// # Safety
    ///
    /// `block` is the calling thread's, its gate is shut by the caller, and `size`, a multiple of 16, is at most
    /// `MAX_SMALL`.
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
    /// The calling thread's cache, if it has one; makes it at the thread's first call.
    pub(crate) fn cache_of<'i>(&self, inside: &'i mut Inside) -> Option<&'i mut Cache> {
        self.start();
        let cache = inside.cache();
        match cache.stage {
            Stage::Caching => return Some(cache),
            Stage::Without => return None,
            Stage::Zero => {}
        }
        cache.stage = Stage::Without;
        // If the system allocates on the way here, that is a nested call.
        if self.options.perturb().is_some() || self.guard.is_on() || !self.system.adopt_thread() {
            return None;
        }
        let bytes = START_OF[CLASSES] * size_of::<Chunk>();
        let slots = self.with_arena(cache, |m, state| state.take_or_extend(m, crate::chunk::chunk_size(bytes)))?;
        cache.bins = [Bin::NONE; CLASSES];
        for (class, bin) in cache.bins.iter_mut().enumerate().skip(MIN / 16) {
            let bottom = slots.0.cast::<Chunk>().wrapping_add(START_OF[class]);
            // SAFETY: the chunk has room for every stack.
            unsafe { bottom.write(Chunk::NONE) };
            let start = START.min(most(class));
            *bin = Bin { top: bottom, full: bottom.wrapping_add(start) };
        }
        cache.slots = slots;
        cache.stage = Stage::Caching;
        cache.open = self.secret();
        Some(cache)
    }

    /// Lets a stack that was found empty or full hold more from now on; returns whether it did.
    fn widen(cache: &mut Cache, class: usize) -> bool {
        let now = cache.limit(class);
        if now >= most(class) {
            return false;
        }
        let bottom = cache.bottom(class);
        cache.bins[class].full = bottom.wrapping_add((2 * now).min(most(class)));
        true
    }

    /// A chunk of `size` bytes for a thread whose stack is empty; some more go onto the stack.
    pub(crate) fn refill(&self, cache: &mut Cache, size: usize) -> Option<Chunk> {
        let class = size / 16;
        let now = cache.limit(class);
        let mut batch = [Chunk::NONE; BATCH];
        let want = (now / 2 + 1).min(BATCH);
        let got = self.with_arena(cache, |m, state| {
            let n = state.refill(m, size, &mut batch[..want])?;
            Ok(if n == 0 { None } else { Some(n) })
        })?;
        Self::widen(cache, class);
        // The lowest address last onto the stack, so that blocks come out in order.
        let bin = &mut cache.bins[class];
        for chunk in batch[1..got].iter().rev() {
            bin.top = bin.top.wrapping_add(1);
            // SAFETY: fewer chunks than the stack holds.
            unsafe { bin.top.write(*chunk) };
        }
        Some(batch[0])
    }

    /// Makes room on a full stack: its lower half goes back. Its limit is not raised: frees alone do not show that the
    /// chunks will be needed.
    pub(crate) fn make_room(&self, cache: &mut Cache, class: usize) {
        let held = cache.held(class);
        self.flush(cache, class, held.div_ceil(2));
    }

    /// Gives the `n` chunks back that lie lowest on a stack.
    fn flush(&self, cache: &mut Cache, class: usize, n: usize) {
        let first = cache.bottom(class).wrapping_add(1);
        let held = cache.held(class);
        // SAFETY: the stack's slots from `first` to `top` hold chunks, and this thread alone uses them.
        unsafe {
            self.put_all(core::slice::from_raw_parts(first, n));
            first.copy_from(first.wrapping_add(n), held - n);
        }
        cache.bins[class].top = cache.bins[class].top.wrapping_sub(n);
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

    /// The calling thread ends: what its cache holds goes back. What it frees from now on does so at once.
    pub fn thread_exit(&self) {
        if let Some(mut inside) = self.enter() {
            self.dismantle(inside.cache());
        }
    }

    /// Takes a thread's cache from it, and gives back what it holds.
    pub(crate) fn dismantle(&self, cache: &mut Cache) {
        if cache.stage != Stage::Caching {
            return;
        }
        self.empty(cache);
        cache.stage = Stage::Without;
        cache.open = 0;
        // A handler may do this between a fast path's look at the gate and the shutting: that path then finds stacks
        // that are empty and full at once.
        cache.bins = [Bin::NONE; CLASSES];
        let slots = core::mem::replace(&mut cache.slots, Chunk::NONE);
        self.give_to_arena(slots);
    }

    /// Gives everything in a thread's cache back. Done before the heap grows for a large request, since a cached chunk
    /// may keep free neighbours from merging.
    #[cold]
    pub(crate) fn empty_cache(&self, cache: &mut Cache) {
        if cache.stage == Stage::Caching {
            self.empty(cache);
        }
    }

    fn empty(&self, cache: &mut Cache) {
        for class in MIN / 16..CLASSES {
            let held = cache.held(class);
            if held > 0 {
                self.flush(cache, class, held);
            }
        }
        for place in &mut cache.medium {
            let held = core::mem::replace(place, Medium { size: 0, chunk: Chunk::NONE });
            if let Some(chunk) = held.chunk.some() {
                self.give_to_arena(chunk);
            }
        }
        cache.medium_bytes = 0;
    }
}

const _: () = assert!(START_OF[CLASSES] * 8 < 1 << 16);

impl Cache {
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
