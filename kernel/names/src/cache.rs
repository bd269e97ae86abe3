//! The cache, by directory and name: a table of sets, each with room for a few entries and a lock. A new entry replaces
//! one that was not used lately. So the size of the cache is bounded, and so is the cost of each operation.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use quire_mm::fallible::{AllocError, KArc, TryVec};
use quire_mm::hash::keyed;
use quire_mm::machine::Machine;
use quire_mm::sync::SpinLock;

/// Sets; a power of two.
pub const SETS: usize = 256;
/// Entries of a set.
const WAYS: usize = 8;

/// Something that was kept.
pub struct Entry<V> {
    directory: u64,
    name: Vec<u8>,
    generation: u64,
    /// Allocations that it consists of.
    allocations: usize,
    /// The cached value.
    pub value: V,
}

impl<V> Entry<V> {
    /// An entry for a name in a directory, of this generation. `parts` is the number of allocations of the value.
    pub fn new(directory: u64, name: &[u8], generation: u64, value: V, parts: usize) -> Result<KArc<Self>, AllocError> {
        let name: Vec<u8> = TryVec::try_from_slice(name)?;
        let allocations = 1 + usize::from(!name.is_empty()) + parts;
        KArc::try_new(Self { directory, name, generation, allocations, value })
    }

    /// The directory.
    pub fn directory(&self) -> u64 {
        self.directory
    }

    fn is_of(&self, directory: u64, name: &[u8]) -> bool {
        self.directory == directory && *self.name == *name
    }
}

/// A few entries, and the index where the search for a victim continues.
pub struct Set<V> {
    /// Bits of the entries' hashes.
    tags: [u32; WAYS],
    entries: [Option<KArc<Entry<V>>>; WAYS],
    /// A bit for each entry that was used since the hand passed.
    used: u8,
    hand: u8,
}

impl<V> Set<V> {
    /// An empty one.
    pub const EMPTY: Self = Self { tags: [0; WAYS], entries: [const { None }; WAYS], used: 0, hand: 0 };

    fn find(&self, tag: u32, directory: u64, name: &[u8]) -> Option<usize> {
        (0..WAYS).find(|way| {
            self.tags[*way] == tag && self.entries[*way].as_ref().is_some_and(|entry| entry.is_of(directory, name))
        })
    }

    /// The index of a free slot, or of an entry that was not used lately.
    fn place(&mut self) -> usize {
        if let Some(free) = self.entries.iter().position(Option::is_none) {
            return free;
        }
        loop {
            let way = usize::from(self.hand) % WAYS;
            self.hand = self.hand.wrapping_add(1);
            if self.used & 1 << way == 0 {
                return way;
            }
            self.used &= !(1 << way);
        }
    }

    /// Takes out the first entry at or after an index that `wanted` accepts.
    fn take(&mut self, from: usize, wanted: &mut impl FnMut(&Entry<V>) -> bool) -> Option<(usize, KArc<Entry<V>>)> {
        let is_wanted = |way: &usize| self.entries[*way].as_ref().is_some_and(|entry| wanted(entry));
        let way = (from..WAYS).find(is_wanted)?;
        Some((way, self.entries[way].take()?))
    }
}

/// See the module.
pub struct Cache<V, M: Machine> {
    sets: [SpinLock<Set<V>, M>; SETS],
    /// Mixed into hashes, so that no program can tell which names share a set.
    seed: AtomicUsize,
    /// The number of entries, and of the allocations that they consist of.
    count: AtomicUsize,
    allocations: AtomicUsize,
    /// The set where the shrinker continues.
    hand: AtomicUsize,
}

impl<V, M: Machine> Cache<V, M> {
    /// A cache of these sets, which are empty.
    pub const fn new(sets: [SpinLock<Set<V>, M>; SETS]) -> Self {
        Self {
            sets,
            seed: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            allocations: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    /// Sets the seed that is mixed into hashes. The cache is still empty.
    pub fn set_seed(&self, seed: usize) {
        self.seed.store(seed, Ordering::Relaxed);
    }

    /// The set of a name, and its tag.
    #[inline]
    fn set(&self, directory: u64, name: &[u8]) -> (&SpinLock<Set<V>, M>, u32) {
        let hash = keyed(self.seed.load(Ordering::Relaxed) as u64, directory, name);
        (&self.sets[hash as usize % SETS], (hash >> 32) as u32)
    }

    /// The entry of a name in a directory, if it is of this generation. O(1), and one comparison of names.
    #[inline]
    pub fn get(&self, directory: u64, name: &[u8], generation: u64) -> Option<KArc<Entry<V>>> {
        let (set, tag) = self.set(directory, name);
        let mut set = set.lock();
        let way = set.find(tag, directory, name)?;
        set.used |= 1 << way;
        let entry = set.entries[way].as_ref().filter(|entry| entry.generation == generation)?;
        Some(entry.clone())
    }

    /// Enters an entry, in place of a former one of the same name, if `may` returns true under the lock.
    pub fn put(&self, entry: KArc<Entry<V>>, may: impl FnOnce() -> bool) {
        let (set, tag) = self.set(entry.directory, &entry.name);
        let allocations = entry.allocations;
        let former = {
            let mut set = set.lock();
            if !may() {
                return;
            }
            let way = match set.find(tag, entry.directory, &entry.name) {
                Some(way) => way,
                None => set.place(),
            };
            set.tags[way] = tag;
            set.entries[way].replace(entry)
        };
        self.count.fetch_add(1, Ordering::Relaxed);
        self.allocations.fetch_add(allocations, Ordering::Relaxed);
        self.drop_entry(former);
    }

    /// Takes out the entry of a name.
    pub fn remove(&self, directory: u64, name: &[u8]) {
        let (set, tag) = self.set(directory, name);
        let former = {
            let mut set = set.lock();
            set.find(tag, directory, name).and_then(|way| set.entries[way].take())
        };
        self.drop_entry(former);
    }

    fn drop_entry(&self, entry: Option<KArc<Entry<V>>>) {
        if let Some(entry) = entry {
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.allocations.fetch_sub(entry.allocations, Ordering::Relaxed);
            drop(entry);
        }
    }

    /// Takes out all entries that `wanted` accepts; calls `point` between sets. O(sets).
    pub fn purge(&self, mut wanted: impl FnMut(&Entry<V>) -> bool, mut point: impl FnMut()) {
        for set in &self.sets {
            self.empty(set, &mut wanted);
            point();
        }
    }

    fn empty(&self, set: &SpinLock<Set<V>, M>, wanted: &mut impl FnMut(&Entry<V>) -> bool) {
        let mut from = 0;
        while from < WAYS {
            let taken = set.lock().take(from, wanted);
            let Some((way, entry)) = taken else { break };
            from = way + 1;
            self.drop_entry(Some(entry));
        }
    }

    /// Takes out `entries` entries, or all if there are fewer; returns how many.
    pub fn shrink(&self, entries: usize) -> usize {
        let (mut gone, mut left) = (0, SETS);
        while gone < entries && left > 0 {
            let at = self.hand.fetch_add(1, Ordering::Relaxed) % SETS;
            self.empty(&self.sets[at], &mut |_| {
                gone += 1;
                true
            });
            left -= 1;
        }
        gone
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The number of allocations of all entries.
    pub fn allocations(&self) -> usize {
        self.allocations.load(Ordering::Relaxed)
    }
}
