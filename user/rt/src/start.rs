//! Start-up: the initial stack contents, as in the Linux AArch64 process ABI: argc, argv, NULL, envp, NULL, and pairs
//! of the auxiliary vector up to `AT_NULL`.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicPtr, Ordering};

use quire_abi::layout::at;

/// The address of argc, set once before the program's main function.
static STACK: AtomicPtr<usize> = AtomicPtr::new(core::ptr::null_mut());

unsafe extern "Rust" {
    fn quire_main() -> i32;
}

/// Runs the program. `stack` is the initial stack pointer.
pub(crate) extern "C" fn start(stack: *mut usize) -> ! {
    STACK.store(stack, Ordering::Relaxed);
    crate::thread::init_main();
    // SAFETY: `entry!` defines the function with this type; the linker refuses a program without it.
    let status = unsafe { quire_main() };
    crate::process::exit(status)
}

/// NULL-terminated pointers to NUL-terminated strings that live as long as the process.
#[derive(Clone)]
pub struct Strings(*const *const c_char);

impl Iterator for Strings {
    type Item = &'static CStr;

    fn next(&mut self) -> Option<&'static CStr> {
        // SAFETY: the vector ends with a null pointer, at which this stops advancing.
        let string = unsafe { *self.0 };
        if string.is_null() {
            return None;
        }
        // SAFETY: not at the end, so one more element follows.
        self.0 = unsafe { self.0.add(1) };
        // SAFETY: the kernel put NUL-terminated strings above the vectors, and nothing here writes to them.
        Some(unsafe { CStr::from_ptr(string) })
    }
}

fn argv() -> *const *const c_char {
    // SAFETY: argv follows argc.
    unsafe { STACK.load(Ordering::Relaxed).add(1) as *const *const c_char }
}

fn envp() -> *const *const c_char {
    // SAFETY: argc elements and a null pointer precede envp.
    unsafe { argv().add(*STACK.load(Ordering::Relaxed) + 1) }
}

/// The arguments; the first is the program's own name.
pub fn args() -> Strings {
    Strings(argv())
}

/// The environment, as `NAME=value` strings.
pub fn env() -> Strings {
    Strings(envp())
}

/// The value of an environment variable.
pub fn var(name: &str) -> Option<&'static [u8]> {
    env().find_map(|entry| entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The auxiliary vector's value for `key` ([`at`]).
pub fn auxv(key: u64) -> Option<u64> {
    let mut at = envp() as *const u64;
    // SAFETY: envp ends with a null pointer, the auxiliary vector follows it and ends with AT_NULL; neither
    // loop goes past its end.
    unsafe {
        while *at != 0 {
            at = at.add(1);
        }
        at = at.add(1);
        while *at != at::NULL {
            if *at == key {
                return Some(*at.add(1));
            }
            at = at.add(2);
        }
    }
    None
}
