//! Memory for work that holds a lock.
//!
//! A thread that holds the lock of an address space, of a table or of an object must not wait for memory: reclaim may
//! need that very lock, and all other users of it would wait too. So such work allocates without waiting, through a
//! [`Supply`], and fails if nothing is free. It undoes its partial work and releases its locks. [`Supply::refill`] then
//! waits for the missing memory by all means: reclaim, and the OOM killer. With that memory in hand the work starts
//! again. [`supplied`] is this loop, and frees what is left over in the end.
//!
//! Nothing is set aside before it was missing, so without a shortage this costs nothing. Work that needs a lot (fork)
//! gets twice as much each time, so the number of restarts is logarithmic in its need.
//!
//! Lock order: taking from a supply needs the zone's and the slab's locks only; refilling requires that none is held.

use alloc::alloc::Layout;
use alloc::boxed::Box;
use core::cell::Cell;
use core::ptr;
use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{Pfn, PhysAddr};
use crate::cgroup::Machine;
use crate::fallible::{AllocError, try_box_from};
use crate::frame;
use crate::page::Page;
use crate::page_alloc::Gfp;

/// log2 of the maximum number of pages or objects of a kind that a refill sets aside.
const MAX_ROUNDS: u32 = 10;

/// The use of a frame.
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

/// The allocation that failed.
#[derive(Clone, Copy)]
enum Missing {
    Nothing,
    Frame(Use),
    Object(Layout),
}

/// The memory set aside; exists only after an allocation has failed.
#[derive(Clone, Copy)]
struct Store {
    /// Frames by [`Use`], chained by [`Page::next`]; 0 ends a chain.
    frames: [u32; 2],
    /// Objects of the global allocator, chained by their first words, and the layout of each.
    objects: *mut u8,
    layout: Layout,
    missing: Missing,
    rounds: u32,
}

impl Store {
    const NEW: Self = Self {
        frames: [0; 2],
        objects: ptr::null_mut(),
        layout: Layout::new::<usize>(),
        missing: Missing::Nothing,
        rounds: 0,
    };
}

/// See the module.
pub struct Supply<M: Machine> {
    machine: M,
    store: Cell<Option<Store>>,
}

/// Runs `work`, which fails instead of waiting for memory, until it succeeds or fails for another reason. No lock is
/// held in between.
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
    /// Nothing set aside.
    #[inline]
    pub const fn new(machine: M) -> Self {
        Self { machine, store: Cell::new(None) }
    }

    /// A frame for a program's memory, with one reference. Zeroed if requested.
    #[inline]
    pub fn user(&self, zeroed: bool) -> Result<Pfn, AllocError> {
        let gfp = const { Use::User.gfp_now() };
        let gfp = if zeroed { gfp | Gfp::ZERO } else { gfp };
        match frame::alloc_user_now(self.machine, gfp) {
            Ok(pfn) => Ok(pfn),
            Err(_) => self.spare(Use::User, zeroed),
        }
    }

    /// A frame for a translation table, charged and filled with zeros.
    #[inline]
    pub fn table(&self) -> Result<PhysAddr, AllocError> {
        match frame::alloc_table_now(self.machine, const { Use::Table.gfp_now().union(Gfp::ZERO) }) {
            Ok(pfn) => Ok(pfn.addr()),
            Err(_) => self.spare(Use::Table, true).map(Pfn::addr),
        }
    }

    /// A box around the result of `make`.
    #[inline]
    pub fn boxed<T>(&self, make: impl FnOnce() -> T) -> Result<Box<T>, AllocError> {
        let place = |layout| {
            let place = self.machine.alloc_now(layout);
            if place.is_null() { self.spare_object(layout) } else { place }
        };
        // SAFETY: both come from the global allocator, and an object of the chain leaves it.
        unsafe { try_box_from(place, make) }
    }

    /// Whether the last failure was one that [`Supply::refill`] can resolve.
    #[inline]
    pub fn is_short(&self) -> bool {
        self.store.get().is_some_and(|store| !matches!(store.missing, Missing::Nothing))
    }

    fn change<R>(&self, change: impl FnOnce(&mut Store) -> R) -> R {
        let mut store = self.store.get().unwrap_or(Store::NEW);
        let done = change(&mut store);
        self.store.set(Some(store));
        done
    }

    #[cold]
    fn spare(&self, what: Use, zeroed: bool) -> Result<Pfn, AllocError> {
        let pfn = self.change(|store| {
            let pfn = self.pop(&mut store.frames[what as usize]);
            if pfn.is_none() {
                store.missing = Missing::Frame(what);
            }
            pfn.ok_or(AllocError)
        })?;
        if zeroed {
            self.machine.clear_page(pfn.addr());
        }
        Ok(pfn)
    }

    #[cold]
    fn spare_object(&self, layout: Layout) -> *mut u8 {
        self.change(|store| {
            if store.objects.is_null() || store.layout != layout {
                store.missing = Missing::Object(layout);
                return ptr::null_mut();
            }
            pop_object(&mut store.objects)
        })
    }

    fn page(&self, pfn: Pfn) -> &'static Page {
        // SAFETY: frames in the chains came from the page allocator, and are unshared.
        unsafe { Page::of(self.machine, pfn) }
    }

    /// Takes the first frame of a chain.
    fn pop(&self, chain: &mut u32) -> Option<Pfn> {
        let pfn = Pfn(*chain as usize);
        (pfn.0 != 0).then(|| {
            *chain = self.page(pfn).next().load(Relaxed);
            pfn
        })
    }

    /// Waits for the missing memory. The caller holds no lock and may sleep. The error is final: nothing can be
    /// reclaimed, or the thread was killed; the page allocator has marked the thread as starved.
    #[cold]
    pub fn refill(&self) -> Result<(), AllocError> {
        let (missing, count) = self.change(|store| {
            store.rounds += 1;
            (core::mem::replace(&mut store.missing, Missing::Nothing), 1 << (store.rounds - 1).min(MAX_ROUNDS))
        });
        match missing {
            Missing::Nothing => Ok(()),
            Missing::Frame(what) => self.lay_by_frames(what, count),
            Missing::Object(layout) => self.lay_by_objects(layout, count),
        }
    }

    /// Waits for the first one; the others get one attempt each.
    fn lay_by_frames(&self, what: Use, count: usize) -> Result<(), AllocError> {
        for n in 0..count {
            let gfp = if n == 0 { what.gfp() } else { what.gfp() | Gfp::NORETRY | Gfp::NOWARN };
            match self.alloc_for_store(what, gfp, n == 0) {
                Ok(pfn) => self.change(|store| {
                    let chain = &mut store.frames[what as usize];
                    self.page(pfn).next().store(core::mem::replace(chain, pfn.0 as u32), Relaxed);
                }),
                Err(error) if n == 0 => return Err(error),
                Err(_) => break,
            }
            self.machine.resched_point().map_err(|_| AllocError)?;
        }
        Ok(())
    }

    /// A frame to be set aside, charged. `insists` waits for the charge too.
    fn alloc_for_store(&self, what: Use, gfp: Gfp, insists: bool) -> Result<Pfn, AllocError> {
        let groups = self.machine.groups();
        match what {
            Use::User if insists => frame::alloc_charged(self.machine, gfp, groups.charge()?),
            Use::User => frame::alloc_user_now(self.machine, gfp),
            Use::Table if insists => frame::alloc_charged_table(self.machine, gfp, groups.charge()?),
            Use::Table => frame::alloc_table_now(self.machine, gfp),
        }
    }

    fn lay_by_objects(&self, layout: Layout, count: usize) -> Result<(), AllocError> {
        debug_assert!(layout.size() >= size_of::<usize>() && layout.align() >= align_of::<usize>());
        self.change(|store| {
            if layout != store.layout {
                free_objects(store);
                store.layout = layout;
            }
        });
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
            self.change(|store| {
                // SAFETY: it has room for a word, and is unshared.
                unsafe { object.cast::<*mut u8>().write(store.objects) };
                store.objects = object;
            });
            self.machine.resched_point().map_err(|_| AllocError)?;
        }
        Ok(())
    }

    #[cold]
    fn give_back(&self, mut store: Store) {
        let [mut users, mut tables] = store.frames;
        while let Some(pfn) = self.pop(&mut users) {
            frame::free(self.machine, pfn);
        }
        while let Some(pfn) = self.pop(&mut tables) {
            frame::free_unused_table(self.machine, pfn);
        }
        free_objects(&mut store);
    }
}

/// Takes the first object of a chain that is not empty.
fn pop_object(chain: &mut *mut u8) -> *mut u8 {
    let object = *chain;
    // SAFETY: `lay_by_objects` wrote the next one's address there.
    *chain = unsafe { object.cast::<*mut u8>().read() };
    object
}

fn free_objects(store: &mut Store) {
    while !store.objects.is_null() {
        // SAFETY: it came from the global allocator with this layout, and is unshared.
        unsafe { alloc::alloc::dealloc(pop_object(&mut store.objects), store.layout) };
    }
}

impl<M: Machine> Drop for Supply<M> {
    #[inline]
    fn drop(&mut self) {
        if let Some(store) = self.store.get() {
            self.give_back(store);
        }
    }
}
