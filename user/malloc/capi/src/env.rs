//! The environment, read without libc's help: the allocator reads it before it hands out the first block.

use core::ffi::{CStr, c_char};

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Whether a variable is set to something other than `0` or the empty string.
pub fn is_on(name: &[u8]) -> bool {
    // SAFETY: libc's pointer to its list of strings, which ends with a null; the pointer is null before libc has
    // started. The list is read once, before the program's first block, so before the program can change it.
    unsafe {
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            let entry = CStr::from_ptr(*at).to_bytes();
            if let Some(value) = entry.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")) {
                return !matches!(value, b"" | b"0");
            }
            at = at.add(1);
        }
    }
    false
}
