//! The last-level entries of a process: which attributes an area's pages get, and what an entry says.
//!
//! # Access flag and dirty state
//! Arm ARM DDI 0487, "Hardware updates to the translation tables" (FEAT_HAFDBS). Entries look alike whether the CPU
//! updates them or not; what one does, the fault path does for the other:
//!
//! | state of a present entry | bits | first touch | first write |
//! | --- | --- | --- | --- |
//! | old | no ACCESSED | HA: the CPU sets ACCESSED; else a fault does | as by its other bits |
//! | read-only | READ_ONLY | goes through | faults: copy, reuse, or SIGSEGV |
//! | writable, clean | READ_ONLY, DBM | goes through | HD: the CPU clears READ_ONLY; else a fault does, without a copy |
//! | writable, dirty | no READ_ONLY | goes through | goes through |
//!
//! An entry is *dirty* if DIRTY is set or READ_ONLY is not ([`Pte::is_dirty`]). DIRTY remembers it when the right to write
//! goes ([`Pte::write_protected`]); an entry with neither READ_ONLY nor DBM has it. Private anonymous pages come as writable and dirty: they come by a write. Pages of
//! shared memory that are read first come as writable and clean.
//! DBM is a right: it is set only where a write needs nobody's leave, and goes wherever that ends (fork, mprotect),
//! since hardware may make such an entry writable at any moment.
//!
//! Who may update an entry:
//! - Software under its table's lock, and where hardware updates entries ([`Spaces::hardware_updates`]) by an atomic swap
//!   ([`LeafGuard::take`]) or compare-exchange ([`LeafGuard::change`]): a plain store would undo what a CPU has set since
//!   the entry was read. Elsewhere plain stores under the lock do.
//! - Hardware, at any time, what the table above says, and nothing else: never the address, never an entry that is not
//!   valid. So what `take` answers is final, though TLBs may know the entry for longer: a CPU that has it as clean
//!   finds, on a write, that it is gone.
//!
//! Whoever takes an entry of shared memory away must leave its dirty state with the page ([`note_dirty`]).
//!
//! TLB: an entry that is old is in no TLB, and one that got more rights, or that became dirty, needs no invalidation: a
//! CPU that knows it as it was faults, or updates it, once more. Whoever makes an entry old, clean or write-protected must
//! invalidate it before relying on it: until then touches leave no trace, or writes go through.
//!
//! [`Spaces::hardware_updates`]: crate::mm::Spaces::hardware_updates
//! [`LeafGuard::take`]: super::LeafGuard::take
//! [`LeafGuard::change`]: super::LeafGuard::change

use crate::addr::{Pfn, PhysAddr};
use crate::machine::Machine;
use crate::page::{Page, PageFlags, PageState};
use crate::pte::{MemoryType, NonPresent, Pte, bits};
use crate::vma::VmFlags;

/// Software bit 57: the page is anonymous; its `Page` has its group and home.
pub const ANON: u64 = 1 << 57;

/// What every page of a process has.
const BASE: u64 =
    (MemoryType::Normal as u64) << bits::ATTR_SHIFT | bits::INNER_SHARE | bits::ACCESSED | bits::NOT_GLOBAL | bits::PXN;

/// In a migration entry: the page is a copy of a file's. With neither this nor the next it is anonymous.
const MOVED_FILE: u64 = 1 << 4;
/// In a migration entry: the page is shared memory.
const MOVED_SHARED: u64 = 1 << 5;

/// The bits that an area's protection decides.
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

/// Whose page an entry maps, as the counters tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The zero page: nobody's.
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

/// Whose page a frame of user memory is that is counted by reference.
pub fn kind_of_frame<M: Machine>(machine: M, pfn: Pfn) -> Kind {
    // SAFETY: callers hold a reference to a frame of the page allocator.
    let page = unsafe { Page::of(machine, pfn) };
    match page.state() {
        PageState::Anon => Kind::Anon,
        _ if page.flags().contains(PageFlags::SWAP_BACKED) => Kind::Shared,
        _ => Kind::FileCopy,
    }
}

/// Leaves the dirty state of an entry of shared memory, which was taken away, with the page.
#[inline]
pub fn note_dirty<M: Machine>(machine: M, pte: Pte, kind: Kind) {
    if kind == Kind::Shared && pte.is_dirty() {
        // SAFETY: the entry held a reference to the frame, which has not been given back.
        let page = unsafe { Page::of(machine, pte.addr().pfn()) };
        if !page.flags().contains(PageFlags::DIRTY) {
            page.set_flags(PageFlags::DIRTY);
        }
    }
}

/// What becomes of present entries.
impl Pte {
    /// Touched, and written: for the fault path, in an area that may be written.
    #[inline(always)]
    pub fn written(self) -> Pte {
        Pte(self.0 & !bits::READ_ONLY | bits::DIRTY | bits::ACCESSED)
    }

    /// Without the right to be written, now or by hardware; as dirty as before.
    #[inline(always)]
    pub fn write_protected(self) -> Pte {
        Pte(self.without_dbm().0 | bits::READ_ONLY)
    }

    /// Without DBM: what hardware said by it, DIRTY says.
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

/// An entry of a page that is being moved: besides the old frame it says how it is charged. The record cannot be asked:
/// in a space that ends such an entry may outlast the frame's use.
impl Pte {
    /// Stands for the page at `old`, which a present entry mapped that was charged as `kind`.
    pub fn migration(old: PhysAddr, kind: Kind) -> Pte {
        debug_assert!(kind.is_counted(), "what nobody counts does not move");
        let note = match kind {
            Kind::FileCopy => MOVED_FILE,
            Kind::Shared => MOVED_SHARED,
            _ => 0,
        };
        Pte(Pte::non_present(NonPresent::Migration(old)).0 | note)
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
    /// Whether it has been touched since it was made old.
    #[inline(always)]
    pub fn is_young(self) -> bool {
        self.0 & bits::ACCESSED != 0
    }

    /// Whether it has been written since it was clean.
    #[inline(always)]
    pub fn is_dirty(self) -> bool {
        self.0 & (bits::DIRTY | bits::READ_ONLY) != bits::READ_ONLY
    }

    /// Whether a write makes it dirty and goes through, by hardware or by a fault.
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

    /// Whether the page has an anonymous group.
    #[inline(always)]
    pub fn is_anon(self) -> bool {
        self.0 & ANON != 0
    }

    /// Whether the entry holds no reference.
    #[inline(always)]
    pub fn is_special(self) -> bool {
        self.0 & bits::SPECIAL != 0
    }

    /// How many pages before this one came along with it, unasked, if nothing behind it has been asked for since.
    #[inline(always)]
    pub fn ahead(self) -> usize {
        ((self.0 & bits::AHEAD) >> bits::AHEAD_SHIFT) as usize
    }

    /// The same entry with that number, at most 15.
    #[inline(always)]
    pub fn with_ahead(self, pages: usize) -> Pte {
        Pte(self.0 & !bits::AHEAD | (pages as u64) << bits::AHEAD_SHIFT)
    }

    /// Whose page it is.
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
