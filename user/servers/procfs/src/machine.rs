//! Texts about the machine: memory, CPUs, mounts.

use core::fmt::{self, Write};

use quire_abi::info::CpuInfo;
use quire_abi::names;

use crate::facts::{Facts, kib, text, ticks};
use crate::out::Out;

/// A line of meminfo or smaps, in KiB.
pub fn amount(out: &mut Out, name: &str, value: u64) -> fmt::Result {
    writeln!(out, "{:<15} {value:>8} kB", alloc::format!("{name}:"))
}

/// A set of CPUs or nodes as a hexadecimal number, of as many digits as `count` of them need.
pub fn mask(out: &mut Out, set: u64, count: usize) -> fmt::Result {
    let digits = count.clamp(1, 64).div_ceil(4);
    if digits > 8 {
        return write!(out, "{:0width$x},{:08x}", set >> 32, set as u32, width = digits - 8);
    }
    write!(out, "{set:0digits$x}")
}

/// A set of CPUs or nodes as ranges.
pub fn ranges(out: &mut Out, set: u64) -> fmt::Result {
    let has = |n: u32| n < 64 && set >> n & 1 != 0;
    let mut separator = "";
    let mut at = 0;
    while at < 64 {
        if !has(at) {
            at += 1;
            continue;
        }
        let end = (at..64).find(|n| !has(n + 1)).unwrap_or(63);
        match end - at {
            0 => write!(out, "{separator}{at}")?,
            _ => write!(out, "{separator}{at}-{end}")?,
        }
        separator = ",";
        at = end + 1;
    }
    Ok(())
}

/// meminfo.
pub fn meminfo(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
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
    lines.iter().try_for_each(|(name, value)| amount(out, name, *value))
}

/// stat: times of CPUs in ticks, switches, when the machine began.
pub fn stat(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let (cpus, uptime) = (facts.cpus(), facts.system().uptime_ns);
    // What is neither idle nor the kernel's is programs'.
    let of = |cpu: &CpuInfo| {
        let user = uptime.saturating_sub(cpu.idle_ns).saturating_sub(cpu.system_ns);
        [user, cpu.system_ns, cpu.idle_ns]
    };
    let line = |out: &mut Out, name: &str, times: [u64; 3]| {
        let [user, system, idle] = times.map(ticks);
        writeln!(out, "{name} {user} 0 {system} {idle} 0 0 0 0 0 0")
    };
    let all = cpus.iter().map(of).fold([0; 3], |[a, b, c], [x, y, z]| [a + x, b + y, c + z]);
    line(out, "cpu ", all)?;
    for (n, cpu) in cpus.iter().enumerate() {
        line(out, &alloc::format!("cpu{n}"), of(cpu))?;
    }
    let running = facts.processes(0).filter(|process| process.state == u32::from(b'R')).count();
    let switches: u64 = cpus.iter().map(|cpu| cpu.switches).sum();
    let began = facts.now().saturating_sub(uptime) / 1_000_000_000;
    writeln!(out, "ctxt {switches}\nbtime {began}\nprocs_running {running}\nprocs_blocked 0")
}

/// uptime: seconds since power-on, and those that CPUs were idle.
pub fn uptime(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let idle: u64 = facts.cpus().iter().map(|cpu| cpu.idle_ns).sum();
    let [up, idle] = [facts.system().uptime_ns, idle].map(ticks);
    writeln!(out, "{}.{:02} {}.{:02}", up / 100, up % 100, idle / 100, idle % 100)
}

/// version.
pub fn version(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let names = facts.uname();
    writeln!(out, "{} version {} {}", text(&names.sysname), text(&names.release), text(&names.version))
}

/// cpuinfo, as on AArch64.
pub fn cpuinfo(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    for (n, cpu) in facts.cpus().iter().enumerate() {
        let midr = cpu.midr;
        writeln!(
            out,
            "processor\t: {n}\nCPU implementer\t: 0x{:02x}\nCPU architecture: 8\nCPU variant\t: 0x{:x}\nCPU part\t: 0x{:03x}\nCPU revision\t: {}\n",
            midr >> 24 & 0xff,
            midr >> 20 & 0xf,
            midr >> 4 & 0xfff,
            midr & 0xf
        )?;
    }
    Ok(())
}

/// How files in a file system of this kind may be used.
fn rights(kind: &str) -> &'static str {
    if matches!(kind, "tmpfs" | "proc") { "rw" } else { "ro" }
}

/// mounts.
pub fn mounts(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    for mount in facts.mounts() {
        let (path, kind) = (text(&mount.path), text(&mount.kind));
        writeln!(out, "{kind} {path} {kind} {} 0 0", rights(kind))?;
    }
    Ok(())
}

/// mountinfo. Mounts are over directories of the first one.
pub fn mountinfo(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    for (number, mount) in facts.mounts().iter().enumerate() {
        let (path, kind, rights) = (text(&mount.path), text(&mount.kind), rights(text(&mount.kind)));
        let (major, minor) = names::device_parts(mount.device);
        writeln!(out, "{number} 0 {major}:{minor} / {path} {rights} - {kind} {kind} {rights}")?;
    }
    Ok(())
}

/// filesystems: the kinds that are mounted.
pub fn filesystems(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let mounts = facts.mounts();
    for (number, mount) in mounts.iter().enumerate() {
        if mounts[..number].iter().all(|other| other.kind != mount.kind) {
            writeln!(out, "nodev\t{}", text(&mount.kind))?;
        }
    }
    Ok(())
}

/// vmstat.
pub fn vmstat(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    facts.counters().iter().try_for_each(|counter| writeln!(out, "{} {}", text(&counter.name), counter.value))
}

/// buddyinfo.
pub fn buddyinfo(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    for zone in facts.zones() {
        write!(out, "Node {}, zone {:>8} ", zone.node, text(&zone.name))?;
        zone.blocks.iter().try_for_each(|blocks| write!(out, "{blocks:>6} "))?;
        out.write_char('\n')?;
    }
    Ok(())
}

/// sys/kernel/hostname.
pub fn hostname(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", text(&facts.uname().nodename))
}

/// sys/kernel/ostype.
pub fn ostype(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", text(&facts.uname().sysname))
}

/// sys/kernel/osrelease.
pub fn osrelease(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", text(&facts.uname().release))
}
