//! A record lock: its owner, the bytes that it covers, and the locks that it conflicts with.

/// The owner of a lock: a number that the caller assigns. All locks of one process, or of one open file, have the same
/// owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(pub u64);

/// A range of bytes of a file, the last one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u64,
    /// The last byte; not before the first one.
    pub end: u64,
}

impl Range {
    /// The whole file, however long it becomes.
    pub const ALL: Self = Self { start: 0, end: Self::LAST };

    /// The highest offset of a byte in any file.
    pub const LAST: u64 = i64::MAX as u64;

    /// Whether the ranges have a byte in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Whether the ranges overlap or are adjacent.
    pub fn touches(&self, other: &Self) -> bool {
        self.start <= other.end.saturating_add(1) && other.start <= self.end.saturating_add(1)
    }
}

/// The kind of a lock: which others it excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Exclusive locks of others.
    Shared,
    /// All locks of others.
    Exclusive,
}

/// A lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Its owner.
    pub owner: Owner,
    /// The bytes that it covers.
    pub range: Range,
    /// Its kind.
    pub kind: Kind,
    /// The process that has set it.
    pub pid: u32,
}

impl Lock {
    /// Whether this lock conflicts with the lock of another owner.
    pub fn conflicts(&self, other: &Self) -> bool {
        let excludes = self.kind == Kind::Exclusive || other.kind == Kind::Exclusive;
        excludes && self.owner != other.owner && self.range.overlaps(&other.range)
    }
}
