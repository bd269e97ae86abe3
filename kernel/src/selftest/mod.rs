//! The self-test build (cargo feature `selftest`): instead of starting init, the kernel checks its own memory manager,
//! on all CPUs, and switches the machine off.
//!
//! Each check prints one line of TAP on the console, and after each the resource counts must balance: all memory is
//! back, and the page allocator's counters agree with its records. The kernel argument `selftest=bench` runs the
//! microbenchmarks ([`bench`]) instead, and other values misuse memory ([`misuse`]), so that the kernel panics; one of
//! them stops it early in boot ([`stop_early`]).
//!
//! [`crew`] makes the CPUs work together; the other modules are the checks of one part each.

mod attributes;
mod bench;
mod books;
mod bytes;
mod cma;
mod crew;
mod indices;
mod kmap;
mod memory;
mod misuse;
mod pages;
mod random;
mod registers;
mod slab;
mod spaces;
mod vmalloc;
mod walks;

use core::fmt::{self, Write};
use core::panic::Location;

use quire_mm::fallible::AllocError;
use quire_platform::bootargs;

use crate::board::BOARD;
use crate::boot::Count;
use crate::console::serial;
use crate::power;
use crate::vm::PAGES;
use books::Books;

pub use crew::serve;

/// A failed condition and its place.
#[derive(Clone, Copy, Debug)]
pub struct Wrong {
    at: &'static Location<'static>,
    what: &'static str,
}

impl Wrong {
    /// A failure at the caller's location.
    #[track_caller]
    fn here(what: &'static str) -> Wrong {
        Wrong { at: Location::caller(), what }
    }
}

/// The result of a check.
pub type Outcome<T = ()> = Result<T, Wrong>;

/// Checks a condition.
#[track_caller]
fn expect(holds: bool, what: &'static str) -> Outcome {
    if holds { Ok(()) } else { Err(Wrong::here(what)) }
}

/// Unwraps an allocation that must succeed.
#[track_caller]
fn got<T>(result: Result<T, AllocError>, what: &'static str) -> Outcome<T> {
    let at = Location::caller();
    result.map_err(|_| Wrong { at, what })
}

/// As [`got`], for the slab's `Option`.
#[track_caller]
fn some<T>(option: Option<T>, what: &'static str) -> Outcome<T> {
    got(option.ok_or(AllocError), what)
}

/// A check and its name.
type Check = (&'static str, fn() -> Outcome);

/// The checks, in their order.
const CHECKS: &[&[Check]] = &[
    registers::CHECKS,
    indices::CHECKS,
    bytes::CHECKS,
    pages::CHECKS,
    slab::CHECKS,
    vmalloc::CHECKS,
    attributes::CHECKS,
    kmap::CHECKS,
    cma::CHECKS,
    spaces::CHECKS,
    memory::CHECKS,
];

/// Runs all checks, or the benchmarks, and switches the machine off with status 0 if nothing was wrong, else 1.
pub fn run() {
    let wanted = bootargs::find(BOARD.get().chosen.bootargs.as_str(), "selftest");
    let failed = match wanted {
        Some("bench") => bench::run(),
        wanted => wanted.and_then(misuse::run).unwrap_or_else(run_checks),
    };
    power::off(u32::from(failed != 0))
}

/// With `selftest=early-panic`: panics while the kernel has its own tables and no console yet.
pub fn stop_early(args: &str) {
    assert!(bootargs::find(args, "selftest") != Some("early-panic"), "stopped before there is a console");
}

/// Runs the checks; returns how many failed.
fn run_checks() -> usize {
    say(format_args!("# {}, {} pages", Count(crew::size(), "CPU"), PAGES.total_managed()));
    say(format_args!("# {} contiguous memory areas", (0..).map_while(|area| PAGES.cma_info(area)).count()));
    if kmap::region().is_some() {
        say(format_args!("# memory that is not mapped"));
    }
    spaces::warm_up();
    let (mut count, mut failed) = (0, 0);
    for (name, check) in CHECKS.iter().copied().flatten() {
        count += 1;
        let outcome = balanced(*check);
        failed += usize::from(outcome.is_err());
        match outcome {
            Ok(()) => say(format_args!("ok {count} - {name}")),
            Err(Wrong { at, what }) => {
                say(format_args!("not ok {count} - {name}"));
                say(format_args!("# {}:{}: {what}", at.file(), at.line()));
            }
        }
    }
    say(format_args!("1..{count}"));
    say(format_args!("# {failed} failed"));
    failed
}

/// Runs a check and compares the resource counts before and after.
fn balanced(check: fn() -> Outcome) -> Outcome {
    let before = Books::when_quiet()?;
    check()?;
    before.compare(&Books::when_quiet()?)
}

/// One line on the console.
fn say(line: fmt::Arguments<'_>) {
    struct Console;
    impl Write for Console {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            serial::write_console(text.as_bytes());
            Ok(())
        }
    }
    // The console cannot fail.
    let _ = write!(Console, "{line}\r\n");
}
