//! Reference counting with fallible construction.
//!
//! The state is one count: the owner that takes it from 1 to 0 drops the value, and no one raises it from 0. A value
//! that can be found without owning it ([`KArc::upgrade`]) must keep finders away while it is dropped: its own drop
//! takes the lock under which they search.
//!
//! `tests/loom_karc.rs` compiles this file a second time, with loom's atomics.

use alloc::boxed::Box;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::atomic::{AtomicUsize, Ordering, fence};
use super::{AllocError, try_place};

struct Counted<T> {
    count: AtomicUsize,
    value: T,
}

/// The first owner of a value that nobody else has seen yet, so that it can still be changed.
pub struct Unshared<T>(KArc<T>);

/// A shared owner of a `T`, which is freed with its last owner. Like `alloc`'s `Arc`, but construction can fail, and
/// there are no weak references.
pub struct KArc<T> {
    inner: NonNull<Counted<T>>,
}

// SAFETY: a `KArc` gives `&T` to several CPUs and drops the `T` on any of them.
unsafe impl<T: Send + Sync> Send for KArc<T> {}
// SAFETY: as above; `&KArc` can be cloned into a `KArc`.
unsafe impl<T: Send + Sync> Sync for KArc<T> {}

impl<T> KArc<T> {
    /// The first owner.
    #[inline]
    pub fn try_new(value: T) -> Result<Self, AllocError> {
        let inner = try_place::<Counted<T>>()?;
        // SAFETY: the place is free, aligned and large enough.
        unsafe { inner.as_ptr().write(Counted { count: AtomicUsize::new(1), value }) };
        Ok(Self { inner })
    }

    /// The first owner of the value that `make` makes of `from`; if memory is lacking, returns `from`.
    pub fn try_new_from<S>(from: S, make: impl FnOnce(S) -> T) -> Result<Self, S> {
        let Ok(inner) = try_place::<Counted<T>>() else { return Err(from) };
        // SAFETY: the place is free, aligned and large enough; if `make` does not return, nobody has the pointer.
        unsafe { inner.as_ptr().write(Counted { count: AtomicUsize::new(1), value: make(from) }) };
        Ok(Self { inner })
    }

    /// The first owner of a value that `make` constructs in place.
    #[inline]
    pub fn try_unshared(make: impl FnOnce() -> T) -> Result<Unshared<T>, AllocError> {
        let inner = try_place::<Counted<T>>()?;
        // SAFETY: the place is free, aligned and large enough; if `make` does not return, nobody has the pointer.
        unsafe {
            (&raw mut (*inner.as_ptr()).value).write(make());
            (&raw mut (*inner.as_ptr()).count).write(AtomicUsize::new(1));
        }
        Ok(Unshared(Self { inner }))
    }

    #[inline]
    fn counted(&self) -> &Counted<T> {
        // SAFETY: an owner exists, so the count is at least 1 and the memory lives.
        unsafe { self.inner.as_ref() }
    }

    /// Whether two owners own the same value.
    #[inline]
    pub fn ptr_eq(a: &Self, b: &Self) -> bool {
        a.inner == b.inner
    }

    /// The number of owners, which may change at any time.
    pub fn count(this: &Self) -> usize {
        this.counted().count.load(Ordering::Relaxed)
    }

    /// The value's address, as an identity.
    #[inline]
    pub fn as_ptr(this: &Self) -> *const T {
        &raw const this.counted().value
    }

    /// Turns an owner into a pointer without changing the count.
    pub fn into_raw(this: Self) -> *const T {
        let ptr = Self::as_ptr(&this);
        core::mem::forget(this);
        ptr
    }

    /// Turns a pointer from [`KArc::into_raw`] back into an owner.
    ///
    /// # Safety
    /// `ptr` is from `into_raw` of the same `T`, and each such pointer is turned back once.
    pub unsafe fn from_raw(ptr: *const T) -> Self {
        let offset = core::mem::offset_of!(Counted<T>, value);
        // SAFETY: `into_raw` returned the address of the field `value` of a live `Counted<T>`, which is not null.
        let inner = unsafe { NonNull::new_unchecked(ptr.byte_sub(offset).cast_mut().cast::<Counted<T>>()) };
        Self { inner }
    }

    /// Adds `n` owners that are not `KArc`s: records that hold the pointer in their own form.
    #[inline]
    pub fn add_owners(this: &Self, n: usize) {
        this.counted().count.fetch_add(n, Ordering::Relaxed);
    }

    /// Ends `n` owners that [`KArc::add_owners`] added.
    ///
    /// # Safety
    /// `ptr` is the address ([`KArc::as_ptr`]) of a value to which at least `n` such owners are left, all of them
    /// the caller's.
    pub unsafe fn drop_owners(ptr: *const T, n: usize) {
        if n == 0 {
            return;
        }
        // SAFETY: the caller has an owner, so the value lives. One `KArc` stands for the last of the `n`.
        let last = unsafe { Self::from_raw(ptr) };
        if n > 1 {
            // (The drop of the last one below provides the ordering.)
            last.counted().count.fetch_sub(n - 1, Ordering::Relaxed);
        }
        drop(last);
    }

    /// A new owner of a value that may be about to be dropped; `None` if its last owner is gone.
    ///
    /// # Safety
    /// `ptr` is the address of a value whose memory is not yet freed and will not be during the call.
    pub unsafe fn upgrade(ptr: *const T) -> Option<Self> {
        // SAFETY: the memory is not freed; `ManuallyDrop`, since this is an owner only if the count could be raised.
        let this = core::mem::ManuallyDrop::new(unsafe { Self::from_raw(ptr) });
        let grow = |n: usize| if n == 0 { None } else { Some(n + 1) };
        this.counted().count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).ok()?;
        Some(core::mem::ManuallyDrop::into_inner(this))
    }
}

impl<T> Unshared<T> {
    /// Shares the value: from here on others may own it, too.
    #[inline]
    pub fn share(self) -> KArc<T> {
        self.0
    }
}

impl<T> Deref for Unshared<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Unshared<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the only owner, and was from the beginning: whoever else had the address had it from a
        // reference that has ended.
        unsafe { &mut self.0.inner.as_mut().value }
    }
}

impl<T> Clone for KArc<T> {
    #[inline]
    fn clone(&self) -> Self {
        // A new owner comes from an old one, so no ordering is needed. The count cannot overflow: each owner takes at
        // least a word of memory.
        self.counted().count.fetch_add(1, Ordering::Relaxed);
        Self { inner: self.inner }
    }
}

impl<T> Deref for KArc<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T> Drop for KArc<T> {
    #[inline]
    fn drop(&mut self) {
        // Release: this owner's accesses come before the drop. Acquire: so do the other owners'.
        if self.counted().count.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            // SAFETY: this was the last owner; the memory came from the global allocator with this layout.
            drop(unsafe { Box::from_raw(self.inner.as_ptr()) });
        }
    }
}
