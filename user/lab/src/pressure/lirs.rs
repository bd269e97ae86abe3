//! *LIRS* (Jiang and Zhang, 2002): low inter-reference recency set.
//!
//! Recency is how many other pages were used since a page's last use; its value at a use is the page's inter-reference
//! recency (IRR). The pages of low IRR keep nearly all frames. The others pass through the rest, and one of them
//! replaces a page of low IRR if its new IRR is below that page's recency: that is, if it was last used after the page
//! of low IRR that has not been used for the longest time. So one sweep that is too large replaces nothing.
//!
//! The stack has all pages that were used after that one, resident or not; the queue has the resident pages of high
//! IRR.

use alloc::vec;
use alloc::vec::Vec;

use super::Policy;
use super::lists::Lists;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Of low IRR, and in memory.
    Low,
    /// Of high IRR, and in memory.
    High,
    /// Not in memory.
    Gone,
}

/// See the module.
pub struct Lirs {
    frames: usize,
    /// How many pages of low IRR there may be.
    most_low: usize,
    low: usize,
    kinds: Vec<Kind>,
    /// The last page is the one used last.
    stack: Lists,
    queue: Lists,
}

impl Lirs {
    /// An empty memory, of which `high` frames are for pages of high IRR.
    pub fn new(frames: usize, high: usize, pages: usize) -> Lirs {
        let high = high.clamp(1, frames);
        Lirs {
            frames,
            most_low: frames - high,
            low: 0,
            kinds: vec![Kind::Gone; pages],
            stack: Lists::new(1, pages),
            queue: Lists::new(1, pages),
        }
    }

    /// Whether the page is one of low IRR.
    pub fn is_low(&self, page: usize) -> bool {
        self.kinds[page] == Kind::Low
    }

    /// Makes the bottom of the stack a page of low IRR.
    fn prune(&mut self) {
        while let Some(bottom) = self.stack.first(0).filter(|page| self.kinds[*page] != Kind::Low) {
            self.stack.remove(bottom);
        }
    }

    /// The page, which is on top of the stack, becomes one of low IRR.
    fn promote(&mut self, page: usize) {
        self.queue.remove(page);
        self.kinds[page] = Kind::Low;
        self.low += 1;
        if self.low > self.most_low
            && let Some(bottom) = self.stack.first(0)
        {
            self.low -= 1;
            self.kinds[bottom] = Kind::High;
            self.queue.append(0, bottom);
            self.prune();
        }
    }
}

impl Policy for Lirs {
    fn name(&self) -> &'static str {
        "LIRS"
    }

    fn holds(&self, page: usize) -> bool {
        self.kinds[page] != Kind::Gone
    }

    fn refer(&mut self, page: usize) -> bool {
        let kind = self.kinds[page];
        let was_in_stack = self.stack.list_of(page).is_some();
        if kind == Kind::Gone
            && self.low + self.queue.len(0) == self.frames
            && let Some(victim) = self.queue.take_first(0)
        {
            self.kinds[victim] = Kind::Gone;
        }
        self.stack.append(0, page);
        match kind {
            Kind::Low => self.prune(),
            _ if was_in_stack && self.most_low > 0 || self.low < self.most_low => self.promote(page),
            _ => {
                self.kinds[page] = Kind::High;
                self.queue.append(0, page);
                self.prune();
            }
        }
        kind == Kind::Gone
    }
}
