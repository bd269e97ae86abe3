//! MADV_WILLNEED: pages in swap are brought in before somebody waits for them.

use super::Mm;
use super::fault::FaultError;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::fallible::KArc;
use crate::mm::Machine;
use crate::object::Object;
use crate::pte::{ENTRIES, NonPresent};
use crate::table::part_end;

/// Where a page is that is needed.
enum Away<M: Machine> {
    /// In swap, as the entry for this address says.
    Here(UserAddr),
    /// In swap, as the object says whose page it is.
    Of(KArc<Object<M>>, usize),
}

impl<M: Machine> Mm<M> {
    /// Brings in what is in swap of a range. The first failure ends it, and is nobody's: whoever needs the page will ask again.
    pub(super) fn bring_in_range(&self, start: UserAddr, end: UserAddr) {
        let mut at = start;
        while at < end && self.machine.resched_point().is_ok() {
            let (away, next) = self.find_away(at, end);
            at = next;
            let done = match away {
                None => Ok(()),
                Some(Away::Here(addr)) => self.bring_back_early(addr),
                Some(Away::Of(object, page)) => object.bring_in(page).map(drop).map_err(FaultError::from),
            };
            if done.is_err() {
                break;
            }
        }
    }

    /// The first page of a range that is in swap, if there is one before the address that is returned, where to go on. At most the entries
    /// of one table are looked at.
    fn find_away(&self, at: UserAddr, end: UserAddr) -> (Option<Away<M>>, UserAddr) {
        let areas = self.areas.read();
        let Some(vma) = areas.tree.find_from(at).filter(|vma| vma.start < end) else { return (None, end) };
        let (from, to) = (vma.start.max(at), vma.end.min(end));
        let of_object = vma.backing.as_ref().filter(|backing| backing.object.has_swapped());
        let Some((from, to)) = (match &of_object {
            // Of an object's page there may be no table.
            Some(_) => Some((from, to.min(from + ENTRIES * PAGE_SIZE))),
            None => match self.tables.next_any(from, to) {
                // A block is in memory.
                Some((from, spot)) => match spot.leaf(from) {
                    Ok(_) => Some((from, part_end(from, to))),
                    Err(_) => return (None, part_end(from, to)),
                },
                None => None,
            },
        }) else {
            return (None, to);
        };
        for n in 0..(to - from) >> PAGE_SHIFT {
            let va = from + n * PAGE_SIZE;
            let pte = self.entry(va);
            let away = match (pte.kind(), of_object, vma.index_of(va)) {
                (Some(NonPresent::Swap(_)), ..) => Some(Away::Here(va)),
                (Some(NonPresent::None), Some(backing), Some(page)) if backing.object.is_swapped(page) => {
                    Some(Away::Of(backing.object.clone(), page))
                }
                _ => None,
            };
            if away.is_some() {
                return (away, va + PAGE_SIZE);
            }
        }
        (None, to)
    }
}
