//! The names in a directory: by name, and in the order of their creation, so that a reader that lists them while others
//! are made and removed sees each one that stays exactly once.
//!
//! Entries are in the order of their positions. A removed entry leaves a gap until there are too many gaps, and a
//! sorted list of indices leads from a name to its entry. All memory is requested before anything is changed, so a lack
//! of memory is an error and does not end the server.

use alloc::boxed::Box;
use alloc::vec::Vec;

use quire_abi::Errno;

/// The position of the first name; `.` and `..` have those before it.
pub const FIRST: u64 = 2;

/// The slot of an entry that was removed.
const GONE: u32 = u32::MAX;

struct Entry {
    place: u64,
    name: Box<[u8]>,
    node: u32,
}

/// See the module. Looking up a name is O(log n); entering or removing one also moves up to 4 n bytes of indices.
pub struct Directory {
    /// The slot of the parent directory; for the root, its own.
    pub parent: u32,
    /// How many directories it has.
    pub directories: u32,
    entries: Vec<Entry>,
    /// Indices of the entries that exist, in the order of their names.
    sorted: Vec<u32>,
    next: u64,
}

impl Directory {
    /// An empty one.
    pub fn new(parent: u32) -> Self {
        Self { parent, directories: 0, entries: Vec::new(), sorted: Vec::new(), next: FIRST }
    }

    /// Where a name is in the sorted list, or would be.
    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.sorted.binary_search_by(|at| (*self.entries[*at as usize].name).cmp(name))
    }

    /// The slot of a name.
    pub fn get(&self, name: &[u8]) -> Option<u32> {
        let at = self.find(name).ok()?;
        Some(self.entries[self.sorted[at] as usize].node)
    }

    /// Whether it has no names.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Enters a name that does not exist. ENOSPC if memory is lacking.
    pub fn insert(&mut self, name: &[u8], node: u32) -> Result<(), Errno> {
        let Err(at) = self.find(name) else { return Err(Errno::EEXIST) };
        let copy = copied(name)?.into_boxed_slice();
        self.sorted.try_reserve(1).map_err(|_| Errno::ENOSPC)?;
        self.entries.try_reserve(1).map_err(|_| Errno::ENOSPC)?;
        self.sorted.insert(at, self.entries.len() as u32);
        self.entries.push(Entry { place: self.next, name: copy, node });
        self.next += 1;
        Ok(())
    }

    /// Makes an existing name refer to another slot; its position stays.
    pub fn replace(&mut self, name: &[u8], node: u32) {
        if let Ok(at) = self.find(name) {
            self.entries[self.sorted[at] as usize].node = node;
        }
    }

    /// Takes a name out.
    pub fn remove(&mut self, name: &[u8]) -> Option<u32> {
        let at = self.find(name).ok()?;
        let entry = &mut self.entries[self.sorted.remove(at) as usize];
        let node = core::mem::replace(&mut entry.node, GONE);
        entry.name = Box::default();
        self.give_back();
        Some(node)
    }

    /// Keeps the capacity for entries within four times the need: moves to new lists if there is memory for them,
    /// otherwise waits for the next removal. Amortised O(log n) for each.
    fn give_back(&mut self) {
        let there = self.sorted.len();
        if self.entries.capacity() <= 4 * (there + 1) {
            return;
        }
        let (mut entries, mut sorted) = (Vec::new(), Vec::new());
        if entries.try_reserve_exact(there).is_err() || sorted.try_reserve_exact(there).is_err() {
            return;
        }
        entries.extend(core::mem::take(&mut self.entries).into_iter().filter(|entry| entry.node != GONE));
        sorted.extend(0..there as u32);
        sorted.sort_unstable_by(|a, b| entry_name(&entries, *a).cmp(entry_name(&entries, *b)));
        (self.entries, self.sorted) = (entries, sorted);
    }

    /// The names from a position on: position, name, slot.
    pub fn from(&self, place: u64) -> impl Iterator<Item = (u64, &[u8], u32)> {
        let start = self.entries.partition_point(|entry| entry.place < place);
        self.there(start).map(|entry| (entry.place, &*entry.name, entry.node))
    }

    /// The name of a slot. O(names).
    pub fn name_of(&self, node: u32) -> Option<&[u8]> {
        self.there(0).find(|entry| entry.node == node).map(|entry| &*entry.name)
    }

    fn there(&self, start: usize) -> impl Iterator<Item = &Entry> {
        self.entries[start..].iter().filter(|entry| entry.node != GONE)
    }
}

fn entry_name(entries: &[Entry], at: u32) -> &[u8] {
    &entries[at as usize].name
}

/// A copy of a name or text. ENOSPC if memory is lacking.
pub(crate) fn copied(text: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(text.len()).map_err(|_| Errno::ENOSPC)?;
    copy.extend_from_slice(text);
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_given_back_and_places_stay() {
        let mut directory = Directory::new(0);
        for n in 0..10_000u32 {
            directory.insert(&n.to_be_bytes(), n).unwrap();
            if n >= 10 {
                assert_eq!(directory.remove(&(n - 10).to_be_bytes()), Some(n - 10));
            }
            assert!(directory.entries.capacity() <= 64, "{}", directory.entries.capacity());
        }
        let left: Vec<_> = directory.from(FIRST).collect();
        assert_eq!(left.len(), 10);
        for (place, name, node) in left {
            assert_eq!(
                (place, name, directory.get(name)),
                (FIRST + u64::from(node), &node.to_be_bytes()[..], Some(node))
            );
        }
        for n in 9_990..10_000u32 {
            directory.remove(&n.to_be_bytes());
        }
        assert!(directory.is_empty() && directory.entries.capacity() <= 4);
    }

    #[test]
    fn a_name_that_is_there_is_not_entered() {
        let mut directory = Directory::new(0);
        directory.insert(b"a", 1).unwrap();
        assert_eq!(directory.insert(b"a", 2), Err(Errno::EEXIST));
        directory.replace(b"a", 3);
        assert_eq!((directory.get(b"a"), directory.name_of(3), directory.get(b"b")), (Some(3), Some(&b"a"[..]), None));
    }
}
