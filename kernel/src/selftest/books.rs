//! Resource counts of the memory manager at rest.

use super::{Outcome, crew, expect};
use crate::boot::info;
use crate::vm::vmalloc::VMALLOC;
use crate::vm::{PAGES, heap};

/// Counts that must be the same before and after a check.
#[derive(Clone, Copy, Debug)]
pub struct Books {
    kernel: quire_abi::info::Books,
    slab_pages: usize,
    cma_used: usize,
    bad_pages: usize,
}

impl Books {
    /// Makes every CPU return its cached memory, then reads the counts. The page allocator's counters must agree with
    /// its records.
    pub fn when_quiet() -> Outcome<Books> {
        VMALLOC.purge();
        crew::on_all(|_| {
            heap::SLAB.shrink();
            Ok(())
        })?;
        PAGES.drain_all();
        while PAGES.shrink_high_atomic() {}
        expect(PAGES.validate().is_ok(), "the page allocator's counters and records agree")?;
        Ok(Books {
            kernel: info::books(),
            slab_pages: heap::SLAB.pages(),
            cma_used: (0..).map_while(|area| PAGES.cma_info(area)).map(|info| info.used).sum(),
            bad_pages: PAGES.bad_pages(),
        })
    }

    /// Whether `after` equals the counts before.
    pub fn compare(&self, after: &Books) -> Outcome {
        expect(after.kernel.page_tables == self.kernel.page_tables, "page tables are back")?;
        expect(after.kernel.slab_objects == self.kernel.slab_objects, "slab objects are back")?;
        expect(after.kernel.address_spaces == self.kernel.address_spaces, "address spaces are back")?;
        expect(after.slab_pages == self.slab_pages, "slab pages are back")?;
        expect(after.cma_used == self.cma_used, "CMA areas are back")?;
        expect(after.bad_pages == self.bad_pages, "no page was unfit to be freed")?;
        expect(after.kernel.free_pages == self.kernel.free_pages, "free pages are back")
    }
}
