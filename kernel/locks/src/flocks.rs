//! Locks of whole files, as set by flock(2): each open file has no lock, a shared or an exclusive one.

/// The lock of an open file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Flock {
    /// Nothing.
    #[default]
    None = 0,
    /// A shared lock.
    Shared = 1,
    /// An exclusive one.
    Exclusive = 2,
}

/// The state that the open files of one file share.
#[derive(Debug, Default)]
pub struct Flocks {
    shared: usize,
    is_exclusive: bool,
}

impl Flocks {
    /// Nothing.
    pub const fn new() -> Self {
        Self { shared: 0, is_exclusive: false }
    }

    /// Whether no open file has a lock.
    pub fn is_empty(&self) -> bool {
        self.shared == 0 && !self.is_exclusive
    }

    /// Removes the lock `has` of an open file; returns whether there was one.
    pub fn release(&mut self, has: &mut Flock) -> bool {
        match core::mem::take(has) {
            Flock::None => return false,
            Flock::Shared => self.shared -= 1,
            Flock::Exclusive => self.is_exclusive = false,
        }
        true
    }

    /// Gives the lock `wanted` to an open file that has none; returns whether the other locks allow it.
    pub fn take(&mut self, has: &mut Flock, wanted: Flock) -> bool {
        debug_assert_eq!(*has, Flock::None);
        let is_free = match wanted {
            Flock::None => true,
            Flock::Shared => !self.is_exclusive,
            Flock::Exclusive => self.is_empty(),
        };
        if is_free {
            *has = wanted;
            self.shared += usize::from(wanted == Flock::Shared);
            self.is_exclusive |= wanted == Flock::Exclusive;
        }
        is_free
    }
}
