//! The C functions' meaning, over [`MALLOC`]: errno, alignment rules and corner cases as glibc has them.

use core::ffi::c_int;
use core::ptr::null_mut;

use quire_malloc::{PAGE, Parameter, System};

use crate::MALLOC;

/// No memory.
pub const ENOMEM: c_int = 12;
/// An argument that can never be right.
pub const EINVAL: c_int = 22;

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// Sets the calling thread's `errno`.
#[cold]
pub fn set_errno(value: c_int) {
    // SAFETY: libc answers the address of the thread's errno.
    unsafe { *__errno_location() = value };
}

#[inline(always)]
fn or_enomem(at: *mut u8) -> *mut u8 {
    if at.is_null() {
        set_errno(ENOMEM);
    }
    at
}

/// C's `malloc`.
#[inline(always)]
pub fn malloc(size: usize) -> *mut u8 {
    let at = MALLOC.malloc_cached(size);
    if at.is_null() { malloc_uncached(size) } else { at }
}

/// Out of line as a whole, so that the fast path needs no frame.
#[inline(never)]
fn malloc_uncached(size: usize) -> *mut u8 {
    or_enomem(MALLOC.malloc_uncached(size))
}

/// C's `calloc`.
#[inline(always)]
pub fn calloc(count: usize, size: usize) -> *mut u8 {
    or_enomem(MALLOC.calloc(count, size))
}

/// C's `free`, which leaves `errno` alone.
///
/// # Safety
///
/// `at` is null or a living block.
#[inline(always)]
pub unsafe fn free(at: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { MALLOC.free(at) }
}

/// C's `realloc`.
///
/// # Safety
///
/// `at` is null or a living block.
pub unsafe fn realloc(at: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    let new = unsafe { MALLOC.realloc(at, size) };
    if new.is_null() && (size != 0 || at.is_null()) {
        set_errno(ENOMEM);
    }
    new
}

/// BSD's `reallocarray`.
///
/// # Safety
///
/// `at` is null or a living block.
pub unsafe fn reallocarray(at: *mut u8, count: usize, size: usize) -> *mut u8 {
    match count.checked_mul(size) {
        // SAFETY: the caller's promise.
        Some(bytes) => unsafe { realloc(at, bytes) },
        None => or_enomem(null_mut()),
    }
}

/// `memalign`: an alignment that is no power of two is rounded up to one.
pub fn memalign(align: usize, size: usize) -> *mut u8 {
    match align.checked_next_power_of_two() {
        Some(align) => or_enomem(MALLOC.memalign(align, size)),
        None => {
            set_errno(EINVAL);
            null_mut()
        }
    }
}

/// C11's `aligned_alloc`.
pub fn aligned_alloc(align: usize, size: usize) -> *mut u8 {
    if !align.is_power_of_two() {
        set_errno(EINVAL);
        return null_mut();
    }
    or_enomem(MALLOC.memalign(align, size))
}

/// POSIX's `posix_memalign`, which returns its error and leaves `errno` and, on error, `out` alone.
///
/// # Safety
///
/// `out` can be written.
pub unsafe fn posix_memalign(out: *mut *mut u8, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<usize>() {
        return EINVAL;
    }
    let at = MALLOC.memalign(align, size);
    if at.is_null() {
        return ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { out.write(at) };
    0
}

/// `valloc`.
pub fn valloc(size: usize) -> *mut u8 {
    memalign(PAGE, size)
}

/// `pvalloc`: whole pages.
pub fn pvalloc(size: usize) -> *mut u8 {
    match size.checked_next_multiple_of(PAGE) {
        Some(size) => memalign(PAGE, size),
        None => or_enomem(null_mut()),
    }
}

/// `malloc_usable_size`.
///
/// # Safety
///
/// `at` is null or a living block.
pub unsafe fn malloc_usable_size(at: *mut u8) -> usize {
    // SAFETY: the caller's promise.
    unsafe { MALLOC.usable_size(at) }
}

/// `mallopt`: 1 if the value was taken.
pub fn mallopt(parameter: c_int, value: c_int) -> c_int {
    match Parameter::from_c(parameter) {
        Some(parameter) => c_int::from(MALLOC.set_option(parameter, value)),
        None => 0,
    }
}

/// `malloc_trim`: 1 if memory went back.
pub fn malloc_trim(pad: usize) -> c_int {
    c_int::from(MALLOC.trim(pad))
}

/// C23's `free_sized`. A size that the block cannot have ends the process.
///
/// # Safety
///
/// `at` is null or a living block of `size` bytes.
pub unsafe fn free_sized(at: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { free_aligned_sized(at, 1, size) }
}

/// C23's `free_aligned_sized`. A size or an alignment that the block cannot have ends the process.
///
/// # Safety
///
/// `at` is null or a living block of `size` bytes at a multiple of `align`.
pub unsafe fn free_aligned_sized(at: *mut u8, align: usize, size: usize) {
    if at.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        if !align.is_power_of_two() || !at.addr().is_multiple_of(align) || MALLOC.usable_size(at) < size {
            MALLOC.system().abort("free_sized(): the block is not of that size or alignment");
        }
        MALLOC.free(at);
    }
}

/// `sbrk`: moves the break and returns where it was, or all ones and `ENOMEM`. The allocator tolerates a break that
/// others move upwards.
pub fn sbrk(by: isize) -> usize {
    MALLOC.undisturbed(|| crate::sys::move_break(by)).unwrap_or_else(|| {
        set_errno(ENOMEM);
        usize::MAX
    })
}
