//! The table of page blocks: for each 2 MiB of the physical map its zone, its migrate type and how many of its
//! frames are free.
//!
//! A zone begins and ends at page block boundaries, so that one lookup finds the zone of a frame. An entry's zone never
//! changes after boot. Its type changes under the zone's lock, and is also read without it when a page is freed to a
//! per-CPU list: there it is a hint, which is checked again under the lock when the list is drained.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering::*};

use crate::addr::Pfn;

/// log2 of the frames of a page block: what one level-2 block entry maps.
pub const PAGEBLOCK_ORDER: u32 = 9;

/// Frames in a page block.
pub const PAGEBLOCK_PAGES: usize = 1 << PAGEBLOCK_ORDER;

/// The types by which pages are grouped, since one page that cannot move makes a large block unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MigrateType {
    /// Stays where it is until freed.
    Unmovable = 0,
    /// Migration can move it.
    Movable = 1,
    /// A shrinker can free it.
    Reclaimable = 2,
    /// Kept for high-order atomic allocations.
    HighAtomic = 3,
    /// A contiguous memory area's: only lent to movable allocations.
    Cma = 4,
    /// Not allocatable, while a range is being collected.
    Isolate = 5,
}

impl MigrateType {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// The number of types with per-CPU lists; these come first.
    pub const PER_CPU: usize = 3;
    /// All, by number.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Unmovable, Self::Movable, Self::Reclaimable, Self::HighAtomic, Self::Cma, Self::Isolate];

    /// Blocks of these two types may merge, and one may turn into the other as demand asks.
    pub const fn is_mobile(self) -> bool {
        (self as usize) < Self::PER_CPU
    }

    /// The name in `/proc/pagetypeinfo`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unmovable => "Unmovable",
            Self::Movable => "Movable",
            Self::Reclaimable => "Reclaimable",
            Self::HighAtomic => "HighAtomic",
            Self::Cma => "CMA",
            Self::Isolate => "Isolate",
        }
    }

    const fn of(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Unmovable,
            1 => Self::Movable,
            2 => Self::Reclaimable,
            3 => Self::HighAtomic,
            4 => Self::Cma,
            _ => Self::Isolate,
        }
    }
}

/// One of the lists that a CPU has for a zone in front of the buddy: below `MigrateType::PER_CPU`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List(u8);

impl List {
    pub(crate) const ALL: [Self; MigrateType::PER_CPU] = [Self(0), Self(1), Self(2)];

    /// The list of the migrate type with these low two bits; 3 is invalid and treated as 2.
    #[inline(always)]
    pub(crate) const fn of_bits(bits: u32) -> Self {
        let bits = bits & 3;
        Self((bits & !(bits >> 1)) as u8)
    }

    /// The list with this number, if there is one.
    #[inline(always)]
    pub(crate) const fn numbered(number: u8) -> Option<Self> {
        if number < MigrateType::PER_CPU as u8 { Some(Self(number)) } else { None }
    }

    /// The migrate type of its pages.
    pub(crate) const fn migrate_type(self) -> MigrateType {
        MigrateType::ALL[self.0 as usize]
    }

    /// The element for this list of an array with one element for each list.
    #[inline(always)]
    pub(crate) fn pick<T>(self, of_lists: &[T; MigrateType::PER_CPU]) -> &T {
        // SAFETY: every constructor of `List` ensures that it is below the length.
        unsafe { of_lists.get_unchecked(usize::from(self.0)) }
    }
}

/// The zone number of a page block without frames.
pub(crate) const NO_ZONE: u8 = u8::MAX;

/// The per-CPU list number of a page block whose pages go to the buddy only.
pub(crate) const NO_LIST: u8 = u8::MAX;

/// One page block.
#[repr(C, align(8))]
pub struct Pageblock {
    zone: AtomicU8,
    /// The per-CPU list that its single pages go to when freed, by number; [`NO_LIST`] for none.
    list: AtomicU8,
    /// Bits 2 to 0: the type. Bits 6 to 4: the type to go back to when an isolation ends.
    types: AtomicU8,
    /// The number of free frames, without those on per-CPU lists. Written under the zone's lock.
    free: AtomicU16,
    /// The numbers of the searches of compaction that found it exhausted as a source, as a whole and for a part of it:
    /// hints.
    marks: [AtomicU8; 2],
    /// The control groups that have pages here, a bit for each of their numbers modulo 64: hints.
    groups: AtomicU64,
}

impl Pageblock {
    pub(crate) const fn new(zone: u8) -> Self {
        let movable = MigrateType::Movable as u8;
        Self {
            zone: AtomicU8::new(zone),
            list: AtomicU8::new(movable),
            types: AtomicU8::new(movable),
            free: AtomicU16::new(0),
            marks: [const { AtomicU8::new(0) }; 2],
            groups: AtomicU64::new(0),
        }
    }

    /// The zone's number.
    #[inline(always)]
    pub(crate) fn zone(&self) -> u8 {
        self.zone.load(Relaxed)
    }

    /// At boot.
    pub(crate) fn set_zone(&self, zone: u8) {
        self.zone.store(zone, Relaxed);
    }

    /// The type of its pages.
    #[inline(always)]
    pub fn migrate_type(&self) -> MigrateType {
        MigrateType::of(self.types.load(Relaxed))
    }

    /// Free frames.
    pub fn free(&self) -> u32 {
        self.free.load(Relaxed).into()
    }

    /// The number of the search of compaction that found it exhausted as a source, as a whole or for a part of it.
    pub(crate) fn mark(&self, for_part: bool) -> u8 {
        self.marks[usize::from(for_part)].load(Relaxed)
    }

    pub(crate) fn set_mark(&self, for_part: bool, search: u8) {
        self.marks[usize::from(for_part)].store(search, Relaxed);
    }

    /// Notes that a page here is charged to this control group from now on.
    #[inline(always)]
    pub(crate) fn note_group(&self, id: u16) {
        if !self.may_have_group(id) {
            self.groups.fetch_or(1 << (id % 64), Relaxed);
        }
    }

    /// Whether a page here may be charged to the group.
    #[inline(always)]
    pub(crate) fn may_have_group(&self, id: u16) -> bool {
        self.groups.load(Relaxed) >> (id % 64) & 1 != 0
    }

    /// Notes that no page here was seen that is charged to the group, or to another one with the same bit.
    pub(crate) fn forget_group(&self, id: u16) {
        self.groups.fetch_and(!(1 << (id % 64)), Relaxed);
    }

    /// The per-CPU list that its single pages go to.
    #[inline(always)]
    pub(crate) fn list(&self) -> Option<List> {
        List::numbered(self.list.load(Relaxed))
    }

    /// Under the zone's lock.
    pub(crate) fn set_migrate_type(&self, to: MigrateType) {
        self.types.store(to as u8, Relaxed);
        self.list.store(list_of(to), Relaxed);
    }

    /// Changes the type to `Isolate`, and remembers the old type. Under the zone's lock.
    pub(crate) fn isolate(&self) {
        let old = self.migrate_type() as u8;
        self.types.store(old << 4 | MigrateType::Isolate as u8, Relaxed);
        self.list.store(NO_LIST, Relaxed);
    }

    /// The type that it has when it is not isolated.
    pub(crate) fn lasting_type(&self) -> MigrateType {
        let types = self.types.load(Relaxed);
        match MigrateType::of(types) {
            MigrateType::Isolate => MigrateType::of(types >> 4),
            kind => kind,
        }
    }

    /// The type that it had before it was isolated.
    pub(crate) fn type_before_isolation(&self) -> MigrateType {
        MigrateType::of(self.types.load(Relaxed) >> 4)
    }

    #[inline]
    fn add_free(&self, frames: u16) {
        self.free.store(self.free.load(Relaxed).wrapping_add(frames), Relaxed);
    }
}

/// CMA's single pages serve movable allocations like any other.
fn list_of(of: MigrateType) -> u8 {
    match of {
        MigrateType::Unmovable | MigrateType::Movable | MigrateType::Reclaimable => of as u8,
        MigrateType::Cma => MigrateType::Movable as u8,
        MigrateType::HighAtomic | MigrateType::Isolate => NO_LIST,
    }
}

/// The entries of all page blocks from frame 0 to the last that exists.
#[derive(Clone, Copy)]
pub struct PageblockTable {
    blocks: &'static [Pageblock],
}

impl PageblockTable {
    /// A table of nothing.
    pub(crate) const EMPTY: Self = Self { blocks: &[] };

    pub(crate) const fn new(blocks: &'static [Pageblock]) -> Self {
        Self { blocks }
    }

    /// The entry of the page block that contains `pfn`; `None` where there is no memory.
    #[inline(always)]
    pub fn get(&self, pfn: Pfn) -> Option<&'static Pageblock> {
        self.blocks.get(pfn.0 >> PAGEBLOCK_ORDER)
    }

    /// The entry of a frame that exists.
    #[inline(always)]
    pub(crate) fn of(&self, pfn: Pfn) -> &'static Pageblock {
        &self.blocks[pfn.0 >> PAGEBLOCK_ORDER]
    }

    /// The entry of a frame that exists, without a check of the table's length.
    ///
    /// # Safety
    /// The frame exists.
    #[inline(always)]
    pub(crate) unsafe fn of_existing(&self, pfn: Pfn) -> &'static Pageblock {
        debug_assert!(self.get(pfn).is_some());
        // SAFETY: the table has an entry for every frame that exists.
        unsafe { self.blocks.get_unchecked(pfn.0 >> PAGEBLOCK_ORDER) }
    }

    /// Counts the frames of the block at `pfn`, which became free, or (`false`) no longer are. Under the zone's lock.
    #[inline]
    pub(crate) fn count_free(&self, pfn: Pfn, order: u32, free: bool) {
        let each = 1_u16 << order.min(PAGEBLOCK_ORDER);
        let each = if free { each } else { each.wrapping_neg() };
        self.of(pfn).add_free(each);
        if order > PAGEBLOCK_ORDER {
            for block in 1..1 << (order - PAGEBLOCK_ORDER) {
                self.of(Pfn(pfn.0 + block * PAGEBLOCK_PAGES)).add_free(each);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static Pageblock> + use<> {
        self.blocks.iter()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}
