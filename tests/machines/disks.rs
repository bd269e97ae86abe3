//! Disks: a file of the host's that programs read and write as one, through a driver that is a process.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Machine, busybox};

/// A file of `bytes` bytes that do not repeat soon.
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
        $B dd if=$D bs=1 skip=69999 count=9 2>/dev/null | $B od -c | $B head -n1; ls -l $D";
    let outcome = machine.exec(&format!("D=/dev/block/{name}; {commands}"));
    let before = (md5(&content), md5(&content[1000..4000]));
    let after = fs::read(&path).expect("the disk");
    content[70_000..70_008].copy_from_slice(b"written\n");
    content[200 << 10..500 << 10].fill(0);
    assert!(after == content, "the disk has other bytes\n{outcome}");
    let lines: Vec<_> = outcome.succeeded().lines().collect();
    assert_eq!((lines[0], lines[1]), (&*format!("{}  -", before.0), &*format!("{}  -", before.1)), "{outcome}");
    assert!(lines[2].ends_with("w   r   i   t   t   e   n  \\n"), "{outcome}");
    assert!(lines[3].starts_with("brw-------") && lines[3].ends_with(&format!(",   0 /dev/block/{name}")), "{outcome}");
}

/// Has sfdisk make a table on a disk.
pub fn partition(path: &Path, script: &str) {
    let mut child = tool("sfdisk").arg("--quiet").arg(path).stdin(Stdio::piped()).spawn().expect("sfdisk is there");
    child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("sfdisk reads");
    assert!(child.wait().expect("sfdisk ends").success(), "sfdisk {script}");
}

/// A program of the host's, perhaps one for administrators.
pub fn tool(name: &str) -> Command {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").expect("a path"));
    let mut command = Command::new("/usr/bin/env");
    command.env("PATH", path).arg(name);
    command
}

#[test]
fn partitions_by_guids_are_files_and_ioctl_knows_them() {
    partitions("guids.img", &["--smp", "4"], "label: gpt\n2048,2048,L\n4096,1024,L\n", "vda", "", 254);
}

#[test]
fn partitions_of_a_card_are_files_and_the_logical_ones_too() {
    let script = "label: dos\n2048,2048,0c\n4096,1024,83\n6144,,05\n8192,1024,83\n";
    partitions("table.img", &["--board", "rpi4"], script, "mmcblk0", "p", 179);
}

fn partitions(image: &str, options: &[&str], script: &str, disk: &str, p: &str, major: u32) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(image);
    fs::write(&path, vec![0; 8 << 20]).expect("the disk is made");
    partition(&path, script);
    let before = fs::read(&path).expect("the disk");
    let options = [options, &["--disk", path.to_str().expect("a path")]].concat();
    let machine = Machine::new(&options).add(&busybox(), "/busybox");
    let commands = "B=/busybox; $B cat /proc/partitions | $B grep -v '^$'; \
        echo written | $B dd of=$D bs=1 seek=1000 conv=notrunc,fsync 2>/dev/null; \
        $B dd if=/dev/zero of=$D bs=1k seek=511 count=2 conv=notrunc 2>/dev/null || echo full; \
        $B stat -c '%F %t:%T %s' $D; $B blockdev --getsize64 $D; $B blockdev --getsz $D; \
        $B blockdev --getss $D; $B blockdev --getbsz $D; $B blockdev --getro $D; $B blockdev --flushbufs $D; \
        $B blockdev --rereadpt $W && echo again; $B blockdev --rereadpt $D 2>/dev/null || echo a part; \
        $B dd if=$D bs=1 skip=1000 count=7 2>/dev/null; echo; $B blockdev --getss /proc/partitions 2>/dev/null || echo no disk";
    let outcome = machine.exec(&format!("W=/dev/block/{disk}; D=/dev/block/{disk}{p}2; {commands}"));
    let mut lines = outcome.succeeded().lines();
    assert_eq!(lines.next(), Some("major minor  #blocks  name"), "{outcome}");
    let listed: Vec<_> = lines.by_ref().take_while(|line| *line != "full").collect();
    let names: Vec<_> = listed.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let second = format!("{major} 2 512 {disk}{p}2");
    assert_eq!(
        names[..3],
        [format!("{major} 0 8192 {disk}"), format!("{major} 1 1024 {disk}{p}1"), second],
        "{outcome}"
    );
    if p == "p" {
        assert_eq!(names[3..], [format!("{major} 3 1 {disk}p3"), format!("{major} 5 512 {disk}p5")], "{outcome}");
    }
    let rest: Vec<_> = lines.collect();
    let type_and_size = format!("block special file {major:x}:2 0");
    let expected = [&*type_and_size, "524288", "1024", "512", "4096", "0", "again", "a part", "written", "no disk"];
    assert_eq!(rest, expected, "{outcome}");
    let mut expected = before;
    expected[4096 * 512 + 1000..][..8].copy_from_slice(b"written\n");
    assert!(fs::read(&path).expect("the disk") == expected, "the disk has other bytes\n{outcome}");
}

#[test]
fn a_damaged_table_is_a_line_in_the_log_and_the_disk_is_there() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("damaged.img");
    fs::write(&path, vec![0; 4 << 20]).expect("the disk is made");
    partition(&path, "label: gpt\n2048,1024,L\n");
    let mut bytes = fs::read(&path).expect("the disk");
    bytes[512 + 16] ^= 1;
    let last = bytes.len() - 512;
    bytes[last + 16] ^= 1;
    fs::write(&path, &bytes).expect("the disk is damaged");
    let machine = Machine::new(&["--disk", path.to_str().expect("a path")]).add(&busybox(), "/busybox");
    let outcome = machine.exec("ls -1 /dev/block; /busybox md5sum </dev/block/vda");
    // (The driver prints where init does.)
    let said = "vda: its partition table is damaged: both tables are unusable";
    let expected = format!("{said}\npartitions\nvda\n{}  -\n", md5(&bytes));
    assert_eq!(outcome.succeeded(), expected, "{outcome}");
}

#[test]
fn what_is_discarded_is_given_back() {
    let (path, content) = disk("discard.img", 4 << 20);
    let machine = Machine::new(&["--disk", path.to_str().expect("a path")]).add(&busybox(), "/busybox");
    let commands = "B=/busybox; $B blkdiscard -o 1048576 -l 1048576 /dev/block/vda && echo done; \
        $B blkdiscard -o 100 -l 512 /dev/block/vda 2>/dev/null || echo no sectors; \
        $B dd if=/dev/block/vda bs=1M count=1 2>/dev/null | $B md5sum";
    let outcome = machine.exec(commands);
    assert_eq!(outcome.succeeded(), format!("done\nno sectors\n{}  -\n", md5(&content[..1 << 20])), "{outcome}");
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

/// The driver is killed in the middle: readers get an error, the next driver resets the disk, and everything is there
/// again.
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
pub fn md5(bytes: &[u8]) -> String {
    let mut child =
        Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("md5sum is there");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("md5sum reads");
    let output = child.wait_with_output().expect("md5sum ends").stdout;
    String::from_utf8_lossy(&output).split(' ').next().expect("a sum").to_owned()
}
