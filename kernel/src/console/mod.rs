//! The console: the log, the serial ports, the terminal, and panic reports.
//!
//! The line discipline is part of the kernel until there is IPC for a server. It is independent of devices and
//! programs, so that it can move unchanged.

mod clock;
pub mod early_port;
pub mod input;
pub mod line;
pub mod log;
pub mod panic;
pub mod serial;
pub mod tty;
