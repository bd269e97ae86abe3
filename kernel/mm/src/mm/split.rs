//! Changing the flags of a part of an area: the tree operation of mprotect, madvise and mlock.

use quire_abi::Errno;

use super::{Intent, MAX_MAP_COUNT, Mm};
use crate::addr::{PAGE_SHIFT, UserAddr};
use crate::mm::Machine;
use crate::supply::Supply;
use crate::vma::{Kind, VmFlags};

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
        let (is_head, is_tail) = (vma.start == start, vma.end == end);
        let kind = Kind { flags, ..vma.kind_at(start) };
        let pages = (end - start) >> PAGE_SHIFT;
        let joins_prev =
            is_head && areas.tree.prev(vma).is_some_and(|prev| prev.end == start && prev.continues_with(&kind));
        let joins_next =
            is_tail && areas.tree.next(vma).is_some_and(|next| next.start == end && kind.after(pages) == next.kind());
        let splits = match (is_head, is_tail) {
            (true, true) => 0,
            (true, false) => !joins_prev as usize,
            (false, true) => !joins_next as usize,
            (false, false) => 2,
        };
        if areas.tree.len() + splits > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let mut part = None;
        let mut upper = None;
        if splits > 0 {
            let mut new = vma.part(start, end);
            new.flags = flags;
            part = Some(supply.boxed(|| new)?);
        }
        if splits > 1 {
            upper = Some(supply.boxed(|| vma.part(end, vma.end))?);
        }

        let mut areas = areas.write();
        let areas = &mut *areas;
        areas.count_out(old, pages);
        areas.count_in(flags, pages);
        let mut cursor = areas.tree.cursor(start);
        match (is_head, is_tail) {
            (true, true) => match (joins_prev, joins_next) {
                (false, false) => cursor.set_flags(flags),
                (false, true) => {
                    cursor.remove();
                    cursor.set_start(start);
                }
                (true, joins_next) => {
                    cursor.remove();
                    let next = if joins_next { cursor.remove() } else { None };
                    cursor.retreat();
                    cursor.set_end(next.as_ref().map_or(end, |next| next.end));
                }
            },
            (true, false) => {
                cursor.set_start(end);
                match part {
                    Some(part) => cursor.insert_before(part),
                    None => {
                        cursor.retreat();
                        cursor.set_end(end);
                    }
                }
            }
            (false, is_tail) => {
                cursor.set_end(start);
                cursor.advance();
                match part {
                    Some(part) => cursor.insert_before(part),
                    None if is_tail => cursor.set_start(start),
                    None => {}
                }
                if let Some(upper) = upper {
                    cursor.insert_before(upper);
                }
            }
        }
        Ok(())
    }
}
