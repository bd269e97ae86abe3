//! The properties of a run of pages of an address space, and the ones that it may get. Areas have these flags, and the
//! permissions in entries of translation tables follow from them.

use bitflags::bitflags;
use quire_abi::flags::Prot;

bitflags! {
    /// Flags of a Vma (`VM_*`). The lowest three are `PROT_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VmFlags: u32 {
        /// May be read.
        const READ = 1;
        /// May be written.
        const WRITE = 2;
        /// May be executed.
        const EXEC = 4;
        /// Writes go to the object.
        const SHARED = 1 << 3;
        /// mprotect may make it readable.
        const MAY_READ = 1 << 4;
        /// mprotect may make it writable.
        const MAY_WRITE = 1 << 5;
        /// mprotect may make it executable.
        const MAY_EXEC = 1 << 6;
        /// Grows towards lower addresses.
        const GROWSDOWN = 1 << 7;
        /// Pages stay in memory.
        const LOCKED = 1 << 8;
        /// fork leaves it out.
        const DONTFORK = 1 << 9;
        /// fork gives the child an empty area.
        const WIPEONFORK = 1 << 10;
        /// Not counted towards the commit limit.
        const NORESERVE = 1 << 11;
        /// The program reads in order.
        const SEQUENTIAL = 1 << 12;
        /// The program reads at random.
        const RANDOM = 1 << 13;
        /// Huge pages wanted.
        const HUGEPAGE = 1 << 14;
        /// Huge pages not wanted.
        const NOHUGEPAGE = 1 << 15;
        /// Locked pages are brought in at the first access, not before (`VM_LOCKONFAULT`).
        const LOCKONFAULT = 1 << 16;
        /// Counted by commit accounting, since it first became writable (`VM_ACCOUNT`).
        const ACCOUNT = 1 << 17;
        /// The first store to each page is noticed: shared pages that have to be written back.
        const NOTES_STORES = 1 << 18;
        /// The flags that mlock sets and munlock clears.
        const ANY_LOCK = Self::LOCKED.bits() | Self::LOCKONFAULT.bits();
    }
}

impl VmFlags {
    /// `PROT_*` as area flags.
    #[inline]
    pub fn from_prot(prot: Prot) -> Self {
        Self::from_bits_truncate(prot.bits() & 7)
    }

    /// Whether any access is allowed. The architecture has no write-only page, and no execute-only one that
    /// the kernel could read.
    #[inline]
    pub fn accessible(self) -> bool {
        self.intersects(Self::READ | Self::WRITE | Self::EXEC)
    }

    /// Private and writable, and not exempted: promised memory.
    #[inline]
    pub fn is_accountable(self) -> bool {
        self & (Self::WRITE | Self::SHARED | Self::NORESERVE) == Self::WRITE
    }

    /// Private and writable: its pages count towards the data limit.
    #[inline]
    pub fn is_data(self) -> bool {
        self & (Self::WRITE | Self::SHARED | Self::GROWSDOWN) == Self::WRITE
    }
}
