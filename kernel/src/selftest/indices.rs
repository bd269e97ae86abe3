//! Checks of indices that programs give: they are bounded on speculative paths too, wherever one is used.
//!
//! What a CPU does speculatively does not show here. So the kernel of this build counts the indices that it bounds, and
//! each lookup must bound one.

use core::hint::black_box;
use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::{Open, sig};
use quire_abi::layout::{HandleInfo, Sigaction};

use super::{Check, Outcome, Wrong, expect};
use crate::arch::speculation::{self, BOUNDED};
use crate::boot::info;
use crate::ipc::descriptor::{Descriptor, Object, OpenFile, Rights};
use crate::ipc::handles::{Handle, Handles};
use crate::ipc::table::Descriptors;
use crate::syscall;
use crate::task::action::Actions;
use crate::task::table::TABLE;

pub const CHECKS: &[Check] = &[
    ("indices: bounded", bounded),
    ("indices: of calls and records", of_calls),
    ("indices: of processes and signals", of_tasks),
    ("indices: of descriptors", of_descriptors),
    ("indices: of handles", of_handles),
];

fn bounded() -> Outcome {
    let at = |index: usize, len: usize| speculation::bounded(black_box(index), black_box(len));
    let inside = (1..100).all(|len| (0..len).all(|index| at(index, len) == Some(index)));
    expect(inside, "an index of the table is itself")?;
    let outside = [(0, 0), (1, 1), (usize::MAX, 0), (usize::MAX, 1 << 40), (5, 4)];
    expect(outside.into_iter().all(|(index, len)| at(index, len).is_none()), "one beyond it is none")?;
    expect(speculation::get(&[7, 8], black_box(1)) == Some(&8), "the element")?;
    expect(speculation::get_mut(&mut [7, 8], black_box(2)).is_none(), "no element")
}

/// Whether a lookup bounds one index.
#[track_caller]
fn bounds(what: &'static str, lookup: impl FnOnce()) -> Outcome {
    bounds_all(what, 1, lookup)
}

/// Whether a lookup bounds this many indices. (The other CPUs are idle.)
#[track_caller]
fn bounds_all(what: &'static str, count: usize, lookup: impl FnOnce()) -> Outcome {
    let before = BOUNDED.load(Ordering::Relaxed);
    lookup();
    expect(BOUNDED.load(Ordering::Relaxed) == before + count, what)
}

fn of_calls() -> Outcome {
    bounds("a CPU's record", || _ = info::cpu(0))?;
    syscall::LOOKUPS.iter().try_for_each(|(what, count, lookup)| bounds_all(what, *count, lookup))
}

fn of_tasks() -> Outcome {
    bounds("a process", || _ = TABLE.lock().process(1))?;
    bounds("the next process", || _ = TABLE.lock().next_process(1))?;
    let actions = Actions::new();
    bounds("a signal's action", || _ = actions.get(sig::TERM))?;
    bounds_all("a new action, and the old", 2, || _ = actions.set(sig::TERM, Sigaction::default()))
}

fn of_descriptors() -> Outcome {
    const LIMIT: u64 = 64;
    let no_memory = |_: Errno| Wrong::here("there is memory");
    let table = Descriptors::new().map_err(no_memory)?;
    let file = OpenFile::new(Object::Null, Open::RDWR).map_err(no_memory)?;
    let descriptor = Descriptor { file, rights: Rights::READ, close_on_exec: false };
    bounds("insert", || _ = table.insert(descriptor.clone(), 3, LIMIT))?;
    bounds("replace", || _ = table.replace(9, descriptor.clone(), LIMIT))?;
    bounds("get", || _ = table.get(3))?;
    bounds("set_close_on_exec", || _ = table.set_close_on_exec(3, true))?;
    // Until there is no further number.
    bounds_all("close_range_on_exec", 2, || _ = table.close_range_on_exec(9, 9))?;
    bounds("remove", || _ = table.remove(3))?;
    bounds_all("remove_range", 2, || _ = table.remove_range(9, 9))
}

fn of_handles() -> Outcome {
    let handles = Handles::new();
    let mut number = 0;
    for _ in 0..2 {
        number = handles.insert(Handle::machine()).map_err(|_| Wrong::here("there is memory"))?;
    }
    bounds("with", || _ = handles.with(number, |_| Ok(())))?;
    bounds("next", || _ = handles.next(number))?;
    bounds("grant", || _ = handles.grant(number, 0))?;
    bounds("take", || _ = handles.take(number))?;
    bounds("take_if", || _ = handles.take_if(HandleInfo::FIRST, |_| Ok(())))
}
