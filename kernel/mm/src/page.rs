//! `Page`: the record of one frame.

/// The record of one page frame.
#[repr(C, align(32))]
pub struct Page {
    _todo: [u64; 4],
}
