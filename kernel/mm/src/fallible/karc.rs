//! Shared ownership whose making can fail.
//!
//! The count is all there is to it: whoever takes it from 1 to 0 ends the value, and nobody takes it up from 0. A value that
//! others find without owning it ([`KArc::upgrade`]) keeps them away while it ends: its own drop takes the lock under
//! which they look.
//!
//! `tests/loom_karc.rs` compiles this file a second time, with loom's atomics.

use alloc::boxed::Box;
use core::ops::Deref;
use core::ptr::NonNull;

use super::atomic::{AtomicUsize, Ordering, fence};
use super::{AllocError, try_place};

struct Counted<T> {
    count: AtomicUsize,
    value: T,
}

/// A shared owner of a `T`, freed with the last one. As `alloc`'s `Arc`, but its making can fail, and it has no
/// weak side.
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

    /// How many owners there are; others may come and go meanwhile.
    pub fn count(this: &Self) -> usize {
        this.counted().count.load(Ordering::Relaxed)
    }

    /// The value's address, as an identity.
    #[inline]
    pub fn as_ptr(this: &Self) -> *const T {
        &raw const this.counted().value
    }

    /// Gives up ownership without giving up the count: a pointer for a place that holds no type.
    pub fn into_raw(this: Self) -> *const T {
        let ptr = Self::as_ptr(&this);
        core::mem::forget(this);
        ptr
    }

    /// Takes back what [`KArc::into_raw`] gave up.
    ///
    /// # Safety
    /// `ptr` is from `into_raw` of the same `T`, and each such pointer is taken back once.
    pub unsafe fn from_raw(ptr: *const T) -> Self {
        let offset = core::mem::offset_of!(Counted<T>, value);
        // SAFETY: `into_raw` answered the address of the field `value` of a live `Counted<T>`, which is not null.
        let inner = unsafe { NonNull::new_unchecked(ptr.byte_sub(offset).cast_mut().cast::<Counted<T>>()) };
        Self { inner }
    }

    /// Adds `n` owners that are no `KArc`s: records that hold the pointer in a form of their own.
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
            // (The end of the last one, which comes after, is what others are ordered by.)
            last.counted().count.fetch_sub(n - 1, Ordering::Relaxed);
        }
        drop(last);
    }

    /// A new owner of a value that may be on its way out; `None` if its last owner is gone.
    ///
    /// # Safety
    /// `ptr` is the address of a value whose memory is not yet freed and will not be during the call.
    pub unsafe fn upgrade(ptr: *const T) -> Option<Self> {
        // SAFETY: the memory is there; `ManuallyDrop`, since this is an owner only if the count says so.
        let this = core::mem::ManuallyDrop::new(unsafe { Self::from_raw(ptr) });
        let grow = |n: usize| if n == 0 { None } else { Some(n + 1) };
        this.counted().count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).ok()?;
        Some(core::mem::ManuallyDrop::into_inner(this))
    }
}

impl<T> Clone for KArc<T> {
    #[inline]
    fn clone(&self) -> Self {
        // A new owner comes from an old one, so nothing needs ordering. The count cannot overflow: each owner is
        // a word of memory at least.
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
        // Release: what this owner did comes before the end. Acquire: so did what the others did.
        if self.counted().count.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            // SAFETY: this was the last owner; the memory came from the global allocator with this layout.
            drop(unsafe { Box::from_raw(self.inner.as_ptr()) });
        }
    }
}
