//! The page fault: the only way in which a process's memory becomes mapped.
//!
//! [`Mm::fault`] finds the area and checks the access; [`Mm::fault_in`] brings the page in; write_fault.rs handles
//! writes to pages that are mapped read-only. All of it runs with the areas locked for reading, and takes a table's
//! lock only to check the entry again and store: frames are allocated, cleared and copied without that lock.

use super::{Areas, Mm};
use crate::addr::{PAGE_SHIFT, Pfn, PhysAddr, UserAddr};
use crate::event::Event;
use crate::fallible::{AllocError, KArc};
use crate::machine::Limit;
use crate::mm::Machine;
use crate::mm::fresh::Fresh;
use crate::object::{Object, ObjectError, ObjectPage};
use crate::pte::{ENTRIES, NonPresent, Pte, bits, index};
use crate::rmap;
use crate::supply::Supply;
use crate::table::entry::{self, ANON};
use crate::table::flush::flush_page;
use crate::table::gather::Counts;
use crate::table::{Leaf, LeafGuard};
use crate::vma::{Backing, STACK_GUARD, VmFlags, Vma};

/// The kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Load.
    Read,
    /// Store, or both.
    Write,
    /// Instruction fetch.
    Exec,
}

/// Why the access is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// Nothing is mapped there: SIGSEGV with SEGV_MAPERR.
    Unmapped,
    /// The mapping does not allow it: SIGSEGV with SEGV_ACCERR.
    Protection,
    /// The object has no such page, or it cannot be read: SIGBUS with BUS_ADRERR.
    BeyondObject,
    /// There was no memory.
    OutOfMemory,
}

impl From<AllocError> for FaultError {
    fn from(_: AllocError) -> Self {
        Self::OutOfMemory
    }
}

impl From<ObjectError> for FaultError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Beyond | ObjectError::NoRoom | ObjectError::Damaged | ObjectError::Refused(_) => {
                Self::BeyondObject
            }
            // (Faults bring in what is away.)
            ObjectError::OutOfMemory | ObjectError::Away => Self::OutOfMemory,
        }
    }
}

/// Why a page was not brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is elsewhere and must be brought back with no lock held ([`Mm::bring_back`]).
    Elsewhere,
    /// Memory is missing, and must be waited for with no lock held ([`Supply::refill`]).
    Short,
    /// There is an empty table where a block may come: it is to be unlinked with the areas locked exclusively.
    Vacant,
    /// Its entry does not have the rights of its area yet: mprotect is about to change it.
    Changing,
    /// It cannot be brought in.
    Error(FaultError),
}

impl From<FaultError> for Stop {
    #[inline]
    fn from(error: FaultError) -> Self {
        Self::Error(error)
    }
}

impl From<AllocError> for Stop {
    #[inline]
    fn from(error: AllocError) -> Self {
        Self::Error(error.into())
    }
}

impl From<ObjectError> for Stop {
    #[inline]
    fn from(error: ObjectError) -> Self {
        if error == ObjectError::Away { Self::Elsewhere } else { Self::Error(error.into()) }
    }
}

/// How a page is brought in.
pub(super) struct Touch<'a, M: Machine> {
    /// For writing; if false, for reading.
    pub write: bool,
    /// For execution.
    pub exec: bool,
    /// The number of anonymous pages to bring in, instead of the fault's window.
    pub forced: Option<usize>,
    /// Where memory comes from.
    pub supply: &'a Supply<M>,
}

impl VmFlags {
    /// Whether an area like this allows the access.
    #[inline]
    pub(super) fn allows(self, access: Access) -> bool {
        match access {
            Access::Read => self.accessible(),
            Access::Write => self.contains(VmFlags::WRITE),
            Access::Exec => self.contains(VmFlags::EXEC),
        }
    }
}

impl<M: Machine> Mm<M> {
    /// Makes the access at `addr` possible, or returns why it is not. After `Ok` the program repeats the access; it may
    /// fault again if something has changed meanwhile.
    pub fn fault(&self, addr: usize, access: Access) -> Result<(), FaultError> {
        let addr = UserAddr::new(addr).page_floor();
        self.machine.count(Event::Fault, 1);
        let supply = Supply::new(self.machine);
        let touch =
            Touch { write: access == Access::Write, exec: access == Access::Exec, forced: None, supply: &supply };
        loop {
            let stop = {
                let areas = self.areas.read();
                match areas.tree.find(addr).filter(|vma| vma.flags.allows(access)) {
                    Some(vma) => match self.fault_in(vma, addr, &touch) {
                        Ok(()) if !touch.write || !vma.flags.contains(VmFlags::NOTES_STORES) => return Ok(()),
                        Ok(()) => {
                            let object = vma.backing.as_ref().map(|backing| backing.object.clone());
                            drop(areas);
                            self.limit_marked(object);
                            return Ok(());
                        }
                        Err(stop) => Some(stop),
                    },
                    None => None,
                }
            };
            match stop {
                None => self.fault_outside(addr, access, &supply)?,
                Some(stop) => self.clear_the_way(stop, addr, &supply)?,
            }
        }
    }

    /// Handles the reason for which a fault at `addr` stopped, now that no lock is held; then the fault looks again.
    #[cold]
    pub(super) fn clear_the_way(&self, stop: Stop, addr: UserAddr, supply: &Supply<M>) -> Result<(), FaultError> {
        match stop {
            Stop::Elsewhere => self.bring_back(addr),
            Stop::Short => Ok(supply.refill()?),
            Stop::Vacant => {
                let mut areas = self.areas.intend();
                let _alone = areas.write();
                self.tables.unlink_vacant(addr);
                Ok(())
            }
            Stop::Changing => {
                let areas = self.areas.intend();
                debug_assert!(self.has_rights(&areas, addr), "an entry has fewer rights than its area");
                Ok(())
            }
            Stop::Error(error) => Err(error),
        }
    }

    /// A thread that fills memory with pages that have to be written back writes them. No lock is held.
    #[cold]
    fn limit_marked(&self, object: Option<KArc<Object<M>>>) {
        if self.machine.spaces().must_write_back()
            && let Some(object) = object
        {
            // (Others learn of an error.)
            let _ = Object::write_back(&object);
        }
    }

    /// Whether a present entry for `addr` allows reading and execution as its area does. That holds except during a
    /// change of rights.
    fn has_rights(&self, areas: &Areas<M>, addr: UserAddr) -> bool {
        let Some(vma) = areas.tree.find(addr) else { return true };
        let pte = self.entry(addr);
        let may = |access, has: bool| has || !vma.flags.allows(access);
        !pte.is_present() || may(Access::Read, pte.is_readable()) && may(Access::Exec, pte.is_executable())
    }

    /// Handles a fault that found no area, or an area without the right. `Ok` if it may look again: a change was in
    /// progress, or a stack has grown.
    #[cold]
    fn fault_outside(&self, addr: UserAddr, access: Access, supply: &Supply<M>) -> Result<(), FaultError> {
        let mut areas = self.areas.intend();
        let vma = areas.tree.find_from(addr).ok_or(FaultError::Unmapped)?;
        if vma.start <= addr {
            return if vma.flags.allows(access) { Ok(()) } else { Err(FaultError::Protection) };
        }
        if !vma.flags.contains(VmFlags::GROWSDOWN) || !self.may_grow_stack(&areas, vma, addr) {
            return Err(FaultError::Unmapped);
        }
        let (flags, old, pgoff) = (vma.flags, vma.start, vma.pgoff);
        let pages = (old - addr) >> PAGE_SHIFT;
        self.promise(&areas, flags & VmFlags::ACCOUNT, pages).map_err(|_| FaultError::Unmapped)?;
        // (Without memory for copies the pgoffs stay: the stack grows nevertheless.)
        let _ = self.make_room_for_pgoffs(&mut areas, old, pgoff - pages, pages, supply);
        let mut areas = areas.write();
        areas.count_in(flags, pages);
        areas.tree.cursor(addr).set_start(addr);
        Ok(())
    }

    pub(super) fn may_grow_stack(&self, areas: &Areas<M>, vma: &Vma<M>, addr: UserAddr) -> bool {
        let grown = (vma.start - addr) >> PAGE_SHIFT;
        let low = addr.get().saturating_sub(STACK_GUARD);
        // The gap does not apply to another area that grows down, or one without rights: a stack may be adjacent to
        // these.
        let clear = areas.tree.prev(vma).is_none_or(|prev| {
            prev.end.get() <= low
                || prev.end <= addr && (prev.flags.contains(VmFlags::GROWSDOWN) || !prev.flags.accessible())
        });
        // Page offsets below 0 do not exist, so reverse mapping could not find such pages: a moved stack cannot grow
        // further than it could have unmoved.
        (clear || seeded!(GuardGapIgnored))
            && addr >= areas.layout.mmap_min
            && vma.pgoff >= grown
            && (vma.end - addr) as u64 <= self.limit(Limit::Stack)
            && self.may_expand(areas, vma.flags, grown)
            && self.may_lock(areas, vma.flags, grown).is_ok()
    }

    /// Brings in the page at `addr` of `vma`, whose rights allow the access.
    pub(super) fn fault_in(&self, vma: &Vma<M>, addr: UserAddr, touch: &Touch<'_, M>) -> Result<(), Stop> {
        match self.try_fault_in(vma, addr, touch) {
            Err(Stop::Error(FaultError::OutOfMemory)) if touch.supply.is_short() => Err(Stop::Short),
            done => done,
        }
    }

    #[inline]
    fn try_fault_in(&self, vma: &Vma<M>, addr: UserAddr, touch: &Touch<'_, M>) -> Result<(), Stop> {
        let (leaf, is_new) = match self.tables.find_leaf(addr) {
            Some(leaf) => (leaf, false),
            None if self.fault_above(vma, addr, touch)? => return Ok(()),
            None => (self.tables.walk_or_create(addr, touch.supply)?, true),
        };
        let pte = leaf.peek(index(addr.get(), 3));
        let done = match pte.kind() {
            // mprotect changes the area's rights first, and then those of the entries.
            None if (!pte.is_readable() || touch.exec && !pte.is_executable()) && !seeded!(FaultIgnoresChange) => {
                return Err(Stop::Changing);
            }
            None => self.fault_present(vma, &leaf, addr, pte, touch),
            Some(NonPresent::None | NonPresent::Marker(_)) => match &vma.backing {
                None if touch.write => return self.anon_write(vma, &leaf, is_new, addr, touch),
                None => self.zero_read(vma, &leaf, addr, touch.forced),
                Some(backing) if touch.write && !vma.flags.contains(VmFlags::SHARED) => {
                    return self.private_write(vma, &leaf, addr, backing, touch.supply);
                }
                Some(backing) => return self.map_object(vma, &leaf, addr, backing, touch),
            },
            Some(NonPresent::Swap(_) | NonPresent::Migration(_)) => return Err(Stop::Elsewhere),
        };
        done.map_err(Stop::Error)
    }

    /// New anonymous pages: this one, and those after it that the window allows.
    fn anon_write(
        &self,
        vma: &Vma<M>,
        leaf: &Leaf<'_, M>,
        is_new: bool,
        addr: UserAddr,
        touch: &Touch<'_, M>,
    ) -> Result<(), Stop> {
        let first = index(addr.get(), 3);
        let window = touch.forced.unwrap_or_else(|| self.window(vma, leaf, addr, false));
        // In an empty table no stream goes on. (One that was just made is there because there was no block.)
        let may_be_vacant = window <= 2 || touch.forced.is_some();
        if may_be_vacant && !is_new && leaf.is_vacant() && self.wants_block(vma, addr, touch) {
            return Err(Stop::Vacant);
        }
        let wanted = run_of_empty(leaf, first, window.min(room(vma, addr)));
        let mut pages = Fresh::new();
        self.take_fresh(&mut pages, vma, addr, touch.supply, |got| got < wanted)?;
        let attrs = entry::writable(vma.flags) | ANON;
        let mut unused = rmap::Release::new(self.machine);
        let mut filled = 0;
        {
            let mut guard = leaf.lock();
            for (k, pfn) in pages.iter().enumerate() {
                if filled == k && make_empty(&mut guard, first + k) {
                    guard.fill(first + k, Pte::page(pfn.addr(), attrs));
                    filled += 1;
                }
            }
            if touch.forced.is_none() {
                self.note_window(&mut guard, vma, addr, filled, false);
            }
        }
        if !seeded!(FaultForgetsPublication) {
            self.machine.publish_tables();
        }
        // Another thread was faster: its page is used.
        for pfn in &pages[filled..] {
            unused.page(*pfn);
        }
        if filled > 0 {
            self.machine.count(Event::FaultAnon, 1);
            self.charge(Counts { anon: filled, ..Counts::default() });
        }
        Ok(())
    }

    /// Reads of memory that was never written map the zero page.
    fn zero_read(
        &self,
        vma: &Vma<M>,
        leaf: &Leaf<'_, M>,
        addr: UserAddr,
        forced: Option<usize>,
    ) -> Result<(), FaultError> {
        let first = index(addr.get(), 3);
        let window = forced.unwrap_or_else(|| self.window(vma, leaf, addr, true));
        let wanted = window.min(room(vma, addr));
        let zero = self.machine.spaces().zero_page();
        self.before_exec(vma, zero);
        let pte = Pte::page(zero, entry::read_only(vma.flags) | bits::SPECIAL);
        let mut filled = 0;
        {
            let mut guard = leaf.lock();
            while filled < wanted && make_empty(&mut guard, first + filled) {
                guard.fill(first + filled, pte);
                filled += 1;
            }
            if forced.is_none() {
                self.note_window(&mut guard, vma, addr, filled, true);
            }
        }
        self.machine.publish_tables();
        self.machine.count(Event::FaultZero, 1);
        Ok(())
    }

    /// A write to a page of a private mapping of an object that is not mapped yet: a copy at once.
    fn private_write(
        &self,
        vma: &Vma<M>,
        leaf: &Leaf<'_, M>,
        addr: UserAddr,
        backing: &Backing<M>,
        supply: &Supply<M>,
    ) -> Result<(), Stop> {
        let source = backing.object.page(vma.index_of(addr).unwrap_or(0), supply)?;
        let copy = supply.user(false);
        if let Ok(pfn) = copy {
            self.machine.copy_page(pfn.addr(), source.addr());
        }
        if let Ok(pfn) = copy {
            rmap::make_anon(self.machine, pfn, &self.anon_vma, vma.pgoff_of(addr));
            KArc::add_owners(&self.anon_vma, 1);
            self.before_exec(vma, pfn.addr());
            let i = index(addr.get(), 3);
            let counts = Counts { anon: 1, ..Counts::default() };
            self.map_new(leaf, i, pfn, entry::writable(vma.flags) | ANON, Event::FaultCopy, counts);
        }
        // Only now: a truncate that takes the source away waits for this reference, and then looks for private copies.
        if let ObjectPage::Counted(pfn) = source {
            rmap::Release::new(self.machine).page(pfn);
        }
        copy?;
        Ok(())
    }

    /// A page of an object, and for pages in place also their neighbours.
    fn map_object(
        &self,
        vma: &Vma<M>,
        leaf: &Leaf<'_, M>,
        addr: UserAddr,
        backing: &Backing<M>,
        touch: &Touch<'_, M>,
    ) -> Result<(), Stop> {
        let object = &*backing.object;
        let object_index = vma.index_of(addr).unwrap_or(0);
        if object.in_place(object_index).is_some() {
            return Ok(self.map_around(vma, leaf, addr, object)?);
        }
        let ObjectPage::Counted(pfn) = object.page(object_index, touch.supply)? else { return Ok(()) };
        let exec = vma.flags.contains(VmFlags::EXEC);
        if exec {
            object.prepare_exec(object_index, pfn.addr());
        }
        let shared = vma.flags.contains(VmFlags::SHARED);
        // (A mapping of a file of the boot archive is never both shared and writable.)
        let notes_stores = vma.flags.contains(VmFlags::NOTES_STORES);
        let attrs = match shared {
            true if notes_stores => entry::read_only(vma.flags),
            true if touch.write => entry::writable(vma.flags),
            true if !object.is_file() => entry::writable_clean(vma.flags),
            _ => entry::read_only(vma.flags),
        };
        let i = index(addr.get(), 3);
        let mut counts = Counts::default();
        counts.add(object.kind());
        if !touch.write && object.has_neighbours() && !exec {
            self.map_neighbours(vma, leaf, addr, object, attrs);
        }
        self.map_new(leaf, i, pfn, attrs, Event::FaultObject, counts);
        if notes_stores && touch.write {
            // (If the page is gone again, the program's next fault finds what there is.)
            let pte = leaf.peek(i);
            if pte.is_present() && !pte.is_writable() {
                self.write_protected(vma, leaf, addr, pte, touch.supply)?;
            }
        }
        Ok(())
    }

    /// Maps a page, of which the caller has a reference for the entry, with these attributes; counts and charges it. If
    /// another fault was faster, its page stays, and the reference is dropped.
    #[inline(always)]
    fn map_new(&self, leaf: &Leaf<'_, M>, i: usize, pfn: Pfn, attrs: u64, event: Event, counts: Counts) {
        let filled = {
            let mut guard = leaf.lock();
            let empty = make_empty(&mut guard, i);
            if empty {
                guard.fill(i, Pte::page(pfn.addr(), attrs));
            }
            empty
        };
        self.machine.publish_tables();
        if filled {
            self.machine.count(event, 1);
            self.charge(counts);
        } else {
            rmap::Release::new(self.machine).page(pfn);
        }
    }

    /// Synchronises instructions in a frame that the kernel has written, if its area is executable.
    #[inline]
    #[cfg_attr(test, track_caller)]
    pub(super) fn before_exec(&self, vma: &Vma<M>, frame: PhysAddr) {
        if vma.flags.contains(VmFlags::EXEC) && !seeded!(FaultForgetsInstructions) {
            self.machine.sync_instructions(frame);
        }
    }

    /// The entry is present: a write to a read-only page, an access to an old one, another thread's fault was faster,
    /// or the TLB entry is stale.
    #[inline(never)]
    fn fault_present(
        &self,
        vma: &Vma<M>,
        leaf: &Leaf<'_, M>,
        addr: UserAddr,
        pte: Pte,
        touch: &Touch<'_, M>,
    ) -> Result<(), FaultError> {
        if touch.write && !pte.is_writable() {
            return self.write_protected(vma, leaf, addr, pte, touch.supply);
        }
        debug_assert!(
            pte.is_readable() && (!touch.exec || pte.is_executable()),
            "an entry has fewer rights than its area"
        );
        if !pte.is_young() {
            let i = index(addr.get(), 3);
            let mut guard = leaf.lock();
            // If the exchange fails, the program faults again if necessary.
            let _ = guard.get(i) == pte && guard.change(i, pte, Pte(pte.0 | bits::ACCESSED));
            drop(guard);
            self.machine.count(Event::FaultYoung, 1);
            // No TLB holds an entry whose access flag is clear.
            self.machine.publish_tables();
            return Ok(());
        }
        self.machine.count(Event::FaultSpurious, 1);
        // An entry that was made more permissive without a flush may still be cached as it was.
        flush_page(self.machine, self.tables.asid(), addr);
        Ok(())
    }
}

/// Pages from `addr` to the end of its area or its last-level table, whichever comes first.
#[inline]
pub(super) fn room<M: Machine>(vma: &Vma<M>, addr: UserAddr) -> usize {
    ((vma.end - addr) >> PAGE_SHIFT).min(ENTRIES - index(addr.get(), 3))
}

/// How many entries from `first` on, up to `limit` and at least 1, are empty at present.
#[inline]
fn run_of_empty<M: Machine>(leaf: &Leaf<'_, M>, first: usize, limit: usize) -> usize {
    let mut n = 1;
    while n < limit && leaf.peek(first + n) == Pte::NONE {
        n += 1;
    }
    n
}

/// Whether the entry is empty, after removing a marker.
#[inline]
pub(super) fn make_empty<M: Machine>(guard: &mut LeafGuard<'_, M>, i: usize) -> bool {
    match guard.get(i).kind() {
        Some(NonPresent::None) => true,
        Some(NonPresent::Marker(_)) if !seeded!(MarkerBlocksFault) => {
            guard.clear(i);
            true
        }
        _ => false,
    }
}
