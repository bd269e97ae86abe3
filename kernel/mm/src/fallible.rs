//! Allocation whose failure is a value.
//!
//! After boot the kernel uses none of `alloc`'s infallible constructors (`Box::new`, `Arc::new`, `Vec::push`,
//! `format!`): they abort if memory is exhausted. The functions here replace them; clippy's `disallowed-methods`
//! enforces that.

use alloc::alloc::Layout;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;

use quire_abi::Errno;

mod karc;

pub use karc::{KArc, Unshared};

/// The atomics, which loom replaces.
mod atomic {
    pub(super) use core::sync::atomic::{AtomicUsize, Ordering, fence};
}

/// There was no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocError;

impl From<AllocError> for Errno {
    fn from(_: AllocError) -> Errno {
        Errno::ENOMEM
    }
}

/// A box around `value`; on an error `value` is dropped.
#[inline]
pub fn try_box<T>(value: T) -> Result<Box<T>, AllocError> {
    try_box_with(|| value)
}

/// A box around the result of `make`, constructed in place.
#[inline]
pub fn try_box_with<T>(make: impl FnOnce() -> T) -> Result<Box<T>, AllocError> {
    let place = try_place::<T>()?;
    // SAFETY: `try_place` returns unused memory, aligned and large enough for a `T`, from the global allocator with
    // `T`'s layout, with which `Box` frees it.
    unsafe {
        place.as_ptr().write(make());
        Ok(Box::from_raw(place.as_ptr()))
    }
}

/// As [`try_box_with`], in memory from `alloc`, which returns null or memory of the global allocator.
///
/// # Safety
/// `alloc` returns null, or unused memory from the global allocator with the given layout.
#[inline]
pub unsafe fn try_box_from<T>(
    alloc: impl FnOnce(Layout) -> *mut u8,
    make: impl FnOnce() -> T,
) -> Result<Box<T>, AllocError> {
    const { assert!(size_of::<T>() != 0) }
    let place = NonNull::new(alloc(Layout::new::<T>())).ok_or(AllocError)?.cast::<T>();
    #[cfg(test)]
    inject::enter(place.as_ptr());
    // SAFETY: the caller's promise.
    unsafe {
        place.as_ptr().write(make());
        Ok(Box::from_raw(place.as_ptr()))
    }
}

/// Uninitialised memory for one `T` from the global allocator.
#[inline]
fn try_place<T>() -> Result<NonNull<T>, AllocError> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(NonNull::dangling());
    }
    #[cfg(test)]
    inject::pass()?;
    // SAFETY: the layout's size is not 0.
    let place = NonNull::new(unsafe { alloc::alloc::alloc(layout) }).map(NonNull::cast).ok_or(AllocError);
    #[cfg(test)]
    let place = place.inspect(|place: &NonNull<T>| inject::enter(place.as_ptr()));
    place
}

/// Fallible versions of `Vec`'s methods.
pub trait TryVec<T> {
    /// Appends, growing in powers of two: O(1) amortised.
    fn try_push(&mut self, value: T) -> Result<(), AllocError>;
    /// Appends a copy of a slice, growing as [`TryVec::try_push`] does.
    fn try_extend_from_slice(&mut self, from: &[T]) -> Result<(), AllocError>
    where
        T: Copy;
    /// A vector with room for `n`.
    fn try_with_capacity(n: usize) -> Result<Self, AllocError>
    where
        Self: Sized;
    /// A copy of a slice.
    fn try_from_slice(from: &[T]) -> Result<Self, AllocError>
    where
        T: Copy,
        Self: Sized;
}

impl<T> TryVec<T> for Vec<T> {
    fn try_push(&mut self, value: T) -> Result<(), AllocError> {
        self.try_reserve(1).map_err(|_| AllocError)?;
        // There is room: this cannot allocate.
        #[allow(clippy::disallowed_methods)]
        self.push(value);
        Ok(())
    }

    fn try_extend_from_slice(&mut self, from: &[T]) -> Result<(), AllocError>
    where
        T: Copy,
    {
        self.try_reserve(from.len()).map_err(|_| AllocError)?;
        // There is room: this cannot allocate.
        #[allow(clippy::disallowed_methods)]
        self.extend_from_slice(from);
        Ok(())
    }

    fn try_with_capacity(n: usize) -> Result<Self, AllocError> {
        #[cfg(test)]
        inject::pass()?;
        let mut v = Vec::new();
        v.try_reserve_exact(n).map_err(|_| AllocError)?;
        #[cfg(test)]
        if v.capacity() != 0 {
            inject::enter(v.as_ptr());
        }
        Ok(v)
    }

    fn try_from_slice(from: &[T]) -> Result<Self, AllocError>
    where
        T: Copy,
    {
        let mut v = <Self as TryVec<T>>::try_with_capacity(from.len())?;
        // There is room: this cannot allocate.
        #[allow(clippy::disallowed_methods)]
        v.extend_from_slice(from);
        Ok(v)
    }
}

/// `len` bytes of zeros.
pub fn try_zeroed(len: usize) -> Result<Vec<u8>, AllocError> {
    let mut bytes: Vec<u8> = TryVec::try_with_capacity(len)?;
    // There is room: this cannot allocate.
    #[allow(clippy::disallowed_methods)]
    bytes.resize(len, 0);
    Ok(bytes)
}

pub mod slots;

#[cfg(test)]
pub(crate) mod inject;

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    struct Bell<'a>(&'a Cell<u32>);
    impl Drop for Bell<'_> {
        #[inline]
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn the_last_owner_ends_the_value_once() {
        let rung = Cell::new(0);
        let a = KArc::try_new(Bell(&rung)).unwrap();
        let b = a.clone();
        drop(a);
        assert_eq!(rung.get(), 0);
        let raw = KArc::into_raw(b);
        // SAFETY: `raw` is from `into_raw`, taken back once.
        drop(unsafe { KArc::from_raw(raw) });
        assert_eq!(rung.get(), 1);
    }

    #[test]
    fn what_nobody_has_seen_can_be_changed() {
        let rung = Cell::new(0);
        let mut unshared = KArc::try_unshared(|| (Bell(&rung), 1)).unwrap();
        unshared.1 += 1;
        let shared = unshared.share();
        assert_eq!((KArc::count(&shared), shared.1), (1, 2));
        drop(shared);
        drop(KArc::try_unshared(|| Bell(&rung)).unwrap());
        assert_eq!(rung.get(), 2);
    }

    #[test]
    fn vectors_grow_by_hand() {
        let mut v = <Vec<_> as TryVec<_>>::try_with_capacity(1).unwrap();
        for i in 0..100 {
            v.try_push(i).unwrap();
        }
        assert_eq!(v[99], 99);
    }
}
