//! Queries to the kernel.

use quire_abi::Errno;
use quire_abi::group::{GroupInfo, controller};
use quire_abi::pressure::Pressure;

/// The kernel, or a substitute in tests. Groups are identified by their keys, 0 for the root.
pub trait Facts {
    /// The group with this number, or else with the next higher one.
    fn group_from(&self, number: u32) -> Option<GroupInfo>;
    /// The pressure in a group; the machine's for the root.
    fn pressure(&self, key: u64) -> Pressure;
    /// The key of the group with this name below another one.
    fn find(&self, parent: u64, name: &[u8]) -> Option<u64>;
    /// Makes a group.
    fn make(&self, parent: u64, name: &[u8]) -> Result<(), Errno>;
    /// Removes one.
    fn remove(&self, key: u64) -> Result<(), Errno>;
    /// Sets one of [`set`](quire_abi::group::set).
    fn set(&self, key: u64, what: usize, value: u64) -> Result<(), Errno>;
    /// Moves a process there.
    fn move_to(&self, key: u64, pid: u32) -> Result<(), Errno>;
    /// Kills all processes in it and below it.
    fn kill(&self, key: u64) -> Result<(), Errno>;
    /// The thread of a process with this number, or else with the next higher one.
    fn thread_from(&self, pid: u32, tid: u32) -> Option<u32>;
    /// Reclaims pages; returns how many.
    fn reclaim(&self, key: u64, pages: u64) -> Result<u64, Errno>;
    /// The process with this number, or else with the next higher one: its number, and the key of its group.
    fn process_from(&self, pid: u32) -> Option<(u32, u64)>;
    /// The process that asks.
    fn caller(&self) -> u32;
    /// Nanoseconds since 1970.
    fn now(&self) -> u64;
}

impl dyn Facts + '_ {
    /// The group with this key. The root has no limits.
    pub fn group(&self, key: u64) -> Option<GroupInfo> {
        if key == 0 {
            return Some(GroupInfo { distributes: controller::ALL, ..GroupInfo::default() });
        }
        self.group_from((key & 0xffff) as u32).filter(|group| group.key == key)
    }

    /// The groups with this number or a higher one, by number.
    pub fn groups(&self, from: u32) -> impl Iterator<Item = GroupInfo> {
        let mut from = Some(from);
        core::iter::from_fn(move || {
            let group = self.group_from(from?)?;
            from = number(&group).checked_add(1);
            Some(group)
        })
    }

    /// A group and all groups below it.
    pub fn within(&self, key: u64) -> impl Iterator<Item = GroupInfo> {
        self.groups(1).filter(move |group| self.is_within(group, key))
    }

    fn is_within(&self, group: &GroupInfo, key: u64) -> bool {
        let mut at = Some(*group);
        while let Some(group) = at {
            if group.key == key || key == 0 {
                return true;
            }
            at = if group.parent == 0 { None } else { self.group(group.parent) };
        }
        false
    }

    /// The threads of a process, by number.
    pub fn threads(&self, pid: u32) -> impl Iterator<Item = u32> {
        let mut from = Some(0);
        core::iter::from_fn(move || {
            let tid = self.thread_from(pid, from?)?;
            from = tid.checked_add(1);
            Some(tid)
        })
    }

    /// The processes with this number or a higher one that are in a group.
    pub fn members(&self, key: u64, from: u32) -> impl Iterator<Item = u32> {
        let mut from = Some(from);
        core::iter::from_fn(move || {
            loop {
                let (pid, group) = self.process_from(from?)?;
                from = pid.checked_add(1);
                if group == key {
                    return Some(pid);
                }
            }
        })
    }
}

/// The number of a group.
pub fn number(group: &GroupInfo) -> u32 {
    (group.key & 0xffff) as u32
}
