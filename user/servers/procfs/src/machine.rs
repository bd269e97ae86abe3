//! Texts about the machine: memory, CPUs, mounts.

use alloc::string::String;
use core::fmt::Write;

use quire_abi::info::CpuInfo;

use crate::facts::{Facts, kib, text, ticks};

/// meminfo.
pub fn meminfo(facts: &dyn Facts) -> String {
    let (system, memory) = (facts.system(), facts.memory());
    let low: u64 = facts.zones().iter().map(|zone| zone.low).sum();
    let swap = |amount: u64| amount * u64::from(memory.mem_unit) / 1024;
    let lines = [
        ("MemTotal", kib(system.managed)),
        ("MemFree", kib(system.free)),
        ("MemAvailable", kib(system.free.saturating_sub(low))),
        ("SwapTotal", swap(memory.totalswap)),
        ("SwapFree", swap(memory.freeswap)),
        ("Slab", kib(system.slab)),
        ("KernelStack", kib(system.kernel_stacks)),
        ("PageTables", kib(system.page_tables)),
        ("CommitLimit", kib(system.commit_limit)),
        ("Committed_AS", kib(system.committed)),
        ("VmallocUsed", kib(facts.counter("nr_vmalloc"))),
        ("Percpu", kib(facts.counter("nr_per_cpu_areas"))),
        ("CmaTotal", kib(facts.counter("nr_cma_pages"))),
        ("CmaFree", kib(facts.counter("nr_free_cma"))),
    ];
    let mut out = String::new();
    for (name, value) in lines {
        let _ = writeln!(out, "{:<15} {value:>8} kB", alloc::format!("{name}:"));
    }
    out
}

/// stat: times of CPUs in ticks, switches, when the machine began.
pub fn stat(facts: &dyn Facts) -> String {
    let (cpus, uptime) = (facts.cpus(), facts.system().uptime_ns);
    // What is neither idle nor the kernel's is programs'.
    let of = |cpu: &CpuInfo| {
        let user = uptime.saturating_sub(cpu.idle_ns).saturating_sub(cpu.system_ns);
        [user, cpu.system_ns, cpu.idle_ns]
    };
    let mut out = String::new();
    let mut line = |name: &str, [user, system, idle]: [u64; 3]| {
        let [user, system, idle] = [ticks(user), ticks(system), ticks(idle)];
        let _ = writeln!(out, "{name} {user} 0 {system} {idle} 0 0 0 0 0 0");
    };
    let all = cpus.iter().map(of).fold([0; 3], |[a, b, c], [x, y, z]| [a + x, b + y, c + z]);
    line("cpu ", all);
    for (n, cpu) in cpus.iter().enumerate() {
        line(&alloc::format!("cpu{n}"), of(cpu));
    }
    let running = facts.processes().iter().filter(|process| process.state == u32::from(b'R')).count();
    let switches: u64 = cpus.iter().map(|cpu| cpu.switches).sum();
    let began = facts.now().saturating_sub(uptime) / 1_000_000_000;
    let _ = writeln!(out, "ctxt {switches}\nbtime {began}\nprocs_running {running}\nprocs_blocked 0");
    out
}

/// uptime: seconds since power-on, and those that CPUs were idle.
pub fn uptime(facts: &dyn Facts) -> String {
    let idle: u64 = facts.cpus().iter().map(|cpu| cpu.idle_ns).sum();
    let [up, idle] = [facts.system().uptime_ns, idle].map(ticks);
    alloc::format!("{}.{:02} {}.{:02}\n", up / 100, up % 100, idle / 100, idle % 100)
}

/// version.
pub fn version(facts: &dyn Facts) -> String {
    let names = facts.uname();
    alloc::format!("{} version {} {}\n", text(&names.sysname), text(&names.release), text(&names.version))
}

/// cpuinfo, as on AArch64.
pub fn cpuinfo(facts: &dyn Facts) -> String {
    let mut out = String::new();
    for (n, cpu) in facts.cpus().iter().enumerate() {
        let midr = cpu.midr;
        let _ = writeln!(
            out,
            "processor\t: {n}\nCPU implementer\t: 0x{:02x}\nCPU architecture: 8\nCPU variant\t: 0x{:x}\nCPU part\t: 0x{:03x}\nCPU revision\t: {}\n",
            midr >> 24 & 0xff,
            midr >> 20 & 0xf,
            midr >> 4 & 0xfff,
            midr & 0xf
        );
    }
    out
}

/// mounts.
pub fn mounts(facts: &dyn Facts) -> String {
    let mut out = String::new();
    for mount in facts.mounts() {
        let (path, kind) = (text(&mount.path), text(&mount.kind));
        let rights = if kind == "tmpfs" { "rw" } else { "ro" };
        let _ = writeln!(out, "{kind} {path} {kind} {rights} 0 0");
    }
    out
}

/// filesystems: the kinds that are mounted.
pub fn filesystems(facts: &dyn Facts) -> String {
    let mut out = String::new();
    for mount in facts.mounts() {
        let line = alloc::format!("nodev\t{}\n", text(&mount.kind));
        if !out.contains(&line) {
            out.push_str(&line);
        }
    }
    out
}

/// vmstat.
pub fn vmstat(facts: &dyn Facts) -> String {
    let mut out = String::new();
    for counter in facts.counters() {
        let _ = writeln!(out, "{} {}", text(&counter.name), counter.value);
    }
    out
}

/// buddyinfo.
pub fn buddyinfo(facts: &dyn Facts) -> String {
    let mut out = String::new();
    for zone in facts.zones() {
        let _ = write!(out, "Node {}, zone {:>8} ", zone.node, text(&zone.name));
        for blocks in zone.blocks {
            let _ = write!(out, "{blocks:>6} ");
        }
        out.push('\n');
    }
    out
}

/// sys/kernel/hostname.
pub fn hostname(facts: &dyn Facts) -> String {
    alloc::format!("{}\n", text(&facts.uname().nodename))
}

/// sys/kernel/ostype.
pub fn ostype(facts: &dyn Facts) -> String {
    alloc::format!("{}\n", text(&facts.uname().sysname))
}

/// sys/kernel/osrelease.
pub fn osrelease(facts: &dyn Facts) -> String {
    alloc::format!("{}\n", text(&facts.uname().release))
}
