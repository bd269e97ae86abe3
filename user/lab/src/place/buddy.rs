//! The buddy system: blocks of powers of two, each with exactly one neighbour that it can merge with.
//!
//! A request is rounded up to a power of two. If there is no free block of that size, a larger one is halved until
//! there is; the lower half is used. A freed block checks its *buddy*, the other half of the block that both were split
//! from. The address of the buddy differs in one bit, the one of the size. If the whole buddy is free, the two are
//! merged, and the merged block checks its own buddy in turn. See Knowlton (1965) and Knuth, volume 1, section 2.5.
//! Memory whose size is not a power of two starts as several blocks, as in a real kernel.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Outcome, Placement, Translation, base_and_limit, memory_of, play_all, reject_location};
use crate::Error;
use crate::report::{Kind, Measure, Piece, Report};
use crate::trace::{Request, Setting, Trace};
use crate::units::Size;

/// The number of orders; sizes are at most 2^40.
const ORDERS: usize = 42;

/// An allocated block.
#[derive(Clone, Copy)]
struct Taken {
    start: u64,
    order: usize,
    asked: u64,
}

/// Memory in blocks of powers of two. The order of a block is the exponent.
pub struct Buddy {
    /// The addresses of the free blocks of each order.
    free: Vec<BTreeSet<u64>>,
    taken: BTreeMap<String, Taken>,
    least: usize,
    splits: u64,
    merges: u64,
}

impl Buddy {
    /// Creates memory with blocks of at least `least` bytes. A remainder that is smaller than that is not used.
    pub fn new(memory: u64, least: u64) -> Buddy {
        let least = order_of(least);
        let mut free = Vec::from_iter((0..ORDERS).map(|_| BTreeSet::new()));
        let mut start = 0;
        // The largest block that fits comes first, so each block is aligned to its size.
        for order in (least..ORDERS).rev() {
            if start + (1 << order) <= memory {
                free[order].insert(start);
                start += 1 << order;
            }
        }
        Buddy { free, taken: BTreeMap::new(), least, splits: 0, merges: 0 }
    }

    /// Allocates a block of exactly this order, splitting a larger one if necessary.
    fn take(&mut self, order: usize) -> Option<u64> {
        let found = (order..ORDERS).find(|&larger| !self.free[larger].is_empty())?;
        let start = self.free[found].pop_first()?;
        for half in (order..found).rev() {
            self.free[half].insert(start + (1 << half));
            self.splits += 1;
        }
        Some(start)
    }

    /// Frees a block and merges it with its buddy repeatedly; returns the number of merges.
    fn put(&mut self, mut start: u64, mut order: usize) -> u64 {
        let before = self.merges;
        while order + 1 < ORDERS && self.free[order].remove(&buddy_of(start, order)) {
            start = start.min(buddy_of(start, order));
            order += 1;
            self.merges += 1;
        }
        self.free[order].insert(start);
        self.merges - before
    }
}

/// The address of a block's buddy.
fn buddy_of(start: u64, order: usize) -> u64 {
    start ^ (1 << order)
}

/// The smallest order whose blocks hold `size` bytes.
fn order_of(size: u64) -> usize {
    size.next_power_of_two().trailing_zeros() as usize
}

impl Placement for Buddy {
    fn name(&self) -> String {
        "buddy".into()
    }

    fn place(&mut self, request: &Request) -> Result<Outcome, String> {
        reject_location("the buddy system", request)?;
        let order = order_of(request.size).max(self.least);
        let before = self.splits;
        let Some(start) = self.take(order) else { return Ok(Outcome::Refused) };
        self.taken.insert(request.name.clone(), Taken { start, order, asked: request.size });
        Ok(Outcome::Placed(match self.splits - before {
            0 => String::new(),
            splits => format!("{splits} split{}", if splits == 1 { "" } else { "s" }),
        }))
    }

    fn release(&mut self, name: &str) -> String {
        let Some(block) = self.taken.remove(name) else { return String::new() };
        match self.put(block.start, block.order) {
            0 => String::new(),
            merges => format!("{merges} merge{}", if merges == 1 { "" } else { "s" }),
        }
    }

    fn pieces(&self) -> Vec<Piece> {
        let free = self.free.iter().enumerate().flat_map(|(order, blocks)| {
            blocks.iter().map(move |&start| Piece { start, size: 1 << order, kind: Kind::Free })
        });
        let taken = self.taken.iter().map(|(name, block)| {
            let size = 1 << block.order;
            let kind = Kind::Used { name: name.clone(), wasted: size - block.asked };
            Piece { start: block.start, size, kind }
        });
        let mut pieces: Vec<Piece> = free.chain(taken).collect();
        pieces.sort_by_key(|piece| piece.start);
        pieces
    }

    fn translate(&self, space: &str, address: u64) -> Option<Translation> {
        self.taken.get(space).map(|block| base_and_limit(block.start, 1 << block.order, address))
    }

    fn tell(&self, report: &mut Report) {
        report.count(Measure::Splits, self.splits);
        report.count(Measure::Merges, self.merges);
        let lists = self.free.iter().enumerate().filter(|(_, blocks)| !blocks.is_empty());
        let shown: Vec<String> =
            lists.map(|(order, blocks)| format!("{} x {}", blocks.len(), Size(1 << order))).collect();
        report
            .notes
            .push(format!("free at the end: {}", if shown.is_empty() { "nothing".into() } else { shown.join(", ") }));
    }

    /// Checks that no two buddies are free at the same time, and that blocks are aligned.
    fn check(&self) -> Result<(), String> {
        for (order, blocks) in self.free.iter().enumerate() {
            for &start in blocks {
                if start % (1 << order) != 0 || blocks.contains(&buddy_of(start, order)) {
                    return Err(format!("a free block of order {order} at {start}"));
                }
            }
        }
        Ok(())
    }
}

/// Plays the buddy system.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let least = trace.settings.or(Setting::Least, 1);
    let memory = memory_of(trace)?;
    if memory < least.next_power_of_two() {
        return Err(Error::new(format!("memory of {} holds no block of {}", Size(memory), Size(least))));
    }
    play_all([Buddy::new(memory, least)], trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_buddy_differs_in_one_bit() {
        assert_eq!([buddy_of(0, 3), buddy_of(8, 3), buddy_of(8, 4)], [8, 0, 24]);
        assert_eq!([order_of(1), order_of(64), order_of(65)], [0, 6, 7]);
    }

    #[test]
    fn memory_that_is_no_power_of_two_begins_as_several_blocks() {
        let sizes: Vec<u64> = Buddy::new(100, 4).pieces().iter().map(|piece| piece.size).collect();
        assert_eq!(sizes, [64, 32, 4]);
    }
}
