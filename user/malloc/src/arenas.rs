//! All arenas together: which one serves a thread, when another is created, and operations on all of them in turn.

use core::sync::atomic::Ordering;

use crate::arena::{Arena, State};
use crate::cache::{Cache, Stage};
use crate::chunk::Chunk;
use crate::heap::new_arena;
use crate::large::Damaged;
use crate::{Malloc, System};

/// A thread that has found its arena and all others locked this many times gets a new one.
const CONTENTION: usize = 8;

impl<S: System> Malloc<S> {
    /// Gives a chunk without a seal to its arena, or leaves it there if somebody holds the lock.
    pub(crate) fn give_to_arena(&self, chunk: Chunk) {
        let arena = self.arena_of(chunk);
        let given = arena.state.try_with(&self.system, |state| {
            arena.drain(state, self)?;
            state.give(self, chunk)
        });
        match given {
            Ok(done) => self.check(done),
            Err(_) => arena.leave(chunk, self.secret()),
        }
    }

    /// Runs `f` under the lock of the arena that served the thread last, or of the first one that is free if
    /// somebody holds that; and in the first arena if the other has no memory.
    pub(crate) fn with_arena<R>(
        &self,
        cache: &mut Cache,
        mut f: impl FnMut(&Self, &mut State) -> Result<Option<R>, Damaged>,
    ) -> Option<R> {
        // SAFETY: arenas stay for ever once they are made.
        let last = unsafe { cache.arena.as_ref() }.unwrap_or(&self.main);
        let mut run = |arena: &Arena, state: &mut State| {
            arena.drain(state, self)?;
            f(self, state)
        };
        let mut arena = last;
        let done = match last.state.try_with(&self.system, |state| run(last, state)) {
            Ok(done) => done,
            Err(_) => {
                cache.contended += 1;
                let (other, done) = self.contended(last, cache.contended, &mut run);
                arena = other;
                cache.arena = other;
                done
            }
        };
        let found = self.check(done);
        if found.is_none() && !core::ptr::eq(arena, &self.main) {
            return self.check(self.main.state.with(&self.system, |state| run(&self.main, state)));
        }
        found
    }

    #[cold]
    fn contended<'a, R>(
        &'a self,
        last: &'a Arena,
        times: usize,
        run: &mut impl FnMut(&Arena, &mut State) -> R,
    ) -> (&'a Arena, R) {
        let mut at = Some(&self.main);
        while let Some(arena) = at {
            if let Ok(done) = arena.state.try_with(&self.system, |state| run(arena, state)) {
                return (arena, done);
            }
            at = arena.next();
        }
        // A new arena is worth its memory only for a thread that meets contention repeatedly.
        let new = if times.is_multiple_of(CONTENTION) { self.one_more_arena() } else { None };
        let arena = new.unwrap_or(last);
        (arena, arena.state.with(&self.system, |state| run(arena, state)))
    }

    fn one_more_arena(&self) -> Option<&Arena> {
        if self.arenas.load(Ordering::Relaxed) >= self.options.arena_max() {
            return None;
        }
        self.growing
            .try_with(&self.system, |()| {
                let arena = new_arena(self)?;
                let mut tail = &self.main;
                while let Some(next) = tail.next() {
                    tail = next;
                }
                tail.next.store(core::ptr::from_ref(arena).cast_mut(), Ordering::Release);
                self.arenas.fetch_add(1, Ordering::Relaxed);
                Some(arena)
            })
            .ok()?
    }

    fn each_arena(&self, mut f: impl FnMut(&Arena)) {
        let mut at = Some(&self.main);
        while let Some(arena) = at {
            f(arena);
            at = arena.next();
        }
    }

    /// Gives free memory back to the system: all but `pad` bytes at the top, and whole pages inside free chunks.
    /// Returns whether any went; a handler that came in the middle of a call gives nothing back.
    pub fn trim(&self, pad: usize) -> bool {
        let Some(mut inside) = self.enter() else { return false };
        self.dismantle(inside.cache());
        if inside.cache().stage == Stage::Without {
            inside.cache().stage = Stage::Zero;
        }
        let mut any = self.drop_spare();
        self.each_arena(|arena| {
            let done = arena.state.with(&self.system, |state| {
                arena.drain(state, self)?;
                state.merge_fast(self)?;
                any |= state.trim(self, pad);
                any |= state.release_free(self);
                Ok(())
            });
            self.check(done);
        });
        any
    }

    /// Runs `f` on an arena at rest; not at all, and returns `None`, for a handler that came in the middle of a call
    /// that may hold this arena.
    pub(crate) fn at_rest<R>(&self, arena: &Arena, f: impl FnOnce(&mut State) -> R) -> Option<R> {
        let run = |state: &mut State| {
            arena.drain(state, self)?;
            Ok(f(state))
        };
        let inside = self.enter();
        let done = match inside {
            Some(_) => arena.state.with(&self.system, run),
            None => arena.state.try_with(&self.system, run).ok()?,
        };
        Some(self.check(done))
    }

    /// Before a fork, in the parent: takes every lock, so that the child finds the heap at rest. If the fork interrupts
    /// a call of the same thread, which holds some of the locks, it takes none: such a child may only exec or exit.
    pub fn before_fork(&self) {
        if self.enter_fork() {
            self.growing.acquire(&self.system);
            self.each_arena(|arena| arena.state.acquire(&self.system));
            self.mappings.lock(&self.system);
            self.guard.lock(&self.system);
        }
    }

    /// After a fork, in the parent.
    pub fn after_fork_parent(&self) {
        if let Some(_inside) = self.inside_fork() {
            self.guard.unlock(&self.system);
            self.mappings.unlock(&self.system);
            self.each_arena(|arena| arena.state.release(&self.system));
            self.growing.release(&self.system);
        }
    }

    /// After a fork, in the child, which has one thread.
    pub fn after_fork_child(&self) {
        if let Some(_inside) = self.inside_fork() {
            self.guard.reset();
            self.mappings.reset();
            self.each_arena(|arena| arena.state.reset());
            self.growing.reset();
        }
    }

    /// Arenas in the order of their creation, for the heap walker.
    pub(crate) fn arena_list(&self) -> impl Iterator<Item = &Arena> {
        core::iter::successors(Some(&self.main), |arena| arena.next())
    }
}
