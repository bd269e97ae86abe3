//! mmap.

use alloc::boxed::Box;

use quire_abi::Errno;
use quire_abi::flags::{Map, Prot};

use super::residence::{POINT_EVERY, Populate};
use super::{Areas, Intent, MAX_MAP_COUNT, Mm};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::fallible::KArc;
use crate::machine::Limit;
use crate::mm::Machine;
use crate::object::Object;
use crate::spaces::HugePages;
use crate::supply::{Supply, supplied};
use crate::table::LEAF_SPAN;
use crate::vma::{Backing, Kind, Spot, VmFlags, Vma};

/// The arguments of mmap, with descriptor and offset resolved to an object and an index.
pub struct MapRequest<M: Machine> {
    /// Where: a hint, or exactly with `Map::FIXED`.
    pub addr: usize,
    /// Bytes; rounded up to pages.
    pub len: usize,
    /// Rights.
    pub prot: Prot,
    /// All bits as the program gave them (`from_bits_retain`).
    pub flags: Map,
    /// The object and its page index; `None` with `Map::ANONYMOUS`.
    pub object: Option<(KArc<Object<M>>, usize)>,
    /// The rights that the descriptor allows, now and later. Without WRITE, for a file open for reading, shared
    /// mappings can never become writable.
    pub max_prot: Prot,
}

impl<M: Machine> MapRequest<M> {
    /// A private anonymous mapping at any address.
    pub fn anonymous(len: usize, prot: Prot) -> Self {
        let flags = Map::PRIVATE | Map::ANONYMOUS;
        Self { addr: 0, len, prot, flags, object: None, max_prot: Prot::all() }
    }
}

/// The flags that MAP_SHARED_VALIDATE accepts.
const KNOWN: Map = Map::SHARED_VALIDATE
    .union(Map::FIXED)
    .union(Map::ANONYMOUS)
    .union(Map::GROWSDOWN)
    .union(Map::DENYWRITE)
    .union(Map::EXECUTABLE)
    .union(Map::LOCKED)
    .union(Map::NORESERVE)
    .union(Map::POPULATE)
    .union(Map::NONBLOCK)
    .union(Map::STACK)
    .union(Map::FIXED_NOREPLACE);

impl<M: Machine> Mm<M> {
    /// Maps memory: mmap's semantics and errors, except those about the descriptor. Returns the address.
    pub fn map(&self, request: &MapRequest<M>) -> Result<UserAddr, Errno> {
        if request.len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = request.len.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let pages = len >> PAGE_SHIFT;
        let mut flags = area_flags(request)?;
        // Mode 2 does not honour it.
        flags.set(VmFlags::NORESERVE, flags.contains(VmFlags::NORESERVE) && self.machine.spaces().commit().may_skip());
        if let Some((_, index)) = &request.object {
            index.checked_add(pages).filter(|end| *end <= usize::MAX >> PAGE_SHIFT).ok_or(Errno::EOVERFLOW)?;
        }
        if request.flags.contains(Map::HUGETLB) {
            // As if there were a pool of huge pages that is empty.
            return Err(Errno::ENOMEM);
        }
        let (start, flags) = supplied(self.machine, |supply| self.try_map(request, len, flags, supply))?;
        if flags.contains(VmFlags::LOCKED) || request.flags & (Map::POPULATE | Map::NONBLOCK) == Map::POPULATE {
            // mmap succeeds even if this does not.
            let _ = self.populate(start, start + len, Populate::AsMapped);
        }
        Ok(start)
    }

    /// Returns the area's address, and its flags.
    fn try_map(
        &self,
        request: &MapRequest<M>,
        len: usize,
        flags: VmFlags,
        supply: &Supply<M>,
    ) -> Result<(UserAddr, VmFlags), Errno> {
        let backing = match &request.object {
            Some((object, index)) => Some(Backing { object: object.clone(), index: *index }),
            None if flags.contains(VmFlags::SHARED) => {
                let reserve = !flags.contains(VmFlags::NORESERVE);
                Some(Backing { object: Object::shared_anon(self.machine, len >> PAGE_SHIFT, reserve)?, index: 0 })
            }
            None => None,
        };
        let mut areas = self.areas.intend_killable()?;
        let mut flags = flags | areas.default_flags;
        let is_paged = backing.as_ref().is_some_and(|backing| backing.object.is_paged());
        flags.set(VmFlags::NOTES_STORES, is_paged && flags.contains(VmFlags::SHARED));
        let mapped = self.map_object_or_none(&mut areas, request, flags, backing, supply);
        if mapped.is_ok() || !seeded!(FailedMapKeepsPromise) {
            self.uncharge_rest(&areas);
        }
        Ok((mapped?, flags))
    }

    /// Where a new area of whole blocks lies if blocks may come there, and it may lie anywhere.
    #[cold]
    fn place_for_blocks(
        &self,
        areas: &Areas<M>,
        request: &MapRequest<M>,
        flags: VmFlags,
        len: usize,
    ) -> Option<UserAddr> {
        let is_private = request.object.is_none() && !flags.contains(VmFlags::SHARED);
        let is_free = request.addr == 0 && !request.flags.intersects(Map::FIXED | Map::FIXED_NOREPLACE);
        let may = is_private && is_free && self.huge_pages() != HugePages::Never;
        if may { find_aligned(areas, len) } else { None }
    }

    /// Finds the place, checks the limits, and inserts the area.
    fn map_object_or_none(
        &self,
        areas: &mut Intent<'_, M>,
        request: &MapRequest<M>,
        flags: VmFlags,
        backing: Option<Backing<M>>,
        supply: &Supply<M>,
    ) -> Result<UserAddr, Errno> {
        let len = request.len.next_multiple_of(PAGE_SIZE);
        if areas.tree.len() >= MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let pages = len >> PAGE_SHIFT;
        let aligned =
            if len.is_multiple_of(LEAF_SPAN) { self.place_for_blocks(areas, request, flags, len) } else { None };
        let start = aligned.map_or_else(|| place(areas, request, len), Ok)?;
        let end = start + len;
        if request.flags.contains(Map::LOCKED) && self.limit(Limit::MemLock) == 0 {
            return Err(Errno::EPERM);
        }
        self.may_lock(areas, flags, pages)?;
        let fixed = request.flags.contains(Map::FIXED);
        let replaced = if fixed { self.pages_with(areas, start, end, VmFlags::empty()) } else { 0 };
        if !self.may_expand(areas, flags, pages - replaced.min(pages)) {
            return Err(Errno::ENOMEM);
        }
        // Replaced pages are credited against new ones.
        let given_up = if fixed { self.pages_with(areas, start, end, VmFlags::ACCOUNT) } else { 0 };
        let flags = self.promise(areas, flags, pages - given_up)?;
        if fixed && replaced != 0 {
            // Allocated before anything is unmapped, so that nothing can fail after the old mapping is gone.
            let mut new = supply.boxed(|| Vma::new(start, end, flags, backing))?;
            self.unmap_range(areas, start, end, supply)?;
            new.pgoff = areas.tree.pgoff_for(start, end, &new.kind());
            let between = neighbours(areas, start, end, &new.kind());
            self.put_area(areas, start, end, flags, between, Some(new));
        } else {
            self.insert_area(areas, start, end, flags, backing, supply)?;
        }
        Ok(start)
    }

    /// Pages of a range that are in areas with all these flags. O(areas of the range).
    pub(super) fn pages_with(&self, areas: &Areas<M>, start: UserAddr, end: UserAddr, flags: VmFlags) -> usize {
        let mut pages = 0;
        for (n, vma) in areas.tree.range(start, end).enumerate() {
            if n % POINT_EVERY == POINT_EVERY - 1 {
                // (This only sums: a killed thread ends at the next lock.)
                let _ = self.machine.resched_point();
            }
            if vma.flags.contains(flags) {
                pages += (vma.end.min(end) - vma.start.max(start)) >> PAGE_SHIFT;
            }
        }
        pages
    }

    /// Whether `pages` more of this kind fit the limit on locked memory, if they are locked.
    pub(super) fn may_lock(&self, areas: &Areas<M>, flags: VmFlags, pages: usize) -> Result<(), Errno> {
        let fits = !flags.contains(VmFlags::LOCKED) || areas.locked + pages <= self.limit_pages(Limit::MemLock);
        if fits { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    /// Inserts an area into a free range, and merges it with neighbours of the same kind.
    pub(super) fn insert_area(
        &self,
        areas: &mut Intent<'_, M>,
        start: UserAddr,
        end: UserAddr,
        flags: VmFlags,
        backing: Option<Backing<M>>,
        supply: &Supply<M>,
    ) -> Result<(), Errno> {
        let mut kind = Kind {
            flags,
            pgoff: 0,
            object: backing.as_ref().map(|b| &b.object),
            index: backing.as_ref().map_or(0, |b| b.index),
        };
        kind.pgoff = areas.tree.pgoff_for(start, end, &kind);
        let pgoff = kind.pgoff;
        let between = neighbours(areas, start, end, &kind);
        let new = match between.joins {
            (false, false) => {
                let mut new = supply.boxed(|| Vma::new(start, end, flags, backing))?;
                new.pgoff = pgoff;
                Some(new)
            }
            _ => None,
        };
        self.put_area(areas, start, end, flags, between, new);
        Ok(())
    }

    /// Fills a free range whose [`neighbours`] have just been looked up.
    #[inline(always)]
    fn put_area(
        &self,
        areas: &mut Intent<'_, M>,
        start: UserAddr,
        end: UserAddr,
        flags: VmFlags,
        between: Between<M>,
        new: Option<Box<Vma<M>>>,
    ) {
        let mut areas = areas.write();
        areas.count_in(flags, (end - start) >> PAGE_SHIFT);
        // SAFETY: only the holder of the intent changes the tree.
        unsafe { join(&mut areas, start, end, between, new) };
    }
}

/// A free range between two areas.
pub(super) struct Between<M: Machine> {
    /// The area after it.
    next: Spot<M>,
    /// Whether a new area there would merge with the area before it, and with the area after it.
    pub joins: (bool, bool),
}

/// Looks up the neighbours of an area of this kind.
pub(super) fn neighbours<M: Machine>(
    areas: &Areas<M>,
    start: UserAddr,
    end: UserAddr,
    kind: &Kind<'_, M>,
) -> Between<M> {
    let spot = areas.tree.spot(start);
    // SAFETY: the tree is borrowed.
    let next = unsafe { areas.tree.at_spot(spot) };
    let prev = match next {
        Some(next) => areas.tree.prev(next),
        None => areas.tree.find_before(start),
    };
    let joins_prev = prev.is_some_and(|vma| vma.end == start && vma.continues_with(kind));
    let joins_next = next.is_some_and(|vma| vma.start == end && kind.after((end - start) >> PAGE_SHIFT) == vma.kind());
    Between { next: spot, joins: (joins_prev, joins_next) }
}

/// Extends the neighbours over the free range `start..end`, as [`neighbours`] found, or else inserts `new`.
///
/// # Safety
/// The tree has not changed since [`neighbours`].
pub(super) unsafe fn join<M: Machine>(
    areas: &mut Areas<M>,
    start: UserAddr,
    end: UserAddr,
    between: Between<M>,
    new: Option<Box<Vma<M>>>,
) {
    // SAFETY: the caller's promise.
    let mut cursor = unsafe { areas.tree.cursor_at(between.next) };
    match between.joins {
        (true, true) => {
            let Some(next) = cursor.remove() else { return };
            cursor.retreat();
            cursor.set_end(next.end);
        }
        (true, false) => {
            cursor.retreat();
            cursor.set_end(end);
        }
        (false, true) => cursor.set_start(start),
        (false, false) => {
            if let Some(new) = new {
                cursor.insert_before(new);
            }
        }
    }
}

/// The flags of an area for this request, or an error.
fn area_flags<M: Machine>(request: &MapRequest<M>) -> Result<VmFlags, Errno> {
    let may = VmFlags::MAY_READ | VmFlags::MAY_WRITE | VmFlags::MAY_EXEC;
    let mut flags = VmFlags::from_prot(request.prot) | may;
    let grows = request.flags.contains(Map::GROWSDOWN);
    let kind = request.flags & Map::SHARED_VALIDATE;
    if kind == Map::SHARED_VALIDATE {
        if request.object.is_none() {
            return Err(Errno::EINVAL);
        }
        if !KNOWN.contains(request.flags) {
            return Err(Errno::EOPNOTSUPP);
        }
    }
    if kind.is_empty() || grows && (kind != Map::PRIVATE || request.object.is_some()) {
        return Err(Errno::EINVAL);
    }
    if request.object.is_some() {
        if !request.max_prot.contains(Prot::READ) {
            return Err(Errno::EACCES);
        }
        if !request.max_prot.contains(Prot::EXEC) {
            if flags.contains(VmFlags::EXEC) {
                return Err(Errno::EPERM);
            }
            flags -= VmFlags::MAY_EXEC;
        }
    }
    if kind != Map::PRIVATE {
        flags |= VmFlags::SHARED;
        if request.object.is_some() && !request.max_prot.contains(Prot::WRITE) {
            if flags.contains(VmFlags::WRITE) {
                return Err(Errno::EACCES);
            }
            flags -= VmFlags::MAY_WRITE;
        }
    }
    flags.set(VmFlags::GROWSDOWN, grows);
    flags.set(VmFlags::NORESERVE, request.flags.contains(Map::NORESERVE));
    flags.set(VmFlags::LOCKED, request.flags.contains(Map::LOCKED));
    Ok(flags)
}

/// Chooses the address for `len` bytes.
fn place<M: Machine>(areas: &Areas<M>, request: &MapRequest<M>, len: usize) -> Result<UserAddr, Errno> {
    let layout = &areas.layout;
    let addr = UserAddr::new(request.addr);
    let task_size = layout.task_size.get();
    if len > task_size {
        return Err(Errno::ENOMEM);
    }
    if request.flags.intersects(Map::FIXED | Map::FIXED_NOREPLACE) {
        if addr.get() > task_size - len {
            return Err(Errno::ENOMEM);
        }
        if !addr.is_aligned(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        if addr < layout.mmap_min {
            return Err(Errno::EPERM);
        }
        if request.flags.contains(Map::FIXED_NOREPLACE) && !areas.tree.is_free(addr, addr + len) {
            return Err(Errno::EEXIST);
        }
        return Ok(addr);
    }
    find_place(areas, addr.page_floor(), len)
}

/// The highest aligned place for whole blocks in the highest gap below the mmap base that has one for sure.
fn find_aligned<M: Machine>(areas: &Areas<M>, len: usize) -> Option<UserAddr> {
    const SLACK: usize = LEAF_SPAN - PAGE_SIZE;
    let layout = &areas.layout;
    let all = len.checked_add(SLACK)?;
    let gap = areas.tree.highest_gap(all, layout.mmap_min.get(), layout.mmap_base.get())?;
    Some(UserAddr::new((gap.get() + SLACK) & !(LEAF_SPAN - 1)))
}

/// Chooses the address for `len` bytes, at `hint` if possible and not 0.
pub(super) fn find_place<M: Machine>(areas: &Areas<M>, hint: UserAddr, len: usize) -> Result<UserAddr, Errno> {
    if hint.get() != 0 {
        let hint = hint.max(areas.layout.mmap_min);
        let last = areas.layout.task_size.get().checked_sub(len).ok_or(Errno::ENOMEM)?;
        if hint.get() <= last && fits_at(areas, hint, len) {
            return Ok(hint);
        }
    }
    find_gap(areas, len)
}

/// The highest gap below the mmap base, else the lowest above it.
fn find_gap<M: Machine>(areas: &Areas<M>, len: usize) -> Result<UserAddr, Errno> {
    let layout = &areas.layout;
    let (low, base, top) = (layout.mmap_min.get(), layout.mmap_base.get(), layout.task_size.get());
    areas.tree.highest_gap(len, low, base).or_else(|| areas.tree.lowest_gap(len, base, top)).ok_or(Errno::ENOMEM)
}

/// Whether the range is free and keeps the guard gap below a stack.
fn fits_at<M: Machine>(areas: &Areas<M>, start: UserAddr, len: usize) -> bool {
    areas.tree.find_from(start).is_none_or(|next| start.get() + len <= next.guarded_start())
}
