//! Operations on control groups, which need machine control, and the records that describe groups.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::Control;
use quire_abi::group::{GroupInfo, NAME_MAX, controller, op, set};
use quire_abi::pressure::{Pressure, Share};
use quire_mm::cgroup::{Event, Group, Kernel, Key, Limit, Refused, Stat};
use quire_mm::fallible::KArc;
use quire_mm::psi;

use super::quire::control;
use super::{Answer, Args};
use crate::arch::{timer, uaccess};
use crate::ipc::trigger;
use crate::task::membership;
use crate::vm::{Cpu, GROUPS};

/// How many pages are reclaimed at once when a limit is set below a group's usage: the rest is reclaimed when the group
/// needs more memory.
const MOST_AT_ONCE: usize = 2048;

const LIMITS: [Limit; 6] = [Limit::Min, Limit::Low, Limit::High, Limit::Max, Limit::Swap, Limit::Tasks];

const EVENTS: [Event; 8] = [
    Event::Low,
    Event::High,
    Event::Max,
    Event::Oom,
    Event::OomKill,
    Event::OomGroupKill,
    Event::SwapMax,
    Event::TasksMax,
];

const STATS: [Stat; 5] = [Stat::SwapIn, Stat::SwapOut, Stat::LazyFree, Stat::LazyFreed, Stat::Left];

/// Performs [`op`] on a group. EPERM without the right, ENOENT if there is no such group, EINVAL for an unknown
/// operation.
pub fn group(a: Args) -> Answer {
    control(a, Control::GROUPS)?;
    let key = Key(a.word(2) as u64);
    match a.word(1) {
        op::MAKE => {
            let mut name = [0; NAME_MAX];
            let made = GROUPS.make(key, name_at(a, &mut name)?).map_err(errno)?;
            Ok(made.key().0 as usize)
        }
        op::FIND => {
            let mut name = [0; NAME_MAX];
            GROUPS.child(key, name_at(a, &mut name)?).map(|found| found.key().0 as usize).ok_or(Errno::ENOENT)
        }
        op::REMOVE => {
            GROUPS.remove(key).map_err(errno)?;
            // (Threads that wait for its pressure must stop waiting.)
            trigger::ask();
            Ok(0)
        }
        op::SET => change(&*find(key)?, a.word(3), a.word(4)).map(|()| 0),
        op::MOVE => membership::move_to(a.uint(3), key).map(|()| 0),
        op::RECLAIM => Ok(GROUPS.reclaim_of(&*find(key)?, a.word(3))),
        op::KILL => {
            membership::kill_all(find(key)?);
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn find(key: Key) -> Result<KArc<Group<Cpu>>, Errno> {
    GROUPS.find(key).ok_or(Errno::ENOENT)
}

/// ENAMETOOLONG, EINVAL for an empty name.
fn name_at<'a>(a: Args<'_>, room: &'a mut [u8; NAME_MAX]) -> Result<&'a [u8], Errno> {
    let len = a.word(4);
    let name = room.get_mut(..len).ok_or(Errno::ENAMETOOLONG)?;
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    if uaccess::copy_from_user(name, a.addr(3))? != len {
        return Err(Errno::EFAULT);
    }
    Ok(name)
}

fn errno(why: Refused) -> Errno {
    match why {
        Refused::Gone => Errno::ENOENT,
        Refused::Exists => Errno::EEXIST,
        Refused::Busy => Errno::EBUSY,
        Refused::TooMany => Errno::EAGAIN,
        Refused::NoMemory => Errno::ENOMEM,
    }
}

fn change(group: &Group<Cpu>, what: usize, value: usize) -> Result<(), Errno> {
    match what {
        set::KILLS_ALL => group.kills_all.store(value != 0, Ordering::Relaxed),
        set::DISTRIBUTES => group.distributes.store(value as u32 & controller::ALL, Ordering::Relaxed),
        set::PEAK => group.reset_peak(),
        set::FREEZES => membership::freeze(group, value != 0),
        set::MAX_DESCENDANTS => group.shape()[0].store(value, Ordering::Relaxed),
        set::MAX_DEPTH => group.shape()[1].store(value, Ordering::Relaxed),
        _ => {
            let limit = *LIMITS.get(what).ok_or(Errno::EINVAL)?;
            group.set_limit(limit, value);
            if matches!(limit, Limit::Max | Limit::High) {
                let over = group.usage().saturating_sub(value);
                GROUPS.reclaim_of(group, over.min(MOST_AT_ONCE));
            }
        }
    }
    Ok(())
}

/// The pressure in the group with this key, 0 for the machine.
pub fn pressure(key: usize) -> Option<Pressure> {
    let share = |share: psi::Share| Share {
        total: share.total / 1000,
        averages: share.averages.map(|part| ((part * 10_000 + psi::ONE / 2) / psi::ONE) as u32),
        pad: 0,
    };
    let (some, full) = GROUPS.pressure(Key(key as u64), timer::now_ns())?;
    Some(Pressure { some: share(some), full: share(full) })
}

/// The group with this number, or else with the next higher one.
pub fn info(from: usize) -> Option<GroupInfo> {
    let from = u16::try_from(from).ok()?;
    let group = GROUPS.get(from).filter(|_| from != 0).or_else(|| GROUPS.after(from))?;
    GROUPS.drain_stocks(&group);
    let numbers = group.numbers();
    // (Read first, so that whoever looks at the state afterwards misses no change.)
    let changes = group.changes();
    let (tasks, tasks_peak) = group.tasks();
    let pages = |pages: usize| if pages == usize::MAX { u64::MAX } else { pages as u64 };
    let mut name = [0; NAME_MAX + 1];
    name[..group.name().len()].copy_from_slice(group.name());
    Some(GroupInfo {
        key: group.key().0,
        parent: group.parent_key().0,
        usage: numbers.usage as u64,
        peak: numbers.peak as u64,
        swap: numbers.swap as u64,
        own: numbers.own as u64,
        files: numbers.files as u64,
        shared: numbers.shared as u64,
        stats: STATS.map(|stat| group.stat(stat)),
        tables: numbers.kernel[Kernel::Tables as usize] as u64,
        stacks: numbers.kernel[Kernel::Stacks as usize] as u64,
        tasks: tasks as u64,
        tasks_peak: tasks_peak as u64,
        limits: LIMITS.map(|limit| pages(group.limit(limit))),
        events: EVENTS.map(|event| group.events(event).0),
        own_events: EVENTS.map(|event| group.events(event).1),
        members: group.members() as u32,
        kills_all: group.kills_all.load(Ordering::Relaxed).into(),
        distributes: group.distributes.load(Ordering::Relaxed),
        changes,
        descendants: group.descendants() as u64,
        max_descendants: pages(group.shape()[0].load(Ordering::Relaxed)),
        max_depth: pages(group.shape()[1].load(Ordering::Relaxed)),
        is_populated: group.is_populated().into(),
        freezes: group.freezes().into(),
        is_frozen: group.is_frozen().into(),
        name,
    })
}
