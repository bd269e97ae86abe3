//! Where programs get huge pages (docs/huge-pages.md).

use core::sync::atomic::{AtomicU8, Ordering};

use quire_abi::Errno;

/// Where programs get huge pages without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HugePages {
    /// Nowhere, even if asked.
    Never = 0,
    /// Where they ask: MADV_HUGEPAGE.
    Madvise = 1,
    /// Everywhere but where they refuse.
    Always = 2,
}

/// A [`HugePages`] that may change at any time.
pub struct Mode(AtomicU8);

impl Mode {
    /// [`HugePages::Madvise`].
    pub const fn new() -> Self {
        Self(AtomicU8::new(HugePages::Madvise as u8))
    }

    /// It.
    pub fn get(&self) -> HugePages {
        match self.0.load(Ordering::Relaxed) {
            0 => HugePages::Never,
            1 => HugePages::Madvise,
            _ => HugePages::Always,
        }
    }

    /// As a setting: its number ([`quire_abi::flags::setting`]).
    pub fn set_number(&self, number: usize) -> Result<(), Errno> {
        let all = [HugePages::Never, HugePages::Madvise, HugePages::Always];
        self.set(*all.get(number).ok_or(Errno::EINVAL)?);
        Ok(())
    }

    /// Applies to faults from now on.
    pub fn set(&self, to: HugePages) {
        self.0.store(to as u8, Ordering::Relaxed);
    }
}

impl Default for Mode {
    fn default() -> Self {
        Self::new()
    }
}
