//! `cargo xtask test`: host tests first, then machines; one count over both.
//!
//! The machines' tests are the package quire-tests. They boot the builds made here through this program, so they test
//! the command line that users use. A runner's output passes through [`Report`], which leaves out programs of which no
//! test ran.

use std::env;
use std::process::Command;

use anyhow::Result;

use crate::build;
use crate::cargo::Workspace;
use crate::options::{Board, BuildOptions, TestOptions};
use crate::progress::{self, Progress};
use crate::setup;

/// The output of test runners so far: counts, and which lines to show.
#[derive(Default)]
struct Report {
    tally: Tally,
    /// For the live line: the number of tests that a program announced, and how many of them have ended.
    expected: u64,
    ended: u64,
    /// The program whose tests come next; it is shown once it runs one.
    heading: Option<String>,
    /// The current lines belong to a program that runs tests.
    is_running: bool,
    failures: Failures,
}

/// What failed, briefly, for the end of the output: a machine's log stands between a failure and its reason, and some
/// who keep the output of a long run keep its end alone.
#[derive(Default)]
struct Failures {
    lines: Vec<String>,
    /// How many more lines the failed test that is being told of may have; `None` outside of its output.
    room: Option<usize>,
    /// The next line says why the test panicked.
    is_reason: bool,
}

/// Passed and failed tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Adds the counts in one line of a test runner's output.
    fn count(&mut self, line: &str) {
        // "test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s"
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let Some((_, counts)) = result.split_once(". ") else { return };
        for count in counts.split("; ") {
            match count.split_once(' ').map(|(number, what)| (number.parse::<u64>(), what)) {
                Some((Ok(number), "passed")) => self.passed += number,
                Some((Ok(number), "failed")) => self.failed += number,
                _ => {}
            }
        }
    }
}

impl Failures {
    /// Lines of a failed test's output that are kept.
    const LINES: usize = 8;

    /// Keeps the line, if it says that a test failed, where, or why.
    fn line(&mut self, line: &str) {
        if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.lines.push(format!("failed: {test}"));
            (self.room, self.is_reason) = (Some(Self::LINES), false);
            return;
        }
        if line == "failures:" || line.starts_with("test result: ") {
            self.room = None;
        }
        let Some(room) = self.room.as_mut().filter(|room| **room > 0) else { return };
        let is_panic = line.starts_with("thread '") && line.contains(" panicked at ");
        // What a test program on a machine prints of its failures.
        if self.is_reason || is_panic || line.starts_with("not ok ") {
            *room -= 1;
            self.lines.push(format!("    {line}"));
        }
        self.is_reason = is_panic;
    }
}

impl Report {
    /// Takes a line of a runner, cargo's or a test program's, and returns the lines to show.
    fn line(&mut self, line: &str) -> Vec<String> {
        self.tally.count(line);
        let plain = progress::without_colour(line);
        self.failures.line(&plain);
        if let Some(program) = heading(&plain) {
            // Cargo prints this for each program, even for one without a matching test.
            (self.heading, self.is_running) = (Some(program.to_owned()), false);
            return Vec::new();
        }
        if let Some(count) = plain.strip_prefix("running ").and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok())
        {
            self.expected += count;
            self.is_running = count > 0;
            return match self.is_running {
                true => self.heading.take().into_iter().chain([line.to_owned()]).collect(),
                false => Vec::new(),
            };
        }
        if plain.starts_with("test ") && plain.contains(" ... ") {
            self.ended += 1;
            if plain.ends_with("... ignored") || plain.contains("... ignored, ") {
                return Vec::new();
            }
        }
        let is_of_silent = self.heading.is_some() && (plain.is_empty() || plain.starts_with("test result: "));
        let is_shown = !is_of_silent && !progress::is_cargo_step(line) && (self.is_running || !plain.is_empty());
        is_shown.then(|| line.to_owned()).into_iter().collect()
    }

    /// Runs a test runner, shows the relevant lines, and adds its counts. A runner that fails without naming a test
    /// counts as one failed test.
    fn run(&mut self, what: &str, mut runner: Command) -> Result<()> {
        let before = self.tally;
        (self.expected, self.ended) = (0, 0);
        let each = |progress: &Progress, line: &str| {
            self.line(line).iter().for_each(|shown| progress.print(shown));
            if self.expected > 0 {
                progress.at(self.ended, self.expected, "tests");
            }
        };
        let (status, ()) = progress::watch(what, &mut runner, true, each, |_| Ok(()))?;
        if !status.success() && self.tally.failed == before.failed {
            self.fail(&format!("{what}: the test runner failed"));
        }
        Ok(())
    }

    fn fail(&mut self, why: &str) {
        eprintln!("xtask: {why}");
        self.tally.failed += 1;
    }
}

/// The program that cargo announces in this line.
fn heading(line: &str) -> Option<&str> {
    let line = line.strip_prefix(' ')?.trim_start();
    (line.starts_with("Running ") || line.starts_with("Doc-tests ")).then_some(line)
}

/// In the names of the machines' tests that only `--long` runs.
const LONG: &str = "::long::";

/// Runs everything; the last line counts it.
pub fn test(options: &TestOptions) -> Result<u8> {
    setup::qemu()?;
    setup::test_tools()?;
    let device_tree = setup::device_tree()?;
    let busybox = setup::busybox()?;
    let speedtest1 = setup::malloc_guests();
    let workspace = Workspace::find()?;
    let cargo_test = |more: &[&str]| {
        let mut cargo = workspace.cargo(&["test", "--no-fail-fast"]);
        cargo.args(more).args(&options.filter).env("QUIRE_RPI4_DTB", &device_tree);
        cargo
    };
    let mut report = Report::default();

    let mut host = cargo_test(&[]);
    if let Some(file) = &speedtest1 {
        host.env("QUIRE_SPEEDTEST1", file);
    }
    report.run("host tests", host)?;

    let machines = || cargo_test(&["--package", "quire-tests"]);
    if options.filter.is_none() || has_tests(machines())? {
        match build_all(options.quick) {
            Err(error) => report.fail(&format!("no machine is booted: {error:#}")),
            Ok(()) => {
                let mut machines = machines();
                machines.env("QUIRE_XTASK", env::current_exe()?).env("QUIRE_BUSYBOX", &busybox);
                if !options.quick {
                    machines.args(["--", "--include-ignored"]);
                }
                if !options.quick && !options.long {
                    machines.args(["--skip", LONG]);
                }
                report.run("machines", machines)?;
            }
        }
    }
    let tally = report.tally;
    if tally == Tally::default() {
        eprintln!("xtask: no test was run");
    }
    report.failures.lines.iter().for_each(|line| println!("{line}"));
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(u8::from(tally.failed > 0 || tally.passed == 0))
}

/// Whether a runner would run any test; the machines are built only if one boots them.
fn has_tests(mut runner: Command) -> Result<bool> {
    runner.args(["--", "--list", "--format", "terse"]);
    let mut found = false;
    let each = |_: &Progress, line: &str| found |= line.ends_with(": test");
    let (status, ()) = progress::watch("looking for tests of machines", &mut runner, true, each, |_| Ok(()))?;
    // A runner that cannot list its tests fails when it runs them, and says why.
    Ok(found || !status.success())
}

/// The optimized build and, for the whole matrix, the one with debug assertions; of each the kernel's self-test too.
fn build_all(quick: bool) -> Result<()> {
    let debug: &[bool] = if quick { &[false] } else { &[false, true] };
    for &debug in debug {
        for selftest in [false, true] {
            build::build(&BuildOptions { board: Board::Virt, debug, selftest })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_runners_add_up() {
        let mut tally = Tally::default();
        for line in [
            "running 9 tests",
            "test result: ok. 7 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test x ... FAILED",
            "test result: FAILED. 3 passed; 4 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.00s",
        ] {
            tally.count(line);
        }
        assert_eq!(tally, Tally { passed: 10, failed: 4 });
    }

    #[test]
    fn a_runner_that_only_fails_is_a_failed_test() {
        let mut report = Report::default();
        report.run("true", Command::new("true")).unwrap();
        assert_eq!(report.tally, Tally::default());
        report.run("false", Command::new("false")).unwrap();
        assert_eq!(report.tally, Tally { passed: 0, failed: 1 });
    }

    /// What `cargo test FILTER` prints over three programs of which one has such a test, and a failed one.
    const RUN: &str = "
   Compiling quire-mm v0.1.0
warning: unused variable
    Finished `test` profile
     Running unittests src/lib.rs (target/debug/deps/quire_abi-1)

running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s

     Running unittests src/lib.rs (target/debug/deps/quire_mm-2)

running 3 tests
test buddy::ignored ... ignored, matrix
test buddy::merges ... ok
test buddy::splits ... FAILED

failures:
---- buddy::splits stdout ----
thread 'buddy::splits' (7) panicked at mm/buddy.rs:1:1:
exit status
--- output
ok 1 - fork: 3 checks in 2 ms
not ok 2 - brk: 24 checks in 44 ms

failures:
    buddy::splits

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.00s

   Doc-tests quire_mm

running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn only_what_ran_is_shown() {
        let mut report = Report::default();
        let shown: Vec<String> = RUN.lines().flat_map(|line| report.line(line)).collect();
        let expected = [
            "warning: unused variable",
            "Running unittests src/lib.rs (target/debug/deps/quire_mm-2)",
            "running 3 tests",
            "test buddy::merges ... ok",
            "test buddy::splits ... FAILED",
            "",
            "failures:",
            "---- buddy::splits stdout ----",
            "thread 'buddy::splits' (7) panicked at mm/buddy.rs:1:1:",
            "exit status",
            "--- output",
            "ok 1 - fork: 3 checks in 2 ms",
            "not ok 2 - brk: 24 checks in 44 ms",
            "",
            "failures:",
            "    buddy::splits",
            "",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.00s",
            "",
        ];
        assert_eq!(shown, expected);
        assert_eq!(report.tally, Tally { passed: 1, failed: 1 });
        assert_eq!((report.expected, report.ended), (3, 3));
        let failures = [
            "failed: buddy::splits",
            "    thread 'buddy::splits' (7) panicked at mm/buddy.rs:1:1:",
            "    exit status",
            "    not ok 2 - brk: 24 checks in 44 ms",
        ];
        assert_eq!(report.failures.lines, failures);
    }
}
