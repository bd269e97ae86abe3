//! The entries that a table walker reads for an address, in order.

use super::{LEVEL_SHIFT, Pte, index};
use crate::addr::PhysAddr;

/// One read of a table walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The table.
    pub table: PhysAddr,
    /// Its entry for the address.
    pub entry: Pte,
}

/// A table walk: one step a level, from the root to the entry that ends it. The last entry is a page, a block, or not
/// present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    steps: [Step; 4],
    len: usize,
}

impl Path {
    /// Adds the step of the next level.
    pub fn push(&mut self, table: PhysAddr, entry: Pte) {
        debug_assert!(self.len < self.steps.len(), "there are four levels");
        self.steps[self.len] = Step { table, entry };
        self.len += 1;
    }

    /// The steps, by level.
    pub fn steps(&self) -> &[Step] {
        &self.steps[..self.len]
    }

    /// Where the entry for `va` at a level lies.
    pub fn entry_addr(&self, va: usize, level: usize) -> PhysAddr {
        self.steps[level].table + index(va, level) * size_of::<Pte>()
    }

    /// The physical address that the walk leads `va` to.
    pub fn output(&self, va: usize) -> Option<PhysAddr> {
        let level = self.len.checked_sub(1)?;
        let entry = self.steps[level].entry;
        let is_leaf = entry.is_present() && (level == 3 || !entry.is_table());
        is_leaf.then(|| entry.addr() + (va & ((1 << LEVEL_SHIFT[level]) - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_ends_at_a_page_a_block_or_nothing() {
        let va = 0x0000_0080_c040_1123;
        let table = |n: usize| PhysAddr::new(n * 0x1000);
        let mut path = Path::default();
        assert_eq!(path.output(va), None);
        path.push(table(1), Pte::table(table(2)));
        path.push(table(2), Pte::table(table(3)));
        assert_eq!((path.output(va), path.steps().len()), (None, 2));
        let block = {
            let mut path = path;
            path.push(table(3), Pte::block(PhysAddr::new(0x4000_0000), 0));
            path
        };
        assert_eq!(block.output(va), Some(PhysAddr::new(0x4000_1123)));
        path.push(table(3), Pte::table(table(4)));
        path.push(table(4), Pte::page(PhysAddr::new(0x7000), 0));
        assert_eq!(path.output(va), Some(PhysAddr::new(0x7123)));
        // The indices of this address are 1, 3, 2, 1.
        let entries = [0, 1, 2, 3].map(|level| path.entry_addr(va, level).get());
        assert_eq!(entries, [0x1008, 0x2018, 0x3010, 0x4008]);
    }
}
