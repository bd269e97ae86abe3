//! The files of a group: their contents, and the effect of writing to them. Their names and formats are Linux's
//! (cgroup-v2.rst).

use alloc::string::String;
use core::fmt::Write;

use quire_abi::Errno;
use quire_abi::group::{GroupInfo, controller, event, set, stat};

use crate::facts::Facts;
use crate::values::{PAGE, count, limit, pages, plain, switch, write_bytes, write_count};

type Read = fn(&dyn Facts, &GroupInfo, &mut String);
type Write_ = fn(&dyn Facts, &GroupInfo, &[u8]) -> Result<(), Errno>;

/// A file.
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// The controller that it belongs to, or 0: only groups whose parent distributes that controller have the file.
    pub of: u32,
    /// Whether the root has it.
    pub is_root: bool,
    /// Writes its content.
    pub read: Option<Read>,
    /// The effect of a write.
    pub write: Option<Write_>,
    /// Whether writing sets a trigger of the group's pressure.
    pub takes_triggers: bool,
    /// Whether poll reports changes of the group's state.
    pub tells_state: bool,
}

impl File {
    /// Its permissions.
    pub fn permissions(&self) -> u32 {
        [(self.read.is_some(), 0o444), (self.write.is_some() || self.takes_triggers, 0o200)]
            .iter()
            .map(|(has, bits)| if *has { *bits } else { 0 })
            .sum()
    }

    /// Whether a group with this parent has it.
    pub fn is_of(&self, group: &GroupInfo, parent: Option<&GroupInfo>) -> bool {
        match group.key {
            0 => self.is_root,
            _ => parent.is_some_and(|parent| parent.distributes & self.of == self.of) || self.of == 0,
        }
    }
}

const fn file(name: &'static str, read: Option<Read>, write: Option<Write_>) -> File {
    let of = controller::MEMORY;
    File { name, of, is_root: false, read, write, takes_triggers: false, tells_state: false }
}

const fn tasks_file(name: &'static str, read: Read, write: Option<Write_>) -> File {
    File { of: controller::TASKS, ..file(name, Some(read), write) }
}

const fn core_file(name: &'static str, is_root: bool, read: Read, write: Option<Write_>) -> File {
    File { of: 0, is_root, ..file(name, Some(read), write) }
}

/// All, by name.
pub const FILES: &[File] = &[
    core_file("cgroup.controllers", true, controllers, None),
    File { tells_state: true, ..core_file("cgroup.events", false, group_events, None) },
    core_file("cgroup.freeze", false, |_, group, out| write_count(out, group.freezes.into()), Some(freeze)),
    File { read: None, ..core_file("cgroup.kill", false, nothing, Some(kill)) },
    core_file("cgroup.max.depth", false, |_, group, out| write_count(out, group.max_depth), Some(set_max_depth)),
    core_file(
        "cgroup.max.descendants",
        false,
        |_, group, out| write_count(out, group.max_descendants),
        Some(set_max_descendants),
    ),
    core_file("cgroup.procs", true, procs, Some(enter)),
    core_file("cgroup.stat", true, group_stat, None),
    core_file("cgroup.subtree_control", true, subtree_control, Some(set_subtree_control)),
    core_file("cgroup.threads", true, threads, Some(|_, _, _| Err(Errno::EOPNOTSUPP))),
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
    tasks_file("pids.current", |_, group, out| write_count(out, group.tasks), None),
    tasks_file("pids.events", |_, group, out| tasks_events(out, &group.events), None),
    tasks_file("pids.events.local", |_, group, out| tasks_events(out, &group.own_events), None),
    tasks_file("pids.max", |_, group, out| write_count(out, group.limits[set::TASKS]), Some(set_tasks)),
    tasks_file("pids.peak", |_, group, out| write_count(out, group.tasks_peak), None),
];

/// Controllers that can be distributed.
/// The maximum number of tasks on Linux.
const MOST_TASKS: u64 = 1 << 22;

const CONTROLLERS: [(&str, u32); 2] = [("memory", controller::MEMORY), ("pids", controller::TASKS)];

fn write_controllers(out: &mut String, bits: u32) {
    let names = CONTROLLERS.iter().filter(|(_, bit)| bits & bit != 0);
    for (n, (name, _)) in names.enumerate() {
        out.push_str(if n == 0 { "" } else { " " });
        out.push_str(name);
    }
    out.push('\n');
}

fn controllers(facts: &dyn Facts, group: &GroupInfo, out: &mut String) {
    let parent = if group.key == 0 { Some(*group) } else { facts.group(group.parent) };
    write_controllers(out, parent.map_or(0, |parent| parent.distributes));
}

fn subtree_control(_: &dyn Facts, group: &GroupInfo, out: &mut String) {
    write_controllers(out, group.distributes);
}

/// `+memory` or `-memory`, and the same with `pids`; either all words take effect or none. The root always distributes
/// both. EBUSY for a group that has processes, or has a group below it that distributes the controller too; ENOENT if
/// the group does not have the controller itself.
fn set_subtree_control(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    let (mut on, mut off) = (0, 0);
    for word in plain(text)?.split_ascii_whitespace() {
        let (is_on, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            _ => return Err(Errno::EINVAL),
        };
        let (_, bit) = *CONTROLLERS.iter().find(|(other, _)| *other == name).ok_or(Errno::EINVAL)?;
        // (The last word counts.)
        (on, off) = if is_on { (on | bit, off & !bit) } else { (on & !bit, off | bit) };
    }
    (on, off) = (on & !group.distributes, off & group.distributes);
    if on != 0 {
        let parent = facts.group(group.parent).ok_or(Errno::ENOENT)?;
        if on & !parent.distributes != 0 {
            return Err(Errno::ENOENT);
        }
        if group.members != 0 {
            return Err(Errno::EBUSY);
        }
    }
    let below = |child: &GroupInfo| child.parent == group.key && child.distributes & off != 0;
    if off != 0 && (group.key == 0 || facts.groups(1).any(|child| below(&child))) {
        return Err(Errno::EBUSY);
    }
    if on | off != 0 {
        facts.set(group.key, set::DISTRIBUTES, (group.distributes & !off | on).into())?;
    }
    // A controller that is not distributed any more imposes no limits either.
    let children = facts.groups(1).filter(|child| off != 0 && child.parent == group.key);
    for child in children {
        for (what, no_limit) in
            NO_LIMITS.iter().filter(|(bit, ..)| off & bit != 0).map(|(_, what, none)| (*what, *none))
        {
            facts.set(child.key, what, no_limit)?;
        }
    }
    Ok(())
}

/// The controllers' limits, and the values that mean none.
const NO_LIMITS: [(u32, usize, u64); 6] = [
    (controller::MEMORY, set::MIN, 0),
    (controller::MEMORY, set::LOW, 0),
    (controller::MEMORY, set::HIGH, u64::MAX),
    (controller::MEMORY, set::MAX, u64::MAX),
    (controller::MEMORY, set::SWAP, u64::MAX),
    (controller::TASKS, set::TASKS, u64::MAX),
];

fn group_events(_: &dyn Facts, group: &GroupInfo, out: &mut String) {
    let _ = writeln!(out, "populated {}\nfrozen {}", group.is_populated, group.is_frozen);
}

fn group_stat(facts: &dyn Facts, group: &GroupInfo, out: &mut String) {
    let below = if group.key == 0 { facts.groups(1).count() as u64 } else { group.descendants };
    let _ = writeln!(out, "nr_descendants {below}");
}

fn nothing(_: &dyn Facts, _: &GroupInfo, _: &mut String) {}

fn freeze(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    facts.set(group.key, set::FREEZES, one_of(text, &[0, 1])?)
}

fn kill(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    one_of(text, &[1])?;
    facts.kill(group.key)
}

/// EINVAL if the text is not a number, ERANGE for any other number, as on Linux.
fn one_of(text: &[u8], known: &[u64]) -> Result<u64, Errno> {
    let number: i32 = plain(text)?.parse().map_err(|_| Errno::EINVAL)?;
    known.iter().find(|known| **known as i64 == i64::from(number)).copied().ok_or(Errno::ERANGE)
}

fn set_max_depth(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    facts.set(group.key, set::MAX_DEPTH, count(text)?)
}

fn set_max_descendants(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    facts.set(group.key, set::MAX_DESCENDANTS, count(text)?)
}

fn threads(facts: &dyn Facts, group: &GroupInfo, out: &mut String) {
    for tid in facts.members(group.key, 1).flat_map(|pid| facts.threads(pid)) {
        let _ = writeln!(out, "{tid}");
    }
}

fn tasks_events(out: &mut String, events: &[u64; 8]) {
    let _ = writeln!(out, "max {}", events[event::TASKS_MAX]);
}

fn set_tasks(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    let most = count(text)?;
    if most > MOST_TASKS && most != u64::MAX {
        return Err(Errno::EINVAL);
    }
    facts.set(group.key, set::TASKS, most)
}

fn procs(facts: &dyn Facts, group: &GroupInfo, out: &mut String) {
    for pid in facts.members(group.key, 1) {
        let _ = writeln!(out, "{pid}");
    }
}

/// Moves a process to the group; 0 is the writing process. EBUSY for a group that distributes controllers: it may have
/// no processes itself.
fn enter(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    let pid: u32 = plain(text)?.parse().map_err(|_| Errno::EINVAL)?;
    if group.key != 0 && group.distributes != 0 {
        return Err(Errno::EBUSY);
    }
    facts.move_to(group.key, if pid == 0 { facts.caller() } else { pid })
}

fn memory_events(out: &mut String, events: &[u64; 8]) {
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

/// For the group and all groups below it.
fn memory_stat(facts: &dyn Facts, group: &GroupInfo, out: &mut String) {
    let (mut anon, mut files, mut shared, mut tables, mut stacks) = (0, 0, 0, 0, 0);
    for below in facts.within(group.key) {
        // (The counts are read one after the other.)
        anon += below.own.saturating_sub(below.files + below.tables + below.stacks) * PAGE;
        files += below.files * PAGE;
        shared += below.shared * PAGE;
        tables += below.tables * PAGE;
        stacks += below.stacks * PAGE;
    }
    let kernel = tables + stacks;
    let swapped = group.swap * PAGE;
    let _ = write!(
        out,
        "anon {anon}\nfile {files}\nkernel {kernel}\nkernel_stack {stacks}\npagetables {tables}\nshmem {shared}\nzswapped {swapped}\n"
    );
    // (All swap is in memory.)
    for (name, which) in [
        ("pgsteal", stat::LEFT),
        ("pglazyfree", stat::LAZY_FREE),
        ("pglazyfreed", stat::LAZY_FREED),
        ("zswpin", stat::SWAP_IN),
        ("zswpout", stat::SWAP_OUT),
    ] {
        let _ = writeln!(out, "{name} {}", group.stats[which]);
    }
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

/// EAGAIN if fewer pages could be reclaimed than requested.
fn reclaim(facts: &dyn Facts, group: &GroupInfo, text: &[u8]) -> Result<(), Errno> {
    let wanted = pages(plain(text)?)?;
    if facts.reclaim(group.key, wanted)? < wanted { Err(Errno::EAGAIN) } else { Ok(()) }
}
