//! Texts about the machine: memory, CPUs, mounts.

use core::fmt::{self, Write};

use quire_abi::info::{CpuInfo, MountInfo, ORDERS};
use quire_abi::names;
use quire_abi::process as abi;
use quire_abi::statistics::{PageTypeInfo, area};

use crate::facts::{Facts, kib, text, ticks};
use crate::out::Out;

/// A line of meminfo or smaps, in KiB.
pub fn amount(out: &mut Out, name: &str, value: u64) -> fmt::Result {
    writeln!(out, "{:<15} {value:>8} kB", alloc::format!("{name}:"))
}

/// A set of CPUs or nodes as a hexadecimal number, with as many digits as `count` of them need.
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

/// pressure/memory.
pub fn pressure(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    write!(out, "{}", facts.pressure())
}

/// meminfo.
pub fn meminfo(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let (system, memory) = (facts.system(), facts.memory());
    let low: u64 = facts.zones().iter().map(|zone| zone.low).sum();
    // Clean pages can be reclaimed; dirty pages have to be written first, which may take long.
    let (cached, dirty) = (facts.counter("nr_file_pages"), facts.counter("nr_dirty"));
    let shared = facts.counter("nr_shmem");
    let available = system.free.saturating_sub(low) + cached.saturating_sub(dirty);
    let swap = |amount: u64| amount * u64::from(memory.mem_unit) / 1024;
    let lines = [
        ("MemTotal", kib(system.managed)),
        ("MemFree", kib(system.free)),
        ("MemAvailable", kib(available)),
        ("Buffers", 0),
        ("Cached", kib(cached + shared)),
        ("SwapTotal", swap(memory.totalswap)),
        ("SwapFree", swap(memory.freeswap)),
        ("Dirty", kib(dirty)),
        ("AnonPages", kib(facts.counter("nr_anon_pages"))),
        ("AnonHugePages", kib(facts.counter("nr_anon_transparent_hugepages") * 512)),
        ("Shmem", kib(shared)),
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

/// stat: times of CPUs in ticks, switches, the time of boot.
pub fn stat(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let (cpus, system) = (facts.cpus(), facts.system());
    let uptime = system.uptime_ns;
    // The time that is neither idle nor the kernel's was spent in programs.
    let of = |cpu: &CpuInfo| {
        let user = uptime.saturating_sub(cpu.idle_ns).saturating_sub(cpu.system_ns);
        [user, cpu.system_ns, cpu.idle_ns]
    };
    let line = |out: &mut Out, name: &str, times: [u64; 3]| {
        let [user, system, idle] = times.map(ticks);
        writeln!(out, "{name} {user} 0 {system} {idle} 0 0 0 0 0 0")
    };
    let all = online(&cpus).map(|(_, cpu)| of(cpu)).fold([0; 3], |[a, b, c], [x, y, z]| [a + x, b + y, c + z]);
    line(out, "cpu ", all)?;
    for (n, cpu) in online(&cpus) {
        line(out, &alloc::format!("cpu{n}"), of(cpu))?;
    }
    let switches: u64 = cpus.iter().map(|cpu| cpu.switches).sum();
    let began = facts.now().saturating_sub(uptime) / 1_000_000_000;
    writeln!(out, "ctxt {switches}\nbtime {began}\nprocesses {}", system.made)?;
    writeln!(out, "procs_running {}\nprocs_blocked 0", system.running)
}

/// loadavg.
pub fn loadavg(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    /// Bits behind the point.
    const POINT: u32 = 11;
    let system = facts.system();
    for load in system.loads {
        // To the nearest hundredth.
        let load = load + (1 << POINT) / 200;
        write!(out, "{}.{:02} ", load >> POINT, ((load & ((1 << POINT) - 1)) * 100) >> POINT)?;
    }
    writeln!(out, "{}/{} {}", system.running, system.threads, system.last_pid)
}

/// uptime: seconds since power-on, and the sum of the seconds in which CPUs were idle.
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

/// The CPUs that run, with their numbers.
pub fn online(cpus: &[CpuInfo]) -> impl Iterator<Item = (usize, &CpuInfo)> {
    cpus.iter().enumerate().filter(|(_, cpu)| cpu.online == 1)
}

/// Names of the lowest bits of `AT_HWCAP`.
const FEATURES: [&str; 32] = [
    "fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid",
    "asimdrdm", "jscvt", "fcma", "lrcpc", "dcpop", "sha3", "sm3", "sm4", "asimddp", "sha512", "sve", "asimdfhm", "dit",
    "uscat", "ilrcpc", "flagm", "ssbs", "sb", "paca", "pacg",
];

/// cpuinfo, as on AArch64.
pub fn cpuinfo(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let features = facts.features();
    for (n, cpu) in online(&facts.cpus()) {
        write!(out, "processor\t: {n}\nFeatures\t:")?;
        let has = FEATURES.iter().enumerate().filter(|(bit, _)| features >> bit & 1 != 0);
        has.map(|(_, name)| name).try_for_each(|name| write!(out, " {name}"))?;
        let midr = cpu.midr;
        writeln!(
            out,
            "\nCPU implementer\t: 0x{:02x}\nCPU architecture: 8\nCPU variant\t: 0x{:x}\nCPU part\t: 0x{:03x}\nCPU revision\t: {}\n",
            midr >> 24 & 0xff,
            midr >> 20 & 0xf,
            midr >> 4 & 0xfff,
            midr & 0xf
        )?;
    }
    Ok(())
}

/// swaps. Swap is memory in which pages are stored compressed.
pub fn swaps(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    out.write_str("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")?;
    let memory = facts.memory();
    let kib = |amount: u64| amount * u64::from(memory.mem_unit) / 1024;
    match kib(memory.totalswap) {
        0 => Ok(()),
        size => {
            let used = size.saturating_sub(kib(memory.freeswap));
            writeln!(out, "{:<40}compressed\t{size}\t\t{used}\t\t0", "(memory)")
        }
    }
}

/// cmdline: the kernel's arguments.
pub fn cmdline(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let mut piece = [0; 256];
    let mut at = 0;
    loop {
        let len = facts.text(0, abi::text::ARGUMENTS, at, &mut piece);
        if len == 0 {
            return out.write_char('\n');
        }
        out.put(&piece[..len])?;
        at += len as u64;
    }
}

/// zoneinfo.
pub fn zoneinfo(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    for zone in facts.zones() {
        writeln!(out, "Node {}, zone {:>8}\n  pages free     {}", zone.node, text(&zone.name), zone.free)?;
        let lines = [
            ("min", zone.min),
            ("low", zone.low),
            ("high", zone.high),
            ("spanned", zone.spanned),
            ("present", zone.present),
            ("managed", zone.managed),
        ];
        lines.iter().try_for_each(|(name, pages)| writeln!(out, "        {name:<8} {pages}"))?;
        writeln!(out, "  start_pfn:           {}", zone.start_pfn)?;
    }
    Ok(())
}

/// pagetypeinfo.
pub fn pagetypeinfo(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    /// Pages of a page block.
    const BLOCK: usize = 512;
    let all = || (0..).map_while(|index| facts.page_type(index));
    writeln!(out, "Page block order: {}\nPages per block:  {BLOCK}\n", BLOCK.trailing_zeros())?;
    write!(out, "{:<43} ", "Free pages count per migrate type at order")?;
    (0..ORDERS).try_for_each(|order| write!(out, "{order:>6} "))?;
    out.write_char('\n')?;
    for record in all() {
        write!(out, "Node {:>4}, zone {:>8}, type {:>12} ", record.node, text(&record.zone), text(&record.name))?;
        record.free.iter().try_for_each(|blocks| write!(out, "{blocks:>6} "))?;
        out.write_char('\n')?;
    }
    write!(out, "\n{:<23}", "Number of blocks type")?;
    let first = facts.page_type(0).map(|record| (record.node, record.zone));
    let is_first = |record: &PageTypeInfo| Some((record.node, record.zone)) == first;
    all().take_while(is_first).try_for_each(|record| write!(out, "{:>12} ", text(&record.name)))?;
    let mut former = None;
    for record in all() {
        if former.replace((record.node, record.zone)) != Some((record.node, record.zone)) {
            write!(out, "\nNode {}, zone {:>8} ", record.node, text(&record.zone))?;
        }
        write!(out, "{:>12} ", record.page_blocks)?;
    }
    out.write_char('\n')
}

/// slabinfo.
pub fn slabinfo(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    out.write_str(
        "slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : ",
    )?;
    out.write_str(
        "tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n",
    )?;
    for slab in (0..).map_while(|index| facts.slab(index)).filter(|slab| slab.object_size != 0) {
        let each = |all: u64| all.checked_div(slab.slabs).unwrap_or(0);
        write!(out, "{:<17} {:>6} {:>6} ", text(&slab.name), slab.active, slab.total)?;
        write!(out, "{:>6} {:>4} {:>4} : tunables    0    0    0 ", slab.stride, each(slab.total), each(slab.pages))?;
        writeln!(out, ": slabdata {0:>6} {0:>6}      0", slab.slabs)?;
    }
    Ok(())
}

/// vmallocinfo.
pub fn vmallocinfo(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let mut from = out.state();
    while let Some(found) = facts.vmalloc_from(from) {
        out.set_mark(found.start);
        from = found.end;
        write!(out, "{:#018x}-{:#018x} {:>7} ", found.start, found.end, found.end - found.start)?;
        write!(out, "{} pages={}", text(&found.caller), found.pages)?;
        if found.phys != u64::MAX {
            write!(out, " phys={:#x}", found.phys)?;
        }
        let kind = match found.kind {
            area::VMALLOC => " vmalloc",
            area::VMAP => " vmap",
            area::IOREMAP => " ioremap",
            _ => "",
        };
        writeln!(out, "{kind}{}", if found.lazy != 0 { " unpurged" } else { "" })?;
    }
    Ok(())
}

/// The mount options of a file system.
fn rights(mount: &MountInfo) -> &'static str {
    if mount.flags & MountInfo::READ_ONLY != 0 { "ro" } else { "rw" }
}

/// The source of a mount, or else its type.
fn source(mount: &MountInfo) -> &str {
    if mount.source[0] == 0 { text(&mount.kind) } else { text(&mount.source) }
}

/// mounts.
pub fn mounts(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    for mount in facts.mounts() {
        let (path, kind) = (text(&mount.path), text(&mount.kind));
        writeln!(out, "{} {path} {kind} {} 0 0", source(&mount), rights(&mount))?;
    }
    Ok(())
}

/// mountinfo. Mounts are on directories of the first one.
pub fn mountinfo(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    for (number, mount) in facts.mounts().iter().enumerate() {
        let (path, kind, rights, source) = (text(&mount.path), text(&mount.kind), rights(mount), source(mount));
        let (major, minor) = names::device_parts(mount.device);
        writeln!(out, "{number} 0 {major}:{minor} / {path} {rights} - {kind} {source} {rights}")?;
    }
    Ok(())
}

/// filesystems: the types that are mounted.
pub fn filesystems(facts: &dyn Facts, out: &mut Out) -> fmt::Result {
    let mounts = facts.mounts();
    for (number, mount) in mounts.iter().enumerate() {
        if mounts[..number].iter().all(|other| other.kind != mount.kind) {
            let device = if mount.source[0] == 0 { "nodev" } else { "" };
            writeln!(out, "{device}\t{}", text(&mount.kind))?;
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
