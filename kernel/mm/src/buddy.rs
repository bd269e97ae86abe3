//! The buddy allocator of one zone.
