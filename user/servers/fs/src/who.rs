//! Identities, and their permissions: the kernel has the same rules.

pub use quire_abi::access::{EXECUTE, Identity, Owned, READ, WRITE, Who};
