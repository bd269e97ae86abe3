//! The buddy system: blocks are powers of two, and each has one neighbour that it may merge with.
//!
//! A request is rounded up to a power of two. If there is no free block of that size, a larger one is halved until there is;
//! the lower half goes on. A freed block looks at its *buddy*, the other half of the block that both came from: its address
//! differs in one bit, that of the size. If the buddy is free as a whole, the two become one, and the next larger block looks
//! at its own buddy. Knowlton (1965); Knuth, volume 1, section 2.5. Memory whose size is no power of two begins as several
//! blocks, as a kernel's does.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Outcome, Placement, Translation, base_and_limit, chooses_itself, memory_of, play_all};
use crate::Error;
use crate::report::{Kind, Measure, Piece, Report};
use crate::trace::{Request, Setting, Trace};
use crate::units::Size;

/// An order that no memory has: sizes are at most 2^40.
const ORDERS: usize = 42;

/// A block that somebody has.
#[derive(Clone, Copy)]
struct Taken {
    start: u64,
    order: usize,
    asked: u64,
}

/// Memory in blocks of powers of two. The order of a block is the power.
pub struct Buddy {
    /// For each order, the addresses of its free blocks.
    free: Vec<BTreeSet<u64>>,
    taken: BTreeMap<String, Taken>,
    least: usize,
    splits: u64,
    merges: u64,
}

impl Buddy {
    /// Memory of this size, with no block smaller than `least`. What is no multiple of `least` at the end is not used.
    pub fn new(memory: u64, least: u64) -> Buddy {
        let least = order_of(least);
        let mut free = Vec::from_iter((0..ORDERS).map(|_| BTreeSet::new()));
        let mut start = 0;
        // From the bottom, the largest block that still fits; so each lies at a multiple of its size.
        for order in (least..ORDERS).rev() {
            if start + (1 << order) <= memory {
                free[order].insert(start);
                start += 1 << order;
            }
        }
        Buddy { free, taken: BTreeMap::new(), least, splits: 0, merges: 0 }
    }

    /// Takes a block of exactly this order, halving a larger one if need be.
    fn take(&mut self, order: usize) -> Option<u64> {
        let found = (order..ORDERS).find(|&larger| !self.free[larger].is_empty())?;
        let start = self.free[found].pop_first()?;
        for half in (order..found).rev() {
            self.free[half].insert(start + (1 << half));
            self.splits += 1;
        }
        Some(start)
    }

    /// Gives a block back, merging it with its buddy as far as that goes.
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

/// The least order whose blocks hold so many bytes.
fn order_of(size: u64) -> usize {
    size.next_power_of_two().trailing_zeros() as usize
}

impl Placement for Buddy {
    fn name(&self) -> String {
        "buddy".into()
    }

    fn place(&mut self, request: &Request) -> Result<Outcome, String> {
        chooses_itself("the buddy system", request)?;
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

    /// No two buddies are free at the same time, and each block lies at a multiple of its size.
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

/// The buddy system on memory as large as the trace says.
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
