//! Doubly linked lists of pages: a page is on at most one of them.

use alloc::vec;
use alloc::vec::Vec;

/// The end of a list.
const NONE: u32 = u32::MAX;
/// The list of a page that is on none.
const NOWHERE: u8 = u8::MAX;

/// Some lists of the pages below a number.
pub struct Lists {
    next: Vec<u32>,
    prev: Vec<u32>,
    on: Vec<u8>,
    /// The first and the last page of each list, and its length.
    ends: Vec<(u32, u32, usize)>,
}

impl Lists {
    /// Creates empty lists, for pages below `pages`.
    pub fn new(lists: u8, pages: usize) -> Lists {
        Lists {
            next: vec![NONE; pages],
            prev: vec![NONE; pages],
            on: vec![NOWHERE; pages],
            ends: vec![(NONE, NONE, 0); lists.into()],
        }
    }

    /// The list that a page is on.
    pub fn list_of(&self, page: usize) -> Option<u8> {
        Some(self.on[page]).filter(|list| *list != NOWHERE)
    }

    /// The number of pages on a list.
    pub fn len(&self, list: u8) -> usize {
        self.ends[usize::from(list)].2
    }

    /// The first page of a list.
    pub fn first(&self, list: u8) -> Option<usize> {
        Some(self.ends[usize::from(list)].0).filter(|page| *page != NONE).map(|page| page as usize)
    }

    /// Puts a page at the end of a list; it leaves the list that it is on.
    pub fn append(&mut self, list: u8, page: usize) {
        self.remove(page);
        let (first, last, len) = &mut self.ends[usize::from(list)];
        let before = core::mem::replace(last, page as u32);
        if before == NONE {
            *first = page as u32;
        } else {
            self.next[before as usize] = page as u32;
        }
        *len += 1;
        (self.prev[page], self.next[page], self.on[page]) = (before, NONE, list);
    }

    /// Takes a page off the list that it is on.
    pub fn remove(&mut self, page: usize) {
        if self.on[page] == NOWHERE {
            return;
        }
        let (first, last, len) = &mut self.ends[usize::from(self.on[page])];
        let (before, after) = (self.prev[page], self.next[page]);
        *len -= 1;
        if before == NONE {
            *first = after;
        } else {
            self.next[before as usize] = after;
        }
        if after == NONE {
            *last = before;
        } else {
            self.prev[after as usize] = before;
        }
        self.on[page] = NOWHERE;
    }

    /// Takes the first page off a list.
    pub fn take_first(&mut self, list: u8) -> Option<usize> {
        let page = self.first(list)?;
        self.remove(page);
        Some(page)
    }
}
