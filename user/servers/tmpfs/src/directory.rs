//! The names in a directory: by name, and in the order in which they came, so that who lists them while others come and go
//! meets each that stays once.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

/// The place of the first name; `.` and `..` have those before.
pub const FIRST: u64 = 2;

struct Entry {
    name: Box<[u8]>,
    node: u32,
}

/// See the module. O(log n) for each operation.
pub struct Directory {
    /// The slot of the directory above; the root's is its own.
    pub parent: u32,
    /// How many directories it has.
    pub directories: u32,
    places: BTreeMap<Box<[u8]>, u64>,
    entries: BTreeMap<u64, Entry>,
    next: u64,
}

impl Directory {
    /// An empty one.
    pub fn new(parent: u32) -> Self {
        Self { parent, directories: 0, places: BTreeMap::new(), entries: BTreeMap::new(), next: FIRST }
    }

    /// The slot of a name.
    pub fn get(&self, name: &[u8]) -> Option<u32> {
        self.places.get(name).and_then(|place| self.entries.get(place)).map(|entry| entry.node)
    }

    /// Whether it has no names.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Enters a name, which is not there.
    pub fn insert(&mut self, name: &[u8], node: u32) {
        let place = self.next;
        self.next += 1;
        self.places.insert(name.into(), place);
        self.entries.insert(place, Entry { name: name.into(), node });
    }

    /// Makes a name that is there one of another slot; its place stays.
    pub fn replace(&mut self, name: &[u8], node: u32) {
        if let Some(entry) = self.places.get(name).and_then(|place| self.entries.get_mut(place)) {
            entry.node = node;
        }
    }

    /// Takes a name out.
    pub fn remove(&mut self, name: &[u8]) -> Option<u32> {
        let place = self.places.remove(name)?;
        self.entries.remove(&place).map(|entry| entry.node)
    }

    /// The names from a place on: place, name, slot.
    pub fn from(&self, place: u64) -> impl Iterator<Item = (u64, &[u8], u32)> {
        self.entries.range(place..).map(|(place, entry)| (*place, &*entry.name, entry.node))
    }

    /// The name of a slot. O(names).
    pub fn name_of(&self, node: u32) -> Option<&[u8]> {
        self.entries.values().find(|entry| entry.node == node).map(|entry| &*entry.name)
    }
}
