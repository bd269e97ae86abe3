//! `cargo xtask test`: host tests first, then machines; one count over both.
//!
//! The machines' tests are the package quire-tests. They boot what was built here through this very program, so
//! what they show holds for the command line that people use.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::build;
use crate::cargo::Workspace;
use crate::options::{Board, BuildOptions, TestOptions};
use crate::setup;

/// Passed and failed tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Adds what one line of a test runner's output counts.
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

    /// Runs a test runner, passes its output on, and adds its counts. A runner that fails without saying which
    /// test did counts as one failed test.
    fn run(&mut self, what: &str, mut runner: Command) -> Result<()> {
        eprintln!("xtask: {what}");
        let mut child = runner.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting cargo")?;
        let before = *self;
        for line in BufReader::new(child.stdout.take().context("cargo's output")?).lines() {
            let line = line?;
            println!("{line}");
            self.count(&line);
        }
        if !child.wait()?.success() && self.failed == before.failed {
            self.fail(&format!("{what}: the test runner failed"));
        }
        Ok(())
    }

    fn fail(&mut self, why: &str) {
        eprintln!("xtask: {why}");
        self.failed += 1;
    }
}

/// Runs everything; the last line counts it.
pub fn test(options: &TestOptions) -> Result<u8> {
    setup::qemu()?;
    setup::test_tools()?;
    let device_tree = setup::device_tree()?;
    let busybox = setup::busybox()?;
    let speedtest1 = setup::malloc_guests();
    let workspace = Workspace::find()?;
    let cargo_test = || {
        let mut cargo = workspace.toolchain.cargo();
        cargo.current_dir(&workspace.root).args(["test", "--no-fail-fast"]).env("QUIRE_RPI4_DTB", &device_tree);
        cargo
    };
    let mut tally = Tally::default();

    let mut host = cargo_test();
    host.args(&options.filter);
    if let Some(file) = &speedtest1 {
        host.env("QUIRE_SPEEDTEST1", file);
    }
    tally.run("host tests", host)?;

    match build_all(options.quick) {
        Err(error) => tally.fail(&format!("no machine is booted: {error:#}")),
        Ok(()) => {
            let mut machines = cargo_test();
            machines.args(["--package", "quire-tests"]).args(&options.filter);
            machines.env("QUIRE_XTASK", env::current_exe()?).env("QUIRE_BUSYBOX", &busybox);
            if !options.quick {
                machines.args(["--", "--include-ignored"]);
            }
            tally.run("machines", machines)?;
        }
    }
    if tally == Tally::default() {
        eprintln!("xtask: no test was run");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(u8::from(tally.failed > 0 || tally.passed == 0))
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
        let mut tally = Tally::default();
        tally.run("true", Command::new("true")).unwrap();
        assert_eq!(tally, Tally::default());
        tally.run("false", Command::new("false")).unwrap();
        assert_eq!(tally, Tally { passed: 0, failed: 1 });
    }
}
