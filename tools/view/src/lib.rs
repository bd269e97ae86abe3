//! The view of a machine's memory as a web page (docs/view.md).
//!
//! The machine's stream comes in, by a socket to a running one or from a [recording](replay); [`picture`] puts its
//! frames together, [`json`] writes what they say for the page, and [`server`] serves both, on this host alone. The
//! page itself, in `page/`, is part of the program: it needs no network.
//!
//! - [`picture`]: what is known of a machine.
//! - [`json`]: the same for the page.
//! - [`hub`]: the newest picture, and who waits for it.
//! - [`live`]: a machine that runs.
//! - [`replay`]: a recording.
//! - [`http`]: requests and answers.
//! - [`server`]: the page.

pub mod http;
pub mod hub;
pub mod json;
pub mod live;
pub mod picture;
pub mod replay;
pub mod server;

pub use hub::Hub;
pub use server::serve;
