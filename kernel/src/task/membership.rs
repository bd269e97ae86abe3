//! Which control group a process is in: the one that its memory is charged to.
//!
//! The number in the process is written under the lock of the table of processes. So a child is in its parent's group as of the moment at which
//! it is entered there, and a process that has ended is in none. Its tasks (itself, until it was waited for, and its further threads: a number in the table
//! for each) stay charged to the group in which it was last, and to its user ([`users`]). A fork charges one [beforehand](Reserved).

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use quire_abi::Errno;
use quire_abi::flags::{si, sig};
use quire_abi::layout::rlimit;
use quire_mm::cgroup::{Group, Groups, Key, Killing, Machine};
use quire_mm::fallible::{AllocError, KArc};
use quire_mm::reclaim::Lists;

use super::entity::{self, work};
use super::point::resched_point;
use super::process::Process;
use super::signal::{self, Info};
use super::table::{Lack, Room, TABLE, Table};
use super::thread::current;
use super::users::ROOT;
use super::wait::Sleep;
use super::walk::{self, Among};
use super::{freezer, users};
use crate::ipc::trigger;
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

    /// Whoever watches is told by the thread of triggers.
    fn group_changed(self) {
        trigger::ask();
    }
}

/// Makes that room. No lock is held.
pub fn pay_debt() {
    GROUPS.make_room_above_high();
}

/// To whom the tasks of a process are charged. Written under the table's lock.
#[derive(Default)]
pub struct Charges {
    group: AtomicU16,
    user: AtomicU32,
}

/// A number for a task that is being made, and its charge. Both are given back if it is dropped before the task is in the table.
pub struct Reserved {
    number: u32,
    group: u16,
    user: u32,
}

impl Reserved {
    /// A task of the calling process, or one of its children. EAGAIN if its group or its user has as many as it may, or if no number is free.
    pub fn new() -> Result<Self, Errno> {
        match Self::charged(None) {
            Err(Lack::Room) => Self::charged_in_room(),
            made => made.map_err(Errno::from),
        }
    }

    /// The same with room for the number, which is rarely missing.
    #[cold]
    #[inline(never)]
    fn charged_in_room() -> Result<Self, Errno> {
        let mut room = Room::new()?;
        Ok(Self::charged(Some(&mut room))?)
    }

    fn charged(room: Option<&mut Room>) -> Result<Self, Lack> {
        let Some(process) = &current().process else {
            // The first process of all.
            let number = TABLE.lock().reserve(room)?;
            return Ok(Self { number, group: 0, user: ROOT });
        };
        let limit = limit_of(process);
        let mut table = TABLE.lock();
        // (Under the lock the process stays in its group.)
        let group = process.charges.group.load(Ordering::Relaxed);
        let user = process.charges.user.load(Ordering::Relaxed);
        users::charge_task(user, limit).map_err(|_| Lack::Number)?;
        if !GROUPS.charge_task(group) {
            users::uncharge_tasks(user, 1);
            return Err(Lack::Number);
        }
        table.reserve(room).map(|number| Self { number, group, user }).inspect_err(|_| {
            GROUPS.uncharge_tasks(group, 1);
            users::uncharge_tasks(user, 1);
        })
    }

    /// The number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Charges it to a group and a user that the task is in after all: its process, or its parent, may have changed them meanwhile. EAGAIN without memory
    /// for the user's count.
    fn settle(&mut self, group: u16, user: u32) -> Result<(), Errno> {
        users::move_tasks(self.user, user, 1).map_err(|_| Errno::EAGAIN)?;
        self.user = user;
        GROUPS.move_tasks(self.group, group, 1);
        self.group = group;
        Ok(())
    }

    /// The task is in the table, to which the charge belongs from now on.
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let entry = {
            let mut table = TABLE.lock();
            GROUPS.uncharge_tasks(self.group, 1);
            users::uncharge_tasks(self.user, 1);
            table.remove(self.number)
        };
        drop(entry);
    }
}

/// How many tasks the user of a process may have: those of root have no limit, and who has root's privileges is not stopped by that of a user.
fn limit_of(process: &Process) -> u64 {
    let (user, is_privileged) = {
        let credentials = process.credentials.lock();
        (credentials.user.real, credentials.is_privileged())
    };
    if user == ROOT || is_privileged { u64::MAX } else { process.limit(rlimit::NPROC) }
}

/// Whether the user of a process that is not privileged has more tasks than the process may have it have.
pub fn has_too_many(process: &Process) -> bool {
    let limit = limit_of(process);
    limit != u64::MAX && users::tasks(process.uid()) > limit
}

/// A child is in its parent's group, as frozen as that, and killed if all there are. EAGAIN, with nothing changed.
pub fn begin(table: &Table, parent: &Process, child: &Process, reserved: &mut Reserved) -> Result<(), Errno> {
    let (id, user) = (parent.whole.control_group.load(Ordering::Relaxed), child.uid());
    reserved.settle(id, user)?;
    child.charges.group.store(id, Ordering::Relaxed);
    child.charges.user.store(user, Ordering::Relaxed);
    if id != 0 {
        GROUPS.enter_too(id);
        child.whole.control_group.store(id, Ordering::Relaxed);
        freezer::follow(table, child);
        if GROUPS.is_killed(id) {
            signal::begin_exit(table, child, sig::KILL);
        }
    }
    Ok(())
}

/// A thread is about to be added to a process. EAGAIN, with nothing changed.
pub fn begin_thread(process: &Process, reserved: &mut Reserved) -> Result<(), Errno> {
    let charges = &process.charges;
    reserved.settle(charges.group.load(Ordering::Relaxed), charges.user.load(Ordering::Relaxed))
}

/// A process has ended.
pub fn end(table: &mut Table, process: &Process) {
    freezer::end(table, process);
    let id = process.whole.control_group.swap(0, Ordering::Relaxed);
    if id != 0 {
        GROUPS.leave(id);
    }
}

/// The number of a task of a process is free again. Under the table's lock.
pub fn task_is_gone(process: &Process) {
    GROUPS.uncharge_tasks(process.charges.group.load(Ordering::Relaxed), 1);
    users::uncharge_tasks(process.charges.user.load(Ordering::Relaxed), 1);
}

/// The calling process belongs to another user from now on, whatever that one has already. EAGAIN without memory for its count, with nothing changed.
pub fn change_user(table: &Table, process: &Process, user: u32) -> Result<(), Errno> {
    let old = process.charges.user.load(Ordering::Relaxed);
    users::move_tasks(old, user, table.tasks(process) as u64).map_err(|_| Errno::EAGAIN)?;
    process.charges.user.store(user, Ordering::Relaxed);
    Ok(())
}

/// Moves a process to a group. What it has stays charged where it is. ESRCH for none, or one that has ended, ENOENT if there is no such group.
pub fn move_to(pid: u32, to: Key) -> Result<(), Errno> {
    let table = TABLE.lock();
    let process = table.process(pid).ok_or(Errno::ESRCH)?;
    if table.family(process).is_zombie {
        return Err(Errno::ESRCH);
    }
    let id = if to == Key::ROOT { 0 } else { GROUPS.enter(to).ok_or(Errno::ENOENT)? };
    freezer::end(&table, process);
    let old = process.whole.control_group.swap(id, Ordering::Relaxed);
    process.charges.group.store(id, Ordering::Relaxed);
    GROUPS.move_tasks(old, id, table.tasks(process));
    if old != 0 {
        GROUPS.leave(old);
    }
    freezer::follow(&table, process);
    Ok(())
}

/// Processes that are looked at under one hold of the table's lock.
const AT_ONCE: usize = 4;

/// Visits the processes of a group and below. Those that are forked or moved meanwhile may be visited or not.
fn each_within(id: u16, mut visit: impl FnMut(&Table, &Process)) {
    walk::each_process::<()>(Among::All, AT_ONCE, |table, process| {
        if GROUPS.is_member_within(process.whole.control_group.load(Ordering::Relaxed), id) {
            visit(table, process);
        }
        ControlFlow::Continue(())
    });
}

/// Kills all processes of a group and below, and those that they fork meanwhile.
pub fn kill_all(group: KArc<Group<Cpu>>) {
    let killing = Killing::new(group);
    let info = Info::of_user(sig::KILL, si::KERNEL, 0, 0);
    each_within(killing.id(), |table, process| _ = signal::send_to_process(table, process, &info));
}

/// Freezes a group and those below, or no more.
pub fn freeze(group: &Group<Cpu>, freezes: bool) {
    group.set_freezes(freezes);
    let id = group.key().id();
    each_within(id, freezer::follow);
    for below in GROUPS.all().filter(|below| below.is_within(id)) {
        let table = TABLE.lock();
        below.note_state();
        drop(table);
        let _ = resched_point(Sleep::Killable);
    }
}
