//! Swap in memory: the contents of pages that have left their frames, compressed.
//!
//! A *slot* holds the contents of one page. It has a count of users: the entries that stand for the page, and threads
//! that access it; the last one frees it. A slot's number is the address of its [`Record`], so it is found without a
//! search, and without a table that would have to be as large as swap may become.
//!
//! Contents that repeat one word are stored as that word, in the record itself. Others are compressed ([`codec`]) and
//! packed into blocks of frames ([`blocks`]). Contents that do not become smaller are refused, or take a whole frame if
//! the caller insists.
//!
//! The store grows when memory is short: its frames come from the reserves ([`alloc_from_reserves`]), since each of
//! them soon allows several others to be freed. It never exceeds its limit, and frees what it does not use.
//!
//! # Locks
//! One lock (`Rank::SwapStore`) protects all lists, and is held for a few steps. Contents are read and written without
//! it, since those of a slot do not change while it has users. Users are counted without it too.
//!
//! [`alloc_from_reserves`]: crate::frame::alloc_from_reserves

mod blocks;
mod codec;
mod lists;
mod records;
#[cfg(test)]
mod tests;
mod words;

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};

use crate::addr::{PAGE_SIZE, Pfn, PhysAddr};
use crate::cgroup::Machine;
use crate::fallible::AllocError;
use crate::sync::{Rank, SpinLock};

use blocks::Blocks;
use codec::{Packed, Streams};
use records::{Record, Records};

/// Words in a page.
const WORDS: usize = PAGE_SIZE / size_of::<u64>();

/// A slot's number, below 2^44.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

/// The number of bits of a slot's number.
pub const SLOT_BITS: u32 = 44;

/// Why a page's contents were not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// They do not become smaller.
    Incompressible,
    /// There is no room.
    Full,
}

/// A slot cannot be read back: its contents were damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// The counts of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The most slots.
    pub slots: usize,
    /// Slots that have users.
    pub used: usize,
    /// Of these, slots whose contents repeat one word.
    pub same: usize,
    /// Of these, slots whose contents are stored uncompressed.
    pub raw: usize,
    /// Bytes of compressed contents.
    pub bytes: usize,
    /// Frames that the store uses.
    pub frames: usize,
}

/// The state of a slot at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Its number.
    pub slot: Slot,
    /// The number of its users: entries, and others.
    pub users: u32,
    /// The size of its contents in bytes; 0 if they repeat one word, [`PAGE_SIZE`] if they are stored uncompressed.
    pub len: usize,
    /// The first frame of the block that contains them; `None` for a word.
    pub block: Option<Pfn>,
}

/// The lists.
struct Store<M: Machine> {
    records: Records<M>,
    blocks: Blocks<M>,
    used: usize,
    same: usize,
    raw: usize,
    bytes: usize,
}

/// See the module.
pub struct Swap<M: Machine> {
    machine: M,
    /// The maximum number of slots; 0 until swap is on.
    slots: AtomicUsize,
    /// The most frames.
    limit: AtomicUsize,
    /// No new slots.
    is_closed: AtomicBool,
    streams: Streams<M>,
    store: SpinLock<Store<M>, M>,
}

impl<M: Machine> Swap<M> {
    /// No swap.
    pub const fn new(machine: M) -> Self {
        let store =
            Store { records: Records::new(machine), blocks: Blocks::new(machine), used: 0, same: 0, raw: 0, bytes: 0 };
        Self {
            machine,
            slots: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            streams: Streams::new(machine),
            store: SpinLock::new(machine, Rank::SwapStore, store),
        }
    }

    /// Switches swap on, once: with at most `slots` pages, in at most `limit` frames. `streams` threads can compress at
    /// a time.
    pub fn init(&self, slots: usize, limit: usize, streams: usize) -> Result<(), AllocError> {
        self.streams.init(streams)?;
        self.limit.store(limit, Relaxed);
        self.slots.store(slots, Release);
        Ok(())
    }

    /// Whether there is swap.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.slots.load(Acquire) != 0
    }

    /// Whether nothing more can be stored.
    pub fn is_full(&self) -> bool {
        let store = self.store.lock();
        self.is_out(&store)
    }

    fn is_out(&self, store: &Store<M>) -> bool {
        store.used >= self.slots.load(Relaxed) || store.frames() >= self.limit.load(Relaxed)
    }

    /// Stores the contents of a frame that nobody writes to, for the control group that the page is charged to. The
    /// caller becomes the slot's user. With `even_raw`, contents that do not become smaller take a frame.
    pub fn write(&self, frame: PhysAddr, even_raw: bool, group: u16) -> Result<Slot, Refused> {
        // (Otherwise the wait for a stream would never end.)
        if !self.is_on() {
            return Err(Refused::Full);
        }
        self.machine.groups().charge_slot(group).map_err(|_| Refused::Full)?;
        let done = self.store(frame, even_raw, group);
        if done.is_err() {
            self.machine.groups().uncharge_slot(group);
        }
        done
    }

    fn store(&self, frame: PhysAddr, even_raw: bool, group: u16) -> Result<Slot, Refused> {
        // SAFETY: a whole frame, which nobody writes to.
        let words = unsafe { &*self.machine.direct_map(frame).cast::<[u64; WORDS]>() };
        if let Some(word) = codec::repeated_word(words) {
            let mut store = self.store.lock();
            let record = self.new_record(&mut store)?;
            store.same += 1;
            record.set_word(word, group);
            return Ok(self.slot_of(record));
        }
        // SAFETY: words are bytes.
        let page = unsafe { &*words.as_ptr().cast::<[u8; PAGE_SIZE]>() };
        self.streams.with(|stream| {
            let packed = match stream.pack(words) {
                Packed::Raw if !even_raw => return Err(Refused::Incompressible),
                Packed::Raw => &page[..],
                Packed::Compressed(bytes) => bytes,
            };
            let (record, place) = {
                let mut store = self.store.lock();
                let record = self.new_record(&mut store)?;
                let Some(place) = store.blocks.alloc(packed.len()) else {
                    self.drop_record(&mut store, record);
                    return Err(Refused::Full);
                };
                store.bytes += packed.len();
                store.raw += (packed.len() == PAGE_SIZE) as usize;
                (record, place)
            };
            blocks::write(self.machine, place, packed);
            record.set_place(place, packed.len(), group);
            Ok(self.slot_of(record))
        })
    }

    /// A record with one user, whose contents are not set yet.
    fn new_record(&self, store: &mut Store<M>) -> Result<&'static Record, Refused> {
        if self.is_out(store) || self.is_closed.load(Relaxed) {
            return Err(Refused::Full);
        }
        let record = store.records.alloc().ok_or(Refused::Full)?;
        store.used += 1;
        Ok(record)
    }

    fn drop_record(&self, store: &mut Store<M>, record: &'static Record) {
        store.used -= 1;
        store.records.free(record);
    }

    fn slot_of(&self, record: &'static Record) -> Slot {
        let addr = self.machine.direct_map_to_phys(core::ptr::from_ref(record).cast());
        Slot((addr.get() / size_of::<Record>()) as u64)
    }

    /// The record of a slot that has users.
    #[inline]
    fn record(&self, slot: Slot) -> &'static Record {
        let addr = PhysAddr::new(slot.0 as usize * size_of::<Record>());
        // SAFETY: slots come from `slot_of`, and a record stays for as long as it has users, of which the caller is or
        // knows one.
        unsafe { &*self.machine.direct_map(addr).cast::<Record>() }
    }

    /// Reads the contents of a slot that the caller is a user of into a frame of its own.
    pub fn read(&self, slot: Slot, into: PhysAddr) -> Result<(), Damaged> {
        // SAFETY: a whole frame, which nobody else accesses.
        self.read_words(slot, unsafe { &mut *self.machine.direct_map(into).cast() })
    }

    /// As [`Swap::read`], into any memory.
    pub(crate) fn read_words(&self, slot: Slot, into: &mut [u64; WORDS]) -> Result<(), Damaged> {
        // SAFETY: words are bytes.
        let page = unsafe { &mut *into.as_mut_ptr().cast::<[u8; PAGE_SIZE]>() };
        let record = self.record(slot);
        match record.contents() {
            records::Contents::Word(word) => {
                into.fill(word);
                Ok(())
            }
            records::Contents::At(place, PAGE_SIZE) => {
                blocks::read(self.machine, place, page);
                Ok(())
            }
            records::Contents::At(place, len) => match blocks::contiguous(self.machine, place, len) {
                Some(bytes) => codec::unpack(bytes, into),
                None => self.streams.with(|stream| {
                    let bytes = &mut stream.buffer()[..len];
                    blocks::read(self.machine, place, bytes);
                    codec::unpack(bytes, into)
                }),
            },
        }
    }

    /// Adds a user to a slot that has users. May be called with a table locked.
    #[inline]
    pub fn share(&self, slot: Slot) {
        self.record(slot).share();
    }

    /// The control group to which a slot with users is charged.
    pub(crate) fn group(&self, slot: Slot) -> u16 {
        self.record(slot).group()
    }

    /// Removes a user. May be called with a table locked.
    pub fn release(&self, slot: Slot) {
        let record = self.record(slot);
        if !record.release() {
            return;
        }
        let group = record.group();
        {
            let mut store = self.store.lock();
            self.end(&mut store, record);
        }
        if !seeded!(SlotStaysCharged) {
            self.machine.groups().uncharge_slot(group);
        }
    }

    fn end(&self, store: &mut Store<M>, record: &'static Record) {
        match record.contents() {
            records::Contents::Word(_) => store.same -= 1,
            records::Contents::At(place, len) => {
                store.bytes -= len;
                store.raw -= (len == PAGE_SIZE) as usize;
                store.blocks.free(place, len);
            }
        }
        self.drop_record(store, record);
    }

    /// The state of a slot, for display. The caller keeps it from being freed.
    pub fn view(&self, slot: Slot) -> SlotView {
        let record = self.record(slot);
        let (len, block) = match record.contents() {
            records::Contents::Word(_) => (0, None),
            records::Contents::At(place, len) => (len, Some(place.block)),
        };
        SlotView { slot, users: record.users(), len, block }
    }

    /// The number of a slot's users, for checks.
    pub fn users(&self, slot: Slot) -> u32 {
        self.record(slot).users()
    }

    /// Damages the compressed contents of a slot.
    #[cfg(test)]
    pub(crate) fn damage(&self, slot: Slot) {
        match self.record(slot).contents() {
            records::Contents::At(place, len) if len != PAGE_SIZE => {
                blocks::write(self.machine, place, &[0xff; PAGE_SIZE][..len]);
            }
            _ => panic!("the contents are not compressed"),
        }
    }

    /// The present counts of the store.
    pub fn stats(&self) -> Stats {
        let slots = self.slots.load(Relaxed);
        let store = self.store.lock();
        let Store { used, same, raw, bytes, .. } = *store;
        Stats { slots, used, same, raw, bytes, frames: store.frames() }
    }
}

impl<M: Machine> Store<M> {
    fn frames(&self) -> usize {
        self.records.frames() + self.blocks.frames()
    }
}
