//! Free chunks of 1 KiB and more: sixteen bins for each power of two, found by bit maps.
//!
//! A request takes a chunk of its own bin if one of the first few fits, else the first of the next bin that has any:
//! all of its chunks fit. So a search reads a handful of words whatever the heap holds, and its result is at most an
//! eighth larger than the best fit. Chunks of 32 MiB and more share one bin.

use crate::bins::{NEXT, cut, each, push};
use crate::chunk::Chunk;

/// The smallest size kept here.
pub const LARGE: usize = 1024;

const ROWS: usize = 16;
const COLUMNS: usize = 16;
const FIRST_ROW: u32 = LARGE.ilog2();
/// How many chunks of a request's own bin are looked at.
const LOOK_AT: usize = 8;

/// The links of a free chunk do not agree with its neighbours'.
pub struct Damaged;

pub struct Large {
    /// Rows that have a chunk.
    rows: u32,
    /// For each row, columns that have one.
    columns: [u32; ROWS],
    heads: [[Chunk; COLUMNS]; ROWS],
}

/// The bin of a size, by row and column.
#[inline(always)]
fn bin_of(size: usize) -> (usize, usize) {
    let size = size.max(LARGE);
    let power = size.ilog2();
    let row = (power - FIRST_ROW) as usize;
    if row >= ROWS - 1 { (ROWS - 1, 0) } else { (row, size >> (power - 4) & (COLUMNS - 1)) }
}

impl Large {
    pub const fn new() -> Large {
        Large { rows: 0, columns: [0; ROWS], heads: [[Chunk::NONE; COLUMNS]; ROWS] }
    }

    #[inline]
    pub fn insert(&mut self, chunk: Chunk, size: usize, secret: u64) {
        let (row, column) = bin_of(size);
        self.rows |= 1 << row;
        self.columns[row] |= 1 << column;
        push(&mut self.heads[row][column], chunk, secret);
    }

    /// A chunk of at least `size` bytes that fits well.
    #[inline]
    pub fn best(&self, size: usize, secret: u64) -> Option<Chunk> {
        let (row, column) = bin_of(size);
        let own = best_in_bin(self.heads[row][column], size, secret);
        if own.is_some() {
            return own;
        }
        let columns = self.columns[row] & (!1 << column);
        if columns != 0 {
            return Some(self.heads[row][columns.trailing_zeros() as usize]);
        }
        let rows = self.rows & (!1 << row);
        if rows == 0 {
            return None;
        }
        let row = rows.trailing_zeros() as usize;
        Some(self.heads[row][self.columns[row].trailing_zeros() as usize])
    }

    #[inline]
    pub fn remove(&mut self, chunk: Chunk, size: usize, secret: u64) -> Result<(), Damaged> {
        let (row, column) = bin_of(size);
        let head = &mut self.heads[row][column];
        cut(head, chunk, secret)?;
        if head.is_none() {
            self.columns[row] &= !(1 << column);
            if self.columns[row] == 0 {
                self.rows &= !(1 << row);
            }
        }
        Ok(())
    }

    /// Calls `f` with every chunk, in no particular order.
    pub fn each(&self, secret: u64, f: &mut impl FnMut(Chunk)) {
        for head in self.heads.as_flattened() {
            each(*head, secret, f);
        }
    }
}

/// The smallest of the first few chunks of a bin that is large enough.
#[inline(always)]
fn best_in_bin(head: Chunk, size: usize, secret: u64) -> Option<Chunk> {
    let (mut best, mut least) = (None, usize::MAX);
    let mut at = head;
    for _ in 0..LOOK_AT {
        if at.is_none() || !at.may_be_followed() {
            break;
        }
        let have = at.size();
        if have >= size && have < least {
            (best, least) = (Some(at), have);
        }
        at = at.link(NEXT).hidden(secret);
    }
    best
}
