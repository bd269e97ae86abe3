//! Iterating over processes: there may be as many as numbers, so the table's lock is released now and then.

use core::ops::ControlFlow;

use super::point::{ENTRIES, resched_point};
use super::process::{Process, TABLE, Table};
use super::wait::Sleep;
use quire_mm::fallible::KArc;

/// Which processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    /// All.
    All,
    /// The members of a group.
    Group(u32),
}

/// Visits every process of some, zombies too, by rising number, until `visit` breaks. `visit` gets the locked table with
/// each; after `at_once` of them the lock is released. A process that starts or ends meanwhile may be visited or not.
///
/// In process context, with no lock held. Even a killed thread completes the walk, since its work may concern other
/// processes.
pub fn each_process<T>(
    among: Among,
    at_once: usize,
    visit: impl FnMut(&Table, &KArc<Process>) -> ControlFlow<T>,
) -> Option<T> {
    each_process_from(among, 1, at_once, visit)
}

/// The same, of those with this number or a higher one.
pub fn each_process_from<T>(
    among: Among,
    from: u32,
    at_once: usize,
    mut visit: impl FnMut(&Table, &KArc<Process>) -> ControlFlow<T>,
) -> Option<T> {
    let mut from = from.max(1);
    loop {
        let table = TABLE.lock();
        for _ in 0..at_once {
            let next = match among {
                Among::All => table.next_process(from),
                Among::Group(pgid) => table.next_member(pgid, from - 1),
            };
            let process = next?;
            from = process.pid + 1;
            if let ControlFlow::Break(found) = visit(&table, process) {
                return Some(found);
            }
        }
        drop(table);
        let _ = resched_point(Sleep::Killable);
    }
}

/// Whether `is` holds for any process of some.
pub fn any_process(among: Among, mut is: impl FnMut(&Table, &Process) -> bool) -> bool {
    let found = each_process(among, ENTRIES, |table, process| {
        if is(table, process) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found.is_some()
}
