//! Which control group a process is in: the one that its memory is charged to.
//!
//! The number in the process is written under the lock of the table of processes. So a child is in its parent's group as of the moment at which
//! it is entered there, and a process that has ended is in none.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_mm::cgroup::{Groups, Key, Machine};
use quire_mm::fallible::AllocError;
use quire_mm::reclaim::Lists;

use super::entity::{self, work};
use super::process::Process;
use super::table::{TABLE, Table};
use super::thread::current;
use crate::vm::{Cpu, GROUPS};

impl Machine for Cpu {
    type Lists = Lists<Self>;

    fn make_lists(self) -> Result<Self::Lists, AllocError> {
        Lists::new(self)
    }

    fn end_lists(lists: &Self::Lists) {
        lists.end();
    }

    #[inline(always)]
    fn groups(self) -> &'static Groups<Self> {
        &GROUPS
    }

    /// Threads of the kernel are in the root.
    #[inline(always)]
    fn group(self) -> u16 {
        entity::current().control_group()
    }

    /// The calling thread makes room before it returns to its program.
    fn is_above_high(self) {
        if current().process.is_some() {
            entity::current().set_work(work::ABOVE_HIGH);
        }
    }
}

/// Makes that room. No lock is held.
pub fn pay_debt() {
    GROUPS.make_room_above_high();
}

/// A child is in its parent's group.
pub fn begin(_table: &mut Table, parent: &Process, child: &Process) {
    let id = parent.whole.control_group.load(Ordering::Relaxed);
    if id != 0 {
        GROUPS.enter_too(id);
        child.whole.control_group.store(id, Ordering::Relaxed);
    }
}

/// A process has ended.
pub fn end(_table: &mut Table, process: &Process) {
    let id = process.whole.control_group.swap(0, Ordering::Relaxed);
    if id != 0 {
        GROUPS.leave(id);
    }
}

/// Moves a process to a group. What it has stays charged where it is. ESRCH for none, or one that has ended, ENOENT if there is no such group.
pub fn move_to(pid: u32, to: Key) -> Result<(), Errno> {
    let table = TABLE.lock();
    let process = table.process(pid).ok_or(Errno::ESRCH)?;
    if table.family(process).is_zombie {
        return Err(Errno::ESRCH);
    }
    let id = if to == Key::ROOT { 0 } else { GROUPS.enter(to).ok_or(Errno::ENOENT)? };
    let old = process.whole.control_group.swap(id, Ordering::Relaxed);
    if old != 0 {
        GROUPS.leave(old);
    }
    Ok(())
}
