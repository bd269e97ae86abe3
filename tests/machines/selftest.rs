//! The kernel's self-test before init, on machines of every shape and with every slab back end. After each of its
//! checks the resource counts must balance, or it fails.

use crate::harness::{Machine, Outcome, tree};

/// Boots the self-test build with these options; all its checks must pass.
fn check(options: &[&str]) {
    check_machine(&Machine::new(options));
}

fn check_machine(machine: &Machine) -> Outcome {
    let outcome = machine.selftest();
    let output = outcome.succeeded();
    assert!(!output.contains("not ok"), "{outcome}");
    let passed = output.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(passed > 0, "{outcome}");
    outcome.has_line(&format!("1..{passed}"));
    outcome.has_line("# 0 failed");
    outcome
}

#[test]
fn selftest_slub() {
    check(&[]);
}

#[test]
fn selftest_slab_on_one_cpu() {
    check(&["--smp", "1", "--append", "slab=slab"]);
}

#[test]
fn selftest_slob_in_little_memory() {
    check(&["--mem", "128M", "--append", "slab=slob"]);
}

/// With `failslab=` the slab's own failures can be injected as well as the page allocator's.
#[test]
fn selftest_with_injection() {
    check(&["--append", "failslab=0"]);
}

/// Memory that is never mapped, two contiguous memory areas of the tree's, and one of the command line's.
#[test]
fn selftest_with_areas_of_a_tree() {
    let machine = Machine::new(&["--mem", "512M", "--append", "cma=12M"]).tree(&tree("areas.dtso"));
    let outcome = check_machine(&machine);
    outcome.has_line("# 3 contiguous memory areas");
    outcome.has_line("# memory that is not mapped");
}

#[test]
#[ignore = "matrix"]
fn selftest_matrix_of_back_ends() {
    for back_end in ["slub", "slab", "slob"] {
        let append = format!("slab={back_end} failslab=0");
        for cpus in ["1", "4"] {
            check(&["--smp", cpus, "--append", &append]);
        }
        check(&["--numa", "2", "--append", &append]);
        check(&["--mem", "128M", "--append", &append]);
    }
}

#[test]
#[ignore = "matrix"]
fn selftest_much_memory() {
    for back_end in ["slub", "slab", "slob"] {
        check(&["--mem", "8G", "--append", &format!("slab={back_end} failslab=0")]);
    }
}

#[test]
#[ignore = "matrix"]
fn selftest_two_nodes_and_movable_memory() {
    check(&["--numa", "2", "--append", "kernelcore=256M"]);
}

#[test]
#[ignore = "matrix"]
fn selftest_with_slab_debugging() {
    check(&["--append", "slub_debug=FZPU"]);
}

#[test]
#[ignore = "matrix"]
fn selftest_rpi4() {
    check(&["--board", "rpi4"]);
}

#[test]
#[ignore = "matrix"]
fn selftest_max_cpu() {
    check(&["--cpu", "max"]);
}

#[test]
#[ignore = "matrix"]
fn selftest_debug_assertions() {
    check(&["--debug"]);
}
