//! Memory objects: the reference-counted backing of areas.
//!
//! An object returns the frame for a page index. Three kinds exist: a file of the boot archive, whose whole pages are
//! mapped in place (no copy, no count: the archive is never freed); shared anonymous memory, whose pages are allocated
//! at the first access; and a [file in memory](mod@file), which in addition has a variable length, and can be read and
//! written. Such a file may be [`paged`]: then a pager has its content, and supplies the pages. Devices will be a
//! further kind.
//!
//! # Reverse mapping
//! A page of an object has the object as its owner and its index there; the object knows the areas that map it, by
//! index ([`Mappings`]). A page that an object owns may outlive it. So the object is looked up from the page under the
//! page lock ([`Object::of_page`]), and under that lock the end of the object, or of its ownership
//! ([`Object::give_up`]), clears the owner of the page.
//!
//! # Pages that are elsewhere
//! Anonymous pages and pages of files in memory can be swapped out (`swap.rs`); the tree then says where they are.
//! Whoever asks for such a page gets [`ObjectError::Away`], drops all locks, calls [`Object::bring_in`], and asks
//! again.
//!
//! Lock order: `Rank::MemoryObject` for the pages that the object owns, and for its mappings; one at a time.

pub mod contiguous;
pub(crate) mod dirty;
pub mod file;
mod growth;
mod held;
pub mod paged;
mod radix;
mod swap;
mod view;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use quire_abi::Errno;

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr};
use crate::event::Event;
use crate::fallible::{AllocError, KArc, TryVec};
use crate::frame;
use crate::page::{Page, PageFlags, PageState};
use crate::rmap;
use crate::spans::{BY_INDEX, Spans};
use crate::supply::Supply;
use crate::sync::{Rank, SpinLock};
use crate::table::Machine;
use crate::table::entry::Kind;
use crate::vma::Vma;
use held::Held;
use radix::{Next, Radix};
pub use view::Whereabouts;

/// The areas that map an object, by index.
pub type Mappings<M> = Spans<Vma<M>, BY_INDEX>;

/// The number of pages in place that are given their owner between two points at which others may run.
const POINT_EVERY: usize = 1024;

/// Why an object has no frame for an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectError {
    /// The page is completely after the object's end.
    Beyond,
    /// There was no memory.
    OutOfMemory,
    /// No more memory may be promised ([`Spaces::commit`](crate::spaces::Spaces::commit)).
    NoRoom,
    /// The page is not in memory: [`Object::bring_in`] brings it back.
    Away,
    /// It cannot be read back.
    Damaged,
    /// The pager has refused.
    Refused(Errno),
}

impl From<ObjectError> for Errno {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Beyond => Self::EFAULT,
            ObjectError::OutOfMemory => Self::ENOMEM,
            ObjectError::NoRoom => Self::ENOSPC,
            ObjectError::Away => Self::EAGAIN,
            ObjectError::Damaged => Self::EIO,
            ObjectError::Refused(error) => error,
        }
    }
}

impl From<Errno> for ObjectError {
    /// The error of a pager.
    fn from(error: Errno) -> Self {
        match error {
            // (A killed thread's error does not matter.)
            Errno::EINTR | Errno::ENOMEM => Self::OutOfMemory,
            Errno::ENOSPC => Self::NoRoom,
            error => Self::Refused(error),
        }
    }
}

impl From<AllocError> for ObjectError {
    fn from(_: AllocError) -> Self {
        Self::OutOfMemory
    }
}

/// A frame of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectPage {
    /// Memory that is never freed.
    InPlace(PhysAddr),
    /// A counted frame; the caller gets a reference.
    Counted(Pfn),
}

impl ObjectPage {
    /// The frame's address.
    pub fn addr(self) -> PhysAddr {
        match self {
            Self::InPlace(addr) => addr,
            Self::Counted(pfn) => pfn.addr(),
        }
    }
}

enum Content<M: Machine> {
    /// `len` bytes at `start` in the direct map. Bit n of `synced`: instructions in page n are synchronised.
    BootFile { start: PhysAddr, len: usize, padded: bool, synced: Vec<AtomicU64> },
    /// Pages that begin as zeros.
    SharedAnon { pages: usize, reserved: bool },
    /// A file in memory.
    File(file::State<M>),
}

/// See the module.
pub struct Object<M: Machine> {
    machine: M,
    content: Content<M>,
    /// The pages that the object has, by index.
    owned: SpinLock<Radix, M>,
    /// The number of these pages that are in swap. Changed under the lock of `owned`.
    swapped: AtomicUsize,
    mappings: SpinLock<Mappings<M>, M>,
}

impl<M: Machine> Object<M> {
    /// A file of the boot archive: `len` bytes at `start`, readable for ever and never written. The caller keeps the
    /// object for ever, and makes only one per file, since pages in place refer to it as their owner. `padded`: the
    /// rest of the last page is zeros, so that it can be mapped in place too.
    pub fn boot_file(machine: M, start: PhysAddr, len: usize, padded: bool) -> Result<KArc<Self>, AllocError> {
        let words = len.div_ceil(PAGE_SIZE).div_ceil(64);
        let mut synced: Vec<AtomicU64> = TryVec::try_with_capacity(words)?;
        for _ in 0..words {
            synced.try_push(AtomicU64::new(0))?;
        }
        Self::make(machine, Content::BootFile { start, len, padded, synced })
    }

    /// Shared anonymous memory; if `reserved`, all of it is promised now, otherwise each page when it is allocated.
    pub fn shared_anon(machine: M, pages: usize, reserved: bool) -> Result<KArc<Self>, Errno> {
        let commit = machine.spaces().commit();
        let promised = if reserved { pages } else { 0 };
        commit.charge(machine, promised, 0)?;
        // If the object cannot be made, dropping its content returns the promise too.
        let made = Self::make(machine, Content::SharedAnon { pages, reserved });
        if made.is_err() && seeded!(FailedObjectGivesBackTwice) {
            commit.uncharge(machine, promised);
        }
        Ok(made?)
    }

    fn make(machine: M, content: Content<M>) -> Result<KArc<Self>, AllocError> {
        let owned = SpinLock::new(machine, Rank::MemoryObject, Radix::new());
        let mappings = SpinLock::new(machine, Rank::MemoryObject, Spans::new());
        let this = KArc::try_new(Self { machine, content, owned, swapped: AtomicUsize::new(0), mappings })?;
        // (This is done for the archive's files during boot, when there is nobody else.)
        this.name_in_place(KArc::as_ptr(&this).expose_provenance(), || {});
        Ok(this)
    }

    /// Sets the owner in the records of the pages in place. Most of these frames never belonged to the page allocator.
    /// `point` is called regularly.
    fn name_in_place(&self, owner: usize, point: impl Fn()) {
        for (index, frame) in (0..self.pages()).map_while(|index| Some((index, self.in_place(index)?))) {
            frame::page(self.machine, frame.pfn()).set_owner(owner, index as u64);
            if index % POINT_EVERY == POINT_EVERY - 1 {
                point();
            }
        }
    }

    /// The machine that it is on.
    pub(crate) fn machine(&self) -> M {
        self.machine
    }

    /// The areas that map this.
    #[inline]
    pub(crate) fn mappings(&self) -> &SpinLock<Mappings<M>, M> {
        &self.mappings
    }

    /// The object that owns this page, and the page's index in it. The caller holds a reference to the page, or knows
    /// that it is a page in place.
    pub fn of_page(machine: M, page: &Page) -> Option<(KArc<Self>, usize)> {
        let in_place = page.state() == PageState::Absent;
        if !in_place && page.state() != PageState::Object {
            return None;
        }
        // The object of a page in place is never freed, and the flags of such a record are not used.
        while !in_place && !page.try_lock() {
            machine.relax();
        }
        let owner = core::ptr::with_exposed_provenance::<Self>(page.owner());
        // SAFETY: the object clears its address from its pages when it ends, under the page lock, so its memory is
        // still valid.
        let object = if owner.is_null() { None } else { unsafe { KArc::upgrade(owner) } };
        let index = page.index() as usize;
        if !in_place {
            page.unlock();
        }
        object.map(|object| (object, index))
    }

    /// Whether this is a file of the boot archive rather than memory.
    pub fn is_file(&self) -> bool {
        matches!(self.content, Content::BootFile { .. })
    }

    /// The backing of its pages: flags of their records.
    pub(crate) fn backing(&self) -> PageFlags {
        match &self.content {
            Content::BootFile { .. } => PageFlags::empty(),
            Content::File(file::State { paging: Some(_), .. }) => PageFlags::PAGED,
            _ => PageFlags::SWAP_BACKED,
        }
    }

    /// How its pages are counted where they are mapped.
    pub(crate) fn kind(&self) -> Kind {
        if self.backing().contains(PageFlags::SWAP_BACKED) { Kind::Shared } else { Kind::FileCopy }
    }

    /// Pages from the first to the last byte.
    pub fn pages(&self) -> usize {
        match &self.content {
            Content::BootFile { len, .. } => len.div_ceil(PAGE_SIZE),
            Content::SharedAnon { pages, .. } => *pages,
            Content::File(state) => state.len().div_ceil(PAGE_SIZE as u64) as usize,
        }
    }

    /// The frame in place for `index`, if no memory is needed.
    #[inline]
    pub fn in_place(&self, index: usize) -> Option<PhysAddr> {
        match &self.content {
            Content::BootFile { start, len, padded, .. } if start.is_aligned(PAGE_SIZE) => {
                let whole = if *padded { len.div_ceil(PAGE_SIZE) } else { len >> PAGE_SHIFT };
                (index < whole).then(|| *start + (index << PAGE_SHIFT))
            }
            _ => None,
        }
    }

    /// The frame for `index`, allocated from `supply` if necessary. Does not bring in a page that is not in memory.
    pub fn page(&self, index: usize, supply: &Supply<M>) -> Result<ObjectPage, ObjectError> {
        match &self.content {
            Content::SharedAnon { pages, .. } if index < *pages => {}
            _ if index >= self.pages() => return Err(ObjectError::Beyond),
            _ => {
                if let Some(addr) = self.in_place(index) {
                    return Ok(ObjectPage::InPlace(addr));
                }
            }
        }
        if let Some(pfn) = self.resident(index)? {
            return Ok(ObjectPage::Counted(pfn));
        }
        if self.is_paged() {
            return Err(ObjectError::Away);
        }
        // Made without the lock; if another CPU has made one meanwhile, that one is used.
        let pfn = supply.user(true)?;
        self.fill(pfn, index);
        self.enter(index, pfn, supply, true)
    }

    /// Makes `pfn`, a frame that only the caller knows, the page at `index`, unless there is one; returns the page that
    /// is there then, with a reference. A frame that does not become the page is freed. If `within`, this is only done
    /// below the object's end.
    #[inline(always)]
    fn enter(&self, index: usize, pfn: Pfn, supply: &Supply<M>, within: bool) -> Result<ObjectPage, ObjectError> {
        let mut owned = self.owned.lock();
        let nodes = owned.nodes();
        let entered = self.enter_locked(&mut owned, index, pfn, supply, within);
        let is_page = entered == Ok(ObjectPage::Counted(pfn));
        self.count_copies(usize::from(is_page), owned.nodes() - nodes);
        drop(owned);
        if !(is_page || entered.is_err() && seeded!(FailedIndexLosesPage)) {
            frame::free(self.machine, pfn);
        }
        entered
    }

    #[inline(always)]
    fn enter_locked(
        &self,
        owned: &mut Radix,
        index: usize,
        pfn: Pfn,
        supply: &Supply<M>,
        within: bool,
    ) -> Result<ObjectPage, ObjectError> {
        // The file may have been truncated since its end was checked.
        if within
            && let Content::File(_) = self.content
            && index >= self.pages()
            && !seeded!(FaultEntersBehindEnd)
        {
            return Err(ObjectError::Beyond);
        }
        let place = owned.place(index, supply)?;
        if *place != 0 {
            return self.hold(*place).map(ObjectPage::Counted);
        }
        self.promise_page()?;
        // Only after it is in the tree: a page that can be found refers to its object, whose end clears that reference
        // only for pages in the tree.
        frame::make_object(self.machine, pfn, core::ptr::from_ref(self).expose_provenance(), index, self.backing());
        *place = Held::Page(pfn).word();
        Ok(ObjectPage::Counted(pfn))
    }

    /// Counts one more owned page, unless it was promised before. Under the lock.
    #[inline(always)]
    fn promise_page(&self) -> Result<(), ObjectError> {
        match &self.content {
            Content::SharedAnon { reserved: true, .. } | Content::BootFile { .. } => {}
            Content::SharedAnon { .. } => self.machine.spaces().commit().charge_unasked(self.machine),
            Content::File(file::State { paging: Some(paging), .. }) => self.count_cached(paging, 1),
            Content::File(state) => {
                self.machine.spaces().commit().charge(self.machine, 1, 0).map_err(|_| ObjectError::NoRoom)?;
                state.count_page(1);
            }
        }
        Ok(())
    }

    /// Counts one owned page less. Under the lock.
    fn unpromise_page(&self) {
        match &self.content {
            Content::SharedAnon { reserved: false, .. } => {}
            Content::File(state) => state.count_page(-1),
            _ => return,
        }
        self.machine.spaces().commit().uncharge(self.machine, 1);
    }

    /// Counts copies of a file's pages, which are permanent, and their tree nodes.
    fn count_copies(&self, pages: usize, nodes: usize) {
        if self.is_file() {
            self.machine.count(Event::ArchiveCopy, pages);
            self.machine.count(Event::ArchiveNode, nodes);
        }
    }

    /// The frame of the page at `index`, with a new reference; `None` if there is no such page.
    #[inline]
    fn resident(&self, index: usize) -> Result<Option<Pfn>, ObjectError> {
        let owned = self.owned.lock();
        owned.get(index).map(|word| self.hold(word)).transpose()
    }

    /// The frame of a page with this word, with a new reference. Under the lock.
    #[inline(always)]
    fn hold(&self, word: u64) -> Result<Pfn, ObjectError> {
        let pfn = Held::page(word).ok_or(ObjectError::Away)?;
        #[cfg(test)]
        self.machine.note_found(pfn);
        if frame::page(self.machine, pfn).get() { Ok(pfn) } else { Err(ObjectError::OutOfMemory) }
    }

    /// Gives up the pages at `first` and above, below `end`, up to the first one that is in memory; returns its index,
    /// and its frame with the object's reference. A fault that got this page from [`Object::page`] earlier holds a
    /// reference, and still maps it.
    pub(crate) fn give_up(&self, first: usize, end: usize) -> Option<(usize, Pfn)> {
        debug_assert!(!self.is_file(), "the pages of a file are not given up");
        let mut from = first;
        let (index, pfn) = loop {
            let mut owned = self.owned.lock();
            match owned.next(from) {
                Next::Word(index, word) if index < end => {
                    let was_marked = owned.take(index);
                    match self.is_paged() {
                        true => self.note_taken(Held::page(word).is_some(), was_marked),
                        false => self.unpromise_page(),
                    }
                    if let Some(pfn) = self.let_go(word) {
                        break (index, pfn);
                    }
                    from = index + 1;
                }
                Next::Later(index) if index < end => from = index,
                _ => return None,
            }
            drop(owned);
            // (An operation that has begun is completed.)
            let _ = self.machine.resched_point();
        };
        // Not under the spin lock: a thread may be preempted while it has the page locked.
        self.disown(frame::page(self.machine, pfn));
        Some((index, pfn))
    }

    /// Makes `new`, a frame that only the caller knows, the object's page `index` in place of `old`, with its contents.
    /// `false`, with nothing changed, if the object has given `old` up, or if `old` has other references than the
    /// object's and the caller's. Otherwise `old` is frozen, and the caller has one reference to `new`.
    ///
    /// The page is copied under the lock, so whoever gets a page of the object finds it complete, in one of the frames.
    pub(crate) fn exchange(&self, index: usize, old: Pfn, new: Pfn) -> bool {
        let (from, to) = (frame::page(self.machine, old), frame::page(self.machine, new));
        let mut owned = self.owned.lock();
        let Some(place) = owned.get_mut(index).filter(|place| **place == Held::Page(old).word()) else { return false };
        if !from.freeze(2) && !seeded!(MovedPageIgnoresHolders) {
            return false;
        }
        self.machine.copy_page(new.addr(), old.addr());
        if self.is_file() && !seeded!(MovedFileForgetsInstructions) {
            // `synced` applies to the page, in whichever frame it is.
            self.machine.sync_instructions(new.addr());
        }
        // (The new frame is counted when it becomes the object's.)
        self.machine.groups().count_files(from.control_group(), from.flags(), -1);
        frame::take_place(self.machine, old, new);
        if !seeded!(MovedPageIsClean) {
            to.set_flags(from.flags() & PageFlags::DIRTY);
        }
        let owner = core::ptr::from_ref(self).expose_provenance();
        frame::make_object(self.machine, new, owner, index, self.backing());
        if !seeded!(MovedPageStaysInTree) {
            *place = Held::Page(new).word();
        }
        true
    }

    fn disown(&self, page: &Page) {
        while !page.try_lock() {
            self.machine.relax();
        }
        page.set_owner(0, 0);
        page.unlock();
    }

    /// Whether the object owns the frame as its page `index`.
    pub(crate) fn owns(&self, index: usize, pfn: Pfn) -> bool {
        self.owned.lock().get(index) == Some(Held::Page(pfn).word())
    }

    /// Whether the page at `index` is in memory.
    pub fn is_resident(&self, index: usize) -> bool {
        self.in_place(index).is_some() || self.owned.lock().get(index).and_then(Held::page).is_some()
    }

    /// Copies the file's bytes of page `index` into a zeroed frame.
    fn fill(&self, pfn: Pfn, index: usize) {
        if let Content::BootFile { start, len, .. } = &self.content {
            frame::forget_charge(self.machine, pfn);
            let from = index << PAGE_SHIFT;
            let bytes = (len - from).min(PAGE_SIZE);
            // SAFETY: the archive's bytes are in the direct map for ever (`boot_file`); the frame is new and unshared;
            // they do not overlap.
            unsafe {
                let source = self.machine.direct_map(*start + from);
                core::ptr::copy_nonoverlapping(source, self.machine.direct_map(pfn.addr()), bytes);
            }
        }
    }

    /// Synchronises instructions in the page at `index`, whose frame is `addr`.
    #[cfg_attr(test, track_caller)]
    pub fn prepare_exec(&self, index: usize, addr: PhysAddr) {
        let Content::BootFile { synced, .. } = &self.content else {
            if !seeded!(SharedPageForgetsInstructions) {
                self.machine.sync_instructions(addr);
            }
            return;
        };
        let Some(word) = synced.get(index / 64) else { return };
        // The content never changes, so once is enough. Release and Acquire: a CPU that sees the bit may rely on it.
        if word.load(Ordering::Acquire) & 1 << (index % 64) == 0 {
            if !seeded!(FilePageForgetsInstructions) {
                self.machine.sync_instructions(addr);
            }
            word.fetch_or(1 << (index % 64), Ordering::Release);
        }
    }
}

impl<M: Machine> Drop for Object<M> {
    /// Drops one page at a time: there may be any number. The last owner holds no spin lock.
    fn drop(&mut self) {
        let machine = self.machine;
        // A kill does not end this.
        let point = || _ = machine.resched_point();
        self.name_in_place(0, point);
        let mut release = rmap::Release::new(machine);
        let mut owned = 0;
        let mut pages = core::mem::replace(self.owned.get_mut(), Radix::new());
        pages.drain(|words| {
            for word in words.iter().filter(|word| **word != 0) {
                owned += 1;
                if let Some(pfn) = self.let_go(*word) {
                    self.disown(frame::page(machine, pfn));
                    release.page(pfn);
                }
            }
            point();
        });
        let promised = match self.content {
            Content::SharedAnon { pages, reserved: true } => pages,
            Content::File(file::State { paging: Some(_), .. }) => return self.note_end(),
            Content::SharedAnon { .. } | Content::File(_) => owned,
            Content::BootFile { .. } => return,
        };
        machine.spaces().commit().uncharge(machine, promised);
    }
}
