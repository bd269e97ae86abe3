//! Injected allocation failures, and a ledger of live allocations, for this crate's own tests.

use super::AllocError;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;

std::thread_local! {
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    /// A non-waiting allocation has just failed: the waiting one with which its caller tries again fails too.
    static LASTS: Cell<bool> = const { Cell::new(false) };
    /// Addresses of live allocations by this module's parent.
    static LEDGER: RefCell<Option<HashSet<usize>>> = const { RefCell::new(None) };
}

/// Makes this thread's `nth` allocation from now on fail, counted from 1; `None` cancels that. Boxes and vectors count,
/// and pages if [enabled](crate::page_alloc::PageAllocator::ask_about_failures).
pub fn fail(nth: Option<u32>) {
    LEFT.set(nth);
    LASTS.set(false);
}

/// Whether the armed failure has not happened yet.
pub fn is_armed() -> bool {
    LEFT.get().is_some()
}

/// An allocation that may wait.
pub fn pass() -> Result<(), AllocError> {
    if LASTS.replace(false) { Err(AllocError) } else { pass_one() }
}

/// An allocation whose caller will wait if it fails.
pub fn pass_now() -> Result<(), AllocError> {
    let passed = pass_one();
    LASTS.set(LASTS.get() || passed.is_err());
    passed
}

/// An allocation that its caller does not need.
pub fn pass_one() -> Result<(), AllocError> {
    match LEFT.get() {
        None => Ok(()),
        Some(1) => {
            LEFT.set(None);
            Err(AllocError)
        }
        Some(n) => {
            LEFT.set(Some(n - 1));
            Ok(())
        }
    }
}

/// Starts this thread's ledger of live boxes and vectors.
pub fn keep_ledger() {
    LEDGER.with_borrow_mut(|ledger| *ledger = Some(HashSet::new()));
}

/// The number of live allocations in the ledger.
pub fn live() -> usize {
    LEDGER.with_borrow(|ledger| ledger.as_ref().map_or(0, HashSet::len))
}

pub(super) fn enter<T>(place: *const T) {
    // (When the ledger itself grows it frees memory, and is borrowed then.)
    LEDGER.with_borrow_mut(|ledger| ledger.as_mut().map(|ledger| ledger.insert(place.addr())));
}

/// Removes an entry; returns whether the ledger had it.
fn strike(place: *const u8) -> bool {
    let strike = |ledger: &RefCell<Option<HashSet<usize>>>| {
        ledger.try_borrow_mut().is_ok_and(|mut ledger| ledger.as_mut().is_some_and(|l| l.remove(&place.addr())))
    };
    LEDGER.try_with(strike).unwrap_or(false)
}

/// The host's allocator, which removes freed memory from the ledger.
struct Host;

#[global_allocator]
static HOST: Host = Host;

// SAFETY: it is the system's, and does nothing else with the memory.
unsafe impl GlobalAlloc for Host {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, here and below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        strike(place);
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let known = strike(place);
        // SAFETY: as above.
        let new = unsafe { System.realloc(place, layout, size) };
        if known {
            enter(if new.is_null() { place } else { new });
        }
        new
    }
}
