//! A table of values by small numbers, with a fast search for the lowest free number.
//!
//! The values are in chunks of 16. The first chunk is part of the table, since most tables need no other; a further one
//! is allocated when the first of its numbers is used. A bitmap says which numbers of a chunk are in use, others which
//! of 64 chunks, a group, are full and which have any in use, so that finding the lowest free number, or the next one
//! in use, reads one word per 1,024 numbers. Growing moves the directory of groups, and no value.
//!
//! A table is used under a spin lock, where nothing may be allocated. So the memory that a number needs is allocated as
//! [`Room`] without the lock, and passed to [`Slots::make_room`] once the lock is held again. The caller drops the rest
//! after releasing the lock.

use core::mem::MaybeUninit;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{AllocError, TryVec, try_box_with};
use crate::steps::count_step;

/// Values in a chunk: few, since most tables have few.
const CHUNK: usize = 16;
/// Chunks per [`Group`].
const WORD: usize = 64;

/// Some places, and a bitmap of those that hold a value.
struct Chunk<T> {
    /// Bit `i` is set exactly while `places[i]` is initialised.
    used: u16,
    places: [MaybeUninit<T>; CHUNK],
}

impl<T> Chunk<T> {
    const fn new() -> Self {
        Self { used: 0, places: [const { MaybeUninit::uninit() }; CHUNK] }
    }

    fn has(&self, i: usize) -> bool {
        self.used >> i & 1 != 0
    }

    fn get(&self, i: usize) -> Option<&T> {
        // SAFETY: a place whose bit is set is initialised.
        self.has(i).then(|| unsafe { self.places[i].assume_init_ref() })
    }

    fn get_mut(&mut self, i: usize) -> Option<&mut T> {
        // SAFETY: as in `get`.
        self.has(i).then(|| unsafe { self.places[i].assume_init_mut() })
    }

    fn take(&mut self, i: usize) -> Option<T> {
        if !self.has(i) {
            return None;
        }
        self.used &= !(1 << i);
        // SAFETY: the bit was set, and now it is not: the value is read out once.
        Some(unsafe { self.places[i].assume_init_read() })
    }

    fn set(&mut self, i: usize, value: T) -> Option<T> {
        let old = self.take(i);
        self.places[i].write(value);
        self.used |= 1 << i;
        old
    }
}

impl<T> Drop for Chunk<T> {
    fn drop(&mut self) {
        while self.used != 0 {
            drop(self.take(self.used.trailing_zeros() as usize));
        }
    }
}

/// [`WORD`] chunks, and their state: bit `i` is about chunk `i`.
struct Group<T> {
    /// All of its numbers are in use.
    full: u64,
    /// Any of its numbers is in use.
    used: u64,
    chunks: [Option<Box<Chunk<T>>>; WORD],
}

impl<T> Group<T> {
    const fn new() -> Self {
        Self { full: 0, used: 0, chunks: [const { None }; WORD] }
    }

    /// Records which numbers of a chunk are in use.
    fn note(&mut self, chunk: usize, used: u16) {
        let bit = 1 << chunk;
        self.full = if used == u16::MAX { self.full | bit } else { self.full & !bit };
        self.used = if used != 0 { self.used | bit } else { self.used & !bit };
    }
}

/// The directory.
type Groups<T> = Vec<Option<Box<Group<T>>>>;

/// A table of values by number.
pub struct Slots<T> {
    first: Chunk<T>,
    /// The others, by 64. (The first place of the first group stays empty: that chunk is `first`.)
    groups: Groups<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory that a table needs for a number, allocated beforehand; afterwards, the memory that it replaced.
pub struct Room<T> {
    chunk: Option<Box<Chunk<T>>>,
    group: Option<Box<Group<T>>>,
    /// Empty, with room for as many groups as the directory must have.
    groups: Groups<T>,
}

impl<T> Room<T> {
    /// None.
    pub const fn none() -> Self {
        Self { chunk: None, group: None, groups: Vec::new() }
    }
}

/// What a table needs for a number, in addition to a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    needs_group: bool,
    /// Groups that the directory must have room for; 0 if it need not grow.
    groups: usize,
}

impl Lack {
    /// Allocates it.
    pub fn supply<T>(self) -> Result<Room<T>, AllocError> {
        Ok(Room {
            chunk: Some(try_box_with(Chunk::new)?),
            group: if self.needs_group { Some(try_box_with(Group::new)?) } else { None },
            groups: TryVec::try_with_capacity(self.groups)?,
        })
    }
}

impl<T> Slots<T> {
    /// An empty table.
    pub const fn new() -> Self {
        Self { first: Chunk::new(), groups: Vec::new() }
    }

    #[inline]
    fn chunk(&self, index: usize) -> Option<&Chunk<T>> {
        count_step();
        if index == 0 { Some(&self.first) } else { self.group(index / WORD)?.chunks[index % WORD].as_deref() }
    }

    #[inline]
    fn chunk_mut(&mut self, index: usize) -> Option<&mut Chunk<T>> {
        if index == 0 {
            return Some(&mut self.first);
        }
        self.groups.get_mut(index / WORD)?.as_deref_mut()?.chunks[index % WORD].as_deref_mut()
    }

    #[inline]
    fn group(&self, group: usize) -> Option<&Group<T>> {
        self.groups.get(group)?.as_deref()
    }

    /// The value with a number.
    #[inline]
    pub fn get(&self, number: usize) -> Option<&T> {
        self.chunk(number / CHUNK)?.get(number % CHUNK)
    }

    /// The value with a number, to change.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.chunk_mut(number / CHUNK)?.get_mut(number % CHUNK)
    }

    /// The lowest number from `from` on that has no value.
    pub fn lowest_free(&self, from: usize) -> usize {
        let (index, bit) = (from / CHUNK, from % CHUNK);
        let Some(chunk) = self.chunk(index) else { return from };
        let free = !chunk.used & (u16::MAX << bit);
        if free != 0 {
            return index * CHUNK + free.trailing_zeros() as usize;
        }
        let index = self.first_not_full(index + 1);
        let used = self.chunk(index).map_or(0, |chunk| chunk.used);
        index * CHUNK + used.trailing_ones() as usize
    }

    /// The first chunk from `from` on that is not full, or does not exist.
    fn first_not_full(&self, from: usize) -> usize {
        let full = |word| self.group(word).map_or(0, |group| group.full);
        let (mut word, bit) = (from / WORD, from % WORD);
        let mut free = !full(word) & (u64::MAX << bit);
        while free == 0 {
            count_step();
            word += 1;
            free = !full(word);
        }
        word * WORD + free.trailing_zeros() as usize
    }

    /// Records that chunk `index` has become full or empty, or is so no longer. `used` are its numbers in use.
    #[cold]
    fn note(&mut self, index: usize, used: u16) {
        if let Some(group) = self.groups.get_mut(index / WORD).and_then(Option::as_deref_mut) {
            group.note(index % WORD, used);
        }
    }

    /// The lowest number from `from` on that has a value.
    #[inline]
    pub fn next_used(&self, from: usize) -> Option<usize> {
        let index = from / CHUNK;
        let here = self.chunk(index).map_or(0, |chunk| chunk.used) & (u16::MAX << (from % CHUNK));
        if here != 0 {
            return Some(index * CHUNK + here.trailing_zeros() as usize);
        }
        self.next_used_beyond(index)
    }

    /// The lowest number in a chunk after `index` that has a value.
    #[inline(never)]
    fn next_used_beyond(&self, index: usize) -> Option<usize> {
        let index = self.first_used(index + 1)?;
        Some(index * CHUNK + self.chunk(index)?.used.trailing_zeros() as usize)
    }

    /// The first chunk from `from` on that has a number in use.
    fn first_used(&self, from: usize) -> Option<usize> {
        let mut mask = u64::MAX << (from % WORD);
        for word in from / WORD..self.groups.len() {
            count_step();
            let used = self.group(word).map_or(0, |group| group.used & mask);
            if used != 0 {
                return Some(word * WORD + used.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }

    /// One more than the highest number that the directory has a place for.
    #[inline]
    pub fn capacity(&self) -> usize {
        (self.groups.len() * WORD).max(1) * CHUNK
    }

    /// Makes room for a number with the memory in `room`; returns what is missing if that is not enough.
    #[inline]
    pub fn make_room(&mut self, number: usize, room: &mut Room<T>) -> Result<(), Lack> {
        let index = number / CHUNK;
        if self.chunk(index).is_some() { Ok(()) } else { self.make_chunk(index, room) }
    }

    /// Makes a chunk of the directory that is missing.
    #[inline(never)]
    fn make_chunk(&mut self, index: usize, room: &mut Room<T>) -> Result<(), Lack> {
        let word = index / WORD;
        let lack = Lack {
            needs_group: self.group(word).is_none(),
            groups: if word < self.groups.len() { 0 } else { (word + 1).next_power_of_two() },
        };
        let has_group = !lack.needs_group || room.group.is_some();
        if room.chunk.is_none() || !has_group || room.groups.capacity() < lack.groups {
            return Err(lack);
        }
        if lack.groups != 0 {
            self.grow(lack.groups, room);
        }
        let Some(place) = self.groups.get_mut(word) else { return Err(lack) };
        if place.is_none() {
            *place = room.group.take();
            self.note(0, self.first.used);
        }
        if let Some(group) = self.groups.get_mut(word).and_then(Option::as_deref_mut) {
            group.chunks[index % WORD] = room.chunk.take();
        }
        Ok(())
    }

    /// Moves the directory, of `groups` places from now on, to the larger memory in `room`, which gets the old one,
    /// empty. (There are 1,024 places for a million numbers.)
    // Nothing here allocates: the caller has seen that there is room.
    #[allow(clippy::disallowed_methods)]
    fn grow(&mut self, groups: usize, room: &mut Room<T>) {
        room.groups.append(&mut self.groups);
        room.groups.resize_with(groups, || None);
        core::mem::swap(&mut self.groups, &mut room.groups);
    }

    /// Puts a value at a number for which there is room; returns the old value, or `value` as an error if there is no
    /// room.
    pub fn set(&mut self, number: usize, value: T) -> Result<Option<T>, T> {
        let index = number / CHUNK;
        let Some(chunk) = self.chunk_mut(index) else { return Err(value) };
        let was = chunk.used;
        let old = chunk.set(number % CHUNK, value);
        let used = chunk.used;
        if was == 0 || used == u16::MAX {
            self.note(index, used);
        }
        Ok(old)
    }

    /// Takes a value out.
    pub fn take(&mut self, number: usize) -> Option<T> {
        let index = number / CHUNK;
        let chunk = self.chunk_mut(index)?;
        let was = chunk.used;
        let value = chunk.take(number % CHUNK)?;
        let used = chunk.used;
        if was == u16::MAX || used == 0 {
            self.note(index, used);
        }
        Some(value)
    }

    /// Drops some values, those of one chunk: for an owner that ends, and has many. `false` once the table is empty.
    pub fn drop_some(&mut self) -> bool {
        while let Some(last) = self.groups.last_mut() {
            let chunk = last.as_mut().and_then(|group| {
                let chunk = group.chunks.iter().rposition(Option::is_some)?;
                group.note(chunk, 0);
                group.chunks[chunk].take()
            });
            if let Some(chunk) = chunk {
                drop(chunk);
                return true;
            }
            self.groups.pop();
        }
        let any = self.first.used != 0;
        while self.first.used != 0 {
            drop(self.first.take(self.first.used.trailing_zeros() as usize));
        }
        any
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        while self.drop_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn put<T>(slots: &mut Slots<T>, number: usize, value: T) -> Option<T> {
        let mut room = Room::none();
        while let Err(lack) = slots.make_room(number, &mut room) {
            room = lack.supply().unwrap();
        }
        slots.set(number, value).unwrap_or_else(|_| panic!("there is room"))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize),
        Set(usize),
        Take(usize),
        NextUsed(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let number = || prop_oneof![0..10usize, 0..300usize, 4000..4200usize, 8100..8400usize];
        let step = prop_oneof![
            6 => prop_oneof![Just(0usize), number()].prop_map(Step::Insert),
            2 => number().prop_map(Step::Set),
            4 => number().prop_map(Step::Take),
            1 => number().prop_map(Step::NextUsed),
        ];
        proptest::collection::vec(step, 1..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_table_is_a_map_that_knows_its_gaps(full in prop_oneof![0..200usize, 4000..8300usize], steps in steps()) {
            let mut slots = Slots::new();
            let mut model = BTreeMap::new();
            for number in 0..full {
                put(&mut slots, number, number);
                model.insert(number, number);
            }
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(from) => {
                        let used = model.range(from..).zip(from..).take_while(|((used, _), n)| *used == n);
                        let free = from + used.count();
                        prop_assert_eq!(slots.lowest_free(from), free);
                        prop_assert_eq!(put(&mut slots, free, value), model.insert(free, value));
                    }
                    Step::Set(at) => prop_assert_eq!(put(&mut slots, at, value), model.insert(at, value)),
                    Step::Take(at) => prop_assert_eq!(slots.take(at), model.remove(&at)),
                    Step::NextUsed(from) => {
                        prop_assert_eq!(slots.next_used(from), model.range(from..).next().map(|(n, _)| *n));
                    }
                }
            }
            for number in 0..9000 {
                prop_assert_eq!(slots.get(number), model.get(&number));
            }
        }
    }

    #[test]
    fn the_lowest_free_number_is_found_by_words() {
        let mut slots = Slots::new();
        (0..100_000).for_each(|number| _ = put(&mut slots, number, ()));
        let steps = crate::steps::of(|| assert_eq!(slots.lowest_free(0), 100_000));
        assert!(steps <= 100_000 / (CHUNK * WORD) + 2, "{steps} looks at chunks and words");
    }

    #[test]
    fn each_value_ends_once() {
        let value = std::rc::Rc::new(());
        let mut slots = Slots::new();
        for number in (0..10_000).step_by(3) {
            put(&mut slots, number, value.clone());
        }
        let taken = slots.take(3000);
        put(&mut slots, 300, value.clone());
        assert_eq!(std::rc::Rc::strong_count(&value), 1 + 3334);
        drop(taken);
        assert!(slots.drop_some() && slots.drop_some());
        // (The last chunk holds 9,984 to 9,999.)
        assert_eq!((slots.next_used(9960), slots.next_used(9968)), (Some(9960), None));
        drop(slots);
        assert_eq!(std::rc::Rc::strong_count(&value), 1);
    }

    #[test]
    fn what_lacks_room_says_so_and_changes_nothing() {
        let mut slots = Slots::new();
        assert_eq!(slots.set(21, 'x'), Err('x'));
        let lack = slots.make_room(21, &mut Room::none()).unwrap_err();
        let mut room = lack.supply().unwrap();
        assert_eq!(slots.make_room(5000, &mut room), Err(Lack { needs_group: true, groups: 8 }));
        assert_eq!(slots.make_room(21, &mut room), Ok(()));
        assert_eq!(slots.set(21, 'x'), Ok(None));
        assert_eq!((slots.get(21), slots.capacity()), (Some(&'x'), 1024));
    }

    #[test]
    fn the_first_numbers_need_no_room() {
        let mut slots = Slots::new();
        for number in 0..CHUNK {
            assert_eq!(slots.make_room(number, &mut Room::none()), Ok(()));
            assert_eq!(slots.set(slots.lowest_free(0), number), Ok(None));
        }
        assert_eq!(slots.lowest_free(0), CHUNK);
        assert_eq!(slots.make_room(CHUNK, &mut Room::none()), Err(Lack { needs_group: true, groups: 1 }));
        assert_eq!((slots.take(3), slots.lowest_free(0)), (Some(3), 3));
    }

    #[test]
    fn a_gap_is_passed_by_the_word() {
        const FAR: usize = 1_000_000;
        let mut slots = Slots::new();
        [0, FAR].into_iter().for_each(|number| _ = put(&mut slots, number, number));
        let steps = crate::steps::of(|| assert_eq!(slots.next_used(1), Some(FAR)));
        // The words, and the chunks at both ends.
        assert!(steps <= FAR / (CHUNK * WORD) + 3, "{steps} looks at words and chunks");
        assert_eq!(slots.take(FAR), Some(FAR));
        let steps = crate::steps::of(|| assert_eq!(slots.next_used(1), None));
        assert!(steps <= (1 << 20) / (CHUNK * WORD) + 3, "{steps} looks at words and chunks");
    }

    #[test]
    fn room_that_cannot_be_had_is_an_error() {
        use crate::fallible::inject;
        let lack = Slots::<u32>::new().make_room(5000, &mut Room::none()).unwrap_err();
        for nth in 1..=3 {
            inject::fail(Some(nth));
            assert!(lack.supply::<u32>().is_err());
            inject::fail(None);
        }
    }
}
