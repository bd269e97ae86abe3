//! Builds: several in one checkout, and what a terminal shows of one.

use std::env;
use std::process::{Command, Stdio};

use crate::harness::Machine;
use crate::terminal::Terminal;

fn build() -> Command {
    let mut command = Command::new(env::var_os("QUIRE_XTASK").expect("these tests are run by `cargo xtask test`"));
    command.arg("build");
    command
}

/// Builds that find nothing to compile all lay out the boot archive at once, while others boot from it.
#[test]
fn builds_and_runs_at_once_do_not_disturb_each_other() {
    let start = || {
        let mut command = build();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("xtask starts")
    };
    for _ in 0..3 {
        let builds = [start(), start(), start()];
        Machine::virt().exec("true").succeeded();
        for build in builds {
            let done = build.wait_with_output().expect("xtask ends");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
    }
}

/// A terminal that cannot redraw lines, or does not say what it is, shows steps as a file does; one without a size shows them
/// as one of 80 columns does.
#[test]
fn every_terminal_shows_that_a_build_works() {
    for (kind, (rows, columns)) in [(Some("dumb"), (25, 80)), (None, (0, 0)), (Some("xterm"), (0, 0))] {
        let mut command = build();
        match kind {
            Some(kind) => command.env("TERM", kind),
            None => command.env_remove("TERM"),
        };
        let mut terminal = Terminal::of(command, rows, columns);
        for step in ["building the kernel", "building the programs"] {
            terminal.expect(step);
        }
        assert_eq!(terminal.status(), 0);
    }
}
