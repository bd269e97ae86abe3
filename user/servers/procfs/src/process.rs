//! Texts about a process.

use alloc::string::String;
use core::fmt::Write;

use quire_abi::info::ProcessInfo;
use quire_abi::statistics::{AreaInfo, vma};

use crate::facts::{Facts, kib, text, ticks};

/// Bytes of a page.
const PAGE: u64 = 4096;

/// comm.
pub fn comm(_: &dyn Facts, process: &ProcessInfo) -> String {
    alloc::format!("{}\n", text(&process.name))
}

fn state(process: &ProcessInfo) -> char {
    char::from_u32(process.state).unwrap_or('S')
}

/// stat: 52 fields, of which those that are not counted are 0.
pub fn stat(_: &dyn Facts, process: &ProcessInfo) -> String {
    let p = process;
    let user = p.cpu_ns.saturating_sub(p.system_ns);
    let minor = p.faults.saturating_sub(p.major_faults);
    let mut out = alloc::format!("{} ({}) {} {} {} {} 0 -1 0 ", p.pid, text(&p.name), state(p), p.ppid, p.pgid, p.sid);
    let _ =
        write!(out, "{minor} 0 {} 0 {} {} 0 0 20 0 {} 0 ", p.major_faults, ticks(user), ticks(p.system_ns), p.threads);
    let _ = write!(out, "{} {} {} {} ", ticks(p.started_ns), p.vsize * PAGE, p.rss, u64::MAX);
    // From the code's start to the signal that is sent to the parent, then the CPU; the rest.
    let _ = write!(out, "0 0 0 0 0 0 0 0 0 0 0 0 17 {}", p.cpu);
    out.push_str(&" 0".repeat(13));
    out.push('\n');
    out
}

/// statm, in pages: size, resident, shared, code, 0, data, 0.
pub fn statm(_: &dyn Facts, process: &ProcessInfo) -> String {
    alloc::format!("{} {} {} 0 0 0 0\n", process.vsize, process.rss, process.shared)
}

/// status.
pub fn status(_: &dyn Facts, process: &ProcessInfo) -> String {
    let p = process;
    let what = match state(p) {
        'R' => "running",
        'T' => "stopped",
        'Z' => "zombie",
        _ => "sleeping",
    };
    let mut out = alloc::format!("Name:\t{}\nState:\t{} ({what})\n", text(&p.name), state(p));
    let _ = writeln!(out, "Tgid:\t{}\nPid:\t{}\nPPid:\t{}", p.pid, p.pid, p.ppid);
    let _ = writeln!(out, "Uid:\t{0}\t{0}\t{0}\t{0}\nGid:\t{1}\t{1}\t{1}\t{1}", p.uid, p.gid);
    if state(p) != 'Z' {
        let lines =
            [("VmSize", p.vsize), ("VmRSS", p.rss), ("RssAnon", p.rss.saturating_sub(p.shared)), ("VmPTE", p.tables)];
        for (name, pages) in lines {
            let _ = writeln!(out, "{name}:\t{:>8} kB", kib(pages));
        }
    }
    let _ = writeln!(out, "Threads:\t{}", p.threads);
    out
}

/// The line of an area in maps and smaps.
fn area_line(area: &AreaInfo) -> String {
    let has = |flag: u32, yes: char, no: char| if area.flags & flag != 0 { yes } else { no };
    let name = match text(&area.name) {
        "" if area.flags & vma::HEAP != 0 => "[heap]",
        "" if area.flags & vma::STACK != 0 => "[stack]",
        name => name,
    };
    let mut line = alloc::format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} 00:00 0",
        area.start,
        area.end,
        has(vma::READ, 'r', '-'),
        has(vma::WRITE, 'w', '-'),
        has(vma::EXEC, 'x', '-'),
        has(vma::SHARED, 's', 'p'),
        area.index * PAGE
    );
    if !name.is_empty() {
        // (Names begin in one column.)
        while line.len() < 73 {
            line.push(' ');
        }
        line.push_str(name);
    }
    line.push('\n');
    line
}

/// maps.
pub fn maps(facts: &dyn Facts, process: &ProcessInfo) -> String {
    facts.areas(process.pid).iter().map(area_line).collect()
}

/// smaps.
pub fn smaps(facts: &dyn Facts, process: &ProcessInfo) -> String {
    let mut out = String::new();
    for area in facts.areas(process.pid) {
        out.push_str(&area_line(&area));
        let lines = [
            ("Size", (area.end - area.start) / PAGE),
            ("Rss", area.resident),
            ("Shared_Clean", area.shared_clean),
            ("Shared_Dirty", area.shared_dirty),
            ("Private_Clean", area.private_clean),
            ("Private_Dirty", area.private_dirty),
            ("Referenced", area.referenced),
            ("Anonymous", area.anon),
            ("Swap", area.swapped),
        ];
        for (name, pages) in lines {
            let _ = writeln!(out, "{:<15} {:>8} kB", alloc::format!("{name}:"), kib(pages));
        }
    }
    out
}

/// mounts, which are the same for all.
pub fn mounts(facts: &dyn Facts, _: &ProcessInfo) -> String {
    crate::machine::mounts(facts)
}
