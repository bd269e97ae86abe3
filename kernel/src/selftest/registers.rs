//! Checks of each CPU's registers after boot, which this build has overwritten before.

use super::{Check, Outcome, Wrong, crew};
use crate::arch::reset;

pub const CHECKS: &[Check] = &[("registers: as boot sets them", as_set)];

/// On every CPU.
fn as_set() -> Outcome {
    crew::on_all(|_| match reset::wrong_register() {
        None => Ok(()),
        Some(register) => Err(Wrong::here(register)),
    })
}
