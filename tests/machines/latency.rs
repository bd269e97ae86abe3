//! The kernel's longest stretches without preemption, in instructions: `/tests/latency` drives the operations.

use crate::harness::Machine;

/// With slices of 10,000 instructions the counters fall short by no more than that, which the program takes into
/// account. One CPU: the emulator runs several in turn, and the others' instructions would count as this one's time.
#[test]
fn no_work_of_any_length_keeps_a_cpu() {
    let machine = Machine::new(&["--icount", "--smp", "1", "--append", "slice=10"]).seconds(400);
    let outcome = machine.exec("/tests/latency exact; echo status $?");
    outcome.has_line("status 0");
    assert!(!outcome.output.contains("not ok"), "{outcome}");
}

/// A thread that needs little does not wait for others' slices when it wakes.
#[test]
fn whoever_wakes_preempts_soon() {
    let outcome = Machine::new(&["--icount", "--smp", "1"]).exec("/tests/priority sleepers; echo status $?");
    outcome.has_line("status 0");
}

/// The output of one write call to the console is not interleaved, with several CPUs as with one.
#[test]
fn one_write_to_the_console_is_one_piece() {
    for cpus in ["1", "4"] {
        let outcome = Machine::new(&["--smp", cpus]).exec("/tests/console");
        let letter = |line: &str| line.bytes().next().filter(u8::is_ascii_lowercase);
        let is_whole = |line: &str| line.len() == 63 && line.bytes().all(|byte| Some(byte) == letter(line));
        let whole = outcome.succeeded().lines().filter(|line| is_whole(line)).count();
        outcome.has_line(&format!("lines {whole}"));
    }
}

/// An invalid slice is named in the log, and the machine uses the default.
#[test]
fn a_slice_that_makes_no_sense_is_named() {
    for argument in ["slice=9", "slice=long", "slice=1000001"] {
        let outcome = Machine::new(&["--append", argument]).exec("echo up");
        outcome.has_line("up");
        assert!(outcome.log.contains(argument), "{outcome}");
    }
}
