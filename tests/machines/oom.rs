//! Machines whose memory runs out: the largest program dies, the kernel, init and the shell do not.

use crate::harness::Machine;

fn check(cpus: &str) {
    let machine = Machine::new(&["--mem", "128M", "--smp", cpus, "--append", "swap=off"]);
    let outcome = machine.exec("selftest oom && echo balanced; ps; echo alive");
    outcome.succeeded();
    outcome.has_line("balanced");
    outcome.has_line("alive");
    assert!(!outcome.output.contains("SKIP"), "{outcome}");
    for part in ["out of memory: oom[", "got no page", " free, ", "killed oom["] {
        assert!(outcome.log.contains(part), "no '{part}' in the report\n{outcome}");
    }
}

#[test]
fn one_cpu() {
    check("1");
}

#[test]
fn four_cpus() {
    check("4");
}
