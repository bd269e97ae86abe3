//! `run --exec` prints the programs' output and nothing else, and exits with the status of the last command.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Machine, PANICKED, TIMED_OUT, compile};

#[test]
fn output_is_what_the_programs_print() {
    let outcome = Machine::virt().exec("echo hello; echo world");
    assert_eq!(outcome.succeeded(), "hello\nworld\n", "{outcome}");
    assert!(!outcome.log.is_empty(), "the kernel says something at boot");
}

#[test]
fn output_is_what_the_programs_print_on_rpi4() {
    let outcome = Machine::rpi4().exec("echo hello; echo world");
    assert_eq!(outcome.succeeded(), "hello\nworld\n", "{outcome}");
}

#[test]
fn the_status_is_the_last_command_s() {
    Machine::virt().exec("false; true").ended_with(0);
    Machine::virt().exec("true; false").ended_with(1);
}

#[test]
fn the_status_of_a_program_that_is_not_there_is_127() {
    Machine::virt().exec("/no/such/program").ended_with(127);
}

#[test]
fn a_status_of_its_own_comes_through_on_rpi4() {
    Machine::rpi4().exec("exit 42").ended_with(42);
}

#[test]
fn a_machine_that_hangs_is_stopped_and_shows_its_last_lines() {
    let start = Instant::now();
    let outcome = Machine::virt().seconds(10).exec("echo about to sleep; sleep 1000");
    outcome.ended_with(TIMED_OUT);
    assert!(start.elapsed() < Duration::from_secs(30), "stopped in time");
    let (_, tail) = outcome.log.split_once("last lines").expect("the tail has a heading");
    assert!(tail.contains("about to sleep"), "{outcome}");
}

#[test]
fn a_panic_says_what_happened_and_where() {
    // A file that is not a program replaces init, the one program that the kernel needs.
    let no_program = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let outcome = Machine::virt().add(&no_program, "/init").exec("echo not reached");
    assert_eq!(outcome.ended_with(PANICKED), "");
    for part in ["kernel panic", "init", "x29 ffff", "from 0x", "primary_main"] {
        assert!(outcome.log.contains(part), "no '{part}'\n{outcome}");
    }
}

/// The first process has no parent that could get its siblings.
#[test]
fn init_has_no_siblings() {
    let outcome = Machine::virt().add(&compile("first.c"), "/init").exec("echo not reached");
    let output = outcome.ended_with(PANICKED).replace('\r', "");
    assert_eq!(output, "clone: EINVAL\nclone3: EINVAL\n", "{outcome}");
}

/// QEMU itself ends with status 0 then.
#[test]
fn a_machine_that_a_signal_ends_has_not_succeeded() {
    let mut machine = Machine::virt().command();
    machine.args(["--exec", "echo it is up; sleep 1000"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut machine = machine.spawn().expect("xtask starts");
    let mut output = BufReader::new(machine.stdout.take().expect("a pipe")).lines();
    assert!(output.any(|line| line.is_ok_and(|line| line == "it is up")), "the machine boots");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", machine.id())).expect("xtask has QEMU");
    let qemu = children.split_whitespace().next().expect("one child");
    assert!(Command::new("kill").arg(qemu).status().is_ok_and(|status| status.success()), "a signal for {qemu}");
    let done = machine.wait_with_output().expect("xtask ends");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("a signal from outside ended QEMU"), "{said}");
}

#[test]
fn nothing_goes_on_without_init() {
    let outcome = Machine::virt().add(&compile("hello.c"), "/init").exec("echo not reached");
    outcome.ended_with(PANICKED);
    assert!(outcome.log.contains("kernel panic: init ended"), "{outcome}");
}
