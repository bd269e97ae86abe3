//! Compression of pages. Contents that repeat one word are stored as that word. Others are coded by words ([`words`]),
//! in a tenth of the instructions of LZ4; if that does not compress a page enough and it may be text, it is coded by
//! LZ4 (the crate `lz4_flex`). (Measured with the data of pressbench, a quarter of whose words are random: 30 % of a
//! page in about 7,000 instructions by words, 37 % in 65,000 by LZ4.)
//!
//! A *stream* is the memory for one compression: tables, and a buffer, about 18 KiB. There is one for each CPU; a
//! thread takes a free one, and may be preempted while it has it.

use alloc::alloc::Layout;
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering::*};

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use super::{Damaged, WORDS, words};
use crate::addr::PAGE_SIZE;
use crate::cgroup::Machine;
use crate::fallible::AllocError;
use crate::machine::MAX_CPUS;

/// Contents that do not become smaller than this count as incompressible.
const WORTH: usize = PAGE_SIZE / 4 * 3;

/// The size that LZ4 requires, and a byte for the kind of code, in words.
const BUFFER: usize = (get_maximum_output_size(PAGE_SIZE) + 1).div_ceil(size_of::<u64>());

/// The word that the page repeats, if it does.
pub(super) fn repeated_word(page: &[u64; WORDS]) -> Option<u64> {
    // The last word is compared first: the beginnings of pages are often alike.
    let first = page[0];
    (page[WORDS - 1] == first && page.iter().all(|word| *word == first)).then_some(first)
}

/// The first packed byte: which code follows. (The code by words leaves it unused.)
const BY_WORDS: u8 = 0;
const _: () = assert!(words::FREE_BITS >= u8::BITS);
const BY_LZ4: u8 = 1;

/// Decodes a page from its packed bytes.
pub(super) fn unpack(bytes: &[u8], page: &mut [u64; WORDS]) -> Result<(), Damaged> {
    match bytes.split_first() {
        Some((&BY_WORDS, _)) => {
            // SAFETY: bytes are words.
            let (before, code, after) = unsafe { bytes.align_to() };
            if before.is_empty() && after.is_empty() { words::unpack(code, page) } else { Err(Damaged) }
        }
        Some((&BY_LZ4, code)) => match decompress_into(code, bytes_of(page)) {
            Ok(PAGE_SIZE) => Ok(()),
            _ => Err(Damaged),
        },
        _ => Err(Damaged),
    }
}

fn bytes_of(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: words are bytes.
    unsafe { words.align_to_mut().1 }
}

/// Whether a page may be text or similar data: few of its words have a byte above 0x7f.
fn is_like_text(page: &[u64; WORDS]) -> bool {
    const LOOKS: usize = 64;
    let looks = page.iter().step_by(WORDS / LOOKS);
    looks.filter(|word| **word & 0x8080_8080_8080_8080 == 0).count() >= LOOKS / 4 * 3
}

/// The result of packing.
pub(super) enum Packed<'a> {
    /// Smaller than the page.
    Compressed(&'a [u8]),
    /// Not worth it.
    Raw,
}

/// The memory for one compression.
pub(super) struct Stream {
    table: CompressTable,
    room: words::Room,
    buffer: [u64; BUFFER],
}

impl Stream {
    /// Compresses a page.
    pub fn pack(&mut self, page: &[u64; WORDS]) -> Packed<'_> {
        let Self { table, room, buffer } = self;
        let len = match words::pack(page, room, &mut buffer[..WORTH / size_of::<u64>()]) {
            Some(words) => words * size_of::<u64>(),
            None if !is_like_text(page) => return Packed::Raw,
            None => {
                // SAFETY: words are bytes.
                let bytes = unsafe { page.align_to().1 };
                let (code, into) = bytes_of(buffer).split_at_mut(1);
                code[0] = BY_LZ4;
                match compress_into_with_table(bytes, into, table) {
                    Ok(len) if len < WORTH => len + 1,
                    _ => return Packed::Raw,
                }
            }
        };
        Packed::Compressed(&bytes_of(buffer)[..len])
    }

    /// Room for a page.
    pub fn buffer(&mut self) -> &mut [u8] {
        bytes_of(&mut self.buffer)
    }
}

/// An empty table, to be copied: a table made in place would first be on the stack, which has no room for it.
static EMPTY: CompressTable = CompressTable::small();

fn new_stream() -> Result<NonNull<UnsafeCell<Stream>>, AllocError> {
    let layout = Layout::new::<UnsafeCell<Stream>>();
    // SAFETY: the layout's size is not 0.
    let place = NonNull::new(unsafe { alloc::alloc::alloc_zeroed(layout) }).ok_or(AllocError)?;
    let stream = place.cast::<UnsafeCell<Stream>>();
    // SAFETY: the memory is new, and large enough. A table is plain data, which may be copied bit by bit; zeros are a
    // buffer.
    unsafe {
        let table = &raw mut (*UnsafeCell::raw_get(stream.as_ptr())).table;
        ptr::copy_nonoverlapping(&raw const EMPTY, table, 1);
    }
    Ok(stream)
}

const _: () = assert!(!core::mem::needs_drop::<CompressTable>());

struct Place {
    is_taken: AtomicBool,
    stream: AtomicPtr<UnsafeCell<Stream>>,
}

/// The streams of a machine.
pub(super) struct Streams<M: Machine> {
    machine: M,
    places: [Place; MAX_CPUS],
}

impl<M: Machine> Streams<M> {
    pub const fn new(machine: M) -> Self {
        let none =
            [const { Place { is_taken: AtomicBool::new(true), stream: AtomicPtr::new(ptr::null_mut()) } }; MAX_CPUS];
        Self { machine, places: none }
    }

    /// Makes `count` streams, at least one.
    pub fn init(&self, count: usize) -> Result<(), AllocError> {
        for place in &self.places[..count.clamp(1, MAX_CPUS)] {
            place.stream.store(new_stream()?.as_ptr(), Release);
            place.is_taken.store(false, Release);
        }
        Ok(())
    }

    /// Calls `work` with a stream. Waits for one if all are taken; in that case no lock may be held.
    pub fn with<R>(&self, work: impl FnOnce(&mut Stream) -> R) -> R {
        let from = self.machine.cpu();
        let place = loop {
            let mut places = (from..from + MAX_CPUS).map(|i| &self.places[i % MAX_CPUS]);
            match places.find(|place| !place.is_taken.swap(true, Acquire)) {
                Some(place) => break place,
                // (The work is completed even if the thread is killed.)
                None => _ = self.machine.resched_point(),
            }
            self.machine.relax();
        };
        // SAFETY: taken by this thread alone, and never freed.
        let done = work(unsafe { &mut *(*place.stream.load(Acquire)).get() });
        place.is_taken.store(false, Release);
        done
    }
}
