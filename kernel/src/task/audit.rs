//! The self-test of reverse mapping over all processes. See [`quire_mm::mm::Mm::audit`].

use core::cell::Cell;

use quire_abi::Errno;
use quire_abi::info::MapAudit;
use quire_mm::addr::Pfn;
use quire_mm::fallible::KArc;
use quire_mm::mm::audit_page;
use quire_mm::page::{Page, PageState};

use super::point::resched_point;
use super::process::TABLE;
use super::wait::Sleep;
use crate::vm::{Cpu, Mm, PAGES};

/// Checks every space, then every user page. EINTR if a signal is pending.
pub fn run() -> Result<MapAudit, Errno> {
    let mut found = MapAudit::default();
    let mut last = 0;
    while let Some((pid, mm)) = next_space(last) {
        last = pid;
        if let Some(mm) = mm {
            let audit = Mm::audit(&mm, || pause().is_ok());
            found.entries += audit.entries as u64;
            found.unlisted += audit.unlisted as u64;
        }
        pause()?;
    }
    let mut from = Pfn(0);
    while let Some((pfn, is_user)) = next_page(from) {
        from = Pfn(pfn.0 + 1);
        if is_user {
            found.pages += 1;
            found.miscounted += !audit_page(Cpu, pfn) as u64;
        }
        pause()?;
    }
    Ok(found)
}

/// The first user page from `from` on, or the last of the pages that are looked at between two points; and whether it is a
/// user page.
fn next_page(from: Pfn) -> Option<(Pfn, bool)> {
    const LOOKED_AT: usize = 1024;
    let (left, is_user) = (Cell::new(LOOKED_AT), Cell::new(false));
    let stops = |page: &Page| {
        left.set(left.get() - 1);
        is_user.set(matches!(page.state(), PageState::Anon | PageState::Object));
        is_user.get() || left.get() == 0
    };
    PAGES.next_frame(from, stops).map(|pfn| (pfn, is_user.get()))
}

/// The first process with a higher number, and its space if it has one.
fn next_space(after: u32) -> Option<(u32, Option<KArc<Mm>>)> {
    let process = TABLE.lock().next_process(after + 1).cloned()?;
    let mm = process.space.lock().as_ref().map(|space| KArc::clone(&space.mm));
    Some((process.pid, mm))
}

/// Passes a point.
fn pause() -> Result<(), Errno> {
    Ok(resched_point(Sleep::Interruptible)?)
}
