//! Truncating files in memory, and holes in them: pages go for all spaces that map them.

use super::remove::remove_pages;
use super::reverse::for_each_private_part;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::machine::Killed;
use crate::mm::Machine;
use crate::object::file::Turn;

const PAGE: u64 = PAGE_SIZE as u64;

impl<M: Machine> Turn<'_, M> {
    /// Makes the file `len` bytes long; what is cut off is gone, also from the private copies of those who map it. It is
    /// completed even if the thread is killed.
    pub fn set_len(&mut self, len: u64) {
        let old = self.object().len();
        if len > old {
            return self.grow(len);
        }
        self.store_len(len);
        let first = len.div_ceil(PAGE) as usize;
        // (Pages that fallocate made behind the end go as well.)
        let _ = remove_pages(self.object(), first, usize::MAX, false);
        if len < old && !seeded!(TruncateKeepsCopies) {
            for_each_private_part(self.object(), first, |mm, from, to| mm.zap_beside_faults(from, to));
        }
        if !seeded!(TruncateKeepsTail) {
            self.clear(len, (first as u64) << PAGE_SHIFT);
        }
    }

    /// Makes a hole from `start` to `end`. The length stays.
    pub fn punch(&mut self, start: u64, end: u64) -> Result<(), Killed> {
        let (first, last) = (start.div_ceil(PAGE), end / PAGE);
        if first > last {
            self.clear(start, end);
            return Ok(());
        }
        self.clear(start, first * PAGE);
        self.clear(last * PAGE, end);
        remove_pages(self.object(), first as usize, last as usize, true)
    }
}
