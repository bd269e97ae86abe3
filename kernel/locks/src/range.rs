//! A record lock: whose it is, which bytes it covers, and what it excludes.

/// Whose lock it is: a number that the caller gives out. The same for all that one process, or one open file, has
/// locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(pub u64);

/// Bytes of a file, the last one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u64,
    /// The last; not before the first.
    pub end: u64,
}

impl Range {
    /// The whole file, however long it becomes.
    pub const ALL: Self = Self { start: 0, end: Self::LAST };

    /// No file has a byte behind this one.
    pub const LAST: u64 = i64::MAX as u64;

    /// Whether they have a byte in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Whether they overlap, or nothing is between them.
    pub fn touches(&self, other: &Self) -> bool {
        self.start <= other.end.saturating_add(1) && other.start <= self.end.saturating_add(1)
    }
}

/// What a lock excludes.
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
    /// Whose it is.
    pub owner: Owner,
    /// What it covers.
    pub range: Range,
    /// What it excludes.
    pub kind: Kind,
    /// The process that has set it.
    pub pid: u32,
}

impl Lock {
    /// Whether another owner's lock is in the way of this one.
    pub fn conflicts(&self, other: &Self) -> bool {
        let excludes = self.kind == Kind::Exclusive || other.kind == Kind::Exclusive;
        excludes && self.owner != other.owner && self.range.overlaps(&other.range)
    }
}
