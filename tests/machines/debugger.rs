//! A debugger attached to the kernel: the example of docs/debugging.md.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::Machine;

/// A free port.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its number").port()
}

/// Whether gdb shows this frame of the documentation, `#NUMBER NAME (ARGUMENTS) at FILE`: the same function of the same
/// file under the same number.
fn is_shown(said: &str, frame: &str) -> bool {
    let (number, rest) = frame.split_once(' ').expect("a frame has a name");
    let name = rest.trim_start().split(" (").next().expect("a name has arguments");
    let function = name.rsplit("::").next().expect("a name has parts");
    let file = frame.split_once(") at ").map_or("", |(_, file)| file);
    said.lines().filter(|line| line.split_whitespace().next() == Some(number)).any(|line| {
        let is_named = [format!("{function} ("), format!("{function}<")].iter().any(|name| line.contains(name));
        is_named && (file.is_empty() || line.contains(&format!("{file}:")))
    })
}

/// From the store to the entry: the backtrace at the moment at which the entry is written is that of the documentation.
#[test]
#[ignore = "matrix"]
fn a_fault_is_followed_from_the_store_to_the_entry() {
    let port = free_port();
    let gdb = format!("--gdb={port}");
    let machine = Machine::new(&["--debug", "--smp", "1", &gdb, "--exec", "echo hello"]);
    let mut machine = machine.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("xtask starts");
    let log = BufReader::new(machine.stderr.take().expect("a pipe"));
    let mut lines = log.lines().map_while(Result::ok);
    let hint = lines.find(|line| line.contains("gdb-multiarch ")).expect("xtask says how to attach a debugger");
    let kernel = hint.split_whitespace().skip_while(|word| *word != "gdb-multiarch").nth(1).expect("the kernel's file");

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fault.gdb");
    let mut gdb = Command::new("gdb-multiarch");
    // gdb retries for some seconds, in case QEMU is still starting.
    gdb.args(["-nx", "-batch", kernel, "-ex", &format!("target remote :{port}"), "-x"])
        .arg(&script)
        .args(["-ex", "kill"]);
    let done = gdb.stdin(Stdio::null()).output().expect("gdb-multiarch starts");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    let _ = machine.kill();
    let _ = machine.wait();
    for part in [
        "faults\n",
        "bits 12 to 20: the entry at",
        "Old value = 0\n",
        "trap::trap_from_user (frame=",
        "fill<",
        "anon_write<",
        "try_fault_in<",
        "::fault_in<",
        "fault::handle<",
        "trap::memory_fault (",
        "leave_user ()",
        "the word at 0x",
    ] {
        assert!(said.contains(part), "no '{part}'\n--- gdb\n{said}\n--- errors\n{errors}");
    }
    let page = fs::read_to_string(script.with_file_name("debugging.md")).expect("the page beside the script");
    let frames: Vec<_> = page.lines().filter(|line| line.starts_with('#') && line.contains(" (")).collect();
    assert!(frames.len() > 8, "the page has a backtrace");
    for frame in frames {
        assert!(is_shown(&said, frame), "docs/debugging.md is out of date: {frame}\n--- gdb\n{said}");
    }
}
