//! `Vma`: a range of pages of one address space with the same properties.
//!
//! A private Vma's anonymous pages are found by their *pgoff* (Linux's `vm_pgoff`), a page number that stays with them
//! wherever mremap moves the Vma. The `pgoff` of a new Vma is its address, and mremap does not change it, so the pgoff
//! in a `Page` stays valid. If Vmas that were moved away claim those numbers already, a new one gets other numbers
//! (`AreaTree::pgoff_for`), so that a lookup by pgoff finds only few candidates. For the same reason a Vma that would
//! claim others' numbers as it moves or grows gets other numbers, together with its pages (`mm/pgoff.rs`). A Vma that
//! maps an object also has an index into it.

mod balance;
pub mod cursor;
mod gap;
#[cfg(test)]
mod tests;
pub mod tree;
mod validate;

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::fallible::KArc;
use crate::object::Object;
use crate::spans::{BY_INDEX, Places, Spanned};
use crate::table::Machine;

pub use crate::vm_flags::VmFlags;
pub use tree::AreaTree;
pub(crate) use tree::Spot;

/// The object that a Vma maps, and the page that it starts at.
pub struct Backing<M: Machine> {
    /// The object.
    pub object: KArc<Object<M>>,
    /// The object's page at the Vma's start.
    pub index: usize,
}

impl<M: Machine> Clone for Backing<M> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), index: self.index }
    }
}

/// See the module.
pub struct Vma<M: Machine> {
    pub(crate) links: tree::Links<M>,
    pub(crate) places: Places<Self>,
    /// The space, for a walk that finds this area through its object: written when the area first maps one.
    pub(crate) space: UnsafeCell<MaybeUninit<*const M::Space>>,
    /// First address.
    pub start: UserAddr,
    /// One past the last address.
    pub end: UserAddr,
    /// What it is.
    pub flags: VmFlags,
    /// The page number that identifies the anonymous page at `start`.
    pub pgoff: usize,
    /// The object that it maps; `None` for anonymous private memory.
    pub backing: Option<Backing<M>>,
}

impl<M: Machine> Vma<M> {
    /// An area of anonymous or backed memory whose pgoff is its address.
    #[inline]
    pub fn new(start: UserAddr, end: UserAddr, flags: VmFlags, backing: Option<Backing<M>>) -> Self {
        Self {
            links: tree::Links::default(),
            places: Places::default(),
            space: UnsafeCell::new(MaybeUninit::uninit()),
            start,
            end,
            flags,
            pgoff: start.get() >> PAGE_SHIFT,
            backing,
        }
    }

    /// Bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Never: an area has at least one page.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Pages.
    #[inline]
    pub fn pages(&self) -> usize {
        self.len() >> PAGE_SHIFT
    }

    /// Whether `addr` lies inside.
    #[inline]
    pub fn contains(&self, addr: UserAddr) -> bool {
        self.start <= addr && addr < self.end
    }

    /// The pgoff of the page at `addr`, inside or (to compare with a neighbour) outside of this area.
    #[inline]
    pub fn pgoff_of(&self, addr: UserAddr) -> usize {
        self.pgoff.wrapping_add((addr.get() >> PAGE_SHIFT).wrapping_sub(self.start.get() >> PAGE_SHIFT))
    }

    /// The object's page at `addr`.
    #[inline]
    pub fn index_of(&self, addr: UserAddr) -> Option<usize> {
        let backing = self.backing.as_ref()?;
        Some(backing.index.wrapping_add((addr.get() >> PAGE_SHIFT).wrapping_sub(self.start.get() >> PAGE_SHIFT)))
    }

    /// The backing of an area that starts at `addr` in this one.
    pub fn backing_at(&self, addr: UserAddr) -> Option<Backing<M>> {
        let index = self.index_of(addr)?;
        self.backing.as_ref().map(|b| Backing { object: b.object.clone(), index })
    }

    /// Whether its pgoff is its address.
    pub fn is_at_pgoff(&self) -> bool {
        self.pgoff == self.start.get() >> PAGE_SHIFT
    }

    /// Whether its pages are found by its address alone: it is in no [`Spans`](crate::spans::Spans).
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.backing.is_none() && self.is_at_pgoff()
    }

    /// A second area with the same properties for `start..end`, a part of this one.
    pub fn part(&self, start: UserAddr, end: UserAddr) -> Self {
        Self {
            links: tree::Links::default(),
            places: Places::default(),
            space: UnsafeCell::new(MaybeUninit::uninit()),
            start,
            end,
            flags: self.flags,
            pgoff: self.pgoff_of(start),
            backing: self.backing_at(start),
        }
    }

    /// This area as a merge candidate, as if it began at `addr`.
    #[inline]
    pub fn kind_at(&self, addr: UserAddr) -> Kind<'_, M> {
        Kind {
            flags: self.flags,
            pgoff: self.pgoff_of(addr),
            object: self.backing.as_ref().map(|b| &b.object),
            index: self.index_of(addr).unwrap_or(0),
        }
    }

    /// This as a merge candidate.
    #[inline]
    pub fn kind(&self) -> Kind<'_, M> {
        self.kind_at(self.start)
    }

    /// Whether an area of that kind, starting at the end of this one, would merge with this one.
    #[inline]
    pub fn continues_with(&self, next: &Kind<'_, M>) -> bool {
        self.kind_at(self.end) == *next
    }
}

// SAFETY: the range changes in cursor.rs alone, which takes the area out of its trees for that; it has a page at least.
unsafe impl<M: Machine> Spanned for Vma<M> {
    #[inline(always)]
    unsafe fn places(node: NonNull<Self>) -> *const Places<Self> {
        // SAFETY: the node lives.
        unsafe { &raw const (*node.as_ptr()).places }
    }

    #[inline(always)]
    unsafe fn first<const WHICH: usize>(node: NonNull<Self>) -> usize {
        // SAFETY: the node lives, and its range does not change.
        unsafe {
            match WHICH {
                BY_INDEX => (*node.as_ptr()).backing.as_ref().map_or(0, |b| b.index),
                _ => (*node.as_ptr()).pgoff,
            }
        }
    }

    #[inline(always)]
    unsafe fn last<const WHICH: usize>(node: NonNull<Self>) -> usize {
        // SAFETY: as above.
        unsafe { Self::first::<WHICH>(node) + (((*node.as_ptr()).end - (*node.as_ptr()).start) >> PAGE_SHIFT) - 1 }
    }
}

/// The properties that decide whether two neighbours merge, relative to the first address.
pub struct Kind<'a, M: Machine> {
    /// Its flags.
    pub flags: VmFlags,
    /// Its pgoff.
    pub pgoff: usize,
    /// The backing object.
    pub object: Option<&'a KArc<Object<M>>>,
    /// The index of the object's page at its start; 0 without an object.
    pub index: usize,
}

impl<M: Machine> Kind<'_, M> {
    /// The kind of the part after `pages` pages.
    #[inline]
    pub fn after(&self, pages: usize) -> Self {
        let index = if self.object.is_some() { self.index.wrapping_add(pages) } else { 0 };
        Self { pgoff: self.pgoff.wrapping_add(pages), index, ..*self }
    }
}

impl<M: Machine> PartialEq for Kind<'_, M> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let same_object = match (self.object, other.object) {
            (None, None) => true,
            (Some(a), Some(b)) => KArc::ptr_eq(a, b),
            _ => false,
        };
        let rights = VmFlags::READ | VmFlags::WRITE | VmFlags::EXEC;
        let ignored = if seeded!(MergesDifferentRights) { rights } else { VmFlags::empty() };
        self.flags | ignored == other.flags | ignored
            && self.pgoff == other.pgoff
            && self.index == other.index
            && same_object
    }
}

/// The distance between a stack and the area below it: 256 pages, as Linux's `stack_guard_gap`.
pub const STACK_GUARD: usize = 256 * PAGE_SIZE;
