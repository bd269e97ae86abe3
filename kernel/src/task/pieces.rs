//! Bytes in pieces of a page: as many as they are, they need no contiguous memory, which nobody finds when memory is short.

use alloc::vec::Vec;

use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::{AllocError, TryVec};

/// Bytes in a piece.
const PIECE: usize = PAGE_SIZE;

/// See the module. All pieces but the last one are full.
#[derive(Default)]
pub struct Pieces(Vec<Vec<u8>>);

impl Pieces {
    /// The number of bytes.
    pub fn total(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * PIECE + last.len())
    }

    /// Appends bytes; on an error some of them.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), AllocError> {
        while !bytes.is_empty() {
            if self.total().is_multiple_of(PIECE) {
                // What fits into one piece takes no more than it needs.
                let room = if self.0.is_empty() { bytes.len().min(PIECE) } else { PIECE };
                self.0.try_push(TryVec::try_with_capacity(room)?)?;
            }
            let Some(last) = self.0.last_mut() else { break };
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - last.len()));
            last.try_extend_from_slice(now)?;
            bytes = later;
        }
        Ok(())
    }

    /// The bytes from an offset on, piece by piece.
    pub fn from(&self, offset: usize) -> impl Iterator<Item = &[u8]> {
        let first = self.0.get(offset / PIECE).and_then(|piece| piece.get(offset % PIECE..));
        first.into_iter().chain(self.0.iter().skip(offset / PIECE + 1).map(|piece| &piece[..]))
    }
}
