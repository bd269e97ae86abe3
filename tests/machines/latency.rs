//! How long the kernel keeps a CPU to itself, counted in instructions: `/tests/latency` says what is tried.

use crate::harness::Machine;

/// With slices of 10,000 instructions the counters fall short by no more than that, which the program knows.
fn check(cpus: &str) {
    let machine = Machine::new(&["--icount", "--smp", cpus, "--append", "slice=10"]).seconds(400);
    let outcome = machine.exec("/tests/latency exact; echo status $?");
    outcome.has_line("status 0");
    assert!(!outcome.output.contains("not ok"), "{outcome}");
}

#[test]
fn no_work_of_any_length_keeps_one_cpu() {
    check("1");
}

#[test]
#[ignore = "widens the matrix"]
fn no_work_of_any_length_keeps_four_cpus() {
    check("4");
}

/// The slice is what the counters are exact to, and how fast threads take turns: nothing breaks.
#[test]
fn a_slice_that_makes_no_sense_is_named() {
    for argument in ["slice=9", "slice=long", "slice=1000001"] {
        let outcome = Machine::new(&["--append", argument]).exec("echo up");
        outcome.has_line("up");
        assert!(outcome.log.contains(argument), "{outcome}");
    }
}
