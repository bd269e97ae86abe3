//! The place of the boot archive: its files need not be page-aligned.

use std::fs;
use std::path::Path;

use crate::harness::Machine;

/// An entry of a cpio archive (newc).
fn entry(name: &str, contents: &[u8]) -> Vec<u8> {
    let fields = [9999, 0o100644, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, name.len() + 1, 0];
    let header = fields.iter().map(|field| format!("{field:08x}")).collect::<String>();
    let mut entry = format!("070701{header}{name}\0").into_bytes();
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry.extend(contents);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry
}

/// The archive of the last build, shifted by some bytes, with commands for its shell. One archive may follow
/// another.
fn shifted(by: usize, commands: &str) -> Vec<u8> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/quire/release/boot.cpio");
    let mut archive = vec![0; by];
    archive.extend(fs::read(built).expect("the machine is built"));
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(entry("etc/exec", commands.as_bytes()));
    archive.extend(entry("TRAILER!!!", b""));
    archive
}

/// Pages of such files are copied at the first access and the copies stay; the resource counts include them.
#[test]
fn the_books_balance_wherever_the_archive_lies() {
    for by in [4, 16, 64] {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shifted-{by}.cpio"));
        fs::write(&path, shifted(by, "selftest brk cache fork files; vmstat pgarchive_copy")).expect("there is room");
        let machine = Machine::new(&["--qemu", "-initrd", "--qemu", path.to_str().expect("a plain path")]);
        let outcome = machine.exec("echo another archive is used");
        assert!(outcome.succeeded().contains("# 4 programs, 0 failed"), "{by}\n{outcome}");
        assert!(!outcome.output.contains("pgarchive_copy 0"), "nothing was copied\n{outcome}");
    }
}
