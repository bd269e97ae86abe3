//! Iterating over all processes: there may be as many as numbers, so the table's lock is released now and then.

use core::ops::ControlFlow;

use super::point::{ENTRIES, resched_point};
use super::process::{PID_MAX, Process, TABLE, Table};
use super::wait::Sleep;
use quire_mm::fallible::KArc;

/// Numbers examined under one hold of the lock; most are unused.
const NUMBERS: u32 = 512;

/// Visits every process, zombies too, by rising number, until `visit` breaks. `visit` gets the locked table with each;
/// between processes the lock may be released. A process that starts or ends meanwhile may be visited or not.
///
/// In process context, with no lock held. Even a killed thread completes the walk, since its work may concern other
/// processes.
pub fn each_process<T>(mut visit: impl FnMut(&Table, &KArc<Process>) -> ControlFlow<T>) -> Option<T> {
    let mut number = 1;
    while number < PID_MAX {
        let table = TABLE.lock();
        let mut shown = 0;
        let end = (number + NUMBERS).min(PID_MAX);
        while number < end && shown < ENTRIES {
            if let Some(process) = table.process(number) {
                shown += 1;
                if let ControlFlow::Break(found) = visit(&table, process) {
                    return Some(found);
                }
            }
            number += 1;
        }
        drop(table);
        let _ = resched_point(Sleep::Killable);
    }
    None
}

/// Whether `is` holds for any process.
pub fn any_process(mut is: impl FnMut(&Table, &Process) -> bool) -> bool {
    let found = each_process(
        |table, process| if is(table, process) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) },
    );
    found.is_some()
}
