//! The boot allocator.
