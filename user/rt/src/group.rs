//! Control groups, for programs with the right to manage them.

use crate::abi::nr;
use crate::handles::control;
use crate::{Errno, sys};

/// Makes or finds the group with a name below another one, depending on `op`; returns its key.
pub fn named(op: usize, parent: u64, name: &[u8]) -> Result<u64, Errno> {
    let args = [control() as usize, op, parent as usize, name.as_ptr() as usize, name.len()];
    // SAFETY: the kernel only reads the name.
    unsafe { sys::call(nr::QUIRE_GROUP, args) }.map(|key| key as u64)
}

/// Another operation of [`op`](crate::abi::group::op), with its two arguments after the key.
pub fn change(op: usize, key: u64, first: u64, second: u64) -> Result<u64, Errno> {
    sys::plain!(nr::QUIRE_GROUP, control(), op, key, first, second).map(|done| done as u64)
}
