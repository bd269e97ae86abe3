//! The caller's user and group ids: querying and changing them.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_mm::fallible::{KArc, TryVec};

use super::{Answer, Args};
use crate::arch::uaccess;
use crate::task::credentials::{Credentials, Ids, MAX_GROUPS, Privilege, require};
use crate::task::membership;
use crate::task::point::resched_point;
use crate::task::process::TABLE;
use crate::task::thread::current;
use crate::task::wait::Sleep;

/// Whether a call is about user or group ids.
#[derive(Clone, Copy)]
pub enum Of {
    User,
    Group,
}

fn ids(credentials: &mut Credentials, of: Of) -> &mut Ids {
    match of {
        Of::User => &mut credentials.user,
        Of::Group => &mut credentials.group,
    }
}

/// Changes ids of the caller, all or none, and applies the consequences.
fn change<T>(of: Of, change: impl FnOnce(&mut Ids, bool) -> Result<T, Errno>) -> Result<T, Errno> {
    let process = current().process();
    let table = TABLE.lock();
    let mut credentials = process.credentials.lock();
    let is_privileged = credentials.is_privileged();
    let mut changed = *ids(&mut credentials, of);
    let done = change(&mut changed, is_privileged)?;
    let other = Some(changed.real).filter(|real| matches!(of, Of::User) && *real != credentials.user.real);
    if let Some(user) = other {
        membership::change_user(&table, process, user)?;
    }
    let ids = ids(&mut credentials, of);
    if (changed.effective, changed.files) != (ids.effective, ids.files) {
        // What it knows from before is no business of others with its new rights (as on Linux).
        process.is_dumpable.store(false, Ordering::Relaxed);
        process.parent_death_signal.store(0, Ordering::Relaxed);
    }
    *ids = changed;
    process.memory_limits.apply_privilege(&credentials);
    drop(credentials);
    drop(table);
    if other.is_some() {
        process.has_too_many.store(membership::has_too_many(process), Ordering::Relaxed);
    }
    Ok(done)
}

pub fn real(of: Of) -> Answer {
    Ok(ids(&mut current().process().credentials.lock(), of).real as usize)
}

pub fn effective(of: Of) -> Answer {
    Ok(ids(&mut current().process().credentials.lock(), of).effective as usize)
}

pub fn set(a: Args, of: Of) -> Answer {
    change(of, |ids, is_privileged| ids.set(a.uint(0), is_privileged)).map(|()| 0)
}

pub fn set_two(a: Args, of: Of) -> Answer {
    change(of, |ids, is_privileged| ids.set_two(a.uint(0), a.uint(1), is_privileged)).map(|()| 0)
}

pub fn set_three(a: Args, of: Of) -> Answer {
    let wanted = [a.uint(0), a.uint(1), a.uint(2)];
    change(of, |ids, is_privileged| ids.set_three(wanted, is_privileged)).map(|()| 0)
}

pub fn set_files(a: Args, of: Of) -> Answer {
    change(of, |ids, is_privileged| Ok(ids.set_files(a.uint(0), is_privileged))).map(|old| old as usize)
}

pub fn get_three(a: Args, of: Of) -> Answer {
    let ids = *ids(&mut current().process().credentials.lock(), of);
    for (i, id) in [ids.real, ids.effective, ids.saved].iter().enumerate() {
        uaccess::put(a.addr(i), id)?;
    }
    Ok(0)
}

pub fn getgroups(a: Args) -> Answer {
    let groups = current().process().credentials.lock().groups.clone();
    let groups = groups.as_deref().map_or(&[][..], |groups| &groups[..]);
    let room = usize::try_from(a.int(0)).map_err(|_| Errno::EINVAL)?;
    if room == 0 {
        return Ok(groups.len());
    }
    if room < groups.len() {
        return Err(Errno::EINVAL);
    }
    for (i, group) in groups.iter().enumerate() {
        uaccess::put(a.addr(1) + i * size_of::<u32>(), group)?;
        resched_point(Sleep::Killable)?;
    }
    Ok(groups.len())
}

/// Sorts groups, as Linux does, since membership of one of many groups is checked under locks. (A heap sort, because it
/// can pass preemption points; a killed thread continues, for a few milliseconds.)
fn sort(groups: &mut [u32]) {
    let len = groups.len();
    for root in (0..len / 2).rev() {
        sift_down(groups, root);
    }
    for end in (1..len).rev() {
        groups.swap(0, end);
        sift_down(&mut groups[..end], 0);
    }
}

/// Moves the group at `root` down until no child is larger.
fn sift_down(heap: &mut [u32], mut root: usize) {
    let _ = resched_point(Sleep::Killable);
    loop {
        let left = 2 * root + 1;
        let Some(&first) = heap.get(left) else { return };
        let child = left + usize::from(heap.get(left + 1).is_some_and(|second| *second > first));
        if heap[child] <= heap[root] {
            return;
        }
        heap.swap(root, child);
        root = child;
    }
}

pub fn setgroups(a: Args) -> Answer {
    let process = current().process();
    require(process, Privilege::SetGroups)?;
    let count = a.uint(0) as usize;
    if count > MAX_GROUPS {
        return Err(Errno::EINVAL);
    }
    let mut groups: Vec<u32> = TryVec::try_with_capacity(count)?;
    for i in 0..count {
        groups.try_push(uaccess::get(a.addr(1) + i * size_of::<u32>())?)?;
        resched_point(Sleep::Killable)?;
    }
    sort(&mut groups);
    let groups = if count == 0 { None } else { Some(KArc::try_new(groups)?) };
    let old = core::mem::replace(&mut process.credentials.lock().groups, groups);
    drop(old);
    Ok(0)
}
