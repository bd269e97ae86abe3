//! How fragmented free memory is, as two indices for each order of the buddy allocator. Both are Linux's (`mm/vmstat.c`), in thousandths.
//!
//! - The *unusable free space index* (`unusable_free_index`): the share of free memory that lies in blocks that are smaller than the
//!   order. Gorman and Whitcroft, "The What, The Why and the Where To of Anti-Fragmentation", Ottawa Linux Symposium 2006:
//!   `(free - sum of free blocks of the order and above, in pages) / free`. 0: all of it can be used; 1,000: none.
//! - The *fragmentation index* (`__fragmentation_index`): why a request of the order fails. Gorman and Healy, "Supporting Superpage
//!   Allocation without Additional Hardware Support", ISMM 2008: `1 - (1 + free / size) / blocks`, with `size` the pages of the request
//!   and `blocks` the free blocks of any order. Towards 0 memory is missing, towards 1,000 it is fragmented. There is none for an order of which
//!   there is a block: Linux says -1,000.

use alloc::format;
use alloc::string::String;

use quire_abi::info::ORDERS;

/// Free blocks of each order.
pub type Blocks = [u64; ORDERS];

fn pages(blocks: &Blocks, from: usize) -> u64 {
    blocks.iter().enumerate().skip(from).map(|(order, count)| count << order).sum()
}

/// The unusable free space index. Without any free memory all of it is unusable, as on Linux.
pub fn unusable(blocks: &Blocks, order: usize) -> u64 {
    match pages(blocks, 0) {
        0 => 1000,
        free => (free - pages(blocks, order)) * 1000 / free,
    }
}

/// The fragmentation index; `None` if a request of this order would succeed. Without any free block there is nothing to be fragmented.
pub fn index(blocks: &Blocks, order: usize) -> Option<u64> {
    if blocks[order..].iter().any(|count| *count != 0) {
        return None;
    }
    let count: u64 = blocks.iter().sum();
    let enough = 1000 + pages(blocks, 0) * 1000 / (1 << order);
    Some(enough.checked_div(count).map_or(0, |part| 1000u64.saturating_sub(part)))
}

/// Both, for all orders.
pub fn table(blocks: &Blocks) -> String {
    let mut text = format!("{:24}", "order");
    let row = |text: &mut String, name: &str, cell: &dyn Fn(usize) -> String| {
        *text += &format!("\n{name:24}");
        (0..ORDERS).for_each(|order| *text += &format!("{:>6}", cell(order)));
    };
    (0..ORDERS).for_each(|order| text += &format!("{order:6}"));
    row(&mut text, "free blocks", &|order| format!("{}", blocks[order]));
    row(&mut text, "unusable free space", &|order| thousandths(unusable(blocks, order)));
    row(&mut text, "fragmentation index", &|order| index(blocks, order).map_or("-".into(), thousandths));
    text + "\n"
}

fn thousandths(value: u64) -> String {
    format!("{}.{:03}", value / 1000, value % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(of: &[(usize, u64)]) -> Blocks {
        let mut blocks = [0; ORDERS];
        of.iter().for_each(|(order, count)| blocks[*order] = *count);
        blocks
    }

    #[test]
    fn what_is_in_smaller_blocks_is_unusable() {
        // 8 pages, 4 of them in a block of order 2.
        let some = blocks(&[(0, 2), (1, 1), (2, 1)]);
        assert_eq!([0, 1, 2, 3].map(|order| unusable(&some, order)), [0, 250, 500, 1000]);
        assert_eq!(unusable(&blocks(&[]), 0), 1000);
    }

    /// With the numbers that Linux's formula gives.
    #[test]
    fn why_a_request_fails() {
        let single = blocks(&[(0, 1024)]);
        assert_eq!(index(&single, 0), None);
        // 1000 - (1000 + 1024000 / 512) / 1024
        assert_eq!(index(&single, 9), Some(998));
        // One page is missing memory, not fragmented.
        assert_eq!(index(&blocks(&[(0, 1)]), 9), Some(0));
        assert_eq!(index(&blocks(&[]), 3), Some(0));
        assert_eq!(index(&blocks(&[(3, 2), (10, 1)]), 10), None);
        assert_eq!(index(&blocks(&[(3, 2)]), 4), Some(1000 - (1000 + 1000) / 2));
    }

    #[test]
    fn a_table_has_a_column_for_each_order() {
        let text = table(&blocks(&[(0, 512), (2, 1)]));
        let lines: alloc::vec::Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "order                        0     1     2     3     4     5     6     7     8     9    10"
        );
        assert!(lines[2].starts_with("unusable free space      0.000 0.992 0.992 1.000"));
        assert!(lines[3].starts_with("fragmentation index          -     -     - 0.873"));
        assert!(lines.iter().all(|line| line.len() == 24 + 6 * ORDERS));
    }
}
