//! The C functions that report on the heap. None of them allocates.

use core::ffi::{c_int, c_void};
use core::fmt::{self, Write};

use quire_malloc::Mallinfo;

use crate::api::{EINVAL, set_errno};
use crate::sys::{call, nr};
use crate::{MALLOC, linux};

unsafe extern "C" {
    fn fwrite(data: *const u8, size: usize, count: usize, stream: *mut c_void) -> usize;
}

/// Standard error, without libc's buffers.
struct Stderr;

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: reads the string.
        let done = unsafe { call(nr::WRITE, [linux::STDERR, text.as_ptr().addr(), text.len(), 0, 0, 0]) };
        done.map(|_| ()).map_err(|_| fmt::Error)
    }
}

/// A `FILE` of libc's. Its buffer may come from this allocator, so it is written to with no lock held.
struct Stream(*mut c_void);

impl Write for Stream {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the caller of `malloc_info` handed an open stream over.
        let done = unsafe { fwrite(text.as_ptr(), 1, text.len(), self.0) };
        if done == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// glibc's `mallinfo2`.
pub fn mallinfo2() -> Mallinfo {
    MALLOC.info()
}

/// `malloc_stats`: to standard error.
pub fn malloc_stats() {
    // If standard error is closed, there is no place to report it.
    let _ = MALLOC.write_stats(&mut Stderr);
}

/// `malloc_info`: XML to a stream; `options` must be 0.
///
/// # Safety
///
/// `stream` is an open stream of libc's.
pub unsafe fn malloc_info(options: c_int, stream: *mut c_void) -> c_int {
    if options != 0 {
        set_errno(EINVAL);
        return -1;
    }
    if MALLOC.write_xml(&mut Stream(stream)).is_ok() { 0 } else { -1 }
}
