//! The record of a page frame, field by field.

use super::head::REFS_MAX;
use super::*;

fn zeroed() -> Page {
    // SAFETY: all-zero bytes are valid atomics.
    unsafe { core::mem::zeroed() }
}

#[test]
fn a_zeroed_record_is_absent_and_unowned() {
    let page = zeroed();
    assert_eq!(page.state(), PageState::Absent);
    assert_eq!((page.refs(), page.is_pinned(), page.owner(), page.index()), (0, false, 0, 0));
}

#[test]
fn fields_do_not_disturb_each_other() {
    let page = zeroed();
    page.make_allocated(3);
    let there = 0x7fff_1234_5678_usize;
    page.init_owner(PageState::Anon, 0, 0);
    page.set_control_group(0xbeef);
    page.set_owner(there | 1, 0xf_1234_5678_u64);
    assert!(page.try_lock());
    assert!(!page.try_lock());
    page.set_flags(PageFlags::DIRTY);
    assert!(page.pin());
    assert_eq!(page.state(), PageState::Anon);
    assert_eq!(page.order(), 3);
    assert_eq!(page.owner() & 0xffff_ffff_ffff, there | 1);
    assert_eq!(page.index(), 0xf_1234_5678);
    assert_eq!(page.control_group(), 0xbeef);
    assert_eq!(page.flags(), PageFlags::LOCKED | PageFlags::DIRTY);
    page.set_owner(0, 5);
    assert_eq!((page.owner(), page.index(), page.control_group()), (0, 5, 0xbeef));
    page.unlock();
    assert_eq!(page.flags(), PageFlags::DIRTY);
    assert!(!page.unpin());
}

/// A new page of an address space, with the one reference it comes with.
fn anon() -> Page {
    let page = zeroed();
    page.make_allocated(0);
    assert!(!page.get_if(PageState::Anon), "the kernel's");
    page.init_owner(PageState::Anon, 0, 0);
    page
}

#[test]
fn references_and_pins_share_a_count_that_cannot_wrap() {
    assert!(!zeroed().get_if(PageState::Anon), "nobody holds it");
    let page = anon();
    assert!(!page.get_if(PageState::Object), "not what was expected");
    assert!(page.get_if(PageState::Anon) && !page.put());
    assert!(page.get() && page.pin());
    assert!(page.is_pinned());
    assert!(!page.unpin() && !page.is_pinned());
    assert!(!page.put());
    assert!(page.put());
    page.head.store((u64::from(REFS_MAX) * ONE_REF) | PageState::Anon as u64);
    assert!(!page.get() && !page.pin() && !page.get_if(PageState::Anon));
    assert_eq!((page.refs(), page.is_pinned()), (REFS_MAX, false));
}

#[test]
fn a_page_that_many_share_is_not_pinned_and_a_pin_is_no_mapping() {
    let page = anon();
    (1..5000).for_each(|_| assert!(page.get()));
    assert!(!page.is_pinned());
    assert_eq!(page.mappings_at_most(0), Some(5000));
    assert!(page.pin() && page.is_pinned());
    assert_eq!((page.mappings_at_most(0), page.mappings_at_most(2)), (Some(5000), Some(4998)));
}

#[test]
fn a_frozen_page_is_nobody_else_s_until_it_is_unfrozen() {
    let page = anon();
    assert!(page.get());
    assert!(!page.freeze(1), "somebody else holds it");
    page.set_flags(PageFlags::DIRTY | PageFlags::REFERENCED);
    assert!(page.freeze(2) && !page.freeze(2));
    assert_eq!((page.refs(), page.flags()), (0, PageFlags::DIRTY | PageFlags::REFERENCED));
    assert!(!page.get_if(PageState::Anon));
    assert_eq!(page.mappings_at_most(0), None);
    page.unfreeze(1);
    assert!(page.get_if(PageState::Anon) && !page.put() && page.freeze(1));
    assert!(page.fit_to_free_frozen(0));
}

#[test]
fn what_is_still_in_use_is_not_fit_to_free() {
    let page = zeroed();
    assert!(!page.fit_to_free(0), "never allocated");
    page.make_allocated(2);
    assert!(!page.fit_to_free(1), "another order");
    assert!(page.pin());
    assert!(!page.fit_to_free(2), "pinned");
    assert!(!page.unpin());
    page.set_flags(PageFlags::ISOLATED);
    assert!(!page.fit_to_free(2), "on a list");
    page.clear_flags(PageFlags::ISOLATED);
    assert!(page.get());
    assert!(!page.fit_to_free(2), "two holders");
    assert!(!page.put());
    assert!(page.fit_to_free(2));
    page.make_cached(0);
    assert!(!page.fit_to_free(0) && !page.fit_to_free_frozen(0), "freed twice");
}

#[test]
fn a_user_page_is_freed_by_the_end_of_its_count_and_a_page_of_the_kernel_by_its_holder() {
    let page = anon();
    assert!(!page.fit_to_free(0), "somebody may find it");
    assert!(!page.fit_to_free_frozen(0), "somebody holds it");
    assert!(page.put());
    assert!(!page.fit_to_free(0) && page.fit_to_free_frozen(0));
}
