//! A picture for the page. Sizes are in pages and times in nanoseconds, as in the kernel's records; keys and addresses
//! above 2^53 are strings.

use quire_abi::group::GroupInfo;
use quire_abi::info::ProcessInfo;
use quire_abi::pressure::Pressure;
use quire_abi::statistics::AreaInfo;
use quire_closeup::text;
use serde_json::{Map, Value, json};

use crate::picture::{Blocks, Picture};

/// See the module.
pub fn write(of: &Picture) -> String {
    let system = &of.system;
    let zones: Vec<Value> = of
        .zones
        .iter()
        .map(|zone| {
            json!({
                "node": zone.node, "name": text(&zone.name), "start": zone.start_pfn, "spanned": zone.spanned,
                "present": zone.present, "managed": zone.managed, "free": zone.free, "perCpu": zone.per_cpu,
                "min": zone.min, "low": zone.low, "high": zone.high, "blocks": zone.blocks,
            })
        })
        .collect();
    let cpus: Vec<Value> = of
        .cpus
        .iter()
        .map(|cpu| json!({ "node": cpu.node, "idle": cpu.idle_ns, "system": cpu.system_ns, "switches": cpu.switches }))
        .collect();
    let counters: Map<String, Value> =
        of.counters.iter().map(|counter| (text(&counter.name).to_owned(), counter.value.into())).collect();
    let slabs: Vec<Value> = of
        .slabs
        .iter()
        .map(|slab| {
            json!({
                "name": text(&slab.name), "size": slab.object_size, "stride": slab.stride, "active": slab.active,
                "total": slab.total, "slabs": slab.slabs, "pages": slab.pages,
            })
        })
        .collect();
    let swap = &of.swap;
    let lists: Vec<Value> = of
        .lists
        .iter()
        .map(|(node, lists)| {
            json!({
                "node": node, "fresh": lists.fresh, "watched": lists.watched, "hot": lists.hot, "pages": lists.pages,
                "rounds": lists.rounds,
            })
        })
        .collect();
    let areas: Map<String, Value> =
        of.areas.iter().map(|(pid, areas)| (pid.to_string(), areas.iter().map(area).collect())).collect();
    json!({
        "number": of.number, "at": of.begin.at, "rate": of.begin.rate, "pid": of.begin.pid,
        "system": {
            "board": text(&system.board), "ram": system.ram, "managed": system.managed, "free": system.free,
            "tables": system.page_tables, "slab": system.slab, "stacks": system.kernel_stacks, "archive": system.archive,
            "committed": system.committed, "limit": system.commit_limit, "running": system.running,
            "threads": system.threads, "processes": system.processes, "cpus": system.cpus, "nodes": system.nodes,
        },
        "zones": zones, "cpus": cpus, "counters": counters, "slabs": slabs, "lists": lists,
        "swap": {
            "slots": swap.slots, "used": swap.used, "same": swap.same, "raw": swap.raw, "bytes": swap.bytes,
            "frames": swap.frames,
        },
        "pressure": of.pressure.get(&0).map(pressure),
        "processes": of.processes.iter().map(process).collect::<Vec<_>>(),
        "groups": of.groups.iter().map(|info| group(of, info)).collect::<Vec<_>>(),
        "map": of.blocks.iter().map(blocks).collect::<Vec<_>>(),
        "zoom": of.frames.as_ref().map(|frames| json!({ "block": frames.number, "frames": frames.frames.as_slice() })),
        "areas": areas,
    })
    .to_string()
}

fn blocks(blocks: &Blocks) -> Value {
    json!({ "first": blocks.first, "kinds": blocks.kinds, "uses": blocks.uses })
}

fn pressure(of: &Pressure) -> Value {
    json!({ "some": of.some.averages, "full": of.full.averages, "someTotal": of.some.total, "fullTotal": of.full.total })
}

fn process(of: &ProcessInfo) -> Value {
    json!({
        "pid": of.pid, "ppid": of.ppid, "name": text(&of.name), "threads": of.threads,
        "state": char::from_u32(of.state).unwrap_or('?').to_string(), "vsize": of.vsize, "rss": of.rss,
        "shared": of.shared, "tables": of.tables, "faults": of.faults, "major": of.major_faults, "cpu": of.cpu_ns,
        "group": key(of.control_group), "uid": of.uid,
    })
}

fn group(of: &Picture, info: &GroupInfo) -> Value {
    let limits = info.limits.map(|limit| (limit != u64::MAX).then_some(limit));
    json!({
        "key": key(info.key), "parent": key(info.parent), "name": text(&info.name), "usage": info.usage,
        "peak": info.peak, "swap": info.swap, "own": info.own, "files": info.files, "limits": limits,
        "events": info.events, "members": info.members, "pressure": of.pressure.get(&info.key).map(pressure),
    })
}

fn area(of: &AreaInfo) -> Value {
    json!({
        "start": of.start, "end": of.end, "resident": of.resident, "anon": of.anon, "referenced": of.referenced,
        "dirty": of.dirty(), "shared": of.shared_clean + of.shared_dirty, "swapped": of.swapped, "lazyFree": of.lazy_free,
        "flags": of.flags, "name": text(&of.name),
    })
}

/// A key is a name, and too large for a number of JavaScript's.
fn key(of: u64) -> String {
    of.to_string()
}
