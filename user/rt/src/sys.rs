//! System calls, with their results split into value and error. The other modules of this crate give them types; a test
//! that makes a call with wrong arguments uses this module.

use quire_abi::Errno;

use crate::arch;

/// A call with up to six arguments; missing ones are zero.
///
/// # Safety
/// As [`arch::syscall`].
pub unsafe fn call<const N: usize>(number: usize, args: [usize; N]) -> Result<usize, Errno> {
    const { assert!(N <= 6) };
    let mut all = [0; 6];
    all[..N].copy_from_slice(&args);
    // SAFETY: the caller's promise.
    Errno::from_ret(unsafe { arch::syscall(number, all) })
}

/// A call that reads and writes no memory of this process, and so cannot violate anything that Rust relies on.
macro_rules! plain {
    ($number:expr $(, $arg:expr)* $(,)?) => {
        // SAFETY: this call takes numbers alone: it touches no memory of the process.
        unsafe { $crate::sys::call($number, [$($arg as usize),*]) }
    };
}
pub(crate) use plain;
