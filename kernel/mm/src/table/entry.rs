//! The last-level entries of a process: which attributes an area's pages get, and what an entry says.

use crate::addr::Pfn;
use crate::machine::Machine;
use crate::page::{Page, PageFlags, PageState};
use crate::pte::{MemoryType, Pte, bits};
use crate::vma::VmFlags;

/// Software bit 57: the page is anonymous; its `Page` has its group and home.
pub const ANON: u64 = 1 << 57;

/// What every page of a process has.
const BASE: u64 =
    (MemoryType::Normal as u64) << bits::ATTR_SHIFT | bits::INNER_SHARE | bits::ACCESSED | bits::NOT_GLOBAL | bits::PXN;

/// The bits that an area's protection decides.
pub const PROTECTION: u64 = bits::USER | bits::READ_ONLY | bits::UXN;

/// The attributes of an area's page that may not be written yet. Without access rights the entry stays valid,
/// for EL1 alone; the kernel reaches user memory by unprivileged loads and stores, so it is refused too.
#[inline]
pub fn read_only(flags: VmFlags) -> u64 {
    let user = if flags.accessible() { bits::USER } else { 0 };
    let never = if flags.contains(VmFlags::EXEC) { 0 } else { bits::UXN };
    BASE | user | never | bits::READ_ONLY
}

/// The attributes of an area's page once it may be written.
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

/// Questions about present entries of a process.
impl Pte {
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
