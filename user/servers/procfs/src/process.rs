//! Texts about a process, or one of its threads.

use core::fmt::{self, Write};

use quire_abi::info::ProcessInfo;
use quire_abi::layout::{Rlimit, rlimit};
use quire_abi::process::{ProcessDetail, ThreadInfo, flag, object};
use quire_abi::statistics::{AreaInfo, vma};

use crate::facts::{Facts, kib, text, ticks};
use crate::machine;
use crate::out::Out;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// The limit on resident memory, which Linux also shows without enforcing it.
const RESIDENT: usize = 5;

/// `oom_score_adj` of processes that are never chosen.
const NEVER: i32 = -1000;

/// The process or thread that a text is about.
pub struct Subject<'a> {
    /// The kernel.
    pub facts: &'a dyn Facts,
    /// The process.
    pub process: ProcessInfo,
    /// The thread, if it is about one.
    pub thread: Option<ThreadInfo>,
    /// Whether the reader may know addresses in its memory.
    pub is_open: bool,
}

impl Subject<'_> {
    fn detail(&self) -> ProcessDetail {
        self.facts.detail(self.process.pid).unwrap_or_default()
    }

    fn number(&self) -> u32 {
        self.thread.map_or(self.process.pid, |thread| thread.tid)
    }

    fn name(&self) -> &str {
        text(self.thread.as_ref().map_or(&self.process.name, |thread| &thread.name))
    }

    fn state(&self) -> char {
        let state = match &self.thread {
            Some(thread) if self.process.state != u32::from(b'Z') => thread.state,
            _ => self.process.state,
        };
        char::from_u32(state).unwrap_or('S')
    }

    /// The thread, or the process's first one.
    fn any_thread(&self) -> ThreadInfo {
        self.thread.or_else(|| self.facts.thread_from(self.process.pid, self.process.pid)).unwrap_or_default()
    }

    fn has_memory(&self) -> bool {
        self.process.flags & flag::MEMORY != 0
    }
}

/// comm.
pub fn comm(of: &Subject<'_>, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", of.name())
}

/// stat: 52 fields, of which those that are not counted are 0.
pub fn stat(of: &Subject<'_>, out: &mut Out) -> fmt::Result {
    let (p, detail, thread) = (&of.process, of.detail(), of.any_thread());
    let (user, system, faults, major, cpu) = match of.thread {
        Some(t) => (t.user_ns, t.system_ns, t.faults, t.major_faults, t.cpu),
        None => (p.cpu_ns.saturating_sub(p.system_ns), p.system_ns, p.faults, p.major_faults, p.cpu),
    };
    let minor = faults.saturating_sub(major);
    let [children, children_major] = detail.children_faults;
    let [children_user, children_system] = detail.children_ns.map(ticks);
    write!(out, "{} ({}) {} {} {} {} 0 -1 0 ", of.number(), of.name(), of.state(), p.ppid, p.pgid, p.sid)?;
    write!(out, "{minor} {} {major} {children_major} ", children.saturating_sub(children_major))?;
    let (policy, nice, real_time) = class(thread.class);
    let priority = if real_time == 0 { 20 + nice } else { -1 - i64::from(real_time) };
    write!(
        out,
        "{} {} {children_user} {children_system} {priority} {nice} {} 0 ",
        ticks(user),
        ticks(system),
        p.threads
    )?;
    let limit = detail.limits[RESIDENT].cur;
    write!(out, "{} {} {} {limit} ", ticks(p.started_ns), p.vsize * PAGE, p.rss)?;
    let layout = if of.is_open { detail.layout } else { Default::default() };
    let heap = if of.is_open { detail.heap[0] } else { 0 };
    // (Code and stack are 1 if the reader may not know them.)
    let hidden = u64::from(!of.is_open && of.has_memory());
    let [code, code_end] = layout.code.map(|at| at.max(hidden));
    write!(out, "{code} {code_end} {} 0 0 ", layout.stack)?;
    // Only the lower half of the sets, as on Linux.
    let half = |set: u64| set & 0x7fff_ffff;
    write!(out, "{} {} {} {} ", half(thread.pending), half(thread.blocked), half(detail.ignored), half(detail.caught))?;
    write!(out, "0 0 0 17 {cpu} {real_time} {policy} 0 0 0 ")?;
    let ([data, data_end], [args, args_end], [env, env_end]) = (layout.data, layout.arguments, layout.environment);
    writeln!(out, "{data} {data_end} {heap} {args} {args_end} {env} {env_end} 0")
}

/// Policy, nice value and real-time priority of a [`ThreadInfo::class`](quire_abi::process::ThreadInfo).
fn class(class: u32) -> (u32, i64, u32) {
    (class & 0xff, i64::from((class >> 8) as u8 as i8), class >> 16 & 0xff)
}

/// statm, in pages: size, resident, shared, code, 0, data, 0.
pub fn statm(of: &Subject<'_>, out: &mut Out) -> fmt::Result {
    let (p, detail) = (&of.process, of.detail());
    writeln!(out, "{} {} {} {} 0 {} 0", p.vsize, p.rss, p.shared, pages(detail.layout.code), detail.data + detail.stack)
}

/// The number of pages from the one in which a part begins to the one in which it ends.
fn pages([from, to]: [u64; 2]) -> u64 {
    (to.next_multiple_of(PAGE) - from / PAGE * PAGE) / PAGE
}

/// status.
pub fn status(of: &Subject<'_>, out: &mut Out) -> fmt::Result {
    let (p, detail, thread) = (&of.process, of.detail(), of.any_thread());
    let what = match of.state() {
        'R' => "running",
        'T' => "stopped",
        'Z' => "zombie",
        _ => "sleeping",
    };
    writeln!(out, "Name:\t{}\nUmask:\t{:04o}\nState:\t{} ({what})", of.name(), detail.umask, of.state())?;
    writeln!(out, "Tgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t0", p.pid, of.number(), p.ppid)?;
    for (name, [real, effective, saved, files]) in [("Uid", detail.users), ("Gid", detail.groups)] {
        writeln!(out, "{name}:\t{real}\t{effective}\t{saved}\t{files}")?;
    }
    write!(out, "FDSize:\t{}\nGroups:\t", detail.descriptors)?;
    let shown = detail.further.iter().take(detail.group_count as usize);
    shown.copied().try_for_each(|group| write!(out, "{group} "))?;
    out.write_char('\n')?;
    if of.has_memory() {
        status_of_memory(p, &detail, out)?;
    }
    writeln!(out, "Threads:\t{}", p.threads)?;
    writeln!(out, "SigQ:\t{}/{}", detail.queued, detail.limits[rlimit::SIGPENDING].cur)?;
    let sets = [
        ("SigPnd", thread.pending),
        ("ShdPnd", detail.pending),
        ("SigBlk", thread.blocked),
        ("SigIgn", detail.ignored),
        ("SigCgt", detail.caught),
    ];
    for (name, set) in sets {
        writeln!(out, "{name}:\t{set:016x}")?;
    }
    writeln!(out, "NoNewPrivs:\t{}", u32::from(detail.flags & flag::NO_NEW_PRIVILEGES != 0))?;
    let cpus = of.facts.cpus().len();
    let allowed = thread.affinity & (u64::MAX >> (64 - cpus.clamp(1, 64)));
    out.write_str("Cpus_allowed:\t")?;
    machine::mask(out, allowed, cpus)?;
    out.write_str("\nCpus_allowed_list:\t")?;
    machine::ranges(out, allowed)?;
    out.write_char('\n')
}

fn status_of_memory(p: &ProcessInfo, detail: &ProcessDetail, out: &mut Out) -> fmt::Result {
    let lines = [
        ("VmPeak", detail.peak),
        ("VmSize", p.vsize),
        ("VmLck", detail.locked),
        ("VmHWM", detail.resident_peak),
        ("VmRSS", p.rss),
        ("RssAnon", detail.anon),
        ("RssFile", detail.file),
        ("RssShmem", detail.shared),
        ("VmData", detail.data),
        ("VmStk", detail.stack),
        ("VmExe", pages(detail.layout.code)),
        ("VmPTE", p.tables),
    ];
    lines.iter().try_for_each(|(name, pages)| writeln!(out, "{name}:\t{:>8} kB", kib(*pages)))?;
    writeln!(out, "THP_enabled:\t{}", u32::from(detail.flags & flag::HUGE_PAGES != 0))
}

/// limits.
pub fn limits(of: &Subject<'_>, out: &mut Out) -> fmt::Result {
    const ROWS: [(usize, &str, &str); rlimit::COUNT] = [
        (0, "Max cpu time", "seconds"),
        (1, "Max file size", "bytes"),
        (2, "Max data size", "bytes"),
        (3, "Max stack size", "bytes"),
        (4, "Max core file size", "bytes"),
        (5, "Max resident set", "bytes"),
        (6, "Max processes", "processes"),
        (7, "Max open files", "files"),
        (8, "Max locked memory", "bytes"),
        (9, "Max address space", "bytes"),
        (10, "Max file locks", "locks"),
        (11, "Max pending signals", "signals"),
        (12, "Max msgqueue size", "bytes"),
        (13, "Max nice priority", ""),
        (14, "Max realtime priority", ""),
        (15, "Max realtime timeout", "us"),
    ];
    writeln!(out, "{:<25} {:<20} {:<20} {:<10}", "Limit", "Soft Limit", "Hard Limit", "Units")?;
    let limits = of.detail().limits;
    for (which, name, unit) in ROWS {
        write!(out, "{name:<25} ")?;
        let Rlimit { cur, max } = limits[which];
        for value in [cur, max] {
            match value {
                rlimit::INFINITY => write!(out, "{:<20} ", "unlimited")?,
                value => write!(out, "{value:<20} ")?,
            }
        }
        match unit {
            "" => out.write_char('\n')?,
            unit => writeln!(out, "{unit:<10}")?,
        }
    }
    Ok(())
}

/// oom_score: as on Linux, 0 for a process that is never chosen.
pub fn oom_score(of: &Subject<'_>, out: &mut Out) -> fmt::Result {
    let adj = of.detail().oom_score_adj;
    let total = of.facts.system().managed.max(1) as i64;
    let badness = (of.process.rss + of.process.tables) as i64 + i64::from(adj) * (total / 1000);
    let score = if adj <= NEVER || !of.has_memory() { 0 } else { ((1000 + badness * 1000 / total) * 2 / 3).max(0) };
    writeln!(out, "{score}")
}

/// oom_score_adj.
pub fn oom_score_adj(of: &Subject<'_>, out: &mut Out) -> fmt::Result {
    writeln!(out, "{}", of.detail().oom_score_adj)
}

/// cgroup: the path of its control group, in the only hierarchy.
pub fn cgroup(subject: &Subject<'_>, out: &mut Out) -> fmt::Result {
    out.write_str("0::")?;
    write_group(subject.facts, subject.process.control_group, out)?;
    out.write_str(if subject.process.control_group == 0 { "/\n" } else { "\n" })
}

/// The path of a group from the root. (The recursion is limited by the depth of groups.)
fn write_group(facts: &dyn Facts, key: u64, out: &mut Out) -> fmt::Result {
    let Some(group) = (key != 0).then(|| facts.control_group(key)).flatten() else { return Ok(()) };
    write_group(facts, group.parent, out)?;
    write!(out, "/{}", text(&group.name))
}

/// wchan: always 0, since addresses in the kernel are not revealed.
pub fn wchan(_: &Subject<'_>, out: &mut Out) -> fmt::Result {
    out.write_str("0")
}

/// The line of an area in maps and smaps.
fn area_line(area: &AreaInfo, out: &mut Out) -> fmt::Result {
    let has = |flag: u32, yes: char, no: char| if area.flags & flag != 0 { yes } else { no };
    let name = match text(&area.name) {
        "" if area.flags & vma::HEAP != 0 => "[heap]",
        "" if area.flags & vma::STACK != 0 => "[stack]",
        name => name,
    };
    let line = alloc::format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} 00:00 0 ",
        area.start,
        area.end,
        has(vma::READ, 'r', '-'),
        has(vma::WRITE, 'w', '-'),
        has(vma::EXEC, 'x', '-'),
        has(vma::SHARED, 's', 'p'),
        area.index * PAGE
    );
    match name {
        "" => writeln!(out, "{line}"),
        // (Names begin in one column.)
        name => writeln!(out, "{line:<73}{name}"),
    }
}

/// maps.
pub fn maps(of: &Subject<'_>, out: &mut Out) -> fmt::Result {
    for area in of.facts.areas(of.process.pid, out.state(), false) {
        out.set_mark(area.start);
        area_line(&area, out)?;
    }
    Ok(())
}

fn area_counts(area: &AreaInfo, out: &mut Out) -> fmt::Result {
    let lines = [
        ("Rss", area.resident),
        ("Shared_Clean", area.shared_clean),
        ("Shared_Dirty", area.shared_dirty),
        ("Private_Clean", area.private_clean),
        ("Private_Dirty", area.private_dirty),
        ("Referenced", area.referenced),
        ("Anonymous", area.anon),
        ("LazyFree", area.lazy_free),
        ("AnonHugePages", area.huge),
        ("Swap", area.swapped),
    ];
    lines.iter().try_for_each(|(name, pages)| machine::amount(out, name, kib(*pages)))
}

/// smaps.
pub fn smaps(of: &Subject<'_>, out: &mut Out) -> fmt::Result {
    for area in of.facts.areas(of.process.pid, out.state(), true) {
        out.set_mark(area.start);
        area_line(&area, out)?;
        machine::amount(out, "Size", (area.end - area.start) / 1024)?;
        machine::amount(out, "KernelPageSize", kib(1))?;
        machine::amount(out, "MMUPageSize", kib(1))?;
        area_counts(&area, out)?;
    }
    Ok(())
}

/// smaps_rollup: the sum of all areas.
pub fn smaps_rollup(of: &Subject<'_>, out: &mut Out) -> fmt::Result {
    let mut sum: Option<AreaInfo> = None;
    for area in of.facts.areas(of.process.pid, 0, true) {
        match &mut sum {
            Some(sum) => {
                sum.add(&area);
                sum.end = area.end;
            }
            None => sum = Some(area),
        }
    }
    let Some(sum) = sum else { return Ok(()) };
    let line = alloc::format!("{:08x}-{:08x} ---p 00000000 00:00 0 ", sum.start, sum.end);
    writeln!(out, "{line:<73}[rollup]")?;
    area_counts(&sum, out)
}

/// mounts, which are the same for all.
pub fn mounts(of: &Subject<'_>, out: &mut Out) -> fmt::Result {
    machine::mounts(of.facts, out)
}

/// mountinfo.
pub fn mountinfo(of: &Subject<'_>, out: &mut Out) -> fmt::Result {
    machine::mountinfo(of.facts, out)
}

/// A file of fdinfo.
pub fn descriptor(of: &Subject<'_>, number: u32, out: &mut Out) -> fmt::Result {
    let Some(descriptor) = of.facts.descriptor(of.process.pid, number) else { return Ok(()) };
    writeln!(out, "pos:\t{}\nflags:\t0{:o}", descriptor.position, descriptor.flags)?;
    writeln!(out, "mnt_id:\t{}\nino:\t{}", descriptor.mount, descriptor.inode)?;
    if descriptor.kind == object::PIDFD {
        match descriptor.pid {
            0 => writeln!(out, "Pid:\t-1\nNSpid:\t-1")?,
            pid => writeln!(out, "Pid:\t{pid}\nNSpid:\t{pid}")?,
        }
    }
    Ok(())
}
