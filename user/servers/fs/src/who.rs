//! Who asks, and what that one may do: the kernel has the same rule.

pub use quire_abi::access::{EXECUTE, Identity, Owned, READ, WRITE, Who};
