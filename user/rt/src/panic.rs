//! A panic in a program: its message to standard error, then exit status 101, as with Rust's standard library.

use core::panic::PanicInfo;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    crate::eprintln!("{info}");
    crate::process::exit_now(101)
}
