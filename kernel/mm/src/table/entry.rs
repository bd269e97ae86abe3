//! The last-level entries of a process: the attributes of an area's pages, and their interpretation.
//!
//! # Access flag and dirty state
//! Arm ARM DDI 0487, "Hardware updates to the translation tables" (FEAT_HAFDBS). The format of entries does not depend
//! on hardware updates: without them, the fault path makes the same changes:
//!
//! | state of a present entry | bits | first touch | first write |
//! | --- | --- | --- | --- |
//! | old | no ACCESSED | HA: the CPU sets ACCESSED; else a fault does | as by its other bits |
//! | read-only | READ_ONLY | goes through | faults: copy, reuse, or SIGSEGV |
//! | writable, clean | READ_ONLY, DBM | goes through | HD: the CPU clears READ_ONLY; else a fault does, without a copy |
//! | writable, dirty | no READ_ONLY | goes through | goes through |
//!
//! An entry is *dirty* if DIRTY is set or READ_ONLY is not ([`Pte::is_dirty`]). DIRTY preserves the state when write
//! permission is removed ([`Pte::write_protected`]); an entry with neither READ_ONLY nor DBM has it. Private anonymous
//! pages start writable and dirty, since a write brings them in; clean ones are given up
//! ([`Pte::is_given_up`]). Pages of shared memory that are read first start
//! writable and clean. DBM is a permission: it is only set where a write needs no further check, and is cleared where
//! that ends (fork, mprotect), since hardware may make such an entry writable at any moment.
//!
//! Updates of entries:
//! - Software under its table's lock, and where hardware updates entries ([`Spaces::hardware_updates`]) by an atomic
//!   swap ([`LeafGuard::take`]) or compare-exchange ([`LeafGuard::change`]): a plain store would lose bits that a CPU
//!   has set since the entry was read. Without hardware updates, plain stores under the lock suffice.
//! - Hardware, at any time, but only as in the table above: never the address, never an invalid entry. So the result of
//!   `take` is final, though TLBs may hold the entry longer: a CPU that has it cached as clean finds, on a write, that
//!   it is gone.
//!
//! Code that removes an entry of shared memory must transfer its dirty state to the page ([`note_dirty`]).
//!
//! TLB: an old entry is in no TLB, and an entry that got more rights, or became dirty, needs no invalidation: a CPU
//! with the stale entry faults, or updates it, once more. Code that makes an entry old, clean or write-protected must
//! invalidate it before relying on that: until then accesses may leave no trace, and writes may succeed.
//!
//! [`Spaces::hardware_updates`]: crate::spaces::Spaces::hardware_updates
//! [`LeafGuard::take`]: super::LeafGuard::take
//! [`LeafGuard::change`]: super::LeafGuard::change

use super::Machine;
use crate::addr::{Pfn, PhysAddr};
use crate::page::{Page, PageFlags, PageState};
use crate::pte::{MemoryType, NonPresent, Pte, bits};
use crate::vm_flags::VmFlags;

/// Software bit 57: the page is anonymous; its `Page` has its `AnonVma` and pgoff.
pub const ANON: u64 = 1 << 57;

/// The attributes of every page of a process.
const BASE: u64 =
    (MemoryType::Normal as u64) << bits::ATTR_SHIFT | bits::INNER_SHARE | bits::ACCESSED | bits::NOT_GLOBAL | bits::PXN;

/// In a migration entry: the page is a copy of a file's. With neither this nor the next it is anonymous.
const MOVED_FILE: u64 = 1 << 4;
/// In a migration entry: the page is shared memory.
const MOVED_SHARED: u64 = 1 << 5;
/// In a migration entry: the present entry was young.
const MOVED_YOUNG: u64 = 1 << 6;
/// In a migration entry: the present entry was dirty.
const MOVED_DIRTY: u64 = 1 << 7;
/// In a migration entry: a write needs no further check, if the area allows it.
const MOVED_WRITABLE: u64 = 1 << 8;

/// The bits that depend on an area's protection.
pub const PROTECTION: u64 = bits::USER | bits::READ_ONLY | bits::DBM | bits::UXN;

/// The attributes of an area's page that may not be written yet. Without access rights the entry stays valid,
/// for EL1 alone; the kernel reaches user memory by unprivileged loads and stores, so it is refused too.
#[inline]
pub fn read_only(flags: VmFlags) -> u64 {
    let user = if flags.accessible() { bits::USER } else { 0 };
    let never = if flags.contains(VmFlags::EXEC) { 0 } else { bits::UXN };
    BASE | user | never | bits::READ_ONLY
}

/// The attributes of an area's page that may be written and has not been.
#[inline]
pub fn writable_clean(flags: VmFlags) -> u64 {
    read_only(flags) | if flags.contains(VmFlags::WRITE) { bits::DBM } else { 0 }
}

/// The attributes of an area's page once it is written.
#[inline]
pub fn writable(flags: VmFlags) -> u64 {
    if flags.contains(VmFlags::WRITE) { read_only(flags) & !bits::READ_ONLY | bits::DIRTY } else { read_only(flags) }
}

/// The kind of page that an entry maps, as the counters distinguish them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The zero page, which is not counted.
    Zero,
    /// Anonymous memory, counted by reference.
    Anon,
    /// A file's page in place, uncounted.
    File,
    /// A page that a file object owns, counted by reference.
    FileCopy,
    /// Shared anonymous memory, counted by reference.
    Shared,
}

impl Kind {
    /// Whether the entry holds a reference to its page.
    #[inline]
    pub fn is_counted(self) -> bool {
        !matches!(self, Kind::Zero | Kind::File)
    }
}

/// The kind of a reference-counted frame of user memory.
pub fn kind_of_frame<M: Machine>(machine: M, pfn: Pfn) -> Kind {
    // SAFETY: callers hold a reference to a frame of the page allocator.
    let page = unsafe { Page::of(machine, pfn) };
    match page.state() {
        PageState::Anon => Kind::Anon,
        _ if page.flags().contains(PageFlags::SWAP_BACKED) => Kind::Shared,
        _ => Kind::FileCopy,
    }
}

/// Transfers the dirty state of an entry of shared memory, which was removed, to the page.
#[inline]
pub fn note_dirty<M: Machine>(machine: M, pte: Pte, kind: Kind) {
    if kind == Kind::Shared && pte.is_dirty() {
        // SAFETY: the entry's reference to the frame has not been dropped yet.
        let page = unsafe { Page::of(machine, pte.addr().pfn()) };
        if !page.flags().contains(PageFlags::DIRTY) {
            page.set_flags(PageFlags::DIRTY);
        }
    }
}

/// What a migration entry says of the present one that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// How it is charged.
    pub kind: Kind,
    /// It was accessed since it was made old.
    pub is_young: bool,
    /// It was written since it was clean.
    pub is_dirty: bool,
    /// A write needs no further check.
    pub is_writable: bool,
}

/// Changes of present entries.
impl Pte {
    /// Accessed and written: for the fault path, in a writable area.
    #[inline(always)]
    pub fn written(self) -> Pte {
        Pte(self.0 & !bits::READ_ONLY | bits::DIRTY | bits::ACCESSED)
    }

    /// Not writable, neither now nor by hardware; the dirty state is unchanged.
    #[inline(always)]
    pub fn write_protected(self) -> Pte {
        Pte(self.without_dbm().0 | bits::READ_ONLY)
    }

    /// Without DBM: the dirty state moves to DIRTY.
    #[inline(always)]
    pub fn without_dbm(self) -> Pte {
        // Most pages are private and never had it.
        if self.0 & bits::DBM == 0 { self } else { self.dbm_to_dirty() }
    }

    #[cold]
    #[inline(never)]
    fn dbm_to_dirty(self) -> Pte {
        let dirty = if self.is_dirty() && !seeded!(ProtectionForgetsDirty) { bits::DIRTY } else { 0 };
        Pte(self.0 & !bits::DBM | dirty)
    }
}

/// An entry of a page that is being moved: it records the old frame, how it is charged, age, dirty state, and whether it
/// was writable. The frame's record cannot be used for that: in a space that is being torn down such an entry may outlive
/// the frame's use.
impl Pte {
    /// The migration entry that takes the place of this present one, which is charged as `kind`.
    pub fn set_aside(self, kind: Kind) -> Pte {
        debug_assert!(kind.is_counted(), "what nobody counts does not move");
        let note = match kind {
            Kind::FileCopy => MOVED_FILE,
            Kind::Shared => MOVED_SHARED,
            _ => 0,
        };
        let young = if self.is_young() { MOVED_YOUNG } else { 0 };
        let dirty = if self.is_dirty() && !seeded!(MoveForgetsDirty) { MOVED_DIRTY } else { 0 };
        let may_be_written = self.0 & bits::READ_ONLY == 0 || self.is_writable_clean();
        let writable = if may_be_written { MOVED_WRITABLE } else { 0 };
        Pte(Pte::non_present(NonPresent::Migration(self.addr())).0 | note | young | dirty | writable)
    }

    /// The present entry that takes the place of this migration entry in an area with these flags, now that the page is at
    /// `frame`.
    pub fn come_back(self, frame: PhysAddr, flags: VmFlags) -> Pte {
        let has = |bit: u64| self.0 & bit != 0;
        let mut attrs = read_only(flags);
        if self.moved_kind() == Kind::Anon {
            attrs |= ANON;
        }
        if !has(MOVED_YOUNG) {
            attrs &= !bits::ACCESSED;
        }
        // mprotect does not change entries of pages that are elsewhere: the area says what is allowed by now.
        let writable = has(MOVED_WRITABLE) && (flags.contains(VmFlags::WRITE) || seeded!(MoveIgnoresProtection));
        match (writable, has(MOVED_DIRTY)) {
            (true, true) => attrs = attrs & !bits::READ_ONLY | bits::DIRTY,
            (true, false) => attrs |= bits::DBM,
            (false, true) => attrs |= bits::DIRTY,
            (false, false) => {}
        }
        Pte::page(frame, attrs)
    }

    /// The same migration entry for a page that another space gets too: a write must be checked.
    pub fn moved_read_only(self) -> Pte {
        if seeded!(ForkOfMigrationStaysWritable) { self } else { Pte(self.0 & !MOVED_WRITABLE) }
    }

    /// Neither writable nor dirty.
    #[inline]
    pub fn cleaned(self) -> Pte {
        Pte(self.write_protected().0 & !bits::DIRTY)
    }

    /// What MADV_FREE makes of the entry of an anonymous page that nobody else has: a write makes it dirty again.
    #[inline]
    pub fn given_up(self) -> Pte {
        let dbm = if self.0 & bits::READ_ONLY == 0 { bits::DBM } else { 0 };
        Pte((self.0 | bits::READ_ONLY | dbm) & !bits::DIRTY)
    }

    /// A migration entry whose page comes back clean, and asks before it is written.
    #[inline]
    pub fn moved_clean(self) -> Pte {
        Pte(self.0 & !(MOVED_DIRTY | MOVED_WRITABLE))
    }

    /// All that a migration entry says, for people.
    pub fn moved(self) -> Moved {
        let has = |bit: u64| self.0 & bit != 0;
        Moved {
            kind: self.moved_kind(),
            is_young: has(MOVED_YOUNG),
            is_dirty: has(MOVED_DIRTY),
            is_writable: has(MOVED_WRITABLE),
        }
    }

    /// How a migration entry is charged.
    pub fn moved_kind(self) -> Kind {
        match self.0 & (MOVED_FILE | MOVED_SHARED) {
            MOVED_FILE => Kind::FileCopy,
            MOVED_SHARED => Kind::Shared,
            _ => Kind::Anon,
        }
    }
}

/// Questions about present entries of a process.
impl Pte {
    /// Whether it has been accessed since it was made old.
    #[inline(always)]
    pub fn is_young(self) -> bool {
        self.0 & bits::ACCESSED != 0
    }

    /// Whether it has been written since it was clean.
    #[inline(always)]
    pub fn is_dirty(self) -> bool {
        self.0 & (bits::DIRTY | bits::READ_ONLY) != bits::READ_ONLY
    }

    /// Whether a write, by hardware or by a fault, makes it dirty and succeeds.
    #[inline(always)]
    pub fn is_writable_clean(self) -> bool {
        self.0 & (bits::DBM | bits::READ_ONLY) == bits::DBM | bits::READ_ONLY
    }

    /// Whether EL0 may write.
    #[inline(always)]
    pub fn is_writable(self) -> bool {
        self.0 & (bits::USER | bits::READ_ONLY) == bits::USER
    }

    /// Whether EL0 may read.
    #[inline(always)]
    pub fn is_readable(self) -> bool {
        self.0 & bits::USER != 0
    }

    /// Whether EL0 may execute.
    #[inline(always)]
    pub fn is_executable(self) -> bool {
        self.0 & (bits::USER | bits::UXN) == bits::USER
    }

    /// Whether the page has an `AnonVma`.
    #[inline(always)]
    pub fn is_anon(self) -> bool {
        self.0 & ANON != 0
    }

    /// Whether the page is anonymous, and its program has given it up and not written it since: no other anonymous page is clean.
    #[inline(always)]
    pub fn is_given_up(self) -> bool {
        self.is_anon() && !self.is_dirty()
    }

    /// Whether the entry holds no reference.
    #[inline(always)]
    pub fn is_special(self) -> bool {
        self.0 & bits::SPECIAL != 0
    }

    /// How many pages before this one the same fault brought in ahead, if no page after it has been accessed since.
    #[inline(always)]
    pub fn ahead(self) -> usize {
        ((self.0 & bits::AHEAD) >> bits::AHEAD_SHIFT) as usize
    }

    /// The same entry with that number, at most 15.
    #[inline(always)]
    pub fn with_ahead(self, pages: usize) -> Pte {
        Pte(self.0 & !bits::AHEAD | (pages as u64) << bits::AHEAD_SHIFT)
    }

    /// The kind of its page.
    #[inline]
    pub fn owner_kind<M: Machine>(self, machine: M) -> Kind {
        if self.is_anon() {
            return Kind::Anon;
        }
        if self.is_special() {
            return if self.addr() == machine.spaces().zero_page() { Kind::Zero } else { Kind::File };
        }
        // An entry that is not special holds a reference to its frame.
        kind_of_frame(machine, self.addr().pfn())
    }
}
