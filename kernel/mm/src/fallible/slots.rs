//! A table of values by small numbers, with a fast search for the lowest free number.
//!
//! The values are in chunks of 16. The first chunk is part of the table, since most tables need no other; a further one is
//! allocated when the first of its numbers is used. A bitmap says which numbers of a chunk are in use, others which chunks
//! are full and which have any in use, so that finding the lowest free number, or the next one in use, reads one word per
//! 1,024 numbers. Growing moves the directory of chunks and never a value.
//!
//! A table is used under a spin lock, where nothing may be allocated. So the memory that a number needs is allocated as
//! [`Room`] without the lock, and passed to [`Slots::make_room`] once the lock is held again. The caller drops the rest
//! after releasing the lock.

use core::mem::MaybeUninit;
use core::ptr;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{AllocError, TryVec, try_box_with};
use crate::steps::count_step;

/// Values in a chunk: few, since most tables have few.
const CHUNK: usize = 16;
/// Chunks per [`Summary`].
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

/// What is known of [`WORD`] chunks: bit `i` is about chunk `i` of them.
#[derive(Clone, Copy)]
struct Summary {
    /// All of its numbers are in use.
    full: u64,
    /// Any of its numbers is in use.
    used: u64,
    /// The chunk exists. (Not kept for the first chunk of all, which always does.)
    exists: u64,
}

impl Summary {
    const EMPTY: Self = Self { full: 0, used: 0, exists: 0 };
}

/// A table of values by number.
pub struct Slots<T> {
    first: Chunk<T>,
    /// The directory of the others.
    more: Vec<Option<Box<Chunk<T>>>>,
    /// Of the first 64 chunks; of the others in `summaries`.
    summary: Summary,
    summaries: Vec<Summary>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory that a table needs for a number, allocated beforehand; afterwards, the memory that it replaced.
pub struct Room<T> {
    chunk: Option<Box<Chunk<T>>>,
    /// As long as the directory must be, and without chunks.
    more: Vec<Option<Box<Chunk<T>>>>,
    summaries: Vec<Summary>,
}

impl<T> Room<T> {
    /// None.
    pub const fn none() -> Self {
        Self { chunk: None, more: Vec::new(), summaries: Vec::new() }
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
            more: empty_directory(self.chunks)?,
            summaries: TryVec::try_with_capacity(further_summaries(self.chunks))?,
        })
    }
}

/// The length of `summaries` where the directory has room for so many chunks.
const fn further_summaries(chunks: usize) -> usize {
    // (The first chunk and those of `summary` need none.)
    chunks / WORD
}

/// A directory without chunks. There may be 65,536 places, so they are not written one by one.
fn empty_directory<T>(len: usize) -> Result<Vec<Option<Box<Chunk<T>>>>, AllocError> {
    let mut directory: Vec<Option<Box<Chunk<T>>>> = TryVec::try_with_capacity(len)?;
    // SAFETY: there is room for `len` elements, and an `Option<Box>` whose bytes are all zero is `None`, as its
    // documentation says.
    unsafe {
        ptr::write_bytes(directory.as_mut_ptr(), 0, len);
        directory.set_len(len);
    }
    Ok(directory)
}

/// Ends a directory without chunks, without a look at each place.
fn forget_empty<T>(directory: &mut Vec<Option<Box<Chunk<T>>>>) {
    // SAFETY: all its elements are `None`, which own nothing.
    unsafe { directory.set_len(0) };
}

impl<T> Slots<T> {
    /// An empty table.
    pub const fn new() -> Self {
        Self { first: Chunk::new(), more: Vec::new(), summary: Summary::EMPTY, summaries: Vec::new() }
    }

    #[inline]
    fn chunk(&self, index: usize) -> Option<&Chunk<T>> {
        count_step();
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
        let mut free = !self.summary(word).full & (u64::MAX << bit);
        while free == 0 {
            count_step();
            word += 1;
            free = !self.summary(word).full;
        }
        word * WORD + free.trailing_zeros() as usize
    }

    fn summary(&self, word: usize) -> Summary {
        match word {
            0 => self.summary,
            word => self.summaries.get(word - 1).copied().unwrap_or(Summary::EMPTY),
        }
    }

    fn summary_mut(&mut self, word: usize) -> Option<&mut Summary> {
        match word {
            0 => Some(&mut self.summary),
            word => self.summaries.get_mut(word - 1),
        }
    }

    /// Records that chunk `index` has become full or empty, or is so no longer. `used` are its numbers in use.
    #[cold]
    fn note(&mut self, index: usize, used: u16) {
        let Some(summary) = self.summary_mut(index / WORD) else { return };
        let bit = 1 << (index % WORD);
        summary.full = if used == u16::MAX { summary.full | bit } else { summary.full & !bit };
        summary.used = if used != 0 { summary.used | bit } else { summary.used & !bit };
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
        for word in from / WORD..=self.summaries.len() {
            crate::steps::count_step();
            let used = self.summary(word).used & mask;
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
        (self.more.len() + 1) * CHUNK
    }

    /// Makes room for a number with the memory in `room`; returns what is missing if that is not enough.
    #[inline]
    pub fn make_room(&mut self, number: usize, room: &mut Room<T>) -> Result<(), Lack> {
        let index = number / CHUNK;
        if self.chunk(index).is_some() { Ok(()) } else { self.make_chunk(index - 1, room) }
    }

    /// Makes a chunk of the directory that is missing.
    #[inline(never)]
    fn make_chunk(&mut self, index: usize, room: &mut Room<T>) -> Result<(), Lack> {
        let wanted = if index < self.more.len() { 0 } else { (index + 1).next_power_of_two() };
        if room.chunk.is_none() || room.more.len() < wanted || room.summaries.capacity() < further_summaries(wanted) {
            return Err(Lack { chunks: wanted });
        }
        if wanted != 0 {
            self.grow(room);
        }
        if let Some(place) = self.more.get_mut(index) {
            *place = room.chunk.take();
        }
        // (The directory leaves out the first chunk.)
        if let Some(summary) = self.summary_mut((index + 1) / WORD) {
            summary.exists |= 1 << ((index + 1) % WORD);
        }
        Ok(())
    }

    /// Moves the directory to the larger one in `room`, which gets the old one, without chunks.
    // Nothing here allocates: the caller has seen that there is room.
    #[allow(clippy::disallowed_methods)]
    fn grow(&mut self, room: &mut Room<T>) {
        let old = self.more.len();
        debug_assert!(old <= room.more.len());
        // SAFETY: the larger directory has `old` elements, which are `None` and own nothing. Those of the old one are
        // moved there, and the old one forgets them.
        unsafe {
            ptr::copy_nonoverlapping(self.more.as_ptr(), room.more.as_mut_ptr(), old);
            self.more.set_len(0);
        }
        core::mem::swap(&mut self.more, &mut room.more);
        room.summaries.append(&mut self.summaries);
        room.summaries.resize(further_summaries(self.more.len()), Summary::EMPTY);
        core::mem::swap(&mut self.summaries, &mut room.summaries);
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
        if self.first.used != 0 {
            while self.first.used != 0 {
                drop(self.first.take(self.first.used.trailing_zeros() as usize));
            }
            self.note(0, 0);
            return true;
        }
        for word in 0..=self.summaries.len() {
            let exists = self.summary(word).exists;
            if exists != 0 {
                let index = word * WORD + exists.trailing_zeros() as usize;
                let chunk = self.more.get_mut(index - 1).and_then(Option::take);
                self.note(index, 0);
                if let Some(summary) = self.summary_mut(word) {
                    summary.exists &= exists - 1;
                }
                drop(chunk);
                return true;
            }
        }
        false
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        while self.drop_some() {}
        forget_empty(&mut self.more);
    }
}

impl<T> Drop for Room<T> {
    fn drop(&mut self) {
        forget_empty(&mut self.more);
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
        assert_eq!((slots.lowest_free(0), slots.next_used(0)), (0, Some(33)));
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
