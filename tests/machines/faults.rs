//! A program that makes a forbidden access dies, and nothing else does.

use crate::harness::{Machine, compile};

/// The shell's status for a program that died of SIGSEGV.
const SEGMENTATION_FAULT: i32 = 128 + 11;

/// The ways to die that programs/crash.c knows.
const WAYS: [&str; 5] = ["null", "kernel-read", "kernel-jump", "write-text", "recurse"];

fn check(machine: Machine) {
    let machine = machine.add(&compile("crash.c"), "/crash");
    let deaths: String = WAYS.iter().map(|way| format!("/crash {way}; echo {way} $?; ")).collect();
    let outcome = machine.exec(&format!("{deaths} echo alive"));
    outcome.succeeded();
    for way in WAYS {
        outcome.has_line(&format!("{way} {SEGMENTATION_FAULT}"));
    }
    outcome.has_line("alive");
}

#[test]
fn on_virt() {
    check(Machine::virt());
}

#[test]
#[ignore = "matrix"]
fn on_rpi4() {
    check(Machine::rpi4());
}

/// The kernel's log says which program died, at which instruction, and by which access.
#[test]
fn the_log_says_why() {
    let outcome = Machine::virt().add(&compile("crash.c"), "/crash").exec("/crash kernel-read");
    outcome.ended_with(SEGMENTATION_FAULT);
    let line = outcome.log.lines().find(|line| line.contains("crash[")).unwrap_or_else(|| panic!("no line\n{outcome}"));
    assert!(line.contains("address 0xffff000000000000, pc 0x"), "{line}");
}
