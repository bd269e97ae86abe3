//! The translation of an address, step by step: the record of `QUIRE_INFO` behind `walk`. Physical addresses are in
//! bytes; names are NUL-padded.

use crate::layout::Pod;

/// The bits that the kernel keeps in the entries of processes' pages, in addition to those of the architecture.
pub mod software {
    /// The page was written, whatever the entry's access permissions are.
    pub const DIRTY: u64 = 1 << 55;
    /// The frame has no record whose references are counted.
    pub const SPECIAL: u64 = 1 << 56;
    /// The page is anonymous.
    pub const ANON: u64 = 1 << 57;
    /// Shift of the number of pages before this one that the same fault mapped.
    pub const AHEAD_SHIFT: u32 = 59;
    /// The mask of that number.
    pub const AHEAD: u64 = 15 << AHEAD_SHIFT;

    /// In an invalid entry: what it stands for, in bits 3 to 1.
    pub const ABSENT: u64 = 7 << 1;
    /// A page in swap: its slot is in bits 47 to 4, and its age at that time in bits 63 to 48.
    pub const SWAP: u64 = 1 << 1;
    /// A page that is being moved: its old frame is in bits 47 to 12.
    pub const MIGRATION: u64 = 2 << 1;
    /// A marker: its data is in bits 63 to 4.
    pub const MARKER: u64 = 3 << 1;
}

/// What the last entry of a walk stands for.
pub mod outcome {
    /// Memory or a device, at [`TranslationInfo::physical`](super::TranslationInfo::physical).
    pub const MAPPED: u32 = 0;
    /// Nothing: no area is there.
    pub const UNMAPPED: u32 = 1;
    /// Nothing yet: a page of an area that has not been accessed here.
    pub const UNTOUCHED: u32 = 2;
    /// A page in swap.
    pub const SWAPPED: u32 = 3;
    /// A page that is being moved from the frame at [`TranslationInfo::physical`](super::TranslationInfo::physical).
    pub const MOVING: u32 = 4;
    /// Nothing, but it is below a stack that an access would extend.
    pub const BELOW_STACK: u32 = 5;
    /// Nothing: the address belongs to neither half.
    pub const OUTSIDE: u32 = 6;
    /// Nothing: the process has no memory any more.
    pub const ENDED: u32 = 7;
}

/// What a first access would do.
pub mod touch {
    /// SIGSEGV.
    pub const REFUSED: u32 = 0;
    /// SIGBUS.
    pub const BEYOND_OBJECT: u32 = 1;
    /// Maps the zero page.
    pub const ZERO_PAGE: u32 = 2;
    /// Maps a new page of zeros.
    pub const NEW_PAGE: u32 = 3;
    /// Maps the object's page.
    pub const OBJECT_PAGE: u32 = 4;
    /// Maps a copy of the object's page.
    pub const COPY: u32 = 5;
}

/// Where a page of an object is.
pub mod whereabouts {
    /// There is no object.
    pub const NO_OBJECT: u32 = 0;
    /// In the boot archive's memory.
    pub const IN_PLACE: u32 = 1;
    /// In a frame.
    pub const IN_MEMORY: u32 = 2;
    /// In swap.
    pub const IN_SWAP: u32 = 3;
    /// Being moved to swap, or to a frame.
    pub const MOVING: u32 = 4;
    /// With the server of the file.
    pub const WITH_PAGER: u32 = 5;
    /// In the boot archive, but not page-aligned.
    pub const IN_ARCHIVE: u32 = 6;
    /// Nowhere: it would be a page of zeros.
    pub const NOWHERE: u32 = 7;
    /// Behind the object's end.
    pub const BEYOND_END: u32 = 8;
}

/// Bits of [`TranslationInfo::notes`].
pub mod note {
    /// TTBR1 translates the address: the kernel's half.
    pub const KERNEL: u32 = 1;
    /// The ASID is of the current generation.
    pub const CURRENT: u32 = 2;
    /// The frame is the zero page.
    pub const ZERO_PAGE: u32 = 4;
    /// There is an area.
    pub const AREA: u32 = 8;
    /// The entry has a marker.
    pub const MARKER: u32 = 16;
    /// For a page that is being moved: it was accessed since its access flag was last cleared.
    pub const WAS_YOUNG: u32 = 32;
    /// For a page that is being moved: it is dirty.
    pub const WAS_DIRTY: u32 = 64;
    /// For a page that is being moved: a write needs no further check.
    pub const WAS_WRITABLE: u32 = 128;
}

/// Bits of [`FrameInfo::flags`].
#[allow(missing_docs)]
pub mod frame_flag {
    pub const LOCKED: u32 = 1;
    pub const DIRTY: u32 = 1 << 1;
    pub const WRITEBACK: u32 = 1 << 2;
    pub const REFERENCED: u32 = 1 << 3;
    pub const SWAP_BACKED: u32 = 1 << 4;
    pub const PAGED: u32 = 1 << 5;
    pub const RETURNED: u32 = 1 << 6;
    pub const ISOLATED: u32 = 1 << 7;

    /// All, with their names.
    pub const NAMES: [(u32, &str); 8] = [
        (LOCKED, "locked"),
        (DIRTY, "dirty"),
        (WRITEBACK, "writeback"),
        (REFERENCED, "referenced"),
        (SWAP_BACKED, "swap-backed"),
        (PAGED, "paged"),
        (RETURNED, "returned"),
        (ISOLATED, "isolated"),
    ];
}

/// A page frame: the state of its record at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FrameInfo {
    /// Its number.
    pub pfn: u64,
    /// The first frame of the block that contains it.
    pub head: u64,
    /// The key of the control group that the page is charged to, 0 for the root.
    pub control_group: u64,
    /// For a page of user memory: its index in its owner.
    pub index: u64,
    /// 1 if the record describes a frame of memory; 0 if there is none.
    pub exists: u32,
    /// Its node.
    pub node: u32,
    /// The block's order.
    pub order: u32,
    /// References.
    pub references: u32,
    /// Of these, pins.
    pub pins: u32,
    /// The maximum number of entries that can map a page of user memory.
    pub mappings: u32,
    /// [`frame_flag`].
    pub flags: u32,
    /// 0.
    pub pad: u32,
    /// The zone's name.
    pub zone: [u8; 8],
    /// The state's name.
    pub state: [u8; 8],
    /// The name of the page block's migrate type.
    pub migrate_type: [u8; 16],
}

/// A slot of swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SlotInfo {
    /// Its number.
    pub number: u64,
    /// The first frame of the block that holds its contents, if `bytes` is not 0.
    pub block: u64,
    /// The number of its references, from entries and from others.
    pub users: u32,
    /// The compressed size of its contents; 0 if they repeat one word.
    pub bytes: u32,
}

/// The translation of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TranslationInfo {
    /// The address, without a tag.
    pub address: u64,
    /// The root table.
    pub root: u64,
    /// MAIR_EL1, which defines the memory types of entries.
    pub mair: u64,
    /// The entries that a walk reads, from level 0 on.
    pub entries: [u64; 4],
    /// The tables that contain them.
    pub tables: [u64; 4],
    /// The physical address: see [`outcome`].
    pub physical: u64,
    /// The generation of the ASID, and the current one.
    pub generations: [u64; 2],
    /// The area around the address: its first byte, and one past its last. See [`note::AREA`].
    pub area: [u64; 2],
    /// The index of the page of the area's object at this address.
    pub index: u64,
    /// How many entries there are.
    pub levels: u32,
    /// The ASID; 0 if the space has none.
    pub asid: u32,
    /// The CPUs that run with the ASID, or did so last: a bit for each.
    pub running: u32,
    /// The CPUs that must flush their TLBs before they next load a table: a bit for each.
    pub owing: u32,
    /// [`note`].
    pub notes: u32,
    /// [`outcome`].
    pub outcome: u32,
    /// What the first load would do: [`touch`].
    pub first_read: u32,
    /// What the first store would do.
    pub first_write: u32,
    /// Where the object's page is: [`whereabouts`].
    pub whereabouts: u32,
    /// The area's flags: [`vma`](crate::statistics::vma).
    pub area_flags: u32,
    /// The slot, of a page in swap.
    pub slot: SlotInfo,
    /// The frame of a mapped address, or of the object's page if it is resident.
    pub frame: FrameInfo,
    /// The path of the file that the area maps; for the kernel's half, the name of the region.
    pub name: [u8; 64],
}

impl Default for TranslationInfo {
    fn default() -> Self {
        Self {
            address: 0,
            root: 0,
            mair: 0,
            entries: [0; 4],
            tables: [0; 4],
            physical: 0,
            generations: [0; 2],
            area: [0; 2],
            index: 0,
            levels: 0,
            asid: 0,
            running: 0,
            owing: 0,
            notes: 0,
            outcome: outcome::UNMAPPED,
            first_read: touch::REFUSED,
            first_write: touch::REFUSED,
            whereabouts: whereabouts::NO_OBJECT,
            area_flags: 0,
            slot: SlotInfo::default(),
            frame: FrameInfo::default(),
            name: [0; 64],
        }
    }
}

// SAFETY: a `repr(C)` record of integers, arrays of integers, and such records; its size is that of its fields, so
// there is no padding.
unsafe impl Pod for TranslationInfo {}
const _: () = {
    assert!(size_of::<FrameInfo>() == 4 * 8 + 8 * 4 + 8 + 8 + 16);
    assert!(size_of::<SlotInfo>() == 2 * 8 + 2 * 4);
    assert!(size_of::<TranslationInfo>() == 17 * 8 + 10 * 4 + size_of::<SlotInfo>() + size_of::<FrameInfo>() + 64);
};
