//! Workarounds of errata: QEMU's CPUs do not have them, but it can list the instructions that it comes across.

use std::fs;
use std::path::Path;

use crate::harness::Machine;

/// How many instructions in what a machine executes write CPUACTLR_EL1, by which erratum 859971 is worked around.
fn writes_of_cpuactlr(board: &str) -> usize {
    let list = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("instructions-{board}"));
    let list = list.to_str().expect("a plain path");
    let options = ["--board", board, "--qemu", "-d", "--qemu", "in_asm", "--qemu", "-D", "--qemu", list];
    Machine::new(&options).exec("true").succeeded();
    let instructions = fs::read_to_string(list).expect("QEMU's list");
    assert!(instructions.contains("IN:"), "QEMU lists instructions");
    // `msr S3_1_C15_C2_0, xN`: disassembled or, if QEMU has no disassembler, as bytes in memory's order.
    instructions.lines().filter(|line| line.contains("  d519f2") || line.contains("f219d5")).count()
}

/// The Pi's CPU is worked around by the boot CPU and by the others. A firmware with PSCI, as `virt` has, has done so
/// itself, and traps the write.
#[test]
fn the_workaround_is_applied_where_firmware_leaves_it_to_the_kernel() {
    assert!(writes_of_cpuactlr("rpi4") >= 2);
    assert_eq!(writes_of_cpuactlr("virt"), 0);
}
