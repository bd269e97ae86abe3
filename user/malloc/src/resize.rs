//! realloc: in place where the neighbour is free, by remapping where the block is a mapping, by a copy else.

use core::ptr::null_mut;

use crate::bins::MAX_SMALL;
use crate::chunk::{Chunk, MAPPED, MAX_REQUEST, MIN, USED, chunk_size};
use crate::{Malloc, System};

/// From here on a chunk at the top grows by asking the system for more.
const EXTEND_FROM: usize = 64 << 10;
/// Chunks that grow in place stay below this.
const MAX_IN_PLACE: usize = 1 << 31;

impl<S: System> Malloc<S> {
    /// A block of `size` bytes with the contents of `at`, which is no longer one; or null, and `at` stays. Null is an
    /// empty block; and `size` 0 frees `at` and returns null, as glibc does.
    ///
    /// # Safety
    ///
    /// `at` is null or a living block.
    pub unsafe fn realloc(&self, at: *mut u8, size: usize) -> *mut u8 {
        if at.is_null() {
            return self.malloc(size);
        }
        // SAFETY: the caller's promise.
        unsafe {
            if size == 0 {
                self.free(at);
                return null_mut();
            }
            if size > MAX_REQUEST {
                return null_mut();
            }
            if self.guard.is_on() {
                return self.copy_to(at, self.guarded_size(at), size);
            }
            self.start();
            let chunk = self.living(at, "realloc(): invalid pointer", "realloc(): freed block");
            let resized = match self.enter() {
                Some(_inside) if chunk.has(MAPPED) => self.resize_mapping(chunk, size),
                Some(_inside) => self.resize_chunk(chunk, size),
                // A handler in the middle of a call waits for no lock.
                None => None,
            };
            match resized {
                Some(chunk) => chunk.0,
                None => self.copy_to(at, self.bytes_of(chunk), size),
            }
        }
    }

    /// The chunk of a block that is a mapping, which may have moved, with room for `size` bytes.
    fn resize_mapping(&self, chunk: Chunk, size: usize) -> Option<Chunk> {
        if size > MAX_SMALL { self.resize_mapped(chunk, chunk.sealed_size(self.secret()), size) } else { None }
    }

    /// The chunk of a block in an arena, if it can have room for `size` bytes where it is.
    fn resize_chunk(&self, chunk: Chunk, size: usize) -> Option<Chunk> {
        let old = chunk.sealed_size(self.secret());
        let need = chunk_size(size);
        let keep = match need <= old {
            true => old - need < MIN || self.shrink(chunk, old, need),
            false => self.grow(chunk, old, need),
        };
        keep.then_some(chunk)
    }

    /// Returns whether the chunk may stay where it is.
    fn shrink(&self, chunk: Chunk, old: usize, need: usize) -> bool {
        // A small chunk that loses less than half is not worth taking the lock.
        if old <= MAX_SMALL && need >= old / 2 {
            return true;
        }
        self.at_its_arena(chunk, |_, state| state.shrink_in_place(chunk, old, need).map(|()| true))
    }

    /// Returns whether the chunk has grown to `need` bytes.
    fn grow(&self, chunk: Chunk, old: usize, need: usize) -> bool {
        // A hint: read without the lock, it may be out of date.
        if chunk.after(old).has(USED) || need > MAX_IN_PLACE {
            return false;
        }
        self.at_its_arena(chunk, |m, state| {
            if state.grow_in_place(chunk, old, need)?.is_some() {
                return Ok(true);
            }
            let top = state.top_size();
            if need < EXTEND_FROM || chunk.after(old) != state.top || !state.extend(m, need - old)? {
                return Ok(false);
            }
            debug_assert!(state.top_size() > top);
            Ok(chunk.after(old) == state.top && state.grow_in_place(chunk, old, need)?.is_some())
        })
    }

    /// Runs `f` on a chunk without its seal, under its arena's lock.
    fn at_its_arena(
        &self,
        chunk: Chunk,
        f: impl FnOnce(&Self, &mut crate::arena::State) -> Result<bool, crate::large::Damaged>,
    ) -> bool {
        let arena = self.arena_of(chunk);
        let done = arena.state.with(&self.system, |state| {
            arena.drain(state, self)?;
            chunk.take_back(self.secret());
            let done = f(self, state);
            chunk.hand_out(self.secret());
            done
        });
        self.check(done)
    }

    /// Moves a block's first `old` bytes to a new block of `size`; null, with the old one untouched, if there is none.
    ///
    /// # Safety
    ///
    /// `at` is a living block of at least `old` bytes.
    unsafe fn copy_to(&self, at: *mut u8, old: usize, size: usize) -> *mut u8 {
        let new = self.malloc(size);
        if !new.is_null() {
            // SAFETY: both blocks are alive, disjoint, and as large as the smaller size.
            unsafe {
                new.copy_from_nonoverlapping(at, old.min(size));
                self.free(at);
            }
        }
        new
    }
}
