//! Virtually contiguous kernel memory.
