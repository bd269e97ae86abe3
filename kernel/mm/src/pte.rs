//! A translation table entry of the VMSAv8-64 stage 1 format (Arm ARM DDI 0487, D8.3), 4 KiB granule.
//!
//! Non-present entries are typed, so that every walker handles each kind explicitly. Bit 0 is clear in all of them:
//!
//! ```text
//!  63                              12 11        4 3    1 0
//! |             payload              |  payload  | kind |0|
//! ```

mod path;

use crate::addr::PhysAddr;
use crate::swap::{SLOT_BITS, Slot};

pub use path::{Path, Step};

/// Bits of an entry.
pub mod bits {
    /// The entry is present.
    pub const VALID: u64 = 1;
    /// In a last-level entry: a page. In others: a table, not a block.
    pub const TABLE: u64 = 1 << 1;
    /// Shift of the index into MAIR_EL1 ([`super::MemoryType`]).
    pub const ATTR_SHIFT: u32 = 2;
    /// EL0 may access.
    pub const USER: u64 = 1 << 6;
    /// Read-only.
    pub const READ_ONLY: u64 = 1 << 7;
    /// Inner shareable.
    pub const INNER_SHARE: u64 = 3 << 8;
    /// Access flag: clear traps the first access.
    pub const ACCESSED: u64 = 1 << 10;
    /// Tagged with the ASID.
    pub const NOT_GLOBAL: u64 = 1 << 11;
    /// Dirty bit modifier: a write may clear READ_ONLY (see [`crate::table::entry`]).
    pub const DBM: u64 = 1 << 51;
    /// Part of a run of 16 equal entries.
    pub const CONTIGUOUS: u64 = 1 << 52;
    /// EL1 may not execute.
    pub const PXN: u64 = 1 << 53;
    /// EL0 may not execute.
    pub const UXN: u64 = 1 << 54;
    /// Software: dirty, whatever READ_ONLY says (see [`crate::table::entry`]).
    pub const DIRTY: u64 = 1 << 55;
    /// Software: the frame has no owner to count (the zero page, device memory).
    pub const SPECIAL: u64 = 1 << 56;
    /// Bits 47 to 12: the output address.
    pub const ADDR: u64 = 0x0000_ffff_ffff_f000;
    /// Software, in a page of a process: shift of the number of pages before this one that the same fault brought in
    /// (four bits, which the architecture ignores while TCR_EL1.HWU* are clear).
    pub const AHEAD_SHIFT: u32 = 59;
    /// Software: that number.
    pub const AHEAD: u64 = 15 << AHEAD_SHIFT;
    /// In a table entry: nothing below it is executable at EL1.
    pub const PXN_TABLE: u64 = 1 << 59;
    /// In a table entry: nothing below it is executable at EL0.
    pub const UXN_TABLE: u64 = 1 << 60;
}

/// Memory types, by index into MAIR_EL1; [`MAIR`] is the register's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum MemoryType {
    /// Device-nGnRnE: registers; a store completes only when it has reached the device.
    DeviceStrict = 0,
    /// Normal, write-back, allocating on reads and writes.
    Normal = 1,
    /// Normal, not cached: memory shared with a device that does not snoop.
    NonCacheable = 2,
    /// Normal, write-through.
    WriteThrough = 3,
    /// Device-GRE: frame buffers.
    DeviceGre = 4,
    /// Device-nGnRE: registers; an interconnect may acknowledge a store early.
    Device = 5,
}

/// MAIR_EL1 for [`MemoryType`] (Arm ARM D23.2.97): a byte an index.
pub const MAIR: u64 = 0x04_0c_bb_44_ff_00;

/// Log2 of the bytes that an entry covers at levels 0 to 3.
pub const LEVEL_SHIFT: [u32; 4] = [39, 30, 21, 12];

/// Entries in a table page.
pub const ENTRIES: usize = 512;

/// The index into the table of `level` for a virtual address.
#[inline(always)]
pub const fn index(va: usize, level: usize) -> usize {
    va >> LEVEL_SHIFT[level] & (ENTRIES - 1)
}

/// The kinds of non-present entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonPresent {
    /// Nothing was ever here.
    None,
    /// The page is in swap.
    Swap(Swapped),
    /// The page is being moved; the payload is its old frame.
    Migration(PhysAddr),
    /// A marker for the fault path, without a page.
    Marker(u64),
}

/// What the entry of a page in swap says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// Where its contents are.
    pub slot: Slot,
    /// When it was last known to be used ([`crate::reclaim`]).
    pub shadow: u16,
}

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Pte(pub u64);

const KIND_SWAP: u64 = 1 << 1;
const KIND_MIGRATION: u64 = 2 << 1;
const KIND_MARKER: u64 = 3 << 1;
const KIND_MASK: u64 = 7 << 1;

impl Pte {
    /// The empty entry.
    pub const NONE: Pte = Pte(0);

    /// A table entry that points to the next level.
    #[inline(always)]
    pub const fn table(next: PhysAddr) -> Pte {
        Pte(next.get() as u64 | bits::TABLE | bits::VALID)
    }

    /// A present page at level 3 with these attribute bits.
    #[inline(always)]
    pub const fn page(frame: PhysAddr, attrs: u64) -> Pte {
        Pte(frame.get() as u64 | attrs | bits::TABLE | bits::VALID)
    }

    /// A present block at level 1 or 2 with these attribute bits.
    #[inline(always)]
    pub const fn block(frame: PhysAddr, attrs: u64) -> Pte {
        Pte(frame.get() as u64 | attrs | bits::VALID)
    }

    /// Instead of a block entry that becomes a table, or empty: no walker follows it.
    pub const SPLITTING: Pte = Pte(1 << 63);

    /// Whether an entry at level 2 maps a block.
    #[inline(always)]
    pub const fn is_block(self) -> bool {
        self.0 & (bits::TABLE | bits::VALID) == bits::VALID
    }

    /// The last-level entry that maps page `k` of the block that this entry maps.
    #[inline(always)]
    pub const fn page_of_block(self, k: usize) -> Pte {
        Pte((self.0 | bits::TABLE) + ((k as u64) << LEVEL_SHIFT[3]))
    }

    /// The attributes of a block entry.
    pub const fn block_attrs(self) -> u64 {
        self.0 & !(bits::ADDR | bits::VALID)
    }

    /// Whether hardware follows the entry.
    #[inline(always)]
    pub const fn is_present(self) -> bool {
        self.0 & bits::VALID != 0
    }

    /// Whether a present entry above level 3 points to a table.
    #[inline(always)]
    pub const fn is_table(self) -> bool {
        self.0 & (bits::TABLE | bits::VALID) == bits::TABLE | bits::VALID
    }

    /// The output address of a present entry.
    #[inline(always)]
    pub const fn addr(self) -> PhysAddr {
        PhysAddr::new((self.0 & bits::ADDR) as usize)
    }

    /// A non-present entry.
    #[inline(always)]
    pub const fn non_present(what: NonPresent) -> Pte {
        Pte(match what {
            NonPresent::None => 0,
            NonPresent::Swap(Swapped { slot, shadow }) => (shadow as u64) << (4 + SLOT_BITS) | slot.0 << 4 | KIND_SWAP,
            NonPresent::Migration(frame) => frame.get() as u64 | KIND_MIGRATION,
            NonPresent::Marker(note) => note << 4 | KIND_MARKER,
        })
    }

    /// What a non-present entry stands for; `None` for a present one.
    #[inline(always)]
    pub const fn kind(self) -> Option<NonPresent> {
        if self.is_present() {
            return None;
        }
        Some(match self.0 & KIND_MASK {
            KIND_SWAP => NonPresent::Swap(Swapped {
                slot: Slot(self.0 >> 4 & ((1 << SLOT_BITS) - 1)),
                shadow: (self.0 >> (4 + SLOT_BITS)) as u16,
            }),
            KIND_MIGRATION => NonPresent::Migration(self.addr()),
            KIND_MARKER => NonPresent::Marker(self.0 >> 4),
            _ => NonPresent::None,
        })
    }
}

impl core::fmt::Debug for Pte {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_present_entries_keep_their_kind() {
        for what in [
            NonPresent::None,
            NonPresent::Swap(Swapped { slot: Slot(0x1234_5678), shadow: 0 }),
            NonPresent::Swap(Swapped { slot: Slot((1 << SLOT_BITS) - 1), shadow: 0xabcd }),
            NonPresent::Migration(PhysAddr::new(0xabc_d000)),
            NonPresent::Marker(7),
        ] {
            let pte = Pte::non_present(what);
            assert!(!pte.is_present());
            assert_eq!(pte.kind(), Some(what));
        }
        assert_eq!(Pte::page(PhysAddr::new(0x1000), 0).kind(), None);
    }
}
