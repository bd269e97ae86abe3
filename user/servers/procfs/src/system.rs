//! Texts of /sys: CPUs and nodes.

use core::fmt::{self, Write};

use crate::facts::{Facts, kib};
use crate::machine::{mask, online as online_cpus, ranges};
use crate::out::Out;

/// A kind of objects, each with a directory: CPUs, nodes.
pub struct Group {
    /// The path of the directory that contains them.
    pub directory: &'static str,
    /// Their names consist of this and their number.
    pub prefix: &'static str,
    /// How many there are.
    pub count: fn(&dyn Facts) -> usize,
    /// The files of each.
    pub files: &'static [(&'static str, OfOne)],
}

/// Writes a text about one member of a group.
pub type OfOne = fn(&dyn Facts, usize, &mut Out) -> fmt::Result;

/// All groups.
pub const GROUPS: &[Group] = &[
    Group {
        directory: "/sys/devices/system/cpu",
        prefix: "cpu",
        count: |facts| facts.cpus().len(),
        files: &[("online", cpu_online)],
    },
    Group {
        directory: "/sys/devices/system/node",
        prefix: "node",
        count: |facts| facts.nodes().len(),
        files: &[
            ("cpulist", node_cpulist),
            ("cpumap", node_cpumap),
            ("distance", node_distance),
            ("meminfo", node_meminfo),
        ],
    },
];

fn line(out: &mut Out, set: u64) -> fmt::Result {
    ranges(out, set)?;
    out.write_char('\n')
}

/// A set of the numbers below `count`.
fn below(count: usize) -> u64 {
    if count == 0 { 0 } else { u64::MAX >> (64 - count.min(64)) }
}

fn online_set(facts: &dyn Facts) -> u64 {
    online_cpus(&facts.cpus()).fold(0, |set, (n, _)| set | 1 << (n & 63))
}

/// devices/system/cpu/online.
pub fn online(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    line(out, online_set(facts))
}

/// devices/system/cpu/offline.
pub fn offline(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    line(out, below(facts.cpus().len()) & !online_set(facts))
}

/// devices/system/cpu/present and possible: the CPUs in the device tree.
pub fn present(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    line(out, below(facts.cpus().len()))
}

fn cpu_online(facts: &dyn Facts, cpu: usize, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", online_set(facts) >> (cpu & 63) & 1)
}

/// devices/system/node/online and possible.
pub fn nodes(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    line(out, below(facts.nodes().len()))
}

/// devices/system/node/has_memory.
pub fn has_memory(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let with = facts.zones().into_iter().filter(|zone| zone.managed != 0);
    line(out, with.fold(0, |set, zone| set | 1 << (zone.node & 63)))
}

/// devices/system/node/has_cpu.
pub fn has_cpu(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    line(out, online_cpus(&facts.cpus()).fold(0, |set, (_, cpu)| set | 1 << (cpu.node & 63)))
}

fn cpus_of(facts: &dyn Facts, node: usize) -> u64 {
    let cpus = facts.cpus();
    let of_node = online_cpus(&cpus).filter(|(_, cpu)| cpu.node as usize == node);
    of_node.fold(0, |set, (n, _)| set | 1 << (n & 63))
}

fn node_cpulist(facts: &dyn Facts, node: usize, out: &mut Out) -> fmt::Result {
    line(out, cpus_of(facts, node))
}

fn node_cpumap(facts: &dyn Facts, node: usize, out: &mut Out) -> fmt::Result {
    mask(out, cpus_of(facts, node), facts.cpus().len())?;
    out.write_char('\n')
}

fn node_distance(facts: &dyn Facts, node: usize, out: &mut Out) -> fmt::Result {
    let nodes = facts.nodes();
    let Some(own) = nodes.get(node) else { return Ok(()) };
    for (n, distance) in own.distances.iter().take(nodes.len()).enumerate() {
        write!(out, "{}{distance}", if n == 0 { "" } else { " " })?;
    }
    out.write_char('\n')
}

fn node_meminfo(facts: &dyn Facts, node: usize, out: &mut Out) -> fmt::Result {
    let (mut total, mut free) = (0, 0);
    for zone in facts.zones().iter().filter(|zone| zone.node as usize == node) {
        total += zone.managed;
        free += zone.free + u64::from(zone.per_cpu);
    }
    for (name, pages) in [("MemTotal", total), ("MemFree", free), ("MemUsed", total.saturating_sub(free))] {
        writeln!(out, "Node {node} {:<15} {:>8} kB", alloc::format!("{name}:"), kib(pages))?;
    }
    Ok(())
}
