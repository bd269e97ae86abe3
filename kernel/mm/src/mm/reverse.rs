//! From a page to all its mappings: the walk over spaces, and the lookup in each. See [`crate::rmap`].

use super::{Areas, Mm};
use crate::addr::{PAGE_SHIFT, Pfn, USER_END, UserAddr};
use crate::fallible::KArc;
use crate::frame;
use crate::mm::Machine;
use crate::object::Object;
use crate::page::PageState;
use crate::pte::{NonPresent, Pte, index};
use crate::rmap::AnonVma;
use crate::spans::Key;
use crate::vma::{VmFlags, Vma};

impl Pte {
    /// Whether the entry stands for the page `pfn`: it maps the page, or is a migration entry for it.
    #[inline]
    pub fn holds(self, pfn: Pfn) -> bool {
        match self.kind() {
            None => self.addr().pfn() == pfn,
            Some(NonPresent::Migration(old)) => old.pfn() == pfn,
            Some(_) => false,
        }
    }
}

impl<M: Machine> Mm<M> {
    /// The entry for `addr` as it is now.
    pub(super) fn entry(&self, addr: UserAddr) -> Pte {
        self.tables.entry(addr)
    }

    /// Visits the one place where this space maps the anonymous page `pfn` with this pgoff, if there is one. With `sole`
    /// that is the page's only mapping, and the walk's caller has that number of references.
    fn visit_anon(
        this: &KArc<Self>,
        pfn: Pfn,
        pgoff: usize,
        sole: Option<u32>,
        visit: &mut impl FnMut(&KArc<Self>, &Vma<M>, UserAddr) -> bool,
    ) -> bool {
        let areas = this.areas.read();
        let Some((vma, addr)) = this.find_anon(&areas, pfn, pgoff) else { return true };
        if let Some(own) = sole {
            this.adopt_at(addr, pfn, own + 1);
        }
        visit(this, vma, addr)
    }

    /// As [`Mm::adopt`], if the entry for `addr` maps the page. The areas are locked for reading.
    fn adopt_at(&self, addr: UserAddr, pfn: Pfn, refs: u32) {
        if self.owns_anon(pfn) {
            return;
        }
        // (A page that a block maps remains where it is found now.)
        let Some(leaf) = self.tables.find_leaf(addr) else { return };
        let guard = leaf.lock();
        let pte = guard.get(index(addr.get(), 3));
        let former = if pte.is_present() && pte.holds(pfn) { self.adopt(pfn, refs) } else { None };
        drop(guard);
        drop(former);
    }

    #[inline]
    fn owns_anon(&self, pfn: Pfn) -> bool {
        frame::page(self.machine, pfn).owner() == KArc::as_ptr(&self.anon_vma).addr()
    }

    /// Makes an anonymous page this space's own, if it is not: from now on walks from it begin here. Its references are
    /// `refs`, which are that of the entry that maps it here and the caller's; if there are more, nothing happens. The
    /// entry's table is locked, and the areas are, so that no fork copies the entry. Returns the former anon_vma, which the
    /// caller drops without the table's lock.
    #[inline]
    pub(super) fn adopt(&self, pfn: Pfn, refs: u32) -> Option<KArc<AnonVma<M>>> {
        if self.owns_anon(pfn) { None } else { self.adopt_foreign(pfn, refs) }
    }

    #[cold]
    #[inline(never)]
    fn adopt_foreign(&self, pfn: Pfn, refs: u32) -> Option<KArc<AnonVma<M>>> {
        let page = frame::page(self.machine, pfn);
        if !page.freeze(refs) {
            return None;
        }
        let former = core::ptr::with_exposed_provenance::<AnonVma<M>>(page.owner());
        KArc::add_owners(&self.anon_vma, 1);
        page.set_owner(KArc::as_ptr(&self.anon_vma).expose_provenance(), page.index());
        page.unfreeze(refs);
        // SAFETY: the page was an owner of its former anon_vma, and now is one of this space's.
        Some(unsafe { KArc::from_raw(former) })
    }

    fn find_anon<'a>(&self, areas: &'a Areas<M>, pfn: Pfn, pgoff: usize) -> Option<(&'a Vma<M>, UserAddr)> {
        let at = |vma: &'a Vma<M>| {
            let offset = pgoff.wrapping_sub(vma.pgoff);
            let addr = (offset < vma.pages()).then(|| vma.start + (offset << PAGE_SHIFT))?;
            self.entry(addr).holds(pfn).then_some((vma, addr))
        };
        let addr = UserAddr::new(pgoff << PAGE_SHIFT);
        let straight = if addr.get() < USER_END { areas.tree.find(addr).and_then(at) } else { None };
        if straight.is_some() {
            return straight;
        }
        let mut after = None;
        while let Some(found) = areas.tree.away().find(pgoff, after) {
            // SAFETY: an area of this tree, which is locked for reading.
            let there = at(unsafe { found.area.as_ref() });
            if there.is_some() {
                return there;
            }
            after = Some(found.key);
        }
        None
    }

    /// The area at `addr`, if this space maps page `index` of the object, which is `pfn`, there.
    fn find_object<'a>(
        &self,
        areas: &'a Areas<M>,
        addr: UserAddr,
        object: &KArc<Object<M>>,
        index: usize,
        pfn: Pfn,
    ) -> Option<&'a Vma<M>> {
        let is_it = |vma: &&Vma<M>| {
            vma.index_of(addr) == Some(index)
                && vma.backing.as_ref().is_some_and(|backing| KArc::ptr_eq(&backing.object, object))
        };
        areas.tree.find(addr).filter(is_it).filter(|_| self.entry(addr).holds(pfn))
    }
}

/// Visits every mapping of the user page `pfn` until `visit` returns `false`. The caller holds a reference to the page,
/// has it frozen, or knows that it is an object's page in place.
///
/// The space's areas are locked for reading during a visit, which may lock the entry's table and must not sleep. Between
/// visits there are preemption points, and the walk continues even if the thread is killed. A
/// page's entry does not move from one space to another, so the walk misses no mapping of an anonymous page that exists
/// during the whole walk; one that is made or removed meanwhile may be missed or visited. Returns whether no area that
/// may map the page was changed: if one was, a mapping of an object's page that was moved, or whose area was split or
/// merged, may have been missed or visited twice. (A change that was under way during the whole walk goes unnoticed, and
/// its area may be missed.)
pub fn for_each_mapping<M: Machine>(
    machine: M,
    pfn: Pfn,
    mut visit: impl FnMut(&KArc<Mm<M>>, UserAddr) -> bool,
) -> bool {
    walk(machine, pfn, None, |mm, _, addr| visit(mm, addr))
}

/// As [`for_each_mapping`], for a caller that holds `own` references to the page: the walk ends when it has found as
/// many mappings as the page's count allows. That makes it short if many spaces could map the page but few do. Mappings
/// that are made meanwhile are more likely to be missed.
pub fn for_each_mapping_of_held<M: Machine>(
    machine: M,
    pfn: Pfn,
    own: u32,
    mut visit: impl FnMut(&KArc<Mm<M>>, UserAddr) -> bool,
) -> bool {
    walk(machine, pfn, Some(own), |mm, _, addr| visit(mm, addr))
}

/// As [`for_each_mapping_of_held`], or [`for_each_mapping`] without `own`; `visit` gets the mapping's area too.
pub(super) fn walk<M: Machine>(
    machine: M,
    pfn: Pfn,
    own: Option<u32>,
    mut visit: impl FnMut(&KArc<Mm<M>>, &Vma<M>, UserAddr) -> bool,
) -> bool {
    let page = frame::page(machine, pfn);
    let state = page.state();
    let left = own.filter(|_| state.is_user()).and_then(|own| {
        let object = (state == PageState::Object) as u32;
        page.mappings_at_most(own + object)
    });
    let mut left = left.unwrap_or(u32::MAX);
    if left == 0 {
        return true;
    }
    let sole = own.filter(|_| left == 1);
    let counted = |mm: &KArc<Mm<M>>, vma: &Vma<M>, addr: UserAddr| {
        left -= 1;
        visit(mm, vma, addr) && left != 0
    };
    match state {
        PageState::Anon => {
            for_each_anon_mapping(machine, pfn, sole, counted);
            true
        }
        // (Nobody holds such a page who looks for its mappings.)
        PageState::Whole => true,
        _ => match Object::of_page(machine, page) {
            Some((object, index)) => for_each_object_mapping(&object, index, pfn, counted),
            None => true,
        },
    }
}

fn for_each_anon_mapping<M: Machine>(
    machine: M,
    pfn: Pfn,
    sole: Option<u32>,
    mut visit: impl FnMut(&KArc<Mm<M>>, &Vma<M>, UserAddr) -> bool,
) {
    let page = frame::page(machine, pfn);
    let pgoff = page.index() as usize;
    // SAFETY: the caller's hold keeps the page anonymous, and an anonymous page is an owner of its anon_vma.
    let anon_vma = unsafe { KArc::upgrade(core::ptr::with_exposed_provenance::<AnonVma<M>>(page.owner())) };
    let Some(anon_vma) = anon_vma else { return };
    AnonVma::for_each_space(&anon_vma, |mm| {
        let _ = machine.resched_point();
        Mm::visit_anon(mm, pfn, pgoff, sole, &mut visit)
    });
}

/// As [`for_each_mapping`], for page `index` of the object, which is or was `pfn`.
pub(super) fn for_each_object_mapping<M: Machine>(
    object: &KArc<Object<M>>,
    index: usize,
    pfn: Pfn,
    mut visit: impl FnMut(&KArc<Mm<M>>, &Vma<M>, UserAddr) -> bool,
) -> bool {
    let changes = object.mappings().lock().changes();
    let mut after: Option<Key> = None;
    loop {
        let (mm, addr) = {
            let mappings = object.mappings().lock();
            let Some(found) = mappings.find(index, after) else { return mappings.changes() == changes };
            after = Some(found.key);
            // SAFETY: an area is removed from the mappings before it is freed, and its space outlives its areas; the
            // mappings are locked, and an area in them changes its range only under that lock.
            unsafe {
                let area = found.area.as_ptr();
                let (start, space, first) = (&raw const (*area).start, (*area).space.get(), found.key.0);
                (KArc::upgrade((*space).assume_init()), *start + ((index - first) << PAGE_SHIFT))
            }
        };
        // A space that is being torn down maps nothing any more.
        let Some(mm) = mm else { continue };
        // (The caller completes its work even if the thread is killed.)
        let _ = mm.machine.resched_point();
        let areas = mm.areas.read();
        if let Some(vma) = mm.find_object(&areas, addr, object, index, pfn)
            && !visit(&mm, vma, addr)
        {
            return true;
        }
    }
}

/// Visits every part of a private area that maps pages of the object from `first` on: its space, and the range. The areas are locked
/// for reading meanwhile. An area that is being moved may be missed.
pub(super) fn for_each_private_part<M: Machine>(
    object: &KArc<Object<M>>,
    first: usize,
    mut visit: impl FnMut(&Mm<M>, UserAddr, UserAddr),
) {
    let mut after: Option<Key> = None;
    loop {
        let (mm, start) = {
            let mappings = object.mappings().lock();
            let Some(found) = mappings.find_in(first, usize::MAX, after) else { return };
            after = Some(found.key);
            // SAFETY: as in `for_each_object_mapping`.
            unsafe {
                let area = found.area.as_ptr();
                let (start, space) = (&raw const (*area).start, (*area).space.get());
                (KArc::upgrade((*space).assume_init()), *start)
            }
        };
        let Some(mm) = mm else { continue };
        let _ = mm.machine.resched_point();
        let areas = mm.areas.read();
        let Some(vma) = areas.tree.find(start).filter(|vma| !vma.flags.contains(VmFlags::SHARED)) else { continue };
        let Some(backing) = vma.backing.as_ref().filter(|b| KArc::ptr_eq(&b.object, object)) else { continue };
        let skipped = first.saturating_sub(backing.index);
        if skipped < vma.pages() {
            visit(&mm, vma.start + (skipped << PAGE_SHIFT), vma.end);
        }
    }
}
