//! Disks: a file of the host's that programs read and write as one, through a driver that is a process.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Machine, busybox};

/// A file of so many bytes that do not repeat soon.
fn disk(name: &str, bytes: usize) -> (PathBuf, Vec<u8>) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let content: Vec<u8> = (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, &content).expect("the disk is made");
    (path, content)
}

#[test]
fn what_is_on_a_disk_is_read_and_what_is_written_is_there() {
    check("bytes.img", &["--smp", "4"], "vda");
}

/// The driver finds the card at the controller to which QEMU gives it, and lets go of the other one.
#[test]
fn what_is_on_a_card_is_read_and_what_is_written_is_there() {
    check("card.img", &["--board", "rpi4"], "mmcblk0");
}

fn check(image: &str, options: &[&str], name: &str) {
    // (QEMU has only cards whose size is a power of 2.)
    let (path, mut content) = disk(image, 4 << 20);
    let options = [options, &["--disk", path.to_str().expect("a path")]].concat();
    let machine = Machine::new(&options).add(&busybox(), "/busybox");
    let commands = "B=/busybox; $B cat $D | $B md5sum; $B dd if=$D bs=1 skip=1000 count=3000 2>/dev/null | $B md5sum; \
        echo written | $B dd of=$D bs=1 seek=70000 conv=notrunc,fsync 2>/dev/null; \
        $B dd if=/dev/zero of=$D bs=100k seek=2 count=3 conv=notrunc 2>/dev/null; $B sync; \
        $B dd if=$D bs=1 skip=69999 count=9 2>/dev/null | $B od -c | $B head -n1; ls -l /dev/block";
    let outcome = machine.exec(&format!("D=/dev/block/{name}; {commands}"));
    let before = (md5(&content), md5(&content[1000..4000]));
    let after = fs::read(&path).expect("the disk");
    content[70_000..70_008].copy_from_slice(b"written\n");
    content[200 << 10..500 << 10].fill(0);
    assert!(after == content, "the disk has other bytes\n{outcome}");
    let lines: Vec<_> = outcome.succeeded().lines().collect();
    assert_eq!((lines[0], lines[1]), (&*format!("{}  -", before.0), &*format!("{}  -", before.1)), "{outcome}");
    assert!(lines[2].ends_with("w   r   i   t   t   e   n  \\n"), "{outcome}");
    assert!(lines[3].starts_with("brw-------") && lines[3].ends_with(&format!("4194304 {name}")), "{outcome}");
}

#[test]
fn a_disk_s_end_is_an_end_and_others_may_not() {
    let (path, _) = disk("end.img", 512 * 9);
    let machine = Machine::new(&["--disk", path.to_str().expect("a path")]).add(&busybox(), "/busybox");
    let commands = "B=/busybox; D=/dev/block/vda; $B dd if=$D bs=1M 2>/dev/null | $B wc -c; \
        $B dd if=/dev/zero of=$D bs=512 seek=8 count=5 conv=notrunc 2>/dev/null || echo full; \
        $B dd if=$D bs=512 skip=9 2>/dev/null | $B wc -c; $B mkdir /dev/block/x 2>/dev/null || echo no; \
        $B rm -f $D 2>/dev/null || echo kept; $B cat /dev/block/vdb 2>/dev/null || echo none";
    let outcome = machine.exec(commands);
    assert_eq!(outcome.succeeded(), "4608\nfull\n0\nno\nkept\nnone\n", "{outcome}");
}

/// The driver is killed in the middle: readers get an error, the next driver resets the disk, and everything is there again.
#[test]
fn a_driver_that_is_killed_is_started_again() {
    let (path, content) = disk("killed.img", 1 << 20);
    let machine = Machine::new(&["--smp", "4", "--disk", path.to_str().expect("a path")]).add(&busybox(), "/busybox");
    let commands = "B=/busybox; D=/dev/block/vda; for i in 1 2 3; do \
        (while $B cat $D >/dev/null 2>&1; do :; done; echo failed) & \
        $B sleep 1; $B kill -9 $($B pidof virtio-blk); wait; \
        until $B cat $D 2>/dev/null | $B md5sum | $B grep -q $WANTED; do $B sleep 1; done; echo again; done";
    let script = format!("export WANTED={}; {commands}", md5(&content));
    let outcome = machine.exec(&format!("/busybox sh -c '{script}'"));
    // (The port that it prints to is init's too.)
    let count = |word: &str| outcome.succeeded().lines().filter(|line| *line == word).count();
    assert_eq!((count("failed"), count("again")), (3, 3), "{outcome}");
    assert_eq!(outcome.all().matches("init: virtio-blk ended").count(), 3, "{outcome}");
}

/// MD5, as busybox prints it.
fn md5(bytes: &[u8]) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child =
        Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("md5sum is there");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("md5sum reads");
    let output = child.wait_with_output().expect("md5sum ends").stdout;
    String::from_utf8_lossy(&output).split(' ').next().expect("a sum").to_owned()
}
