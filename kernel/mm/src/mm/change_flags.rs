//! Changing the flags of a part of an area: the tree operation of mprotect, madvise and mlock.

use alloc::boxed::Box;

use quire_abi::Errno;

use super::{Areas, Intent, MAX_MAP_COUNT, Mm};
use crate::addr::{PAGE_SHIFT, UserAddr};
use crate::mm::Machine;
use crate::supply::Supply;
use crate::vma::cursor::Cursor;
use crate::vma::{Kind, VmFlags, Vma};

/// A part of an area, its new flags, and the neighbours of the area that it then merges with.
struct Part {
    start: UserAddr,
    end: UserAddr,
    flags: VmFlags,
    is_head: bool,
    is_tail: bool,
    joins_prev: bool,
    joins_next: bool,
}

/// The areas that a split needs: for the part, and for the rest above it.
struct Split<M: Machine> {
    part: Option<Box<Vma<M>>>,
    upper: Option<Box<Vma<M>>>,
}

impl<M: Machine> Mm<M> {
    /// Gives `start..end`, which lies within one area, new flags: the area is split if only a part changes, and the
    /// part is merged with a neighbour of the same kind. Fails before anything has changed.
    pub(super) fn change_flags(
        &self,
        areas: &mut Intent<'_, M>,
        start: UserAddr,
        end: UserAddr,
        flags: VmFlags,
        supply: &Supply<M>,
    ) -> Result<(), Errno> {
        let Some(vma) = areas.tree.find(start) else { return Ok(()) };
        let old = vma.flags;
        if old == flags {
            return Ok(());
        }
        let part = Part::of(areas, vma, start, end, flags);
        if areas.tree.len() + part.splits() > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let split = part.split(vma, supply)?;

        let mut areas = areas.write();
        let areas = &mut *areas;
        let pages = (end - start) >> PAGE_SHIFT;
        areas.count_out(self.machine, old, pages);
        areas.count_in(flags, pages);
        part.change(areas.tree.cursor(start), split);
        Ok(())
    }
}

impl Part {
    #[inline]
    fn of<M: Machine>(areas: &Areas<M>, vma: &Vma<M>, start: UserAddr, end: UserAddr, flags: VmFlags) -> Self {
        let (is_head, is_tail) = (vma.start == start, vma.end == end);
        let kind = Kind { flags, ..vma.kind_at(start) };
        let pages = (end - start) >> PAGE_SHIFT;
        let joins_prev =
            is_head && areas.tree.prev(vma).is_some_and(|prev| prev.end == start && prev.continues_with(&kind));
        let joins_next =
            is_tail && areas.tree.next(vma).is_some_and(|next| next.start == end && kind.after(pages) == next.kind());
        Self { start, end, flags, is_head, is_tail, joins_prev, joins_next }
    }

    /// How many areas more there will be (merges not counted).
    #[inline]
    fn splits(&self) -> usize {
        match (self.is_head, self.is_tail) {
            (true, true) => 0,
            (true, false) => !self.joins_prev as usize,
            (false, true) => !self.joins_next as usize,
            (false, false) => 2,
        }
    }

    #[inline]
    fn split<M: Machine>(&self, vma: &Vma<M>, supply: &Supply<M>) -> Result<Split<M>, Errno> {
        let mut split = Split { part: None, upper: None };
        if self.splits() > 0 {
            let mut new = vma.part(self.start, self.end);
            new.flags = self.flags;
            split.part = Some(supply.boxed(|| new)?);
        }
        if self.splits() > 1 {
            split.upper = Some(supply.boxed(|| vma.part(self.end, vma.end))?);
        }
        Ok(split)
    }

    /// Changes the tree at the area, where the cursor is.
    #[inline]
    fn change<M: Machine>(&self, cursor: Cursor<'_, M>, split: Split<M>) {
        match (self.is_head, self.is_tail) {
            (true, true) => self.change_whole(cursor),
            (true, false) => self.change_head(cursor, split),
            (false, _) => self.change_upper(cursor, split),
        }
    }

    /// The part is the whole area.
    #[inline]
    fn change_whole<M: Machine>(&self, mut cursor: Cursor<'_, M>) {
        match (self.joins_prev, self.joins_next) {
            (false, false) => cursor.set_flags(self.flags),
            (false, true) => {
                cursor.remove();
                cursor.set_start(self.start);
            }
            (true, joins_next) => {
                cursor.remove();
                let next = if joins_next { cursor.remove() } else { None };
                cursor.retreat();
                cursor.set_end(next.as_ref().map_or(self.end, |next| next.end));
            }
        }
    }

    /// The area goes on above the part.
    #[inline]
    fn change_head<M: Machine>(&self, mut cursor: Cursor<'_, M>, split: Split<M>) {
        cursor.set_start(self.end);
        match split.part {
            Some(part) => cursor.insert_before(part),
            None => {
                cursor.retreat();
                cursor.set_end(self.end);
            }
        }
    }

    /// The area begins below the part.
    #[inline]
    fn change_upper<M: Machine>(&self, mut cursor: Cursor<'_, M>, split: Split<M>) {
        cursor.set_end(self.start);
        cursor.advance();
        match split.part {
            Some(part) => cursor.insert_before(part),
            None if self.is_tail => cursor.set_start(self.start),
            None => {}
        }
        if let Some(upper) = split.upper {
            cursor.insert_before(upper);
        }
    }
}
