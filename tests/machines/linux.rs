//! Programs that were built for Linux run unmodified.

use crate::harness::{Machine, busybox, compile};

#[test]
fn a_static_c_program_of_raw_system_calls() {
    let outcome = Machine::virt().add(&compile("hello.c"), "/hello").exec("/hello one two");
    let output = outcome.ended_with(42);
    assert_eq!(output, "hello from C: 3 arguments, the last is two\nmemory holds\nmachine aarch64\n", "{outcome}");
}

#[test]
fn busybox_runs() {
    let commands = "/busybox echo hello world; /busybox uname -m; /busybox seq 3; /busybox cat /etc/exec";
    let outcome = Machine::virt().add(&busybox(), "/busybox").exec(commands);
    let output = outcome.succeeded();
    assert_eq!(output, format!("hello world\naarch64\n1\n2\n3\n{commands}\n"), "{outcome}");
}

#[test]
#[ignore = "matrix"]
fn busybox_runs_on_rpi4() {
    let commands = "/busybox echo hello world; /busybox uname -m; /busybox seq 3";
    let outcome = Machine::rpi4().add(&busybox(), "/busybox").exec(commands);
    assert_eq!(outcome.succeeded(), "hello world\naarch64\n1\n2\n3\n", "{outcome}");
}

#[test]
fn calls_that_there_are_not_are_logged_once_a_program() {
    let machine = Machine::virt().add(&compile("unknown.c"), "/unknown").add(&compile("unknown.c"), "/another");
    let outcome = machine.exec("/unknown; /unknown; /another");
    outcome.succeeded();
    let said = |what: &str| {
        let lines = outcome.log.lines().filter(|line| line.contains("no such call: "));
        lines.filter(|line| line.ends_with(what)).count()
    };
    assert_eq!(said("no such call: bpf (280)"), 2, "two programs\n{outcome}");
    assert_eq!([said("no such call: 600"), said("no such call: 601")], [2, 0], "numbers without a name\n{outcome}");
    assert!(outcome.log.contains("another["), "the program's name\n{outcome}");
}
