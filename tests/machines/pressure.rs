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

/// Lets programs run while a hog makes pages leave all the time; with none, all of them.
fn beside_a_hog(options: &[&str], programs: &str) {
    let machine = Machine::new(options).seconds(if programs.is_empty() { 3000 } else { 240 });
    let outcome = machine.exec(&format!("selftest --pressure {programs} && echo balanced; vmstat pswpin"));
    outcome.succeeded();
    outcome.has_line("balanced");
    let line = outcome.output.lines().last().and_then(|line| line.strip_prefix("pswpin "));
    assert!(line.and_then(|pages| pages.parse().ok()).is_some_and(|pages: u64| pages > 1000), "{outcome}");
}

/// All allocations take the slow path, and none fails.
const INJECTION: &str = "fail_page_alloc=1,0 failslab=1,0";

/// The programs whose pages have most ways to leave and to come back, and servers.
#[test]
fn programs_beside_a_hog_on_one_cpu() {
    beside_a_hog(&["--mem", "64M", "--smp", "1", "--append", INJECTION], "brk dirty elf exec fork mremap pipe stack");
}

#[test]
fn programs_beside_a_hog_on_two_nodes() {
    let options = ["--mem", "96M", "--smp", "2", "--numa", "2"];
    beside_a_hog(&options, "execrace failcall mlock mmap msync servers thread wait");
}

/// Every program, on machines that differ in CPUs, memory, nodes, assertions and slab back end.
mod long {
    use super::beside_a_hog;

    #[test]
    #[ignore = "long"]
    fn every_program_beside_a_hog_on_one_cpu() {
        beside_a_hog(&["--mem", "64M", "--smp", "1"], "");
    }

    #[test]
    #[ignore = "long"]
    fn every_program_beside_a_hog_on_two_nodes() {
        beside_a_hog(&["--mem", "96M", "--smp", "2", "--numa", "2"], "");
    }

    #[test]
    #[ignore = "long"]
    fn every_program_beside_a_hog_on_four_cpus() {
        beside_a_hog(&["--mem", "64M", "--smp", "4"], "");
    }

    #[test]
    #[ignore = "long"]
    fn every_program_beside_a_hog_with_assertions() {
        beside_a_hog(&["--mem", "128M", "--smp", "4", "--numa", "2", "--debug", "--append", "slab=slab"], "");
    }
}

#[test]
fn swap_can_be_left_out() {
    let outcome = Machine::new(&["--append", "swap=off"]).exec("free; selftest swap");
    outcome.succeeded();
    outcome.has_line("Swap:              0           0           0");
}
