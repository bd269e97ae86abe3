//! The control group of an interactive shell's programs, whose limits leave something for the shell, for services, and
//! for whoever ends a program that has run wild. [`LIST`] says what they are.
//!
//! The shell and process 1 stay in the root. What the shell starts moves to the group before it is a program, which no
//! limit refuses: so there may always be one more command. And the shell precedes them, as services do: among a
//! thousand that run, its turn comes as soon as that of one among ten.

use core::ffi::CStr;

use quire_rt::abi::group::{op, set};
use quire_rt::abi::process::limit;
use quire_rt::{Errno, eprintln, group, info, process, sched};
use quire_shell::limits::{Machine, What, parse};

/// The list.
const LIST: &CStr = c"/etc/limits";

/// The name of the group.
const NAME: &[u8] = b"shell";

const PAGE: u64 = 4096;

/// The group.
#[derive(Clone, Copy)]
pub struct Limited(u64);

impl Limited {
    /// The group with the limits that the list asks for. `None` without a list, and if it cannot be made.
    pub fn make() -> Option<Self> {
        let text = crate::read_if_there(LIST)?;
        let made = Self::with(&text);
        made.inspect_err(|error| eprintln!("init: a shell's programs have no limits: {error}")).ok()
    }

    fn with(text: &[u8]) -> Result<Self, Errno> {
        let memory = info::sysinfo()?;
        let memory = memory.totalram as u64 * u64::from(memory.mem_unit.max(1));
        let limits = parse(text, Machine { numbers: limit::NUMBERS as u64, memory }).unwrap_or_else(|line| {
            let line = alloc::string::String::from_utf8_lossy(&line);
            eprintln!("init: {}: {line}: not a limit", LIST.to_string_lossy());
            Default::default()
        });
        let key = match group::named(op::MAKE, 0, NAME) {
            Err(Errno::EEXIST) => group::named(op::FIND, 0, NAME)?,
            made => made?,
        };
        for (what, limit) in limits {
            let (what, limit) = match what {
                What::Tasks => (set::TASKS, limit),
                What::Memory => (set::MAX, limit / PAGE),
                What::MemoryHigh => (set::HIGH, limit / PAGE),
            };
            group::change(op::SET, key, what as u64, limit)?;
        }
        Ok(Self(key))
    }

    /// The calling process moves there.
    pub fn enter(self) {
        // (If it was removed, nothing is limited.)
        let _ = group::change(op::MOVE, self.0, process::getpid() as u64, 0);
    }

    /// The calling process, a shell, has its turn before all that it starts, however many these are.
    pub fn precede(self) {
        let _ = sched::set_nice(-20, true);
    }
}
