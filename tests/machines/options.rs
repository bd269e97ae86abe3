//! Options of `cargo xtask run` whose values cannot work: one line says what is wrong and what works, before a machine
//! starts.

use std::net::TcpListener;
use std::path::Path;

use crate::harness::{Machine, TIMED_OUT};

/// A file of the repository.
fn file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).display().to_string()
}

/// Fails unless xtask refuses the options in one line with these words.
fn refused(options: &[&str], words: &[&str]) {
    let outcome = Machine::new(options).exec("echo not reached");
    outcome.ended_with(1);
    let lines: Vec<&str> = outcome.log.lines().collect();
    assert!(lines.len() == 1 && lines[0].starts_with("xtask: ") && outcome.output.is_empty(), "{outcome}");
    for word in words {
        assert!(lines[0].contains(word), "no '{word}'\n{outcome}");
    }
}

#[test]
fn a_cpu_that_cannot_run_the_kernel() {
    for cpu in ["cortex-a15", "cortex-a9", "cortex-m3"] {
        refused(&["--cpu", cpu], &[cpu, "32 bits", "cortex-a72"]);
    }
    for cpu in ["nonsense", "max\"", ""] {
        refused(&["--cpu", cpu], &["no such CPU", "cortex-a72"]);
    }
}

#[test]
fn a_device_tree_of_another_machine() {
    let tree = file("platform/trees/virt-128m.dtb");
    refused(&["--board", "rpi4", "--dtb", &tree], &["another machine", "linux,dummy-virt", "brcm,bcm2711"]);
    refused(&["--dtb", &file("platform/trees/buses.dtb")], &["quire,test-buses", "linux,dummy-virt"]);
    refused(&["--dtb", &file("README.md")], &["no device tree"]);
}

#[test]
fn a_file_without_a_place_in_the_archive() {
    let add = |place: &str| format!("{}:{place}", file("README.md"));
    refused(&["--add", &add("/bin")], &["README.md", "/bin is a directory", "/bin/FILE"]);
    refused(&["--add", &add("/init/x")], &["/init is not a directory"]);
    refused(&["--add", &add("/x"), "--add", &add("/x")], &["/x has another"]);
    refused(&["--add", &add("/etc/exec")], &["--exec needs"]);
    refused(&["--add", &file("docs")], &["a directory"]);
}

#[test]
fn a_disk_or_a_port_that_is_not_there() {
    refused(&["--disk", &file("docs")], &["neither a file nor a disk"]);
    refused(&["--disk", "/dev/null"], &["neither a file nor a disk"]);
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("its number").port();
    refused(&[&format!("--gdb={port}")], &["this port is not free"]);
}

/// What xtask cannot know beforehand: QEMU's own options give the machine a CPU on which the kernel cannot say a word.
#[test]
fn a_machine_that_writes_nothing() {
    let outcome = Machine::new(&["--qemu", "-cpu", "--qemu", "cortex-a15"]).seconds(4).exec("echo not reached");
    outcome.ended_with(TIMED_OUT);
    assert!(outcome.log.contains("the kernel wrote nothing") && outcome.log.contains("--qemu"), "{outcome}");
}
