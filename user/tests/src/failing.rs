//! Runs an operation with each of its kernel allocations failing in turn: the first, then the second, until the
//! operation meets no failure.

use core::sync::atomic::{AtomicUsize, Ordering};

use quire_rt::abi::flags::{Control, Map, Msync, Prot, sig};
use quire_rt::abi::nr;
use quire_rt::process::Status;
use quire_rt::{Errno, handles, info};

use crate::{Checks, PAGE, asm, child, mmap, raw};

/// More allocations than anything here makes.
const ENDLESS: u32 = 2000;

/// Makes the `n`th allocation from now on fail; returns how many were left until the failure requested before.
pub fn arm(n: u32) -> u32 {
    info::fail_nth(n).unwrap_or(u32::MAX)
}

/// Whether this kernel can make allocations fail.
pub fn is_available() -> bool {
    // Children arm failures too.
    handles::grant(Control::INJECT).is_ok() && info::fail_nth(0).is_ok()
}

/// An address far from all mappings: a mapping there needs page tables of its own.
pub fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1 << 45);
    NEXT.fetch_add(1 << 30, Ordering::Relaxed)
}

/// Private memory at such an address.
pub fn area(pages: usize, prot: Prot) -> usize {
    let flags = Map::PRIVATE | Map::ANONYMOUS | Map::FIXED_NOREPLACE;
    mmap(place(), pages * PAGE, prot, flags, -1, 0).expect("memory for the test")
}

/// Whether all of a range is mapped.
pub fn is_mapped(at: usize, pages: usize) -> bool {
    raw(nr::MSYNC, [at, pages * PAGE, Msync::ASYNC.bits() as usize]).is_ok()
}

/// A call: its number and arguments.
pub type Raw = (usize, [usize; 6]);

/// A call that may meet failed allocations.
pub struct Call<'a> {
    /// The check's name.
    pub name: &'a str,
    /// Errnos that it may answer then.
    pub errnos: &'a [Errno],
    /// The least number of failures that it must meet, for the check to mean anything.
    pub least: u32,
}

impl Call<'_> {
    /// `prepare` sets up the call's operand, `call` gives the call for it, and `is_sound` checks the answer and the
    /// state afterwards, and cleans up.
    pub fn check<T>(
        &self,
        checks: &mut Checks,
        prepare: impl FnMut() -> T,
        mut call: impl FnMut(&T) -> Raw,
        is_sound: impl FnMut(T, Result<usize, Errno>) -> bool,
    ) {
        let make = |about: &T, n: u32| {
            let (number, args) = call(about);
            let (ret, left) = asm::call_armed(n, number, args);
            (Errno::from_ret(ret), left)
        };
        self.check_made(checks, prepare, make, is_sound);
    }

    /// As [`Call::check`], but the closure makes the call itself, armed with the number that it gets; it returns the
    /// call's answer, and how many allocations were left.
    pub fn check_made<T>(
        &self,
        checks: &mut Checks,
        mut prepare: impl FnMut() -> T,
        mut make: impl FnMut(&T, u32) -> (Result<usize, Errno>, u32),
        mut is_sound: impl FnMut(T, Result<usize, Errno>) -> bool,
    ) {
        let mut failures = 0;
        let mut wrong = None;
        for n in 1..ENDLESS {
            let about = prepare();
            let (answer, left) = make(&about, n);
            let met = left == 0;
            let allowed = answer.is_ok() || met && answer.is_err_and(|errno| self.errnos.contains(&errno));
            if !(is_sound(about, answer) && allowed) && wrong.is_none() {
                wrong = Some((n, answer));
            }
            if !met {
                break;
            }
            failures = n;
        }
        self.tell(checks, wrong, failures);
    }

    /// Reports two checks: nothing was wrong, and there were failures.
    fn tell<W: PartialEq + core::fmt::Debug>(&self, checks: &mut Checks, wrong: Option<W>, failures: u32) {
        checks.eq(wrong, None, self.name);
        // (While others take and give pages back, there may be one less to allocate.)
        let least = if crate::is_short() { 0 } else { self.least };
        let enough = (least..ENDLESS - 1).contains(&failures);
        checks.eq((enough, failures), (true, failures), "it met failures");
    }

    /// Runs `work` in a child, on what `prepare` made: it must succeed (`true`) or be killed.
    pub fn or_dies<T>(&self, checks: &mut Checks, mut prepare: impl FnMut() -> T, mut work: impl FnMut(&T) -> bool) {
        let mut failures = 0;
        let mut wrong = None;
        for n in 1..ENDLESS {
            let about = prepare();
            let status = child(|| {
                arm(n);
                let good = work(&about);
                match arm(0) {
                    _ if !good => 2,
                    0 => 1,
                    _ => 0,
                }
            });
            match status {
                Ok(Status::Exited(0)) => break,
                Ok(Status::Exited(1) | Status::Killed(sig::KILL | sig::SEGV)) => {}
                other => wrong = wrong.or(Some((n, other))),
            }
            failures = n;
        }
        self.tell(checks, wrong, failures);
    }
}
