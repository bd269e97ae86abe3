//! The text of `help`: a line for every command.

use alloc::format;
use alloc::string::String;

/// A command, its operands, and what it does.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Its operands and options.
    pub usage: &'static str,
    /// One line.
    pub summary: &'static str,
}

const fn entry(name: &'static str, usage: &'static str, summary: &'static str) -> Entry {
    Entry { name, usage, summary }
}

/// All commands, by topic.
pub const GROUPS: &[(&str, &[Entry])] = &[
    (
        "The shell's own",
        &[
            entry(":", "", "does nothing"),
            entry("cd", "[DIR | -]", "changes the current directory; to / without one, to the previous one with -"),
            entry("exec", "COMMAND", "replaces the shell by the command; without one, keeps the redirections"),
            entry("exit", "[STATUS]", "ends the shell"),
            entry("export", "[NAME[=VALUE]...]", "puts variables into the environment of programs"),
            entry("help", "[COMMAND...]", "shows this"),
            entry("pwd", "", "shows the current directory"),
            entry("time", "COMMAND", "runs a command and shows the time it took"),
            entry("unset", "NAME...", "forgets variables"),
            entry("wait", "[PID...]", "waits for background processes"),
        ],
    ),
    (
        "Memory",
        &[
            entry("buddyinfo", "", "free blocks of each order, by zone"),
            entry("cmainfo", "[-t]", "contiguous memory areas; -t takes each for a moment"),
            entry("compact", "", "moves pages in use together, and shows the large blocks that this makes"),
            entry("fraginfo", "[--compact]", "a map of page blocks, and how fragmented free memory is"),
            entry("free", "[-bkmghw]", "memory in use and free, and what the kernel itself uses"),
            entry("grouptop", "[-spn] [-d SECONDS] [-o]", "the tree of control groups, again and again; q ends it"),
            entry("hog", "[-s MIB]", "uses more memory than is free until it is killed: pages leave and come back"),
            entry("memmap", "", "the physical memory map, from the device tree"),
            entry("memtop", "[-d SECONDS] [-o]", "all of memory on one screen, again and again; q ends it"),
            entry("pagetypeinfo", "", "free blocks by migrate type, and page blocks of each type"),
            entry("pmap", "[PID]", "a process's mappings: resident, referenced and dirty pages of each"),
            entry(
                "pressure",
                "[-d SECONDS] [-o]",
                "who waits for memory, how old pages are, swap and reclaim; q ends it",
            ),
            entry("slabinfo", "", "the kernel's slab caches"),
            entry("slabtop", "[-d SECONDS] [-o]", "the slab caches, largest first, again and again; q ends it"),
            entry("swapout", "PID...", "takes processes' memory out; what they need comes back"),
            entry("vmallocinfo", "", "the areas of the kernel's vmalloc range"),
            entry(
                "vmstat",
                "[DELAY [COUNT] | WORD...]",
                "memory and CPUs as they change; or all counters, or those named",
            ),
            entry("walk", "PID|kernel ADDRESS", "the translation of an address, entry by entry, and what its frame is"),
            entry("zoneinfo", "", "zones, their pages and watermarks"),
        ],
    ),
    (
        "Machine and processes",
        &[
            entry("cpuinfo", "", "the processors"),
            entry("dmesg", "", "the kernel's log"),
            entry("kill", "[-SIGNAL] PID...", "sends a signal; -l lists them"),
            entry("poweroff", "[STATUS]", "switches the machine off"),
            entry("ps", "", "the processes"),
            entry("reboot", "", "starts the machine again"),
            entry("sh", "[-c TEXT | FILE]", "another shell"),
            entry("uname", "[-asnrvm]", "names and versions of system and machine"),
        ],
    ),
    (
        "Files and text",
        &[
            entry("cat", "[FILE...]", "files, one after the other"),
            entry("echo", "[-n] [WORD...]", "its words"),
            entry("grep", "[-vicnq] PATTERN [FILE...]", "lines that contain a pattern of ^ $ . *"),
            entry("head", "[-n COUNT] [FILE...]", "the first lines"),
            entry("ls", "[-la1d] [PATH...]", "names in directories"),
            entry("seq", "[FIRST [STEP]] LAST", "numbers in order"),
            entry("wc", "[-lwc] [FILE...]", "counts lines, words and bytes"),
            entry("yes", "[WORD...]", "a line again and again"),
        ],
    ),
    (
        "The rest",
        &[
            entry("bench", "[ROW...]", "measures memory calls; cargo xtask bench makes a report of it"),
            entry("false", "", "fails"),
            entry("lab", "[SCHEME [OPTION...]]", "compares memory schemes of textbooks; lab alone lists them"),
            entry("lesson", "[NUMBER [check]]", "the exercises of the lessons, and whether they are solved"),
            entry(
                "selftest",
                "[-v] [--pressure] [NAME...]",
                "runs the programs in /tests and checks the kernel's resource counts",
            ),
            entry("sleep", "SECONDS", "waits"),
            entry("true", "", "succeeds"),
        ],
    ),
];

/// The shell's syntax.
const SYNTAX: &str = "\
a; b   a && b   a || b   a | b   a &   ! a   'quotes' \"and $VAR\"   $? $! $$   * ? [a-z]   < file   > file
Tab completes, Up and Down walk through history, Ctrl-C stops a program, Ctrl-D ends the shell.
Under QEMU, Ctrl-A X leaves the machine, and Ctrl-A typed twice is Ctrl-A.
";

/// Columns up to the summaries.
const SUMMARY_AT: usize = 40;

fn line(Entry { name, usage, summary }: &Entry) -> String {
    let call = if usage.is_empty() { String::from(*name) } else { format!("{name} {usage}") };
    format!("  {call:width$}{summary}\n", width = SUMMARY_AT - 2)
}

/// The line of one command.
pub fn of(name: &str) -> Option<String> {
    GROUPS.iter().flat_map(|(_, entries)| *entries).find(|entry| entry.name == name).map(line)
}

/// Everything.
pub fn all() -> String {
    let mut text = String::new();
    for (group, entries) in GROUPS {
        text += &format!("{group}\n");
        entries.iter().for_each(|entry| text += &line(entry));
    }
    text + "What can be typed\n  " + &SYNTAX.trim_end().replace('\n', "\n  ") + "\n"
}

/// Whether a command is listed; for checks while compiling.
pub const fn lists(name: &str) -> bool {
    let mut group = 0;
    while group < GROUPS.len() {
        let entries = GROUPS[group].1;
        let mut at = 0;
        while at < entries.len() {
            if same(entries[at].name.as_bytes(), name.as_bytes()) {
                return true;
            }
            at += 1;
        }
        group += 1;
    }
    false
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_program_has_a_line() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin/src/bin");
        let mut count = 0;
        for entry in fs::read_dir(sources).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(of(name).is_some(), "help does not list {name}");
            count += 1;
        }
        assert!(count > 20, "{count}");
    }

    /// The usage that a program prints itself is the one in help.
    #[test]
    fn the_usage_is_the_program_s_own() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin/src/bin");
        for Entry { name, usage, .. } in GROUPS.iter().flat_map(|(_, entries)| *entries) {
            let Ok(source) = fs::read_to_string(sources.join(name).with_extension("rs")) else { continue };
            let own = format!("\"{}\"", format!("{name} {usage}").trim_end());
            assert!(!source.contains("Options::") || source.contains(&own), "{name}.rs does not say {own}");
        }
    }

    #[test]
    fn lines_are_in_order_and_fit() {
        for (_, entries) in GROUPS {
            assert!(entries.is_sorted_by_key(|entry| entry.name));
            for entry in *entries {
                assert!(entry.summary.len() > 3 && line(entry).len() <= 120, "{}", entry.name);
                assert!(entry.name.len() + entry.usage.len() + 4 < SUMMARY_AT, "{}: the usage is too long", entry.name);
            }
        }
        assert!(lists("cd") && !lists("c") && !lists("cdx"));
        assert!(all().contains("\n  cd [DIR | -]"));
    }
}
