//! What the kernel says and how it is heard: the log, the serial ports, the terminal, and the last words.
//!
//! The line discipline lives here until there is IPC to put it into a server with; it knows no device and no
//! program, so that it can move as it is.

mod clock;
pub mod input;
pub mod line;
pub mod log;
pub mod panic;
pub mod serial;
pub mod symbols;
pub mod tty;
