//! The kernel's own translation tables (TTBR1): built at boot, grown by vmalloc.
//!
//! Entries only change between invalid and valid, never from one valid value to another: a live kernel mapping is not
//! split, merged or re-attributed, so break-before-make is never needed (Arm ARM D8.14.1). Table pages are never freed,
//! so a walker cannot reach a freed one. Callers serialise changes ([`crate::sync::Rank::KernelTable`]).

use crate::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use crate::fallible::AllocError;
use crate::pte::{ENTRIES, LEVEL_SHIFT, MemoryType, Path, Pte, bits, index};

/// Allocation of table pages and access to them.
pub trait TableMemory {
    /// A page of zeros.
    fn alloc(&mut self) -> Result<PhysAddr, AllocError>;
    /// Where the CPU sees the entries of a table page.
    fn entries(&self, table: PhysAddr) -> *mut Pte;
}

/// Why a mapping was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No page for a table.
    NoMemory,
    /// Something is mapped there.
    Occupied(VirtAddr),
    /// Address or length is not a multiple of the page size.
    Misaligned,
}

impl From<AllocError> for MapError {
    fn from(_: AllocError) -> Self {
        MapError::NoMemory
    }
}

/// Attribute bits of a kernel mapping: never executable at EL0, never reachable from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelAttrs(u64);

impl KernelAttrs {
    /// Code.
    pub const TEXT: Self = Self::of(MemoryType::Normal, bits::READ_ONLY);
    /// Constants.
    pub const RODATA: Self = Self::of(MemoryType::Normal, bits::READ_ONLY | bits::PXN);
    /// Data.
    pub const DATA: Self = Self::data(MemoryType::Normal);
    /// Registers (`ioremap`).
    pub const DEVICE: Self = Self::data(MemoryType::Device);
    /// Registers whose stores must have completed at a barrier: interrupt controllers, power switches (`ioremap_np`).
    pub const DEVICE_STRICT: Self = Self::data(MemoryType::DeviceStrict);
    /// Memory that a device shares without snooping (`ioremap_wc`).
    pub const NON_CACHEABLE: Self = Self::data(MemoryType::NonCacheable);
    /// Memory whose stores go through the caches (`ioremap_wt`).
    pub const WRITE_THROUGH: Self = Self::data(MemoryType::WriteThrough);

    /// Readable and writable, of this memory type.
    pub const fn data(memory: MemoryType) -> Self {
        Self::of(memory, bits::PXN)
    }

    /// The same, read-only.
    pub const fn read_only(self) -> Self {
        Self(self.0 | bits::READ_ONLY)
    }

    /// How such a mapping relates to the direct map's mapping of the same memory.
    pub const fn alias(self) -> Alias {
        const SHIFT: u32 = bits::ATTR_SHIFT;
        const NORMAL: u64 = MemoryType::Normal as u64;
        const NON_CACHEABLE: u64 = MemoryType::NonCacheable as u64;
        const WRITE_THROUGH: u64 = MemoryType::WriteThrough as u64;
        match self.0 >> SHIFT & 7 {
            NORMAL => Alias::Same,
            NON_CACHEABLE | WRITE_THROUGH => Alias::Mismatched,
            _ => Alias::Device,
        }
    }

    const fn of(memory: MemoryType, rest: u64) -> Self {
        Self((memory as u64) << bits::ATTR_SHIFT | bits::INNER_SHARE | bits::ACCESSED | bits::UXN | rest)
    }
}

/// Two mappings of the same memory, one of them write-back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alias {
    /// Both are.
    Same,
    /// The other is Normal memory of another cacheability: caches have to be maintained between the two.
    Mismatched,
    /// The other is Device memory: mixed accesses have no guaranteed result.
    Device,
}

/// How large the entries of a mapping may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// Pages only, so that pages can be unmapped one by one.
    Pages,
    /// The largest blocks that fit.
    Blocks,
}

/// A root table of the upper half.
pub struct KernelTable {
    root: PhysAddr,
}

impl KernelTable {
    /// The table whose level 0 is at `root`.
    ///
    /// # Safety
    /// `root` is a level 0 table all of whose tables are accessible through the `memory` of later calls, and only the
    /// holder of the result changes it.
    pub const unsafe fn new(root: PhysAddr) -> Self {
        Self { root }
    }

    /// Level 0's address.
    pub const fn root(&self) -> PhysAddr {
        self.root
    }

    /// Maps `len` bytes at `va` to `pa`. O(entries written). On an error, the part mapped so far stays mapped:
    /// [`KernelTable::unmap`] of the same range removes it.
    pub fn map(
        &mut self,
        memory: &mut impl TableMemory,
        va: VirtAddr,
        pa: PhysAddr,
        len: usize,
        attrs: KernelAttrs,
        granularity: Granularity,
    ) -> Result<(), MapError> {
        if !va.is_aligned(PAGE_SIZE) || !pa.is_aligned(PAGE_SIZE) || !len.is_multiple_of(PAGE_SIZE) {
            return Err(MapError::Misaligned);
        }
        let mut done = 0;
        while done < len {
            let (va, pa) = (va + done, pa + done);
            let mut level = match granularity {
                Granularity::Pages => 3,
                Granularity::Blocks => largest_level(va.get() | pa.get(), len - done),
            };
            let mut table = self.table_for(memory, va, level)?;
            // SAFETY: `table_for` returns a live table page; an index is below ENTRIES.
            while level < 3 && unsafe { table.add(index(va.get(), level)).read_volatile() }.is_table() {
                level += 1;
                table = self.table_for(memory, va, level)?;
            }
            // All pages of one table in a row, so that there is one walk per table; blocks are few.
            let step = 1usize << LEVEL_SHIFT[level];
            let first = index(va.get(), level);
            let count = if level == 3 { ((len - done) / step).min(ENTRIES - first) } else { 1 };
            for i in 0..count {
                // SAFETY: as above.
                let entry = unsafe { table.add(first + i) };
                let frame = pa + i * step;
                let pte = if level == 3 { Pte::page(frame, attrs.0) } else { Pte::block(frame, attrs.0) };
                // SAFETY: as above; `self` has the right to change this table.
                unsafe {
                    if entry.read_volatile() != Pte::NONE {
                        return Err(MapError::Occupied(va + i * step));
                    }
                    entry.write_volatile(pte);
                }
            }
            done += count * step;
        }
        Ok(())
    }

    /// Removes the mapping of `pages` pages from `va` and returns how many were mapped. Page entries only: blocks are
    /// left alone. The caller invalidates the TLB.
    pub fn unmap(&mut self, memory: &impl TableMemory, va: VirtAddr, pages: usize) -> usize {
        let mut removed = 0;
        for i in 0..pages {
            let va = va + i * PAGE_SIZE;
            if let Some(entry) = self.find(memory, va, 3) {
                // SAFETY: `find` returns an entry of a live table.
                unsafe {
                    if entry.read_volatile().is_present() {
                        entry.write_volatile(Pte::NONE);
                        removed += 1;
                    }
                }
            }
        }
        removed
    }

    /// The physical address that `va` maps to; `None` if it is not mapped.
    pub fn translate(&self, memory: &impl TableMemory, va: VirtAddr) -> Option<PhysAddr> {
        let (pte, level) = self.leaf(memory, va)?;
        Some(pte.addr() + (va.get() & ((1 << LEVEL_SHIFT[level]) - 1)))
    }

    /// The page or block entry that maps `va`, and its level.
    pub fn leaf(&self, memory: &impl TableMemory, va: VirtAddr) -> Option<(Pte, usize)> {
        let path = self.path(memory, va);
        path.output(va.get())?;
        let level = path.steps().len() - 1;
        Some((path.steps()[level].entry, level))
    }

    /// The entries that a walk for `va` reads.
    pub fn path(&self, memory: &impl TableMemory, va: VirtAddr) -> Path {
        let mut path = Path::default();
        let mut table = self.root;
        for level in 0..=3 {
            // SAFETY: `table` is a live table page; the index is below ENTRIES.
            let pte = unsafe { memory.entries(table).add(index(va.get(), level)).read_volatile() };
            path.push(table, pte);
            if !pte.is_table() {
                break;
            }
            table = pte.addr();
        }
        path
    }

    /// The entry of `va` at `level`, if the tables above exist.
    fn find(&self, memory: &impl TableMemory, va: VirtAddr, level: usize) -> Option<*mut Pte> {
        let mut table = memory.entries(self.root);
        for above in 0..level {
            // SAFETY: `table` is a live table page; the index is below ENTRIES.
            let pte = unsafe { table.add(index(va.get(), above)).read_volatile() };
            if !pte.is_table() {
                return None;
            }
            table = memory.entries(pte.addr());
        }
        // SAFETY: as above.
        Some(unsafe { table.add(index(va.get(), level)) })
    }

    /// The table of `level` that `va` goes through, made where it is missing.
    fn table_for(&mut self, memory: &mut impl TableMemory, va: VirtAddr, level: usize) -> Result<*mut Pte, MapError> {
        let mut table = memory.entries(self.root);
        for above in 0..level {
            // SAFETY: `table` is a live table page; the index is below ENTRIES.
            let entry = unsafe { table.add(index(va.get(), above)) };
            // SAFETY: as above.
            let pte = unsafe { entry.read_volatile() };
            let next = if pte.is_table() {
                pte.addr()
            } else if pte == Pte::NONE {
                let page = memory.alloc()?;
                // SAFETY: as above. The new table is all zeros, so publishing it early shows nothing.
                unsafe { entry.write_volatile(Pte::table(page)) };
                page
            } else {
                return Err(MapError::Occupied(va));
            };
            table = memory.entries(next);
        }
        Ok(table)
    }
}

/// The highest level (1 to 3) whose entries' size divides `alignment` and is at most `len`.
fn largest_level(alignment: usize, len: usize) -> usize {
    (1..3).find(|&l| alignment & ((1 << LEVEL_SHIFT[l]) - 1) == 0 && len >= 1 << LEVEL_SHIFT[l]).unwrap_or(3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Table pages in host memory; "physical" addresses are page numbers from 1 on.
    struct Host {
        pages: Vec<Box<[Pte; ENTRIES]>>,
        limit: usize,
    }

    impl TableMemory for Host {
        fn alloc(&mut self) -> Result<PhysAddr, AllocError> {
            if self.pages.len() >= self.limit {
                return Err(AllocError);
            }
            self.pages.push(Box::new([Pte::NONE; ENTRIES]));
            Ok(PhysAddr::new(self.pages.len() * PAGE_SIZE))
        }
        fn entries(&self, table: PhysAddr) -> *mut Pte {
            self.pages[table.get() / PAGE_SIZE - 1].as_ptr().cast_mut()
        }
    }

    fn fresh(limit: usize) -> (Host, KernelTable) {
        let mut host = Host { pages: Vec::new(), limit };
        let root = host.alloc().unwrap();
        // SAFETY: `host` reaches all its tables, and the test is alone.
        (host, unsafe { KernelTable::new(root) })
    }

    #[test]
    fn the_largest_blocks_that_fit_are_used() {
        let (mut host, mut table) = fresh(16);
        let base = VirtAddr::new(0xffff_0000_0000_0000);
        let start = 0x4000_0000 - 0x20_1000;
        let len = (1 << 30) + 0x20_1000 + 0x40_0000 + 0x1000;
        table.map(&mut host, base + start, PhysAddr::new(start), len, KernelAttrs::DATA, Granularity::Blocks).unwrap();
        for at in [start, start + 0x1000, 0x4000_0000, 0x7fff_f000, 0x8000_0000, start + len - 1] {
            assert_eq!(table.translate(&host, base + at), Some(PhysAddr::new(at)));
        }
        assert_eq!(table.translate(&host, base + start + len), None);
        assert_eq!(table.translate(&host, base + start - 1), None);
        // Root, L1, two L2 (one a GiB with an edge), two L3.
        assert_eq!(host.pages.len(), 6);
    }

    #[test]
    fn each_attribute_arrives_in_the_entry() {
        let (mut host, mut table) = fresh(4);
        let mut va = VirtAddr::new(0xffff_8000_0000_0000);
        // With the byte of MAIR_EL1 that the entry's index leads to (Arm ARM, MAIR_EL1).
        let cases = [
            (KernelAttrs::TEXT, 0xff, true, true, Alias::Same),
            (KernelAttrs::RODATA, 0xff, true, false, Alias::Same),
            (KernelAttrs::DATA, 0xff, false, false, Alias::Same),
            (KernelAttrs::DATA.read_only(), 0xff, true, false, Alias::Same),
            (KernelAttrs::NON_CACHEABLE, 0x44, false, false, Alias::Mismatched),
            (KernelAttrs::WRITE_THROUGH, 0xbb, false, false, Alias::Mismatched),
            (KernelAttrs::WRITE_THROUGH.read_only(), 0xbb, true, false, Alias::Mismatched),
            (KernelAttrs::DEVICE, 0x04, false, false, Alias::Device),
            (KernelAttrs::DEVICE_STRICT, 0x00, false, false, Alias::Device),
            (KernelAttrs::data(MemoryType::DeviceGre), 0x0c, false, false, Alias::Device),
        ];
        for (attrs, mair, read_only, executable, alias) in cases {
            table.map(&mut host, va, PhysAddr::new(0x7000), PAGE_SIZE, attrs, Granularity::Pages).unwrap();
            let (pte, level) = table.leaf(&host, va).unwrap();
            assert_eq!((level, pte.addr()), (3, PhysAddr::new(0x7000)));
            let entry = pte.0 & !bits::ADDR;
            assert_eq!(crate::pte::MAIR.to_le_bytes()[entry as usize >> bits::ATTR_SHIFT & 7], mair, "{attrs:?}");
            assert_eq!(entry & bits::READ_ONLY != 0, read_only, "{attrs:?}");
            assert_eq!(entry & bits::PXN == 0, executable, "{attrs:?}");
            let always = bits::INNER_SHARE | bits::ACCESSED | bits::UXN;
            assert_eq!(entry & always, always, "{attrs:?}");
            assert_eq!(entry & (bits::USER | bits::NOT_GLOBAL | bits::DBM), 0, "the kernel's alone, in all spaces");
            assert_eq!(attrs.alias(), alias);
            va = va + PAGE_SIZE;
        }
    }

    #[test]
    fn nothing_is_mapped_over() {
        let (mut host, mut table) = fresh(8);
        let va = VirtAddr::new(0xffff_8000_0000_0000);
        let pa = PhysAddr::new(0x1000);
        table.map(&mut host, va, pa, 0x2000, KernelAttrs::DATA, Granularity::Pages).unwrap();
        let again = table.map(&mut host, va + 0x1000, pa, 0x1000, KernelAttrs::DATA, Granularity::Pages);
        assert_eq!(again, Err(MapError::Occupied(va + 0x1000)));
        assert_eq!(table.unmap(&host, va, 3), 2);
        table.map(&mut host, va + 0x1000, pa, 0x1000, KernelAttrs::DATA, Granularity::Pages).unwrap();
    }

    #[test]
    fn a_table_page_that_is_missing_is_an_error() {
        let (mut host, mut table) = fresh(2);
        let va = VirtAddr::new(0xffff_8000_0000_0000);
        let r = table.map(&mut host, va, PhysAddr::new(0), 0x1000, KernelAttrs::DATA, Granularity::Pages);
        assert_eq!(r, Err(MapError::NoMemory));
    }

    proptest! {
        #[test]
        fn agrees_with_a_map_of_pages(ops in prop::collection::vec((0usize..2000, 1usize..1200, any::<bool>(), any::<bool>()), 1..12)) {
            let (mut host, mut table) = fresh(4096);
            let base = VirtAddr::new(0xffff_8000_0000_0000);
            let mut model = BTreeMap::new();
            for (first, pages, blocks, unmap) in ops {
                let va = base + first * PAGE_SIZE;
                let range = first..first + pages;
                if unmap {
                    // Unmapping only applies to mappings by pages.
                    if range.clone().all(|p| model.get(&p) != Some(&Granularity::Blocks)) {
                        let there = range.clone().filter(|p| model.remove(p).is_some()).count();
                        prop_assert_eq!(table.unmap(&host, va, pages), there);
                    }
                } else if range.clone().all(|p| !model.contains_key(&p)) {
                    let g = if blocks { Granularity::Blocks } else { Granularity::Pages };
                    table.map(&mut host, va, PhysAddr::new(first * PAGE_SIZE), pages * PAGE_SIZE, KernelAttrs::DATA, g).unwrap();
                    model.extend(range.map(|p| (p, g)));
                }
            }
            for p in 0..3300 {
                let want = model.contains_key(&p).then(|| PhysAddr::new(p * PAGE_SIZE));
                prop_assert_eq!(table.translate(&host, base + p * PAGE_SIZE), want);
            }
        }
    }
}
