//! Reserved memory: `/memreserve/` entries and the children of `/reserved-memory`.
//!
//! Runs after the banks are settled, since a reservation is checked against the memory that it reserves.

use bitflags::bitflags;
use heapless::Vec;

use super::blob::Blob;
use super::walk::{CellCounts, Cells, Node, pairs};
use super::{Board, Name, Oddity, PAGE, Region, name};

bitflags! {
    /// What a reservation's node says about its memory.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ReservationFlags: u8 {
        /// The kernel must not map it, so that not even speculative accesses reach it.
        const NO_MAP = 1;
        /// The kernel may use it if it can give it back; with `SHARED_POOL` this is a CMA area.
        const REUSABLE = 2;
        /// The area from which devices without their own area allocate.
        const CMA_DEFAULT = 4;
        /// Compatible with `shared-dma-pool`.
        const SHARED_POOL = 8;
        /// From the memory reservation block, not from a node.
        const MEMRESERVE = 16;
        /// Two or more reservations and the memory between them, for lack of room in the list.
        const JOINED = 32;
    }
}

/// Memory with an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The node's name.
    pub name: Name,
    /// The exact bytes: a reader that works with pages must round outward.
    pub region: Region,
    /// How it may be used.
    pub flags: ReservationFlags,
}

/// Memory that the kernel has to choose and then treat as a [`Reservation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicReservation {
    /// The node's name.
    pub name: Name,
    /// Bytes, whole pages.
    pub size: u64,
    /// A power of two, at least a page.
    pub alignment: u64,
    /// Where it may lie; anywhere, if this is empty.
    pub ranges: Vec<Region, 4>,
    /// How it may be used.
    pub flags: ReservationFlags,
}

impl DynamicReservation {
    pub(super) fn validate(&self, memory: u64) -> Result<(), &'static str> {
        let whole = self.size > 0 && self.size.is_multiple_of(PAGE) && self.size <= memory;
        let aligned = self.alignment.is_power_of_two() && self.alignment >= PAGE;
        let ranges = self.ranges.iter().all(|range| Region::new(range.base, range.size) == Some(*range));
        if whole && aligned && ranges { Ok(()) } else { Err("reservations to be placed are sane") }
    }
}

impl Board {
    /// Everything that is reserved.
    pub(super) fn read_reservations<'a>(&mut self, blob: &Blob<'a>, parent: Option<Node<'a>>) {
        for (base, size) in blob.reservations().filter(|(_, size)| *size > 0) {
            self.add_reservation("memreserve", base, size, ReservationFlags::MEMRESERVE);
        }
        let children = parent.iter().flat_map(Node::children);
        for node in children.filter(|node| node.okay) {
            let flags = self.flags(&node);
            let counts = parent.map_or(node.cells, |parent| parent.cells);
            if let Some(reg) = node.property("reg") {
                let full_name = name(node.name, node.unit);
                let cells = counts.address.checked_add(counts.size).filter(|cells| *cells > 0);
                if reg.is_empty() || cells.is_none_or(|cells| reg.len() % (4 * cells) != 0) {
                    // An existing region is used as a whole.
                    self.warn(Oddity::BadRegion, &full_name, 0, 0);
                }
                for pair in pairs(reg, counts) {
                    match pair {
                        Some((_, 0)) => {}
                        Some((base, size)) => self.add_reservation(&full_name, base, size, flags),
                        None => self.warn(Oddity::BadRegion, &full_name, 0, 0),
                    }
                }
            } else {
                self.add_dynamic(&node, counts.address, counts.size, flags);
            }
        }
        self.name_joined();
        self.unlend_what_is_not_free();
    }

    fn flags(&mut self, node: &Node<'_>) -> ReservationFlags {
        let mut flags = ReservationFlags::empty();
        flags.set(ReservationFlags::NO_MAP, node.property("no-map").is_some());
        flags.set(ReservationFlags::REUSABLE, node.property("reusable").is_some());
        flags.set(ReservationFlags::CMA_DEFAULT, node.property("linux,cma-default").is_some());
        flags.set(ReservationFlags::SHARED_POOL, node.is_compatible(&["shared-dma-pool"]));
        if flags.contains(ReservationFlags::NO_MAP | ReservationFlags::REUSABLE) {
            self.warn(Oddity::NoMapReusable, node.name, 0, 0);
            flags -= ReservationFlags::REUSABLE | ReservationFlags::CMA_DEFAULT;
        }
        flags
    }

    fn add_reservation(&mut self, node: &str, base: u64, size: u64, flags: ReservationFlags) {
        match Region::new(base, size) {
            None => self.warn(Oddity::BadRegion, node, base, size),
            Some(region) if !self.touches_memory(&region) => {
                self.warn(Oddity::ReservedOutside, node, base, size);
            }
            Some(region) => {
                let entry = Reservation { name: name(node, None), region, flags };
                if let Err(entry) = self.reserved.push(entry) {
                    self.join_reservations(entry);
                }
            }
        }
    }

    /// Makes room for `entry` in a full list: of all pairs, itself included, the one whose join costs the least memory
    /// becomes one reservation. Losing the memory between two is better than using memory that has an owner.
    /// O(n²) for a list of n.
    fn join_reservations(&mut self, entry: Reservation) {
        let among =
            pairs_of(self.reserved.len()).map(|(a, b)| (cost(&self.reserved[a], &self.reserved[b]), a, Some(b)));
        let with_entry = self.reserved.iter().enumerate().map(|(a, other)| (cost(other, &entry), a, None));
        // The list is full: there are pairs.
        let Some((_, at, other)) = with_entry.chain(among).min_by_key(|(cost, ..)| *cost) else { return };
        let joined = match other {
            None => join(&self.reserved[at], &entry),
            Some(other) => {
                let joined = join(&self.reserved[at], &self.reserved[other]);
                self.reserved[other] = entry;
                joined
            }
        };
        self.reserved[at] = joined;
    }

    /// Reports which reservations were joined from several, and the memory between them; each once, however many they
    /// are.
    fn name_joined(&mut self) {
        for at in 0..self.reserved.len() {
            let Reservation { name, region, flags } = self.reserved[at].clone();
            if flags.contains(ReservationFlags::JOINED) {
                self.warn(Oddity::JoinedReservation, &name, region.base, region.size);
            }
        }
    }

    fn add_dynamic(&mut self, node: &Node<'_>, address_cells: usize, size_cells: usize, flags: ReservationFlags) {
        let number = |property: &str| {
            let value = node.property(property)?;
            // One number as wide as the size cells, or 0; missing and invalid values are distinguished below.
            let wide = size_cells.checked_mul(4) == Some(value.len());
            Some(if wide { Cells(value).take(size_cells).unwrap_or(0) } else { 0 })
        };
        let size = match number("size") {
            None => {
                if flags.contains(ReservationFlags::NO_MAP) {
                    self.warn(Oddity::BadDynamic, node.name, 0, 0);
                }
                return;
            }
            // The Pi's firmware leaves such a node for regions that it may fill in.
            Some(0) if node.property("size").is_some_and(|value| value.iter().all(|byte| *byte == 0)) => return,
            Some(size) => size,
        };
        let alignment = number("alignment").unwrap_or(PAGE).max(1);
        let size_in_pages = size.checked_next_multiple_of(PAGE).unwrap_or(0);
        let fits = (1..=self.memory_size()).contains(&size_in_pages);
        let mut wish = DynamicReservation {
            name: name(node.name, node.unit),
            size: size_in_pages,
            alignment: alignment.max(PAGE),
            ranges: Vec::new(),
            flags,
        };
        let ranges = node.property("alloc-ranges");
        let counts = CellCounts { address: address_cells, size: size_cells };
        for pair in ranges.into_iter().flat_map(|ranges| pairs(ranges, counts)) {
            match pair.and_then(|(base, size)| Region::new(base, size)) {
                Some(range) if wish.ranges.push(range).is_ok() => {}
                Some(range) => self.warn(Oddity::TooMany, node.name, range.base, range.size),
                None => {
                    let (base, size) = pair.unwrap_or_default();
                    self.warn(Oddity::BadRegion, node.name, base, size);
                }
            }
        }
        // Ranges of which none is usable must not turn into "anywhere".
        let placeable = fits && alignment.is_power_of_two() && (ranges.is_none() || !wish.ranges.is_empty());
        if !placeable {
            self.warn(Oddity::BadDynamic, node.name, alignment, size);
        } else if self.dynamic.push(wish).is_err() {
            self.warn(Oddity::TooMany, node.name, 0, size);
        }
    }

    /// Clears `REUSABLE` where lending is unsafe: memory that another reservation claims too would be handed out twice.
    fn unlend_what_is_not_free(&mut self) {
        for at in 0..self.reserved.len() {
            let Reservation { name, region, flags } = self.reserved[at].clone();
            let claimed = |(other, entry): (usize, &Reservation)| other != at && entry.region.overlaps(&region);
            let free = self.is_memory(&region) && !self.reserved.iter().enumerate().any(claimed);
            if flags.contains(ReservationFlags::REUSABLE) && !free {
                self.reserved[at].flags -= ReservationFlags::REUSABLE | ReservationFlags::CMA_DEFAULT;
                self.warn(Oddity::NotLendable, &name, region.base, region.size);
            }
        }
    }
}

/// All pairs of indices below `len`.
fn pairs_of(len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len).flat_map(move |b| (0..b).map(move |a| (a, b)))
}

/// Bytes that joining the two loses: those between them, and those that are no longer lent.
fn cost(a: &Reservation, b: &Reservation) -> u64 {
    let lent = |entry: &Reservation| {
        if entry.flags.contains(ReservationFlags::REUSABLE) { entry.region.size } else { 0 }
    };
    // Sizes end at 2^48.
    a.region.gap(&b.region) + lent(a) + lent(b)
}

/// One reservation for both: as strict as either.
fn join(a: &Reservation, b: &Reservation) -> Reservation {
    let base = a.region.base.min(b.region.base);
    let end = a.region.end().max(b.region.end());
    let (either, both) = (a.flags | b.flags, a.flags & b.flags);
    Reservation {
        name: a.name.clone(),
        region: Region { base, size: end - base },
        flags: either & ReservationFlags::NO_MAP | both & ReservationFlags::MEMRESERVE | ReservationFlags::JOINED,
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_RESERVATIONS;
    use super::*;

    /// Memory that must not be mapped stays unmapped, memory that is not lent stays so, and only the boot loader's
    /// entries are marked as such.
    #[test]
    fn a_joined_reservation_is_as_strict_as_both() {
        const BASE: u64 = 1 << 30;
        const STEP: u64 = 1 << 19;
        let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/trees/virt-128m.dtb");
        let tree = std::fs::read(tree).expect("the tree is in the repository");
        let (no_map, loader, none) =
            (ReservationFlags::NO_MAP, ReservationFlags::MEMRESERVE, ReservationFlags::empty());
        let pool = ReservationFlags::REUSABLE | ReservationFlags::SHARED_POOL;
        for (present, added, expected) in [
            (loader, no_map, no_map),
            (no_map, loader, no_map),
            (pool, none, none),
            (none, pool, none),
            (pool, pool, none),
            (loader, none, none),
            (loader, loader, loader),
        ] {
            let mut board = Board::from_tree(&tree).expect("it is read");
            board.reserved.clear();
            for i in 0..MAX_RESERVATIONS as u64 {
                board.add_reservation("present", BASE + i * STEP, PAGE, present);
            }
            let (base, size) = (BASE + 7 * STEP + 3 * PAGE, PAGE);
            board.add_reservation("added", base, size, added);
            let found = board.reserved.iter().find(|other| other.region.contains(&Region { base, size }));
            let expected = expected | ReservationFlags::JOINED;
            assert_eq!(found.map(|joined| joined.flags), Some(expected), "{present:?} and {added:?}");
        }
    }

    /// Of all pairs the nearest two are joined, not the last reservation with the one nearest to it.
    #[test]
    fn the_nearest_two_of_all_are_joined() {
        const BASE: u64 = 1 << 30;
        let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/trees/virt-128m.dtb");
        let tree = std::fs::read(tree).expect("the tree is in the repository");
        for flags in [ReservationFlags::empty(), ReservationFlags::NO_MAP] {
            let mut board = Board::from_tree(&tree).expect("it is read");
            board.reserved.clear();
            board.add_reservation("first", BASE, PAGE, flags);
            for i in 0..MAX_RESERVATIONS as u64 {
                board.add_reservation("near", BASE + (16 << 20) + i * 2 * PAGE, PAGE, flags);
            }
            board.add_reservation("last", BASE + (127 << 20), PAGE, flags);
            assert_eq!(board.reserved.len(), MAX_RESERVATIONS);
            let reserved: u64 = board.reserved.iter().map(|entry| entry.region.size).sum();
            assert_eq!(reserved, (MAX_RESERVATIONS as u64 + 2 + 2) * PAGE, "two gaps of a page are lost");
            assert_eq!(board.validate(), Ok(()));
        }
    }

    /// Joining an area to be lent costs all of it.
    #[test]
    fn areas_to_be_lent_are_joined_last() {
        const BASE: u64 = 1 << 30;
        let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/trees/virt-128m.dtb");
        let tree = std::fs::read(tree).expect("the tree is in the repository");
        let mut board = Board::from_tree(&tree).expect("it is read");
        board.reserved.clear();
        let pool = ReservationFlags::REUSABLE | ReservationFlags::SHARED_POOL;
        board.add_reservation("pool", BASE, 16 << 20, pool);
        for i in 0..MAX_RESERVATIONS as u64 {
            board.add_reservation("other", BASE + (16 << 20) + i * 2 * PAGE, PAGE, ReservationFlags::empty());
        }
        assert_eq!(board.reserved[0].flags, pool);
        assert_eq!(board.reserved[0].region.size, 16 << 20);
    }
}
