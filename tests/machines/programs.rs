//! The output of the small programs, where users compare it with Linux's.

use crate::harness::Machine;

/// Every program has its line in `help`.
#[test]
fn help_lists_every_command() {
    let outcome = Machine::virt().exec("ls -1 /bin; echo ---; help; echo ---; help cd; help nonsense");
    let mut parts = outcome.ended_with(1).split("---\n");
    let [programs, help, one] = [(); 3].map(|()| parts.next().expect("three parts"));
    assert!(programs.lines().count() > 30, "{outcome}");
    for name in programs.lines() {
        let starts = |line: &str| line.strip_prefix("  ").is_some_and(|rest| rest.split(' ').next() == Some(name));
        assert!(help.lines().any(starts), "no line for {name}\n{outcome}");
    }
    let one: Vec<&str> = one.lines().collect();
    assert!(one.len() == 2 && one[0].starts_with("  cd ") && one[1].starts_with("help: nonsense: "), "{outcome}");
}

/// An argument that a program does not know is named, and nothing is done.
#[test]
fn unknown_arguments_are_named() {
    let outcome = Machine::virt().exec("ps aux; free 1; reboot now; dmesg -T");
    let output = outcome.ended_with(2);
    let lines: Vec<&str> = output.lines().collect();
    let wanted = [
        "unknown argument aux; usage: ps",
        "unknown argument 1; usage: free [-bkmghw]",
        "unknown argument now; usage: reboot",
        "unknown option -T; usage: dmesg",
    ];
    assert_eq!(lines, wanted, "{outcome}");
}

/// The lines of free(1) have Linux's columns, in any unit.
#[test]
fn free_has_linux_s_columns() {
    let outcome = Machine::virt().exec("free; free -h -w; free -b");
    let output = outcome.succeeded();
    let rows = |name: &str| output.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
    let fields = |line: &str| line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let memory: Vec<Vec<String>> = rows("Mem:").into_iter().map(fields).collect();
    assert_eq!(memory.iter().map(Vec::len).collect::<Vec<_>>(), [6, 7, 6], "{outcome}");
    assert_eq!(rows("Swap:").len(), 3, "{outcome}");
    assert!(output.contains("shared  buff/cache   available\n"), "{outcome}");
    assert!(output.contains("shared     buffers       cache   available\n"), "{outcome}");
    let human =
        |text: &str| text.strip_suffix("Mi").is_some_and(|number| number.len() <= 4 && number.parse::<f32>().is_ok());
    assert!(human(&memory[1][0]) && human(&memory[1][2]), "{outcome}");
    let number = |row: usize, at: usize| memory[row][at].parse::<u64>().expect("a number");
    assert_eq!(number(0, 0) * 1024, number(2, 0), "{outcome}");
    assert_eq!(number(0, 0), number(0, 1) + number(0, 2), "used and free are all\n{outcome}");
    assert!(number(0, 5) < number(0, 2), "some of what is free is kept back\n{outcome}");
}

/// With numbers vmstat is like vmstat(8): a row each second, and an idle machine's CPUs are idle.
#[test]
fn vmstat_counts_as_on_linux() {
    let outcome = Machine::virt().exec("vmstat 1 3; vmstat tlb_flush_page; vmstat 0");
    let output = outcome.ended_with(2);
    let rows: Vec<Vec<&str>> = output.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1].join(" "), "r b swpd free buff cache si so bi bo in cs us sy id wa st", "{outcome}");
    for row in &rows[2..5] {
        assert_eq!(row.len(), 17, "{outcome}");
    }
    let idle = |row: usize| rows[row][14].parse::<u32>().expect("a number");
    assert!(idle(3) > 80 && idle(4) > 80, "one of four CPUs prints a line a second\n{outcome}");
    assert_eq!((rows.len(), rows[5][0], rows[6][0]), (7, "tlb_flush_page", "vmstat:"), "{outcome}");
}

/// It shows what is in swap, and what goes there and comes back.
#[test]
fn vmstat_shows_swap() {
    let machine = Machine::new(&["--mem", "128M", "--smp", "1"]);
    let outcome = machine.exec("sh -c 'hog & sleep 4; vmstat 1 3'; vmstat pswpout");
    let rows: Vec<Vec<&str>> = outcome.output.lines().map(|line| line.split_whitespace().collect()).collect();
    let columns = rows.iter().position(|row| row.contains(&"swpd")).expect("the heading");
    let number = |row: usize, at: usize| rows[columns + row][at].parse::<u64>().expect("a number");
    assert!((1..=3).all(|row| number(row, 2) > 1000), "KiB in swap\n{outcome}");
    assert!((1..=3).any(|row| number(row, 6) > 0) && (1..=3).any(|row| number(row, 7) > 0), "{outcome}");
}

/// Without a terminal, slabtop shows one picture and cat's input is at its end; ps shows the shell.
#[test]
fn programs_end_where_nobody_types() {
    let outcome = Machine::virt().exec("slabtop; cat; ps; sh -c 'echo of the inner one'");
    let output = outcome.succeeded();
    assert_eq!(output.lines().filter(|line| line.starts_with("objects ")).count(), 1, "{outcome}");
    assert!(!output.contains('\x1b'), "{outcome}");
    let names: Vec<&str> =
        output.lines().filter_map(|line| line.trim().rsplit_once(' ')).map(|(_, name)| name).collect();
    for name in ["init", "sh"] {
        assert!(names.contains(&name), "no {name}\n{outcome}");
    }
    outcome.has_line("of the inner one");
}
