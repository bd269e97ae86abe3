//! The translation of an address, step by step, for people: the entries that a table walker reads, and what the last one stands
//! for. The walk reads what is there and changes nothing: it brings no page in, and makes no table.

use super::Mm;
use super::view::{AreaView, view};
use crate::addr::{PAGE_SHIFT, PhysAddr, UserAddr};
use crate::asid::AsidView;
use crate::machine::Killed;
use crate::mm::Machine;
use crate::object::Whereabouts;
use crate::page_alloc::FrameView;
use crate::pte::{NonPresent, Path, Pte, Step, index};
use crate::swap::SlotView;
use crate::table::entry::Moved;
use crate::table::{LEAF_SPAN, Leaf};
use crate::vma::{VmFlags, Vma};

/// What a first access to a page would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstTouch {
    /// SIGSEGV: the area does not allow it.
    Refused,
    /// SIGBUS: the object has no such page.
    BeyondObject,
    /// Maps the zero page.
    ZeroPage,
    /// Maps a new page of zeros.
    NewPage,
    /// Maps the object's page.
    ObjectPage,
    /// Maps a new page, a copy of the object's.
    Copy,
}

/// What the entry that ends a walk stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A byte of memory or of a device: where it is, and what is known of its frame, if it is one of memory's.
    Mapped(PhysAddr, Option<FrameView>),
    /// A page in swap.
    Swapped(SlotView),
    /// A page that is being moved: its old frame, and how it was mapped.
    Moving(PhysAddr, Moved),
    /// A page that has not been accessed here, in an area; what the first access would do. For a page of an object also where that is.
    Untouched {
        /// The first load.
        read: FirstTouch,
        /// The first store.
        write: FirstTouch,
        /// Of an object's page.
        object: Option<Whereabouts>,
        /// The note of a marker in the entry.
        marker: Option<u64>,
    },
    /// No area, but a stack above, which an access would extend.
    BelowStack,
    /// No area: SIGSEGV.
    Unmapped,
}

/// See the module.
pub struct Translation<'a, M: Machine> {
    /// The entries that a walker reads.
    pub path: Path,
    /// The number that the TLB would have them under.
    pub asid: AsidView,
    /// The area around the address.
    pub area: Option<AreaView<'a, M>>,
    /// The page of the area's object that the address is in; 0 without an object.
    pub index: usize,
    /// What the last entry stands for.
    pub outcome: Outcome,
}

impl<M: Machine> Mm<M> {
    /// Translates an address of this space, and shows it to `see`.
    ///
    /// Changes of the map wait meanwhile, so that no state between two maps is seen; faults go on, and may change an entry as soon as
    /// it was read. The last entry is read under its table's lock, under which it keeps its page or slot: what is said of that belongs
    /// to the entry. The work is bounded: four entries, and a look at one record. `Err` if the calling thread was killed.
    ///
    /// Whether a stack would grow depends on the limits of the calling process, which are the space's own for its own threads.
    pub fn translate<R>(&self, addr: UserAddr, see: impl FnOnce(Translation<'_, M>) -> R) -> Result<R, Killed> {
        let areas = self.areas.intend_killable()?;
        let vma = areas.tree.find(addr);
        let (mut path, leaf) = self.tables.walk_with_path(addr);
        let entry = match leaf {
            Some(leaf) => Some(self.last_step(&leaf, addr, &mut path)),
            None => self.block_step(addr, &path),
        };
        let outcome = match (entry, vma) {
            (Some(Ok(outcome)), _) => outcome,
            (Some(Err(absent)), Some(vma)) => self.first_touch(vma, addr, absent),
            (None, Some(vma)) => self.first_touch(vma, addr, NonPresent::None),
            (_, None) => match areas.tree.find_from(addr) {
                Some(above)
                    if above.flags.contains(VmFlags::GROWSDOWN)
                        && self.may_grow_stack(&areas, above, addr.page_floor()) =>
                {
                    Outcome::BelowStack
                }
                _ => Outcome::Unmapped,
            },
        };
        let index = vma.and_then(|vma| vma.index_of(addr)).unwrap_or(0);
        Ok(see(Translation { path, asid: self.asid_view(), area: vma.map(view), index, outcome }))
    }

    /// The number of this space.
    pub fn asid_view(&self) -> AsidView {
        self.machine.spaces().asids().view(self.tables.asid())
    }

    /// Reads the last-level entry; `Err` if it stands for no page.
    fn last_step(&self, leaf: &Leaf<'_, M>, addr: UserAddr, path: &mut Path) -> Result<Outcome, NonPresent> {
        let guard = leaf.lock();
        let entry = guard.get(index(addr.get(), 3));
        path.push(leaf.addr(), entry);
        match entry.kind() {
            None => Ok(self.mapped(entry, addr)),
            Some(NonPresent::Swap(swapped)) => Ok(Outcome::Swapped(self.machine.spaces().swap().view(swapped.slot))),
            Some(NonPresent::Migration(old)) => Ok(Outcome::Moving(old, entry.moved())),
            Some(absent @ (NonPresent::None | NonPresent::Marker(_))) => Err(absent),
        }
    }

    /// The entry of a block, which is the last one of the path.
    fn block_step(&self, addr: UserAddr, path: &Path) -> Option<Result<Outcome, NonPresent>> {
        let &[_, _, Step { entry, .. }] = path.steps() else { return None };
        entry.is_block().then(|| {
            let frame = self.machine.pages().frame_view(entry.page_of_block(index(addr.get(), 3)).addr().pfn());
            Ok(Outcome::Mapped(entry.addr() + (addr.get() & (LEAF_SPAN - 1)), frame))
        })
    }

    /// A present entry. Its table is locked, so that it keeps the page.
    fn mapped(&self, entry: Pte, addr: UserAddr) -> Outcome {
        let frame = self.machine.pages().frame_view(entry.addr().pfn());
        Outcome::Mapped(entry.addr() + (addr.get() & ((1 << PAGE_SHIFT) - 1)), frame)
    }

    /// What a fault at `addr` would do: the cases of [`Mm::fault_in`](super::fault).
    fn first_touch(&self, vma: &Vma<M>, addr: UserAddr, absent: NonPresent) -> Outcome {
        let object = vma.backing.as_ref().map(|b| b.object.whereabouts(vma.index_of(addr).unwrap_or(0)));
        let (read, write) = match object {
            None => (FirstTouch::ZeroPage, FirstTouch::NewPage),
            Some(Whereabouts::BeyondEnd) => (FirstTouch::BeyondObject, FirstTouch::BeyondObject),
            Some(_) if vma.flags.contains(VmFlags::SHARED) => (FirstTouch::ObjectPage, FirstTouch::ObjectPage),
            Some(_) => (FirstTouch::ObjectPage, FirstTouch::Copy),
        };
        let marker = if let NonPresent::Marker(note) = absent { Some(note) } else { None };
        Outcome::Untouched {
            read: if vma.flags.accessible() { read } else { FirstTouch::Refused },
            write: if vma.flags.contains(VmFlags::WRITE) { write } else { FirstTouch::Refused },
            object,
            marker,
        }
    }
}
