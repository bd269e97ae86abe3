//! Close-ups of memory on a machine: `walk`, `fraginfo`, `pressure` and `grouptop`.

use crate::harness::{Machine, busybox};
use crate::terminal::{PROMPT, Terminal};

#[test]
fn a_walk_ends_at_what_is_there() {
    let commands = "walk 1 400000 && walk kernel ffffffff80080000 && walk 1 0 && walk 1 4000000000000";
    let outcome = Machine::virt().exec(commands);
    let said = outcome.succeeded();
    let words = [
        "0x0000000000400000 of process 1 (init)",
        "all zeros: TTBR0",
        "page 0 of /init",
        "EL1 and EL0 read",
        "0xffffffff80080000 of the kernel",
        "part      kernel image",
        "EL1 may execute",
        "no area is here",
        "neither all zeros nor all ones",
    ];
    for word in words {
        assert!(said.contains(word), "no {word:?}\n{outcome}");
    }
    let outcome = Machine::virt().exec("walk; echo $?; walk 1 x; echo $?; walk 999 0; echo $?; walk kernel 0; echo $?");
    let said = outcome.all();
    assert!(said.contains("usage: walk PID|kernel ADDRESS") && said.contains("walk: 999: "), "{outcome}");
    assert_eq!(outcome.output.lines().filter(|line| line.len() == 1).collect::<Vec<_>>(), ["2", "2", "1", "1"]);
}

#[test]
fn page_blocks_of_a_large_machine_fit_on_a_screen() {
    let machine = Machine::new(&["--mem", "8G", "--numa", "2", "--append", "movablecore=1G cma=64M"]);
    let outcome = machine.exec("fraginfo --compact");
    let said = outcome.succeeded();
    let (before, after) = said.split_once("\nCompaction: ").unwrap_or_else(|| panic!("no compaction\n{outcome}"));
    let after = after.split_once("\n\n").map_or("", |(_, picture)| picture);
    for picture in [before, after] {
        let (map, rest) = picture.split_once("\n\n").unwrap_or_else(|| panic!("no totals\n{outcome}"));
        assert!(map.lines().count() <= 24 && map.lines().all(|line| line.len() <= 120), "{outcome}");
        assert!(["zone DMA32", "zone NORMAL", "zone MOVABLE"].iter().all(|zone| map.contains(zone)), "{outcome}");
        assert!(
            ["CMA", "reserved", "unusable free space", "fragmentation index"].iter().all(|word| rest.contains(word)),
            "{outcome}"
        );
    }
    assert!(!said.contains('\u{1b}'), "colours without a terminal\n{outcome}");
}

/// The number that stands behind a text.
fn number_behind(said: &str, text: &str) -> u64 {
    let rest = said.split_once(text).map_or("", |(_, rest)| rest);
    let word = rest.split_whitespace().next().unwrap_or("");
    word.parse().unwrap_or_else(|_| panic!("no number behind {text:?}\n{said}"))
}

#[test]
fn pressure_is_drawn_where_there_is_some() {
    let machine = Machine::new(&["--mem", "64M", "--smp", "2"]);
    let outcome = machine.exec("pressure; hog >/dev/null & sleep 8; pressure");
    let said = outcome.succeeded();
    let (before, after) = match said.split("memory   ").collect::<Vec<_>>()[..] {
        [_, before, after] => (before, after),
        _ => panic!("not two pictures\n{outcome}"),
    };
    assert!(before.contains("reclaim has not had to look at them yet"), "{outcome}");
    for line in ["waiting ", "  some ", "  full ", "  hot", "  cold, fresh ", "  cold, watched "] {
        assert!(after.lines().any(|other| other.starts_with(line)), "no {line:?}\n{outcome}");
    }
    assert!(after.lines().all(|line| line.len() < 80) && !said.contains('\u{1b}'), "{outcome}");
    // (What a word repeats, and what is compressed.)
    assert!(number_behind(after, "swap     ") > 100 && after.contains(" : 1\n"), "{outcome}");
    let reclaim = after.split_once("reclaim  ").map_or("", |(_, rest)| rest);
    let since_boot = |name: &str| {
        let line = reclaim.lines().find(|line| line.trim_start().starts_with(name));
        line.and_then(|line| line.split_whitespace().last()?.parse::<u64>().ok())
    };
    assert!(since_boot("pages to swap") > Some(100), "{outcome}");
    assert!(since_boot("kswapd: pages freed") > Some(0), "{outcome}");
}

#[test]
fn groups_are_a_tree() {
    let make = "B=/busybox; cd /sys/fs/cgroup; $B mkdir a b; echo +memory >a/cgroup.subtree_control; $B mkdir a/within; \
        echo 8M >a/memory.max; $B sh -c 'echo 0 >a/within/cgroup.procs; grouptop -n; true'";
    let outcome = Machine::virt().add(&busybox(), "/busybox").exec(make);
    let said = outcome.succeeded();
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<&str> = lines.iter().map(|words| words[0]).collect();
    assert_eq!(names, ["group", "/", "a", "within", "b"], "{outcome}");
    assert!(said.lines().nth(3).is_some_and(|line| line.starts_with("    within ")), "{outcome}");
    assert_eq!((lines[2][3], lines[4][2], lines[1][2]), ("8192K", "0K", "-"), "{outcome}");
    // (The shell there, and grouptop.)
    assert!(lines[3][1] == "2" && lines[2][1] == "0" && lines[3][2] != "0K", "{outcome}");
}

#[test]
fn pictures_are_drawn_again_until_somebody_types_q() {
    const HOME: &str = "\u{1b}[H\u{1b}[J";
    let mut terminal = Terminal::boot(&Machine::virt());
    for (program, word) in
        [("pressure -d 1", "waiting"), ("grouptop", "group "), ("slabtop", "objects "), ("memtop", "a second")]
    {
        terminal.start(program);
        for _ in 0..3 {
            terminal.expect(HOME);
            terminal.expect(word);
        }
        // Other keys are neither shown nor kept for the shell, and what comes behind the `q` is the shell's.
        terminal.press("~");
        terminal.press("qecho behind\r");
        assert!(!terminal.expect(PROMPT).contains("~"));
        terminal.expect("\nbehind");
        terminal.expect(PROMPT);
    }
    terminal.press("poweroff\r");
    assert_eq!(terminal.status(), 0);
}

/// The terminal is as it was found, whatever ends a picture. (The shell of Quire would put it in order itself.)
#[test]
fn a_picture_leaves_the_terminal_as_it_was() {
    let mut terminal = Terminal::boot(&Machine::virt().add(&busybox(), "/busybox"));
    let settings = terminal.run("/busybox stty -g");
    terminal.run("echo trap : INT >/tmp/ends");
    terminal.run("echo slabtop >>/tmp/ends");
    terminal.run("echo /busybox stty -g >>/tmp/ends");
    for end in ["q", "\x03"] {
        terminal.start("/busybox sh /tmp/ends");
        terminal.expect("objects ");
        terminal.press(end);
        let rest = terminal.expect(PROMPT);
        assert!(rest.lines().any(|line| line == settings.trim()), "after {end:?}: {rest}");
    }
    terminal.start("slabtop -d 3600 & sleep 2; kill -TERM $!; sleep 1; /busybox stty -g");
    assert!(terminal.expect(PROMPT).contains(settings.trim()));
    terminal.press("poweroff\r");
    assert_eq!(terminal.status(), 0);
}
