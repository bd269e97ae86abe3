//! Selection of the console's serial port, and its complete set-up, whatever state firmware left it in.

use crate::harness::{Machine, Outcome};

/// QEMU's trace lines about writes to a PL011's divisor.
fn divisors(outcome: &Outcome) -> Vec<&str> {
    outcome.log.lines().filter(|line| line.contains("pl011_write") && line.contains("BRD")).collect()
}

#[test]
fn a_port_may_have_linux_s_name_and_a_rate() {
    for argument in
        ["console=ttyAMA0", "console=ttyAMA0,9600n8", "console=serial0,115200", "console=tty1 console=ttyAMA0"]
    {
        let outcome = Machine::new(&["--append", argument]).exec("echo heard");
        outcome.succeeded();
        outcome.has_line("heard");
        let named = outcome.log.lines().filter(|line| line.contains("warning: console=")).count();
        assert_eq!(named, argument.matches("tty1").count(), "{outcome}");
    }
    for (argument, why) in [("console=ttyS0,115200", "no such serial port"), ("console=ttyAMA0,9600e7", "not a rate")] {
        let outcome = Machine::new(&["--append", argument]).exec("echo heard");
        outcome.succeeded();
        outcome.has_line("heard");
        assert!(outcome.log.contains(&format!("{argument}: {why}")), "{outcome}");
    }
}

/// The rate of a Pi's PL011 clock is not in the tree: the firmware reports it (QEMU's says 3 MHz).
#[test]
fn the_divisor_of_a_pi_s_port_is_programmed() {
    let machine = Machine::new(&["--board", "rpi4", "--qemu", "-trace", "--qemu", "pl011_write"]);
    let outcome = machine.exec("echo heard");
    outcome.succeeded();
    outcome.has_line("heard");
    let written = divisors(&outcome);
    assert!(written.iter().any(|line| line.contains("IBRD")), "{outcome}");
    assert!(written.iter().any(|line| line.contains("FBRD")), "{outcome}");
}

/// A rate that the clock cannot be divided to is named, and the usual one programmed.
#[test]
fn a_rate_that_a_port_cannot_have_is_named() {
    let options = ["--board", "rpi4", "--append", "console=serial0,99999999"];
    let outcome =
        Machine::new(&[&options[..], &["--qemu", "-trace", "--qemu", "pl011_write"]].concat()).exec("echo heard");
    outcome.succeeded();
    outcome.has_line("heard");
    assert!(outcome.log.contains("no rate of 99999999"), "{outcome}");
    assert!(divisors(&outcome).iter().any(|line| line.contains("IBRD")), "{outcome}");
}

/// The mini-UART of a Pi is the console by its alias and by both of Linux's names; the log has the other port.
#[test]
fn a_pi_s_mini_uart_may_be_the_console() {
    for name in ["serial1", "ttyS0,115200", "ttyS1"] {
        let append = format!("console={name} log=ttyAMA0");
        let outcome = Machine::new(&["--board", "rpi4", "--append", &append]).exec("echo heard");
        outcome.ended_with(0);
        assert!(outcome.log.lines().any(|line| line == "heard"), "{outcome}");
        assert!(outcome.output.contains("first user instruction"), "{outcome}");
    }
}
