//! The record of a page frame, field by field.

use super::*;

fn zeroed() -> Page {
    // SAFETY: all-zero bytes are valid atomics.
    unsafe { core::mem::zeroed() }
}

#[test]
fn a_zeroed_record_is_absent_and_unowned() {
    let page = zeroed();
    assert_eq!(page.state(), PageState::Absent);
    assert_eq!((page.refs(), page.maps(), page.owner(), page.index()), (0, 0, 0, 0));
}

#[test]
fn fields_do_not_disturb_each_other() {
    let page = zeroed();
    page.make_allocated(3);
    let there = 0x7fff_1234_5678_usize;
    page.set_state(PageState::Anon);
    page.set_control_group(0xbeef);
    page.set_owner(there | 1, 0xf_1234_5678_u64);
    assert!(page.try_lock());
    assert!(!page.try_lock());
    page.set_flags(PageFlags::DIRTY);
    assert_eq!(page.add_map(), 0);
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
    assert_eq!(page.remove_map(), 0);
}

#[test]
fn references_and_pins_share_a_count_that_cannot_wrap() {
    let page = zeroed();
    assert!(!page.get_if(PageState::Absent), "nobody holds it");
    page.make_allocated(0);
    assert!(!page.get_if(PageState::Anon), "not what was expected");
    assert!(page.get_if(PageState::Kernel) && !page.put());
    assert!(page.get() && page.pin());
    assert!(page.maybe_pinned());
    assert!(!page.unpin() && !page.maybe_pinned());
    assert!(!page.put());
    assert!(page.put());
    page.head.store(u64::from(REFS_MAX) << REFS_SHIFT | PageState::Kernel as u64, Relaxed);
    assert!(!page.get() && !page.pin() && !page.get_if(PageState::Kernel));
    assert_eq!(page.refs(), REFS_MAX);
}

#[test]
fn what_is_still_in_use_is_not_fit_to_free() {
    let page = zeroed();
    assert!(!page.fit_to_free(0), "never allocated");
    page.make_allocated(2);
    assert!(!page.fit_to_free(1), "another order");
    page.add_map();
    assert!(!page.fit_to_free(2), "mapped");
    page.remove_map();
    page.set_flags(PageFlags::LRU);
    assert!(!page.fit_to_free(2), "on a list");
    page.clear_flags(PageFlags::LRU);
    assert!(page.get());
    assert!(!page.fit_to_free(2), "two holders");
    assert!(!page.put());
    assert!(page.fit_to_free(2));
    page.make_cached(0);
    assert!(!page.fit_to_free(0), "freed twice");
}
