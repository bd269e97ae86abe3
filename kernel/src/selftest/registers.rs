//! Checks of each CPU's registers after boot, which this build has overwritten before, and of masked indices.

use core::hint::black_box;

use super::{Check, Outcome, Wrong, crew, expect};
use crate::arch::{reset, speculation};

pub const CHECKS: &[Check] = &[("registers: as boot sets them", as_set), ("indices: bounded", bounded)];

/// On every CPU.
fn as_set() -> Outcome {
    crew::on_all(|_| match reset::wrong_register() {
        None => Ok(()),
        Some(register) => Err(Wrong::here(register)),
    })
}

fn bounded() -> Outcome {
    let at = |index: usize, len: usize| speculation::bounded(black_box(index), black_box(len));
    let inside = (1..100).all(|len| (0..len).all(|index| at(index, len) == Some(index)));
    expect(inside, "an index of the table is itself")?;
    let outside = [(0, 0), (1, 1), (usize::MAX, 0), (usize::MAX, 1 << 40), (5, 4)];
    expect(outside.into_iter().all(|(index, len)| at(index, len).is_none()), "one beyond it is none")?;
    expect(speculation::get(&[7, 8], black_box(1)) == Some(&8), "the element")?;
    expect(speculation::get_mut(&mut [7, 8], black_box(2)).is_none(), "no element")
}
