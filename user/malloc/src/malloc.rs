//! The allocator: its interface, the fast paths, and the dispatch to the slow ones.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::arena::Arena;
use crate::bins::MAX_SMALL;
use crate::cache::{Cache, MAX_MEDIUM, Stage};
use crate::chunk::{ALIGN, Chunk, HEAD, MAPPED, MAX_REQUEST, USED, chunk_size};
use crate::gate::Inside;
use crate::guard::Guard;
use crate::large::Damaged;
use crate::lock::Lock;
use crate::mapped::{Fresh, Mappings};
use crate::options::{Options, Parameter};
use crate::{System, ThreadBlock};

/// Chunks of 4 GiB and more are always mappings, so that the seal of every other has all its bits.
const MAX_IN_ARENA: usize = (1 << 32) - 4096;
/// From here on the spare mapping is worth a look.
const SPARE_FROM: usize = 64 << 10;

/// The allocator over a system. Make one a `static`, tell its system about it, and hand it to
/// `#[global_allocator]` or to C.
pub struct Malloc<S: System> {
    pub(crate) system: S,
    secret: AtomicU64,
    pub(crate) options: Options,
    pub(crate) main: Arena,
    pub(crate) arenas: AtomicUsize,
    /// Held while an arena is made.
    pub(crate) growing: Lock<()>,
    pub(crate) mappings: Mappings,
    pub(crate) guard: Guard,
}

impl<S: System> Malloc<S> {
    /// An allocator that holds nothing yet.
    pub const fn new(system: S) -> Malloc<S> {
        Malloc {
            system,
            secret: AtomicU64::new(0),
            options: Options::new(),
            main: Arena::new(0),
            arenas: AtomicUsize::new(1),
            growing: Lock::new(AtomicU32::new(0), ()),
            mappings: Mappings::new(),
            guard: Guard::new(),
        }
    }

    /// The system beneath.
    pub fn system(&self) -> &S {
        &self.system
    }

    #[inline(always)]
    pub(crate) fn secret(&self) -> u64 {
        self.secret.load(Ordering::Relaxed)
    }

    /// A block of `size` bytes at a multiple of 16, or null. A block of 0 bytes has an address of its own.
    #[inline(always)]
    pub fn malloc(&self, size: usize) -> *mut u8 {
        let at = self.malloc_cached(size);
        if at.is_null() { self.malloc_uncached(size) } else { at }
    }

    /// A block from the calling thread's cache, or null if there is none of that size.
    #[inline(always)]
    pub fn malloc_cached(&self, size: usize) -> *mut u8 {
        // As `chunk_size`; a request that wraps comes out small and is sorted out by the other path.
        let need = size.max(ALIGN - HEAD + 1).wrapping_add(HEAD + ALIGN - 1) & !(ALIGN - 1);
        if need > MAX_SMALL {
            return null_mut();
        }
        let block = self.system.thread_block();
        // SAFETY: the block is this thread's, and its gate shows that there is a cache. With the gate shut the stacks
        // are this call's alone: a stack's top is the topmost of its slots, and below the lowest chunk lies a null.
        unsafe {
            let gate = &(*block.as_ptr()).gate;
            let secret = gate.look();
            if secret & 1 == 0 {
                return null_mut();
            }
            gate.shut(need as u64);
            let bin = ThreadBlock::bin(block, need);
            let top = (*bin).top;
            let chunk = *top;
            if !chunk.is_none() {
                (*bin).top = top.wrapping_sub(1);
                chunk.set_high(chunk.seal(secret));
            }
            gate.open(secret);
            chunk.0
        }
    }

    /// What [`malloc`](Malloc::malloc) does where [`malloc_cached`](Malloc::malloc_cached) has nothing.
    #[inline]
    pub fn malloc_uncached(&self, size: usize) -> *mut u8 {
        let Some(mut inside) = self.enter() else { return self.alloc_nested(ALIGN, size) };
        let need = size.wrapping_add(HEAD + ALIGN - 1) & !(ALIGN - 1);
        let cache = inside.cache();
        // A thread with a cache has started, and there is neither a guard nor a byte to fill with.
        if need > MAX_SMALL && cache.stage == Stage::Caching {
            if need <= MAX_MEDIUM
                && let Some(chunk) = cache.pop_medium(need)
            {
                return chunk.hand_out(cache.open);
            }
            let secret = cache.open;
            return self.large(cache, size).map_or(null_mut(), |fresh| fresh.chunk.hand_out(secret));
        }
        self.malloc_slow(inside, size)
    }

    /// Gives a block back; null does nothing.
    ///
    /// # Safety
    ///
    /// `at` is null or a living block of this allocator. (Anything else ends the process with a message, as far as
    /// the seal shows it.)
    #[inline(always)]
    pub unsafe fn free(&self, at: *mut u8) {
        if at.is_null() {
            return;
        }
        let block = self.system.thread_block();
        // SAFETY: the block is this thread's and lives as long as the thread.
        let gate = unsafe { &(*block.as_ptr()).gate };
        let secret = gate.look();
        // A thread without a cache must not read near the block: a guarded block's header may lie in a page that
        // faults.
        if secret & 1 != 0 && at.addr().is_multiple_of(ALIGN) {
            let chunk = Chunk(at);
            let size = chunk.low() as usize & !(ALIGN - 1);
            if chunk.high() == chunk.seal(secret) && size <= MAX_SMALL {
                gate.shut(size as u64);
                // SAFETY: with the gate shut the stacks are this call's alone: between top and full lie slots that
                // nothing else uses. A stack that is not there has none: its top and full are equal.
                unsafe {
                    let bin = ThreadBlock::bin(block, size);
                    let top = (*bin).top;
                    if top != (*bin).full {
                        let top = top.wrapping_add(1);
                        *top = chunk;
                        (*bin).top = top;
                        chunk.set_high(0);
                        gate.open(secret);
                        return;
                    }
                }
                gate.open(secret);
            }
        }
        self.free_slow(at);
    }

    /// A block of `count * size` zeroed bytes, or null if there is none or the product is too large.
    #[inline(always)]
    pub fn calloc(&self, count: usize, size: usize) -> *mut u8 {
        let Some(bytes) = count.checked_mul(size) else { return null_mut() };
        if bytes > MAX_SMALL {
            return self.calloc_large(bytes);
        }
        let at = self.malloc(bytes);
        if !at.is_null() {
            // SAFETY: the block is new and holds that many bytes.
            unsafe { at.write_bytes(0, bytes) };
        }
        at
    }

    fn calloc_large(&self, bytes: usize) -> *mut u8 {
        let plain = !self.guard.is_on() && self.options.perturb().is_none();
        let Some(mut inside) = plain.then(|| self.enter()).flatten() else {
            let at = self.malloc(bytes);
            if !at.is_null() {
                // SAFETY: the block is new and holds that many bytes.
                unsafe { at.write_bytes(0, bytes) };
            }
            return at;
        };
        let need = chunk_size(bytes.min(MAX_REQUEST));
        let cached = inside.cache().pop_medium(need).map(|chunk| Fresh { chunk, zeroed: false });
        let found = cached.or_else(|| self.large(inside.cache(), bytes));
        drop(inside);
        let Some(fresh) = found else { return null_mut() };
        if !fresh.zeroed {
            // SAFETY: as above.
            unsafe { fresh.chunk.0.write_bytes(0, bytes) };
        }
        fresh.chunk.hand_out(self.secret())
    }

    /// A block at a multiple of `align`, a power of two; or null.
    pub fn memalign(&self, align: usize, size: usize) -> *mut u8 {
        debug_assert!(align.is_power_of_two());
        if align <= ALIGN {
            return self.malloc(size);
        }
        if size > MAX_REQUEST || align > MAX_REQUEST {
            return null_mut();
        }
        self.start();
        if self.guard.is_on() {
            return self.guarded(align, size);
        }
        let Some(mut inside) = self.enter() else { return self.alloc_nested(align, size) };
        let Some(chunk) = self.aligned(&mut inside, align, size) else { return null_mut() };
        self.perturbed(chunk.hand_out(self.secret()))
    }

    fn aligned(&self, inside: &mut Inside, align: usize, size: usize) -> Option<Chunk> {
        let need = chunk_size(size);
        if let Some(cache) = self.cache_of(inside)
            && need <= MAX_SMALL
            && let Some(chunk) = cache.pop_aligned(need, align)
        {
            return Some(chunk);
        }
        let cache = inside.cache();
        let with_slack = need + align + ALIGN;
        if with_slack < self.options.mmap_threshold() || self.may_not_map() {
            let found = self.with_arena(cache, |m, state| state.take_aligned(m, align, need, false)).or_else(|| {
                self.empty_cache(cache);
                self.with_arena(cache, |m, state| state.take_aligned(m, align, need, true))
            });
            if found.is_some() {
                return found;
            }
        }
        self.map_block(size, align).map(|fresh| fresh.chunk)
    }

    #[cold]
    #[inline(never)]
    fn malloc_slow(&self, mut inside: Inside, size: usize) -> *mut u8 {
        if size > MAX_REQUEST {
            return null_mut();
        }
        let need = chunk_size(size);
        let cache = self.cache_of(&mut inside);
        if self.guard.is_on() {
            return self.guarded(ALIGN, size);
        }
        let found = match cache {
            Some(cache) if need <= MAX_SMALL => cache.pop(need).or_else(|| self.refill(cache, need)),
            _ => None,
        };
        let found = found.or_else(|| self.large(inside.cache(), size).map(|fresh| fresh.chunk));
        let Some(chunk) = found else { return null_mut() };
        self.perturbed(chunk.hand_out(self.secret()))
    }

    /// A chunk for `size` bytes that does not come from the thread's cache.
    fn large(&self, cache: &mut Cache, size: usize) -> Option<Fresh> {
        if size > MAX_REQUEST {
            return None;
        }
        let need = chunk_size(size);
        self.start();
        if need >= SPARE_FROM
            && let Some(fresh) = self.take_spare(size)
        {
            return Some(fresh);
        }
        let heap = |chunk| Fresh { chunk, zeroed: false };
        let in_heap = need < self.options.mmap_threshold() || self.may_not_map();
        if need < MAX_IN_ARENA {
            let found = match in_heap {
                true => self.with_arena(cache, |m, state| state.take(m, need)).or_else(|| {
                    self.empty_cache(cache);
                    self.with_arena(cache, |m, state| state.take_or_extend(m, need))
                }),
                false => self.with_arena(cache, |m, state| state.take(m, need)),
            };
            if found.is_some() {
                return found.map(heap);
            }
        }
        self.map_block(size, ALIGN)
    }

    fn may_not_map(&self) -> bool {
        self.mappings.count.load(Ordering::Relaxed) >= self.options.mmap_max()
    }

    pub(crate) fn perturbed(&self, at: *mut u8) -> *mut u8 {
        if let Some(byte) = self.options.perturb() {
            // SAFETY: the block is new and holds as many bytes as are written.
            unsafe { at.write_bytes(!byte, self.bytes_of(Chunk(at))) };
        }
        at
    }

    /// Frees a block above [`MAX_SMALL`] of a thread that has a cache: into that, if one of its size was asked for
    /// lately, else into the arena. Returns false, and does nothing, for every other block.
    #[inline]
    fn free_large(&self, cache: &mut Cache, at: *mut u8) -> bool {
        let chunk = Chunk(at);
        let aligned = at.addr().is_multiple_of(ALIGN);
        if !aligned || cache.stage != Stage::Caching || chunk.high() != chunk.seal(cache.open) {
            return false;
        }
        let size = chunk.size_of_small();
        if size <= MAX_SMALL || chunk.flags() & (MAPPED | USED) != USED {
            return false;
        }
        chunk.set_high(0);
        if size > MAX_MEDIUM {
            self.options.learn(size);
        } else {
            match cache.push_medium(chunk, size) {
                Ok(()) => return true,
                Err(Some(stale)) => self.give_to_arena(stale),
                Err(None) => {}
            }
        }
        self.give_to_arena(chunk);
        true
    }

    #[inline(never)]
    fn free_slow(&self, at: *mut u8) {
        if self.guard.is_on() {
            return self.free_guarded(at);
        }
        let Some(mut inside) = self.enter() else { return self.free_nested(at) };
        if self.free_large(inside.cache(), at) {
            return;
        }
        let cache = self.cache_of(&mut inside);
        let chunk = self.living_to_free(at);
        let size = chunk.sealed_size(self.secret());
        chunk.take_back(self.secret());
        match cache {
            _ if chunk.has(MAPPED) => self.free_mapped(chunk),
            Some(cache) if size <= MAX_SMALL => {
                self.make_room(cache, size / 16);
                cache.push(chunk, size);
            }
            _ => {
                self.options.learn(size);
                self.give_to_arena(chunk);
            }
        }
    }

    /// The chunk of a block that its owner gives up, filled as [`Parameter::Perturb`] says, its seal still on; or the
    /// end of the process.
    pub(crate) fn living_to_free(&self, at: *mut u8) -> Chunk {
        let chunk = self.living(at, "free(): invalid pointer", "free(): double free detected");
        if let Some(byte) = self.options.perturb() {
            // SAFETY: the block is its owner's to give.
            unsafe { at.write_bytes(byte, self.bytes_of(chunk)) };
        }
        chunk
    }

    /// The chunk of a pointer that a caller says is a living block, or the end of the process.
    pub(crate) fn living(&self, at: *mut u8, invalid: &str, freed: &str) -> Chunk {
        let chunk = Chunk(at);
        if !at.addr().is_multiple_of(ALIGN) || at.addr() < ALIGN {
            self.system.abort(invalid);
        }
        if !chunk.is_sealed(self.secret()) {
            // A free leaves a header that is intact except for the seal.
            self.system.abort(if chunk.high() == 0 && chunk.low() >= 32 { freed } else { invalid });
        }
        if !chunk.has(USED) {
            self.system.abort(invalid);
        }
        chunk
    }

    /// How many bytes the owner of a living block may use.
    pub(crate) fn bytes_of(&self, chunk: Chunk) -> usize {
        let size = chunk.sealed_size(self.secret());
        if chunk.has(MAPPED) { size } else { size - HEAD }
    }

    /// How many bytes of a living block its owner may use: at least as many as were asked for. 0 for null.
    ///
    /// # Safety
    ///
    /// `at` is null or a living block.
    pub unsafe fn usable_size(&self, at: *mut u8) -> usize {
        if at.is_null() {
            return 0;
        }
        if self.guard.is_on() {
            return self.guarded_size(at);
        }
        self.start();
        self.bytes_of(self.living(at, "malloc_usable_size(): invalid pointer", "malloc_usable_size(): freed block"))
    }

    /// Sets a parameter; returns whether its value was taken. [`Parameter::Perturb`] reaches the calling thread and
    /// threads that start later.
    pub fn set_option(&self, parameter: Parameter, value: i32) -> bool {
        let done = self.options.set(parameter, value);
        if parameter == Parameter::Perturb
            && let Some(mut inside) = self.enter()
        {
            self.dismantle(inside.cache());
            inside.cache().stage = Stage::Zero;
        }
        done
    }

    /// Draws the secret, once, before anything is handed out.
    #[inline]
    pub(crate) fn start(&self) {
        if self.secret() == 0 {
            self.start_slow();
        }
    }

    #[cold]
    fn start_slow(&self) {
        // Threads that come here at the same time get the same answer.
        if self.system.wants_guard() {
            self.guard();
        }
        // The lowest bit makes every seal differ from the 0 that a chunk without one has.
        let secret = self.system.random() | 1;
        if self.secret.compare_exchange(0, secret, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.system.adopt_process();
        }
    }

    /// Ends the process if the heap was found damaged.
    #[inline(always)]
    pub(crate) fn check<R>(&self, done: Result<R, Damaged>) -> R {
        match done {
            Ok(answer) => answer,
            Err(Damaged) => self.system.abort("malloc(): corrupted heap: a free chunk was written to"),
        }
    }
}

const _: () = assert!(size_of::<usize>() == 8, "the allocator counts in 64-bit words");
