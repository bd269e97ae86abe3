//! Machines whose memory is short, and that have swap: programs go on, and nothing is lost.

use crate::harness::Machine;

fn check(cpus: &str, more: &[&str]) {
    let machine = Machine::new(&[&["--mem", "64M", "--smp", cpus], more].concat());
    let outcome = machine.exec("selftest swap shmswap && echo balanced; vmstat pswpout; free");
    outcome.succeeded();
    outcome.has_line("balanced");
    for part in ["SKIP", "out of memory"] {
        assert!(!outcome.output.contains(part) && !outcome.log.contains(part), "{part}\n{outcome}");
    }
}

#[test]
fn one_cpu() {
    check("1", &[]);
}

#[test]
fn four_cpus() {
    check("4", &[]);
}

#[test]
#[ignore = "widens the matrix"]
fn four_cpus_with_assertions() {
    check("4", &["--debug"]);
}

#[test]
fn swap_can_be_left_out() {
    let outcome = Machine::new(&["--append", "swap=off"]).exec("free; selftest swap");
    outcome.succeeded();
    outcome.has_line("Swap:              0           0           0");
}
