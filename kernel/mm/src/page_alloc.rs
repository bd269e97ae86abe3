//! The page interface: GFP flags, zonelists, watermarks.

use crate::machine::Machine;

/// The page allocator of a machine: its nodes and their zones.
pub struct PageAllocator<M: Machine> {
    _machine: M,
}
