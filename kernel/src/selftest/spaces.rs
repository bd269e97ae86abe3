//! Checks of address spaces and stacks, also with each single allocation failing.

use quire_abi::Errno;
use quire_abi::flags::Prot;
use quire_mm::addr::{PAGE_SIZE, UserAddr};
use quire_mm::fallible::KArc;
use quire_mm::mm::{Access, MapRequest, MmLayout};
use quire_mm::page_alloc::FaultInjection;

use super::books::Books;
use super::crew;
use super::{Check, Outcome, Wrong, expect};
use crate::vm::stack::Stack;
use crate::vm::{Cpu, Mm, PAGES};

pub const CHECKS: &[Check] = &[
    ("spaces: a life with a child, on all CPUs", on_all_cpus),
    ("spaces: each single allocation of a life fails in turn", each_allocation_fails),
];

/// Pages written in a life: more than one table covers.
const PAGES_TOUCHED: usize = 24;
/// From one touched page to the next.
const STRIDE: usize = 40 * PAGE_SIZE;

/// A space is made, filled, forked, written to on both sides, shrunk and ended.
fn life() -> Result<(), Errno> {
    let fault = |mm: &KArc<Mm>, at: usize, access| mm.fault(at, access).map_err(|_| Errno::EFAULT);
    let mm = Mm::new(Cpu, &MmLayout::default())?;
    let len = PAGES_TOUCHED * STRIDE;
    let start = mm.map(&MapRequest::anonymous(len, Prot::READ | Prot::WRITE))?.get();
    for page in 0..PAGES_TOUCHED {
        fault(&mm, start + page * STRIDE, if page % 3 == 0 { Access::Read } else { Access::Write })?;
    }
    let child = mm.fork()?;
    let stack = Stack::new()?;
    for page in (0..PAGES_TOUCHED).step_by(2) {
        fault(&child, start + page * STRIDE, Access::Write)?;
        fault(&mm, start + page * STRIDE, Access::Write)?;
    }
    mm.protect(start, len / 2, Prot::READ)?;
    child.unmap(start + STRIDE, len / 3 / PAGE_SIZE * PAGE_SIZE)?;
    child.set_brk_start(UserAddr::new(0x10_0000));
    child.brk(0x10_0000 + 64 * PAGE_SIZE);
    drop(stack);
    drop(mm);
    drop(child);
    Ok(())
}

/// Runs a life before the counts are first read: it leaves mapped stacks, their list and kernel tables for later ones.
pub fn warm_up() {
    let _ = life();
}

fn on_all_cpus() -> Outcome {
    crew::on_all(|_| (0..20).try_for_each(|_| life().map_err(|_| Wrong::here("a life"))))
}

fn each_allocation_fails() -> Outcome {
    let before = Books::when_quiet()?;
    let mut failures = 0;
    for n in 1..400 {
        // The next allocation fails too: after a non-waiting attempt fails, the caller makes a waiting one.
        let two =
            FaultInjection { interval: 1, probability: 100, times: 2, space: (n - 1) << 12, ..FaultInjection::OFF };
        PAGES.inject_failures(two);
        let outcome = life();
        let hit = PAGES.injected_failures() != 0;
        PAGES.inject_failures(FaultInjection::OFF);
        failures += usize::from(outcome.is_err());
        expect(hit || outcome.is_ok(), "nothing fails but what is made to")?;
        if !hit {
            // The life makes fewer allocations than that, so each has failed once.
            break;
        }
        if n % 16 == 0 {
            before.compare(&Books::when_quiet()?)?;
        }
    }
    // Some failures only reduce optional work: pages that nobody has touched yet.
    expect(failures > 20, "failures were seen outside")
}
