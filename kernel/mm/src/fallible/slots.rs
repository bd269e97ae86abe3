//! A table of values by small numbers, with a fast search for the lowest free number.
//!
//! The values are in chunks of 16. The first chunk is part of the table, since most tables need no other; a further one is
//! allocated when the first of its numbers is used. A bitmap says which numbers of a chunk are in use, another which chunks
//! are full, so that finding the lowest free number reads one word per 1,024 numbers in use. Growing moves the directory of
//! chunks and never a value.
//!
//! A table is used under a spin lock, where nothing may be allocated. So the memory that a number needs is allocated as
//! [`Room`] without the lock, and passed to [`Slots::make_room`] once the lock is held again. The caller drops the rest
//! after releasing the lock.

use core::mem::MaybeUninit;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{AllocError, TryVec, try_box_with};

/// Values in a chunk: few, since most tables have few.
const CHUNK: usize = 16;
/// Chunks per word of the second bitmap.
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

/// A table of values by number.
pub struct Slots<T> {
    first: Chunk<T>,
    /// The directory of the others.
    more: Vec<Option<Box<Chunk<T>>>>,
    /// Bit `i` is set while chunk `i` is full: for the first 64 chunks here, for the others in `more_full`.
    first_full: u64,
    more_full: Vec<u64>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory that a table needs for a number, allocated beforehand; afterwards, the memory that it replaced.
pub struct Room<T> {
    chunk: Option<Box<Chunk<T>>>,
    more: Vec<Option<Box<Chunk<T>>>>,
    full: Vec<u64>,
}

impl<T> Room<T> {
    /// None.
    pub const fn none() -> Self {
        Self { chunk: None, more: Vec::new(), full: Vec::new() }
    }
}

/// What a table needs for a number, beside a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Chunks that the directory must have room for; 0 if it need not grow.
    chunks: usize,
}

impl Lack {
    /// Allocates it.
    pub fn supply<T>(self) -> Result<Room<T>, AllocError> {
        Ok(Room {
            chunk: Some(try_box_with(Chunk::new)?),
            more: TryVec::try_with_capacity(self.chunks)?,
            full: TryVec::try_with_capacity(full_words(self.chunks))?,
        })
    }
}

/// Words of `more_full` where the directory has room for so many chunks.
const fn full_words(chunks: usize) -> usize {
    // (The first chunk and those of `first_full` need none.)
    chunks / WORD
}

impl<T> Slots<T> {
    /// An empty table.
    pub const fn new() -> Self {
        Self { first: Chunk::new(), more: Vec::new(), first_full: 0, more_full: Vec::new() }
    }

    #[inline]
    fn chunk(&self, index: usize) -> Option<&Chunk<T>> {
        match index.checked_sub(1) {
            None => Some(&self.first),
            Some(further) => self.more.get(further)?.as_deref(),
        }
    }

    #[inline]
    fn chunk_mut(&mut self, index: usize) -> Option<&mut Chunk<T>> {
        match index.checked_sub(1) {
            None => Some(&mut self.first),
            Some(further) => self.more.get_mut(further)?.as_deref_mut(),
        }
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

    /// The first chunk from `from` on that is not full, or is not there.
    fn first_not_full(&self, from: usize) -> usize {
        let (mut word, bit) = (from / WORD, from % WORD);
        let mut free = !self.full_word(word) & (u64::MAX << bit);
        while free == 0 {
            word += 1;
            free = !self.full_word(word);
        }
        word * WORD + free.trailing_zeros() as usize
    }

    fn full_word(&self, word: usize) -> u64 {
        match word {
            0 => self.first_full,
            word => self.more_full.get(word - 1).copied().unwrap_or(0),
        }
    }

    fn note_full(&mut self, index: usize, is_full: bool) {
        let word = match index / WORD {
            0 => Some(&mut self.first_full),
            word => self.more_full.get_mut(word - 1),
        };
        if let Some(word) = word {
            let bit = 1 << (index % WORD);
            *word = if is_full { *word | bit } else { *word & !bit };
        }
    }

    /// The lowest number from `from` on that has a value.
    pub fn next_used(&self, from: usize) -> Option<usize> {
        let mut mask = u16::MAX << (from % CHUNK);
        for index in from / CHUNK..=self.more.len() {
            let used = self.chunk(index).map_or(0, |chunk| chunk.used) & mask;
            if used != 0 {
                return Some(index * CHUNK + used.trailing_zeros() as usize);
            }
            mask = u16::MAX;
        }
        None
    }

    /// One more than the highest number that the directory has a place for.
    #[inline]
    pub fn capacity(&self) -> usize {
        (self.more.len() + 1) * CHUNK
    }

    /// Makes room for a number with the memory in `room`; returns what is missing if that is not enough.
    pub fn make_room(&mut self, number: usize, room: &mut Room<T>) -> Result<(), Lack> {
        let index = number / CHUNK;
        if self.chunk(index).is_some() { Ok(()) } else { self.make_chunk(index - 1, room) }
    }

    /// Makes a chunk of the directory that is missing.
    fn make_chunk(&mut self, index: usize, room: &mut Room<T>) -> Result<(), Lack> {
        let wanted = if index < self.more.len() { 0 } else { (index + 1).next_power_of_two() };
        if room.chunk.is_none() || room.more.capacity() < wanted || room.full.capacity() < full_words(wanted) {
            return Err(Lack { chunks: wanted });
        }
        if wanted != 0 {
            self.grow(wanted, room);
        }
        if let Some(place) = self.more.get_mut(index) {
            *place = room.chunk.take();
        }
        Ok(())
    }

    /// Moves the directory to the larger one in `room`, which gets the old one.
    // Nothing here allocates: the caller has seen that there is room.
    #[allow(clippy::disallowed_methods)]
    fn grow(&mut self, len: usize, room: &mut Room<T>) {
        room.more.append(&mut self.more);
        room.more.resize_with(len, || None);
        core::mem::swap(&mut self.more, &mut room.more);
        room.full.append(&mut self.more_full);
        room.full.resize(full_words(len), 0);
        core::mem::swap(&mut self.more_full, &mut room.full);
    }

    /// Puts a value at a number for which there is room; returns the old value, or `value` as an error if there is no
    /// room.
    pub fn set(&mut self, number: usize, value: T) -> Result<Option<T>, T> {
        let index = number / CHUNK;
        let Some(chunk) = self.chunk_mut(index) else { return Err(value) };
        let old = chunk.set(number % CHUNK, value);
        let is_full = chunk.used == u16::MAX;
        if is_full {
            self.note_full(index, true);
        }
        Ok(old)
    }

    /// Takes a value out.
    pub fn take(&mut self, number: usize) -> Option<T> {
        let index = number / CHUNK;
        let chunk = self.chunk_mut(index)?;
        let was_full = chunk.used == u16::MAX;
        let value = chunk.take(number % CHUNK)?;
        if was_full {
            self.note_full(index, false);
        }
        Some(value)
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
        drop(slots);
        assert_eq!(std::rc::Rc::strong_count(&value), 1);
    }

    #[test]
    fn what_lacks_room_says_so_and_changes_nothing() {
        let mut slots = Slots::new();
        assert_eq!(slots.set(21, 'x'), Err('x'));
        let lack = slots.make_room(21, &mut Room::none()).unwrap_err();
        let mut room = lack.supply().unwrap();
        assert_eq!(slots.make_room(86, &mut room), Err(Lack { chunks: 8 }));
        assert_eq!(slots.make_room(21, &mut room), Ok(()));
        assert_eq!(slots.set(21, 'x'), Ok(None));
        assert_eq!((slots.get(21), slots.capacity()), (Some(&'x'), 32));
    }

    #[test]
    fn the_first_numbers_need_no_room() {
        let mut slots = Slots::new();
        for number in 0..CHUNK {
            assert_eq!(slots.make_room(number, &mut Room::none()), Ok(()));
            assert_eq!(slots.set(slots.lowest_free(0), number), Ok(None));
        }
        assert_eq!(slots.lowest_free(0), CHUNK);
        assert_eq!(slots.make_room(CHUNK, &mut Room::none()), Err(Lack { chunks: 1 }));
        assert_eq!((slots.take(3), slots.lowest_free(0)), (Some(3), 3));
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
