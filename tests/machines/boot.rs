//! Boots the matrix of machines: each shows its memory rightly and passes its own tests.

use crate::harness::{Machine, Outcome};

/// Boots, looks at the memory and runs the machine's self-tests.
fn check(machine: &Machine) -> Outcome {
    let outcome = machine.exec("memmap; free; selftest");
    let output = outcome.succeeded();
    let passed = output.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(passed > 0, "selftest ran no check\n{outcome}");
    assert!(!output.contains("not ok"), "a check failed\n{outcome}");
    outcome
}

#[test]
fn virt() {
    check(&Machine::virt());
}

#[test]
fn rpi4() {
    check(&Machine::rpi4());
}

#[test]
fn one_cpu() {
    check(&Machine::new(&["--smp", "1"]));
}

#[test]
#[ignore = "matrix"]
fn el2() {
    check(&Machine::new(&["--el2"]));
}

#[test]
#[ignore = "matrix"]
fn gic_3() {
    check(&Machine::new(&["--gic", "3"]));
}

#[test]
#[ignore = "matrix"]
fn el2_gic_3() {
    check(&Machine::new(&["--el2", "--gic", "3"]));
}

#[test]
#[ignore = "matrix"]
fn little_memory() {
    check(&Machine::new(&["--mem", "128M"]));
}

#[test]
#[ignore = "matrix"]
fn much_memory() {
    check(&Machine::new(&["--mem", "8G"]));
}

#[test]
#[ignore = "matrix"]
fn two_nodes() {
    check(&Machine::new(&["--numa", "2"]));
}

#[test]
#[ignore = "matrix"]
fn debug_assertions() {
    check(&Machine::new(&["--debug"]));
}

#[test]
fn runs_are_deterministic_when_instructions_are_counted() {
    let machine = Machine::new(&["--icount"]);
    let [first, second] = [(); 2].map(|()| machine.exec("echo hello"));
    assert_eq!(first.succeeded(), second.succeeded());
    assert_eq!(first.log, second.log, "the kernel's messages and their times");
}
