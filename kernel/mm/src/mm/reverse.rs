//! The reverse-mapping walk's work in one space.

use super::Mm;
use crate::addr::{PAGE_SHIFT, Pfn, USER_END, UserAddr};
use crate::fallible::KArc;
use crate::machine::Machine;
use crate::mm::frame;
use crate::page::PageState;
use crate::pte::index;
use crate::rmap::AnonGroup;
use crate::vma::Vma;

impl<M: Machine> Mm<M> {
    /// Where this space maps the anonymous page `pfn` with this home.
    pub fn find_anon(&self, pfn: Pfn, home: usize) -> Option<UserAddr> {
        let areas = self.areas.read();
        let at = |vma: &Vma<M>| {
            let offset = home.wrapping_sub(vma.home);
            let addr = (offset < vma.pages()).then(|| vma.start + (offset << PAGE_SHIFT))?;
            let pte = self.tables.walk(addr)?.peek(index(addr.get(), 3));
            (pte.is_present() && pte.is_anon() && pte.addr().pfn() == pfn).then_some(addr)
        };
        let addr = UserAddr::new(home << PAGE_SHIFT);
        let straight = if addr.get() < USER_END { areas.tree.find(addr).and_then(at) } else { None };
        straight
            .or_else(|| areas.moved.then(|| areas.tree.iter().filter(|vma| !vma.is_at_home()).find_map(at)).flatten())
    }
}

/// Visits every mapping of the anonymous page `pfn`, to which the caller holds a reference, until `visit` answers
/// `false`. Mappings that come or go meanwhile may be missed or seen.
pub fn for_each_anon_mapping<M: Machine>(machine: M, pfn: Pfn, mut visit: impl FnMut(&KArc<Mm<M>>, UserAddr) -> bool) {
    let page = frame::page(machine, pfn);
    if page.state() != PageState::Anon {
        return;
    }
    let home = page.index() as usize;
    // SAFETY: the caller's reference keeps the page anonymous, and an anonymous page is an owner of its group.
    let group = unsafe { KArc::upgrade(core::ptr::with_exposed_provenance::<AnonGroup<M>>(page.owner())) };
    let Some(group) = group else { return };
    AnonGroup::for_each_space(&group, |mm| mm.find_anon(pfn, home).is_none_or(|addr| visit(mm, addr)));
}
