//! Translations of addresses, for people: what is said of each kind of entry.

use super::non_present::{Elsewhere, How};
use super::*;
use crate::mm::page_out::{Out, page_out};
use crate::mm::{FirstTouch, Outcome};
use crate::object::{Object, Whereabouts};
use crate::page::PageState;
use crate::page_alloc::FrameView;
use crate::pte::Path;
use crate::table::entry::Kind;

type File = KArc<Object<&'static Sim>>;

const AT: usize = 0x4000_0000;
const OUT: Out = Out { shadow: 3, even_raw: true, if_unused: false, if_given_up: false };

fn rig() -> Rig {
    let rig = Rig::new(16);
    rig.sim.spaces().init_swap(1 << 12, 1 << 12, 1).unwrap();
    rig
}

fn translate(mm: &Space, va: usize) -> (Path, Outcome) {
    mm.translate(UserAddr::new(va), |found| (found.path, found.outcome)).unwrap()
}

fn outcome(mm: &Space, va: usize) -> Outcome {
    translate(mm, va).1
}

/// The frame of a mapped address, which the path leads to.
fn frame(mm: &Space, va: usize) -> FrameView {
    let (path, outcome) = translate(mm, va);
    let Outcome::Mapped(to, Some(frame)) = outcome else { panic!("{va:#x} is {outcome:?}") };
    assert_eq!(path.output(va), Some(to), "hardware and the answer agree");
    assert_eq!((path.steps().len(), to.pfn()), (4, frame.pfn));
    frame
}

fn untouched(read: FirstTouch, write: FirstTouch, object: Option<Whereabouts>) -> Outcome {
    Outcome::Untouched { read, write, object, marker: None }
}

fn map_file(mm: &Space, file: &File, at: usize, pages: usize, flags: Map) {
    let object = Some((file.clone(), 0));
    let request =
        MapRequest { addr: at, len: pages * PAGE, prot: RW, flags: flags | Map::FIXED, object, max_prot: Prot::all() };
    mm.map(&request).unwrap();
}

#[test]
fn an_address_without_an_area() {
    let rig = rig();
    let mm = rig.space();
    let (path, outcome) = translate(&mm, AT);
    assert_eq!((path.steps().len(), outcome), (1, Outcome::Unmapped), "the root is all that there is");
    let top = AT + 64 * PAGE;
    map_at(&mm, top - PAGE, PAGE, RW, Map::FIXED | Map::GROWSDOWN).unwrap();
    assert_eq!(translate(&mm, top - 3 * PAGE).1, Outcome::BelowStack);
    assert_eq!(translate(&mm, top).1, Outcome::Unmapped, "above a stack");
    assert_eq!(mm.rss(), 0, "to look brings nothing in");
    assert_eq!(mm.stats().table_pages, 1, "and makes no table");
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn anonymous_memory_before_and_after_accesses() {
    use FirstTouch::{NewPage, Refused, ZeroPage};
    let rig = rig();
    let mm = rig.space();
    map_at(&mm, AT, 16 * PAGE, RW, Map::FIXED).unwrap();
    map_at(&mm, AT + 16 * PAGE, PAGE, Prot::READ, Map::FIXED).unwrap();
    map_at(&mm, AT + 17 * PAGE, PAGE, Prot::empty(), Map::FIXED).unwrap();
    assert_eq!(outcome(&mm, AT), untouched(ZeroPage, NewPage, None));
    assert_eq!(outcome(&mm, AT + 16 * PAGE), untouched(ZeroPage, Refused, None));
    assert_eq!(outcome(&mm, AT + 17 * PAGE), untouched(Refused, Refused, None));
    rig.read(&mm, AT + 8 * PAGE).unwrap();
    let Outcome::Mapped(to, _) = outcome(&mm, AT + 8 * PAGE + 5) else { panic!("it was read") };
    assert_eq!(to, rig.sim.spaces().zero_page() + 5);
    rig.write(&mm, AT, 1).unwrap();
    let page = frame(&mm, AT + 0x123);
    assert_eq!((page.state, page.refs, page.pins, page.mappings()), (PageState::Anon, 1, 0, 1));
    assert_eq!(page.index as usize, AT / PAGE);
    let child = mm.fork().unwrap();
    assert_eq!((frame(&mm, AT).pfn, frame(&child, AT).mappings()), (page.pfn, 2), "both have it");
    assert!(rig.sim.pages().pin_long_term(page.pfn));
    assert_eq!((frame(&mm, AT).refs, frame(&mm, AT).pins, frame(&mm, AT).mappings()), (3, 1, 2));
    assert!(!crate::frame::page(rig.sim, page.pfn).unpin());
    drop((child, mm));
    rig.assert_balanced();
}

#[test]
fn pages_that_are_elsewhere() {
    let rig = Rig::new(16);
    let elsewhere = Elsewhere::attach(rig.sim);
    let mm = rig.space();
    map_at(&mm, AT, 16 * PAGE, RW, Map::FIXED).unwrap();
    [0, 1, 2].iter().for_each(|page| rig.write(&mm, AT + page * PAGE, 5).unwrap());
    let at = |page: usize| UserAddr::new(AT + page * PAGE);
    page_out(rig.sim, frame(&mm, AT).pfn, OUT).unwrap();
    let Outcome::Swapped(slot) = outcome(&mm, AT) else { panic!("it went to swap") };
    assert_eq!((slot.users, elsewhere.word(slot.slot)), (1, 5));
    let child = mm.fork().unwrap();
    let Outcome::Swapped(shared) = outcome(&child, AT) else { panic!("so is the child's") };
    assert_eq!((shared.slot, shared.users), (slot.slot, 2));
    drop(child);
    let old = frame(&mm, AT + PAGE).pfn;
    elsewhere.take_away(&mm, at(1), How::Move);
    let Outcome::Moving(from, moved) = outcome(&mm, AT + PAGE) else { panic!("it is being moved") };
    assert_eq!((from, moved.kind), (old.addr(), Kind::Anon));
    assert!(moved.is_young && moved.is_dirty);
    elsewhere.finish_moves();
    assert_eq!(frame(&mm, AT + PAGE).state, PageState::Anon);
    elsewhere.take_away(&mm, at(9), How::Mark);
    let Outcome::Untouched { marker, .. } = outcome(&mm, AT + 9 * PAGE) else { panic!("a marker has no page") };
    assert_eq!(marker, Some(7));
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn pages_of_objects() {
    use FirstTouch::{BeyondObject, Copy, ObjectPage};
    let rig = rig();
    let mm = rig.space();
    let shared = Object::shared_anon(rig.sim, 4, true).unwrap();
    map_file(&mm, &shared, AT, 4, Map::SHARED);
    map_file(&mm, &shared, AT + 16 * PAGE, 4, Map::PRIVATE);
    let nowhere = Some(Whereabouts::Nowhere);
    assert_eq!(outcome(&mm, AT), untouched(ObjectPage, ObjectPage, nowhere));
    assert_eq!(outcome(&mm, AT + 16 * PAGE), untouched(ObjectPage, Copy, nowhere));
    rig.write(&mm, AT, 7).unwrap();
    let page = frame(&mm, AT);
    assert_eq!((page.state, page.refs, page.mappings(), page.index), (PageState::Object, 2, 1, 0));
    let there = Some(Whereabouts::InMemory(page.pfn));
    assert_eq!(
        outcome(&mm, AT + 16 * PAGE),
        untouched(ObjectPage, Copy, there),
        "the other mapping has not touched it"
    );
    page_out(rig.sim, page.pfn, OUT).unwrap();
    let Outcome::Untouched { object: Some(Whereabouts::InSwap(slot)), .. } = outcome(&mm, AT) else {
        panic!("the object has it in swap")
    };
    assert_eq!(slot.users, 1);
    let file = Object::file(rig.sim, 0).unwrap();
    map_file(&mm, &file, AT + 32 * PAGE, 1, Map::SHARED);
    let beyond = Some(Whereabouts::BeyondEnd);
    assert_eq!(outcome(&mm, AT + 32 * PAGE), untouched(BeyondObject, BeyondObject, beyond));
    drop((mm, shared, file));
    rig.assert_balanced();
}

#[test]
fn the_asid_is_of_its_generation() {
    let rig = rig();
    let mm = rig.space();
    assert_eq!((mm.asid_view().number, mm.asid_view().is_current()), (None, false), "it never ran");
    mm.activate(0);
    let view = mm.asid_view();
    assert!(view.is_current() && view.number.is_some() && view.cpus == 1);
    rig.sim.spaces().asids().set_bits(2);
    let others: std::vec::Vec<Space> = (0..8).map(|_| rig.space()).collect();
    others.iter().for_each(|other| _ = other.activate(1));
    let view = mm.asid_view();
    assert!(!view.is_current() && view.generation < view.current);
    assert_eq!((view.cpus, view.owing & 3), (1, 1), "CPU 0 has not flushed: it still runs with the old number");
    mm.activate(0);
    assert!(mm.asid_view().is_current());
    drop((others, mm));
    rig.assert_balanced();
}
