//! The run-time library of programs on Quire, in place of a standard library.
//!
//! A program is `no_std` and `no_main`, and names its main function with [`entry!`]:
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! quire_rt::entry!(main);
//!
//! fn main() -> i32 {
//!     quire_rt::println!("hello");
//!     0
//! }
//! ```
//!
//! Calls have Linux's numbers, layouts and meaning, so the same binary runs on AArch64 Linux; only [`info`] and
//! [`handles`] are Quire's own. Assembly is only in [`arch`]; each family of calls has a module with typed wrappers.

#![no_std]

extern crate alloc;

pub mod arch;
pub mod device;
pub mod fs;
pub mod group;
pub mod handles;
pub mod heap;
pub mod info;
pub mod io;
pub mod ipc;
pub mod mem;
mod panic;
pub mod process;
pub mod sched;
pub mod signal;
pub mod start;
pub mod sync;
pub mod sys;
pub mod thread;
pub mod time;
pub mod tty;

pub use quire_abi as abi;
pub use quire_abi::Errno;
pub use start::{args, env};

/// Names the function that start-up calls; its result is the exit status.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // SAFETY: start-up declares this symbol with this type, and a program names only one main function.
        #[unsafe(no_mangle)]
        fn quire_main() -> i32 {
            $main()
        }
    };
}
