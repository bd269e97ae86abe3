//! Memory for work that holds a lock.
//!
//! Whoever holds the lock of an address space, of a table or of an object must not wait for memory: reclaim may need that
//! very lock, and everybody else would wait along. So such work takes what is free at once, through a [`Supply`], and
//! fails where nothing is. It undoes what it has begun and gives its locks back. [`Supply::refill`] then waits for what
//! was missing, with all that its caller may do for it: reclaim, and a word to the OOM killer. The work begins anew with
//! that in hand. [`supplied`] is this loop, and what is left in the end goes back.
//!
//! Nothing is laid by before it was missing, so without shortage this costs nothing. Work that needs much (fork) is given
//! twice as much each time: it begins anew a number of times that is logarithmic in its need.
//!
//! Lock order: taking from a supply needs the zone's and the slab's locks only; refilling needs that none is held.

use alloc::alloc::Layout;
use alloc::boxed::Box;
use core::cell::Cell;
use core::ptr;

use crate::addr::{Pfn, PhysAddr};
use crate::event::Event;
use crate::fallible::{AllocError, try_box_from};
use crate::machine::Machine;
use crate::page::Page;
use crate::page_alloc::Gfp;

/// The most of a kind that a refill lays by: log2.
const MAX_ROUNDS: u32 = 10;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    User = 0,
    Table = 1,
}

impl Use {
    const fn gfp(self) -> Gfp {
        match self {
            Self::User => Gfp::HIGHUSER_MOVABLE,
            Self::Table => Gfp::KERNEL_ACCOUNT,
        }
    }

    /// As [`Use::gfp`], for an allocation that must not wait.
    const fn gfp_now(self) -> Gfp {
        self.gfp().difference(Gfp::DIRECT_RECLAIM).union(Gfp::NOWARN)
    }
}

/// What an allocation did not get.
#[derive(Clone, Copy)]
enum Missing {
    Nothing,
    Frame(Use),
    Object(Layout),
}

/// See the module.
pub struct Supply<M: Machine> {
    machine: M,
    /// Frames by [`Use`], strung together by [`Page::next`]; 0 ends a chain.
    frames: [Cell<u32>; 2],
    /// Objects of the global allocator, strung together by their first words, and the layout of each.
    objects: Cell<*mut u8>,
    layout: Cell<Layout>,
    missing: Cell<Missing>,
    rounds: Cell<u32>,
}

/// Does `work`, which fails rather than wait for memory, until it fails for another reason or not at all. No lock is held
/// in between.
#[inline]
pub fn supplied<M: Machine, R, E: From<AllocError>>(
    machine: M,
    mut work: impl FnMut(&Supply<M>) -> Result<R, E>,
) -> Result<R, E> {
    let supply = Supply::new(machine);
    loop {
        let done = work(&supply);
        if done.is_ok() || !supply.is_short() {
            return done;
        }
        supply.refill()?;
    }
}

impl<M: Machine> Supply<M> {
    /// Nothing laid by.
    #[inline]
    pub const fn new(machine: M) -> Self {
        Self {
            machine,
            frames: [const { Cell::new(0) }; 2],
            objects: Cell::new(ptr::null_mut()),
            layout: Cell::new(Layout::new::<usize>()),
            missing: Cell::new(Missing::Nothing),
            rounds: Cell::new(0),
        }
    }

    /// A frame for a program's memory, with one reference. Zeroed if asked.
    #[inline]
    pub fn user(&self, zeroed: bool) -> Result<Pfn, AllocError> {
        let gfp = const { Use::User.gfp_now() };
        let gfp = if zeroed { gfp | Gfp::ZERO } else { gfp };
        let pfn = match self.machine.pages().alloc_raw(0, gfp) {
            Ok(pfn) => pfn,
            Err(_) => self.spare(Use::User, zeroed)?,
        };
        self.machine.count(Event::UserAlloc, 1);
        Ok(pfn)
    }

    /// A frame for a translation table, filled with zeros.
    #[inline]
    pub fn table(&self) -> Result<PhysAddr, AllocError> {
        match self.machine.pages().alloc_raw(0, const { Use::Table.gfp_now().union(Gfp::ZERO) }) {
            Ok(pfn) => Ok(pfn.addr()),
            Err(_) => self.spare(Use::Table, true).map(Pfn::addr),
        }
    }

    /// A box around what `make` answers.
    #[inline]
    pub fn boxed<T>(&self, make: impl FnOnce() -> T) -> Result<Box<T>, AllocError> {
        let place = |layout| {
            let place = self.machine.alloc_now(layout);
            if place.is_null() { self.spare_object(layout) } else { place }
        };
        // SAFETY: both come from the global allocator, and an object of the chain leaves it.
        unsafe { try_box_from(place, make) }
    }

    /// Whether the last failure was one that [`Supply::refill`] can mend.
    #[inline]
    pub fn is_short(&self) -> bool {
        !matches!(self.missing.get(), Missing::Nothing)
    }

    #[cold]
    fn spare(&self, what: Use, zeroed: bool) -> Result<Pfn, AllocError> {
        let chain = &self.frames[what as usize];
        let pfn = Pfn(chain.get() as usize);
        if pfn.0 == 0 {
            self.missing.set(Missing::Frame(what));
            return Err(AllocError);
        }
        chain.set(self.page(pfn).next().load(core::sync::atomic::Ordering::Relaxed));
        if zeroed {
            self.machine.clear_page(pfn.addr());
        }
        Ok(pfn)
    }

    #[cold]
    fn spare_object(&self, layout: Layout) -> *mut u8 {
        let object = self.objects.get();
        if object.is_null() || self.layout.get() != layout {
            self.missing.set(Missing::Object(layout));
            return ptr::null_mut();
        }
        // SAFETY: `lay_by_objects` wrote the next one's address there.
        self.objects.set(unsafe { object.cast::<*mut u8>().read() });
        object
    }

    fn page(&self, pfn: Pfn) -> &'static Page {
        // SAFETY: frames in the chains came from the page allocator, and nobody else has them.
        unsafe { Page::of(self.machine, pfn) }
    }

    /// Waits for what was missing. The caller holds no lock and may sleep. The error is final: nothing can be reclaimed, or
    /// the thread was killed; the page allocator has marked the thread as one that starves.
    #[cold]
    pub fn refill(&self) -> Result<(), AllocError> {
        let count = 1 << self.rounds.get().min(MAX_ROUNDS);
        self.rounds.set(self.rounds.get() + 1);
        match self.missing.replace(Missing::Nothing) {
            Missing::Nothing => Ok(()),
            Missing::Frame(what) => self.lay_by_frames(what, count),
            Missing::Object(layout) => self.lay_by_objects(layout, count),
        }
    }

    /// The first one is waited for; for the others one attempt will do.
    fn lay_by_frames(&self, what: Use, count: usize) -> Result<(), AllocError> {
        for n in 0..count {
            let gfp = if n == 0 { what.gfp() } else { what.gfp() | Gfp::NORETRY | Gfp::NOWARN };
            match self.machine.pages().alloc_raw(0, gfp) {
                Ok(pfn) => {
                    let chain = &self.frames[what as usize];
                    self.page(pfn).next().store(chain.get(), core::sync::atomic::Ordering::Relaxed);
                    chain.set(pfn.0 as u32);
                }
                Err(error) if n == 0 => return Err(error),
                Err(_) => break,
            }
            self.machine.resched_point().map_err(|_| AllocError)?;
        }
        Ok(())
    }

    fn lay_by_objects(&self, layout: Layout, count: usize) -> Result<(), AllocError> {
        if layout != self.layout.get() {
            self.free_objects();
        }
        debug_assert!(layout.size() >= size_of::<usize>() && layout.align() >= align_of::<usize>());
        self.layout.set(layout);
        for n in 0..count {
            #[cfg(test)]
            if crate::fallible::inject::pass().is_err() {
                return Err(AllocError);
            }
            // SAFETY: the layout's size is not 0.
            let object = unsafe { alloc::alloc::alloc(layout) };
            if object.is_null() {
                return if n == 0 { Err(AllocError) } else { Ok(()) };
            }
            // SAFETY: it has room for a word, and is nobody else's.
            unsafe { object.cast::<*mut u8>().write(self.objects.get()) };
            self.objects.set(object);
            self.machine.resched_point().map_err(|_| AllocError)?;
        }
        Ok(())
    }

    fn free_objects(&self) {
        let layout = self.layout.get();
        while !self.objects.get().is_null() {
            let object = self.spare_object(layout);
            // SAFETY: it came from the global allocator with this layout, and nobody has it.
            unsafe { alloc::alloc::dealloc(object, layout) };
        }
    }

    #[cold]
    fn give_back(&self) {
        for chain in &self.frames {
            while chain.get() != 0 {
                let pfn = Pfn(chain.get() as usize);
                chain.set(self.page(pfn).next().load(core::sync::atomic::Ordering::Relaxed));
                // SAFETY: an allocated frame that nobody has come to know.
                unsafe { self.machine.pages().free_pages(pfn, 0) };
            }
        }
        self.free_objects();
    }
}

impl<M: Machine> Drop for Supply<M> {
    #[inline]
    fn drop(&mut self) {
        if self.frames[0].get() | self.frames[1].get() != 0 || !self.objects.get().is_null() {
            self.give_back();
        }
    }
}
