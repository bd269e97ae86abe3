//! The boot allocator: the physical memory that exists, and the parts of it that are reserved.
//!
//! Two lists, memory and reserved, of fixed capacity; memory that is in the first and not in the second is free. It
//! serves one CPU at boot, from the reading of the device tree until the page allocator takes over. Nothing here
//! touches the memory itself.

mod region_list;

use core::ops::Range;

use quire_abi::info::{RegionInfo, region};

use crate::addr::{PhysAddr, PhysRange};
pub use region_list::CAPACITY;
use region_list::{Entry, RegionList};

/// Errors of memblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemBlockError {
    /// There are more regions than the list has room for ([`CAPACITY`]).
    Full,
    /// No free range of that size and place.
    NoSpace,
    /// An empty range, a size of 0, or an alignment that is no power of two.
    BadRequest,
}

/// Why a region is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RegionKind {
    /// The tree or the firmware says so.
    Reserved = region::RESERVED,
    /// A contiguous memory area: handed to the page allocator as such.
    Cma = region::CMA,
    /// The kernel image.
    Kernel = region::KERNEL,
    /// The boot archive.
    Initrd = region::INITRD,
    /// The device tree.
    DeviceTree = region::DEVICE_TREE,
    /// Records of page frames and page blocks.
    MemMap = region::MEM_MAP,
    /// Early tables, stacks, the boot heap.
    Boot = region::BOOT,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    node: usize,
    no_map: bool,
}

/// Bytes of a region's name that are kept.
const NAME: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reserved {
    kind: RegionKind,
    name: [u8; NAME],
}

/// A piece of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// Where.
    pub range: PhysRange,
    /// Its NUMA node.
    pub node: usize,
    /// The kernel must not map it.
    pub no_map: bool,
}

/// All physical memory at boot.
#[derive(Clone)]
pub struct MemBlock {
    memory: RegionList<Memory>,
    reserved: RegionList<Reserved>,
}

impl Default for MemBlock {
    fn default() -> Self {
        Self::new()
    }
}

impl MemBlock {
    /// Without any memory.
    pub const fn new() -> Self {
        Self {
            memory: RegionList::new(Memory { node: 0, no_map: false }),
            reserved: RegionList::new(Reserved { kind: RegionKind::Reserved, name: [0; NAME] }),
        }
    }

    /// Adds memory of this node. Earlier entries for parts of it take precedence.
    pub fn add(&mut self, range: PhysRange, node: usize) -> Result<(), MemBlockError> {
        self.memory.add(nonempty(range)?, Memory { node, no_map: false })
    }

    /// Removes memory (`mem=`).
    pub fn remove(&mut self, range: PhysRange) -> Result<(), MemBlockError> {
        self.memory.remove(nonempty(range)?)
    }

    /// Marks memory that must be neither mapped nor used. The kernel's own regions ([`MemBlock::in_use`]) stay mapped
    /// all the same, since the kernel needs them.
    pub fn mark_no_map(&mut self, range: PhysRange) -> Result<(), MemBlockError> {
        let range = nonempty(range)?;
        let mut at = range.start;
        while at < range.end {
            let spared = self.in_use(at..range.end).map_or(range.end..range.end, |(spared, _)| spared);
            if at < spared.start {
                self.memory.update(at..spared.start, |memory| memory.no_map = true)?;
            }
            at = spared.end;
        }
        Ok(())
    }

    /// The first part of `range` that the kernel already uses: its image, the boot archive or the device tree.
    pub fn in_use(&self, range: PhysRange) -> Option<(PhysRange, RegionKind)> {
        let alive = |kind| matches!(kind, RegionKind::Kernel | RegionKind::Initrd | RegionKind::DeviceTree);
        self.reserved()
            .filter(|(_, kind)| alive(*kind))
            .map(|(used, kind)| (used.start.max(range.start)..used.end.min(range.end), kind))
            .find(|(used, _)| used.start < used.end)
    }

    /// Reserves a range. Earlier reservations of parts of it take precedence.
    pub fn reserve(&mut self, range: PhysRange, kind: RegionKind, name: &str) -> Result<(), MemBlockError> {
        self.reserved.add(nonempty(range)?, Reserved { kind, name: name_bytes(name) })
    }

    /// Ends the reservation of a range.
    pub fn free(&mut self, range: PhysRange) -> Result<(), MemBlockError> {
        self.reserved.remove(nonempty(range)?)
    }

    /// Reserves `size` bytes at a multiple of `align` within `within`: the highest free place, on `node` if one is
    /// given.
    pub fn alloc(
        &mut self,
        size: usize,
        align: usize,
        within: PhysRange,
        node: Option<usize>,
        kind: RegionKind,
    ) -> Result<PhysAddr, MemBlockError> {
        let start = self.find(size, align, within, node)?;
        self.reserve(start..start + size, kind, "")?;
        Ok(start)
    }

    /// Where [`MemBlock::alloc`] would allocate.
    pub fn find(
        &self,
        size: usize,
        align: usize,
        within: PhysRange,
        node: Option<usize>,
    ) -> Result<PhysAddr, MemBlockError> {
        if size == 0 || !align.is_power_of_two() {
            return Err(MemBlockError::BadRequest);
        }
        let fit = |free: PhysRange| {
            let (start, end) = (free.start.max(within.start), free.end.min(within.end));
            let at = end.get().checked_sub(size)? & !(align - 1);
            (at >= start.get()).then(|| PhysAddr::new(at))
        };
        let wanted = |entry: &&Entry<Memory>| !entry.info.no_map && node.is_none_or(|node| entry.info.node == node);
        let usable = self.memory.entries().iter().filter(wanted);
        usable
            .flat_map(|entry| self.free_within(entry.start..entry.end))
            .filter_map(fit)
            .last()
            .ok_or(MemBlockError::NoSpace)
    }

    /// The parts of `range` that are not reserved, in ascending order.
    fn free_within(&self, range: PhysRange) -> impl Iterator<Item = PhysRange> + '_ {
        let mut at = range.start;
        core::iter::from_fn(move || {
            let free = self.free_from(at, range.end);
            at = free.end;
            (!free.is_empty()).then_some(free)
        })
    }

    /// The free range that begins at `at` or where the reservation that covers `at` ends; up to `end`.
    fn free_from(&self, at: PhysAddr, end: PhysAddr) -> PhysRange {
        let start = self.reserved_end(at).min(end);
        let next = self.reserved.entries().iter().map(|entry| entry.start).find(|&next| next >= start);
        start..next.unwrap_or(end).min(end)
    }

    /// `at`, or the end of the reservations without a gap that cover it.
    fn reserved_end(&self, at: PhysAddr) -> PhysAddr {
        let reach = |at: PhysAddr, e: &Entry<Reserved>| if e.start <= at && at < e.end { e.end } else { at };
        self.reserved.entries().iter().fold(at, reach)
    }

    /// All memory, no-map included, in ascending order.
    pub fn memory(&self) -> impl Iterator<Item = MemoryRegion> + '_ {
        self.memory.entries().iter().map(|entry| MemoryRegion {
            range: entry.start..entry.end,
            node: entry.info.node,
            no_map: entry.info.no_map,
        })
    }

    /// Reserved ranges, in ascending order, memory or not.
    pub fn reserved(&self) -> impl Iterator<Item = (PhysRange, RegionKind)> + '_ {
        self.reserved.entries().iter().map(|entry| (entry.start..entry.end, entry.info.kind))
    }

    /// Memory that may be used and is not reserved, in ascending order.
    pub fn free_ranges(&self) -> impl Iterator<Item = PhysRange> + '_ {
        let usable = self.memory.entries().iter().filter(|entry| !entry.info.no_map);
        usable.flat_map(|entry| self.free_within(entry.start..entry.end))
    }

    /// The physical map as `memmap` shows it, by address: each piece of memory, then what is reserved in it.
    pub fn regions(&self) -> impl Iterator<Item = RegionInfo> + '_ {
        let mut memory = self.memory.entries().iter().peekable();
        let mut reserved = self.reserved.entries().iter().peekable();
        core::iter::from_fn(move || {
            let memory_first = match (memory.peek(), reserved.peek()) {
                (Some(m), Some(r)) => m.start <= r.start,
                (m, _) => m.is_some(),
            };
            if memory_first {
                return memory.next().map(|m| RegionInfo {
                    kind: if m.info.no_map { region::NO_MAP } else { region::MEMORY },
                    node: m.info.node as u32,
                    ..info(m.start..m.end)
                });
            }
            reserved.next().map(|r| RegionInfo { kind: r.info.kind as u32, name: r.info.name, ..info(r.start..r.end) })
        })
    }
}

fn info(range: PhysRange) -> RegionInfo {
    RegionInfo { start: range.start.get() as u64, end: range.end.get() as u64, node: u32::MAX, ..RegionInfo::default() }
}

fn nonempty(range: Range<PhysAddr>) -> Result<PhysRange, MemBlockError> {
    if range.is_empty() { Err(MemBlockError::BadRequest) } else { Ok(range) }
}

/// The first bytes of a name, NUL-padded.
fn name_bytes(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    let len = name.len().min(NAME);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}
