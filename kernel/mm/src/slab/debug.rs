//! What the allocator reports.

/// What was wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It was freed, and it was free.
    DoubleFree,
    /// The link of a free object leads out of its slab: it was written to after it was freed.
    FreeListCorrupted,
    /// It was given back to a cache that it is not from.
    WrongCache,
    /// It is from no cache and no large allocation, or from one that was freed before.
    Foreign,
    /// The pointer is not at the start of an object.
    NotAnObject,
}

/// A fault found. The object is left alone: it is leaked rather than handed out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was wrong.
    pub fault: Fault,
    /// The cache's name.
    pub cache: &'static str,
    /// The object's address.
    pub object: usize,
}
