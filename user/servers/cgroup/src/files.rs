//! The files of a group: what they say, and what writing to them does. Their names and forms are Linux's (cgroup-v2.rst).

use alloc::string::String;
use core::fmt::Write;

use quire_abi::Errno;
use quire_abi::group::{GroupInfo, event, set};

use crate::facts::Facts;
use crate::values::{PAGE, limit, pages, plain, switch, write_bytes};

type Read = fn(&dyn Facts, &GroupInfo, &mut String);
type Write_ = fn(&dyn Facts, &GroupInfo, &[u8]) -> Result<(), Errno>;

/// A file.
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// Whether it is the memory controller's: only groups have it whose parent distributes memory.
    pub is_memory: bool,
    /// Whether the root has it.
    pub is_root: bool,
    /// What it says.
    pub read: Option<Read>,
    /// What writing does.
    pub write: Option<Write_>,
    /// Whether it sets a trigger of the group's pressure instead.
    pub takes_triggers: bool,
}

impl File {
    /// Its permissions.
    pub fn permissions(&self) -> u32 {
        [(self.read.is_some(), 0o444), (self.write.is_some() || self.takes_triggers, 0o200)]
            .iter()
            .map(|(has, bits)| if *has { *bits } else { 0 })
            .sum()
    }

    /// Whether a group has it, whose parent is this.
    pub fn is_of(&self, group: &GroupInfo, parent: Option<&GroupInfo>) -> bool {
        match group.key {
            0 => self.is_root,
            _ => !self.is_memory || parent.is_some_and(|parent| parent.distributes != 0),
        }
    }
}

const fn file(name: &'static str, read: Option<Read>, write: Option<Write_>) -> File {
    File { name, is_memory: true, is_root: false, read, write, takes_triggers: false }
}

const fn core_file(name: &'static str, is_root: bool, read: Read, write: Option<Write_>) -> File {
    File { is_memory: false, is_root, ..file(name, Some(read), write) }
}

/// All, by name.
pub const FILES: &[File] = &[
    core_file("cgroup.controllers", true, controllers, None),
    core_file("cgroup.events", false, group_events, None),
    core_file("cgroup.procs", true, procs, Some(enter)),
    core_file("cgroup.stat", true, group_stat, None),
    core_file("cgroup.subtree_control", true, subtree_control, Some(set_subtree_control)),
    core_file("cgroup.type", false, |_, _, out| out.push_str("domain\n"), None),
    file("memory.current", Some(|_, group, out| write_bytes(out, group.usage)), None),
    file("memory.events", Some(|_, group, out| memory_events(out, &group.events)), None),
    file("memory.events.local", Some(|_, group, out| memory_events(out, &group.own_events)), None),
    file("memory.high", Some(|_, group, out| write_bytes(out, group.limits[set::HIGH])), Some(set_high)),
    file("memory.low", Some(|_, group, out| write_bytes(out, group.limits[set::LOW])), Some(set_low)),
    file("memory.max", Some(|_, group, out| write_bytes(out, group.limits[set::MAX])), Some(set_max)),
    file("memory.min", Some(|_, group, out| write_bytes(out, group.limits[set::MIN])), Some(set_min)),
    file("memory.oom.group", Some(oom_group), Some(set_oom_group)),
    file("memory.peak", Some(|_, group, out| write_bytes(out, group.peak)), Some(reset_peak)),
    File { takes_triggers: true, ..core_file("memory.pressure", true, pressure, None) },
    file("memory.reclaim", None, Some(reclaim)),
    file("memory.stat", Some(memory_stat), None),
    file("memory.swap.current", Some(|_, group, out| write_bytes(out, group.swap)), None),
    file("memory.swap.events", Some(swap_events), None),
    file("memory.swap.max", Some(|_, group, out| write_bytes(out, group.limits[set::SWAP])), Some(set_swap)),
];

/// What this server knows to distribute.
const CONTROLLER: &str = "memory";

fn controllers(facts: &dyn Facts, group: &GroupInfo, out: &mut String) {
    let parent = if group.key == 0 { Some(*group) } else { facts.group(group.parent) };
    if parent.is_some_and(|parent| parent.distributes != 0) {
        out.push_str(CONTROLLER);
    }
    out.push('\n');
}

fn subtree_control(_: &dyn Facts, group: &GroupInfo, out: &mut String) {
    if group.distributes != 0 {
        out.push_str(CONTROLLER);
    }
    out.push('\n');
}

/// `+memory` or `-memory`. The root always distributes it. EBUSY for a group with processes, or below which somebody distributes too; ENOENT if
/// the group has it not itself.
fn set_subtree_control(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    for word in plain(text)?.split_ascii_whitespace() {
        let (is_on, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            _ => return Err(Errno::EINVAL),
        };
        if name != CONTROLLER {
            return Err(Errno::EINVAL);
        }
        if is_on == (group.distributes != 0) {
            continue;
        }
        let parent = facts.group(group.parent).ok_or(Errno::ENOENT)?;
        let below = |child: &GroupInfo| child.parent == group.key && child.distributes != 0;
        match is_on {
            true if parent.distributes == 0 => return Err(Errno::ENOENT),
            true if group.members != 0 => return Err(Errno::EBUSY),
            false if group.key == 0 || facts.groups(1).any(|child| below(&child)) => return Err(Errno::EBUSY),
            _ => facts.set(group.key, set::DISTRIBUTES, is_on.into())?,
        }
    }
    Ok(())
}

fn group_events(facts: &dyn Facts, group: &GroupInfo, out: &mut String) {
    let is_populated = facts.within(group.key).any(|below| below.members != 0);
    let _ = writeln!(out, "populated {}\nfrozen 0", u32::from(is_populated));
}

fn group_stat(facts: &dyn Facts, group: &GroupInfo, out: &mut String) {
    let below = facts.within(group.key).filter(|below| below.key != group.key).count();
    let _ = writeln!(out, "nr_descendants {below}");
}

fn procs(facts: &dyn Facts, group: &GroupInfo, out: &mut String) {
    for pid in facts.members(group.key, 1) {
        let _ = writeln!(out, "{pid}");
    }
}

/// A process's number; 0 is the one that writes. EBUSY for a group that distributes: it has no processes of its own.
fn enter(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    let pid: u32 = plain(text)?.parse().map_err(|_| Errno::EINVAL)?;
    if group.key != 0 && group.distributes != 0 {
        return Err(Errno::EBUSY);
    }
    facts.move_to(group.key, if pid == 0 { facts.caller() } else { pid })
}

fn memory_events(out: &mut String, events: &[u64; 7]) {
    for (name, which) in [
        ("low", event::LOW),
        ("high", event::HIGH),
        ("max", event::MAX),
        ("oom", event::OOM),
        ("oom_kill", event::OOM_KILL),
        ("oom_group_kill", event::OOM_GROUP_KILL),
    ] {
        let _ = writeln!(out, "{name} {}", events[which]);
    }
}

fn pressure(facts: &dyn Facts, group: &GroupInfo, out: &mut String) {
    let _ = write!(out, "{}", facts.pressure(group.key));
}

fn swap_events(_: &dyn Facts, group: &GroupInfo, out: &mut String) {
    let refused = group.events[event::SWAP_MAX];
    let _ = writeln!(out, "max {refused}\nfail {refused}");
}

/// Of the group and all below.
fn memory_stat(facts: &dyn Facts, group: &GroupInfo, out: &mut String) {
    let (mut anon, mut files, mut tables, mut stacks) = (0, 0, 0, 0);
    for below in facts.within(group.key) {
        // (They are counted one after the other.)
        anon += below.own.saturating_sub(below.files + below.tables + below.stacks) * PAGE;
        files += below.files * PAGE;
        tables += below.tables * PAGE;
        stacks += below.stacks * PAGE;
    }
    let kernel = tables + stacks;
    let _ = writeln!(out, "anon {anon}\nfile {files}\nkernel {kernel}\nkernel_stack {stacks}\npagetables {tables}");
}

fn oom_group(_: &dyn Facts, group: &GroupInfo, out: &mut String) {
    let _ = writeln!(out, "{}", group.kills_all);
}

fn set_oom_group(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    facts.set(group.key, set::KILLS_ALL, switch(text)?)
}

fn set_min(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    facts.set(group.key, set::MIN, limit(text)?)
}

fn set_low(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    facts.set(group.key, set::LOW, limit(text)?)
}

fn set_high(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    facts.set(group.key, set::HIGH, limit(text)?)
}

fn set_max(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    facts.set(group.key, set::MAX, limit(text)?)
}

fn set_swap(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    facts.set(group.key, set::SWAP, limit(text)?)
}

fn reset_peak(facts: &dyn Facts, group: &GroupInfo, _: &[u8]) -> Result<(), Errno> {
    facts.set(group.key, set::PEAK, 0)
}

/// EAGAIN if less could be taken than was asked for.
fn reclaim(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    let wanted = pages(plain(text)?)?;
    if facts.reclaim(group.key, wanted)? < wanted { Err(Errno::EAGAIN) } else { Ok(()) }
}
