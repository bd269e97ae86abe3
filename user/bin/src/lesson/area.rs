//! Memory of a program's own, page by page, and what the kernel says of it.

use quire_rt::abi::PAGE_SIZE;
use quire_rt::abi::flags::{Map, Prot, madv};
use quire_rt::abi::statistics::AreaInfo;
use quire_rt::abi::translation::{TranslationInfo, outcome};
use quire_rt::{Errno, info, mem};

/// A mapping with a page without rights on each side, so that it is an area of its own. Pages have numbers from 0 on. Only
/// [`Area::read`] and [`Area::write`] touch them, so its contents may be dropped at any time.
pub struct Area {
    start: usize,
    pages: usize,
}

impl Area {
    /// Fresh private memory to read and write.
    pub fn new(pages: usize) -> Result<Area, Errno> {
        Area::with(pages, Prot::READ | Prot::WRITE)
    }

    /// The same with these rights.
    pub fn with(pages: usize, prot: Prot) -> Result<Area, Errno> {
        let flags = Map::PRIVATE | Map::ANONYMOUS | Map::NORESERVE;
        // SAFETY: without `FIXED`, nothing that is mapped changes.
        let around = unsafe { mem::mmap(0, (pages + 2) * PAGE_SIZE, Prot::empty(), flags, -1, 0) }?;
        let area = Area { start: around + PAGE_SIZE, pages };
        // SAFETY: it was just mapped, and nobody has its address.
        unsafe { mem::mprotect(area.start, pages * PAGE_SIZE, prot) }?;
        Ok(area)
    }

    /// How many pages it has.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// The address of a page.
    pub fn address(&self, page: usize) -> usize {
        assert!(page < self.pages);
        self.start + page * PAGE_SIZE
    }

    /// The first byte of a page.
    pub fn read(&self, page: usize) -> u8 {
        // SAFETY: a byte of this mapping, to which there are no references; whoever maps it without the right to read faults.
        unsafe { core::ptr::with_exposed_provenance::<u8>(self.address(page)).read_volatile() }
    }

    /// Writes the first byte of a page.
    pub fn write(&self, page: usize, value: u8) {
        // SAFETY: as for `read`.
        unsafe { core::ptr::with_exposed_provenance_mut::<u8>(self.address(page)).write_volatile(value) }
    }

    /// Writes to all pages, in order.
    pub fn fill(&self) {
        (0..self.pages).for_each(|page| self.write(page, page as u8));
    }

    /// Gives consecutive pages back: they are zeros again when they are next read.
    pub fn give_back(&self, first: usize, pages: usize) -> Result<(), Errno> {
        self.advise(first, pages, madv::DONTNEED)
    }

    /// Makes all its pages old: none counts as referenced until it is next used.
    pub fn make_old(&self) -> Result<(), Errno> {
        self.advise(0, self.pages, madv::COLD)
    }

    fn advise(&self, first: usize, pages: usize, advice: i32) -> Result<(), Errno> {
        assert!(first + pages <= self.pages);
        // SAFETY: pages of this mapping, to whose contents there are no references.
        unsafe { mem::madvise(self.start + first * PAGE_SIZE, pages * PAGE_SIZE, advice) }
    }

    /// The translation of a page.
    pub fn translation(&self, page: usize) -> Result<TranslationInfo, Errno> {
        info::translation(0, self.address(page))
    }

    /// The frame number of a page; `None` if no frame is mapped there.
    pub fn frame(&self, page: usize) -> Option<u64> {
        let found = self.translation(page).ok()?;
        (found.outcome == outcome::MAPPED).then_some(found.physical / PAGE_SIZE as u64)
    }

    /// What the kernel counts of it: pages in memory, referenced, in swap, and so on.
    pub fn counts(&self) -> AreaInfo {
        info::areas_from(0, self.start).next().and_then(Result::ok).unwrap_or_default()
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference to what is there.
        let _ = unsafe { mem::munmap(self.start - PAGE_SIZE, (self.pages + 2) * PAGE_SIZE) };
    }
}
