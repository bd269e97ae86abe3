//! Compares spaces with their models without accessing a page: areas, rights, contents; and reverse mapping with all
//! tables.

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::String;
use std::vec::Vec;

use super::model::{Model, Page};
use super::pair::Pair;
use super::{PAGE, Space};
use crate::addr::{Pfn, UserAddr};
use crate::fallible::KArc;
use crate::frame;
use crate::machine::Machine;
use crate::mm::{Audit, Mm, Outcome, audit_page, for_each_mapping};
use crate::page::{PageFlags, PageState};
use crate::pte::{NonPresent, Pte};
use crate::vma::VmFlags;

impl Pair {
    /// The word at the start of the page that an entry stands for; `None` for an entry without a page.
    fn word(&self, pte: Pte) -> Option<u64> {
        let frame = match pte.kind() {
            None => pte.addr(),
            Some(NonPresent::Migration(old)) => old,
            Some(NonPresent::Swap(swapped)) => return Some(self.elsewhere.word(swapped.slot)),
            Some(NonPresent::None | NonPresent::Marker(_)) => return None,
        };
        // SAFETY: a frame of the simulated machine that an entry refers to; one thread runs.
        Some(unsafe { self.rig.sim.direct_map(frame).cast::<u64>().read() })
    }

    /// What differs between a space and what a model says of it: areas, rights, contents.
    pub fn difference(&self, mm: &Space, model: &Model) -> Result<(), String> {
        let mut areas = Vec::new();
        mm.for_each_vma(|area| areas.push((area.start.get() / PAGE, area.end.get() / PAGE, area.flags)));
        if mm.heap().1.get() != model.brk * PAGE {
            return Err(format!("the heap ends at {}", mm.heap().1));
        }
        if mm.areas.read().default_flags.contains(VmFlags::LOCKED) != model.future {
            return Err("what new areas are locked by".into());
        }
        let mapped: usize = areas.iter().map(|(start, end, _)| end - start).sum();
        if mapped != model.pages.len() {
            return Err(format!("{mapped} mapped pages, not {}", model.pages.len()));
        }
        for (start, end, flags) in areas {
            for page in start..end {
                let Some(expected) = model.pages.get(&page) else { return Err(format!("page {page:#x} is mapped")) };
                if expected.flags() != flags & Page::FLAGS {
                    return Err(format!("page {page:#x} is {flags:?}, not {:?}", expected.flags()));
                }
                if page + 1 != end && !model.pages.get(&(page + 1)).is_some_and(|next| expected.joins(next)) {
                    return Err(format!("an area of two kinds at page {page:#x}"));
                }
            }
        }
        let mut present = BTreeSet::new();
        let mut wrong = None;
        mm.tables.for_each_entry(|va, pte| {
            let page = va.get() / PAGE;
            let Some(word) = self.word(pte) else { return };
            present.insert(page);
            if !model.pages.get(&page).is_some_and(|page| page.may_have(word)) {
                wrong = Some(page);
            }
        });
        if let Some(page) = wrong {
            return Err(format!("content of page {page:#x}"));
        }
        if let Some((page, _)) = model.pages.iter().find(|(page, p)| !p.may_be_absent() && !present.contains(page)) {
            return Err(format!("page {page:#x} was written and is gone"));
        }
        // What no entry says is in the objects.
        let areas = mm.areas.read();
        let away = areas.tree.iter().filter(|vma| vma.flags.contains(VmFlags::SHARED)).flat_map(|vma| {
            let pages = vma.start.get() / PAGE..vma.end.get() / PAGE;
            pages.filter(|page| !present.contains(page)).map(move |page| (page, vma))
        });
        for (page, vma) in away {
            let backing = vma.backing_at(UserAddr::new(page * PAGE)).expect("shared memory has an object");
            let word = match backing.object.look_at(backing.index) {
                _ if backing.object.in_place(backing.index).is_some() || backing.object.is_file() => continue,
                None => 0,
                // SAFETY: as in `word`.
                Some(Ok(pfn)) => unsafe { self.rig.sim.direct_map(pfn.addr()).cast::<u64>().read() },
                Some(Err(slot)) => self.elsewhere.word(slot),
            };
            if model.pages.get(&page).is_some_and(|page| page.word().is_ok_and(|expected| expected != word)) {
                return Err(format!("content of the object's page at page {page:#x}"));
            }
        }
        Ok(())
    }

    /// The models learn what has become of pages that were given up.
    pub fn learn(&mut self) {
        for number in 0..self.processes.len() {
            let p = &self.processes[number];
            let given_up: Vec<usize> =
                p.model.pages.iter().filter(|(_, page)| page.is_given_up()).map(|(number, _)| *number).collect();
            let found: Vec<_> = given_up.iter().map(|page| self.word(p.mm.entry(UserAddr::new(page * PAGE)))).collect();
            for (page, word) in given_up.iter().zip(found) {
                self.processes[number].model.pages.get_mut(page).into_iter().for_each(|page| page.learn(word));
            }
        }
    }

    /// The slots of pages of all objects that processes map, by object and index.
    fn slots_of_objects(&self) -> BTreeMap<(usize, usize), crate::swap::Slot> {
        let mut slots = BTreeMap::new();
        for p in &self.processes {
            for vma in p.mm.areas.read().tree.iter() {
                let Some(object) = vma.backing.as_ref().map(|backing| &backing.object) else { continue };
                let found = (0..object.pages()).filter_map(|index| Some((index, object.look_at(index)?.err()?)));
                let before = slots.len();
                let name = KArc::as_ptr(object).addr();
                let is_new = !slots.keys().any(|(other, _)| *other == name);
                slots.extend(found.map(|(index, slot)| ((name, index), slot)));
                assert!(!is_new || slots.len() - before == object.swapped_pages(), "pages of an object in swap");
            }
        }
        slots
    }

    /// Whether the translation of an address says what its entry stands for.
    fn is_told(&self, mm: &Space, va: UserAddr, pte: Pte) -> bool {
        // (The thread may be killed: then there is no answer.)
        let Ok((path, outcome)) = mm.translate(va, |found| (found.path, found.outcome)) else { return true };
        let swap = self.rig.sim.spaces().swap();
        // (CPUs may set flags of a present entry meanwhile.)
        let page = va.get() / PAGE % 512;
        let of_block = |entry: Pte| entry.is_block() && entry.page_of_block(page).addr() == pte.addr();
        let is_same = |entry: Pte| {
            of_block(entry) || entry == pte || pte.is_present() && entry.is_present() && entry.addr() == pte.addr()
        };
        path.steps().last().is_some_and(|step| is_same(step.entry))
            && match (pte.kind(), outcome) {
                (None, Outcome::Mapped(to, _)) => to == pte.addr() && path.output(va.get()) == Some(to),
                (Some(NonPresent::Swap(swapped)), Outcome::Swapped(view)) => view == swap.view(swapped.slot),
                (Some(NonPresent::Migration(old)), Outcome::Moving(from, moved)) => {
                    from == old && moved.kind == pte.moved_kind()
                }
                (Some(NonPresent::None | NonPresent::Marker(_)), Outcome::Untouched { .. }) => true,
                _ => false,
            }
    }

    /// Everything at once, without touching anything.
    pub fn check(&self) {
        let zero = self.rig.sim.spaces().zero_page();
        // First: while this looks at entries, CPUs go on.
        let written = self.rig.mmu.written();
        let mut mappings: BTreeMap<usize, BTreeSet<(usize, usize)>> = BTreeMap::new();
        let mut slots: BTreeMap<_, u32> = BTreeMap::new();
        let mut dirty = BTreeSet::new();
        for p in &self.processes {
            p.mm.validate();
            if let Err(text) = self.difference(&p.mm, &p.model) {
                panic!("process {}: {text}", p.slot);
            }
            p.mm.tables.for_each_entry(|va, pte| {
                assert!(self.is_told(&p.mm, va, pte), "another translation at {va} than {pte:?}");
                let pfn = match pte.kind() {
                    None if pte.addr() == zero => return,
                    None => {
                        if pte.is_dirty() {
                            dirty.insert(pte.addr().pfn().0);
                        }
                        pte.addr().pfn()
                    }
                    Some(NonPresent::Migration(old)) => old.pfn(),
                    Some(NonPresent::Swap(swapped)) => {
                        *slots.entry(swapped.slot).or_insert(0) += 1;
                        return;
                    }
                    Some(NonPresent::None | NonPresent::Marker(_)) => return,
                };
                mappings.entry(pfn.0).or_default().insert((KArc::as_ptr(&p.mm).addr(), va.get() / PAGE));
            });
            let audit = Mm::audit(&p.mm, || true);
            assert_eq!(audit, Audit { unlisted: 0, ..audit }, "entries that reverse mapping does not know");
        }
        self.slots_of_objects().into_values().for_each(|slot| *slots.entry(slot).or_insert(0) += 1);
        assert_eq!(self.elsewhere.used_slots(), slots.len(), "swap slots in use");
        for (slot, entries) in slots {
            assert_eq!(self.rig.sim.spaces().swap().users(slot), entries, "users of {slot:?}");
        }
        for pfn in written.into_iter().filter(|pfn| !dirty.contains(pfn)) {
            let page = frame::page(self.rig.sim, Pfn(pfn));
            let holds = matches!(page.state(), PageState::Anon | PageState::Object);
            let is_known = self.elsewhere.is_moving(Pfn(pfn)) || page.flags().contains(PageFlags::DIRTY);
            assert!(!holds || is_known, "frame {pfn:#x} was written and nobody knows");
        }
        for (pfn, expected) in mappings {
            let mut found = BTreeSet::new();
            for_each_mapping(self.rig.sim, Pfn(pfn), |mm, va| {
                assert!(found.insert((KArc::as_ptr(mm).addr(), va.get() / PAGE)), "a mapping is listed twice");
                true
            });
            assert_eq!(found, expected, "reverse mapping of frame {pfn:#x}");
            let holds = self.elsewhere.is_moving(Pfn(pfn)) || audit_page(self.rig.sim, Pfn(pfn));
            assert!(holds, "frame {pfn:#x} has other holders than its mappings");
        }
    }
}
