//! Device trees with defects: the kernel reports what it leaves out and boots, or says that the tree is unusable and
//! stops.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Machine, Outcome, PANICKED, tree};

/// Offsets of header fields: total size, where the strings are, the structure block's size.
const TOTAL_SIZE: usize = 4;
const STRUCTURE: usize = 8;
const STRINGS: usize = 12;
const STRUCTURE_SIZE: usize = 36;

fn field(tree: &[u8], at: usize) -> usize {
    u32::from_be_bytes(tree[at..at + 4].try_into().expect("four bytes")) as usize
}

/// QEMU's own tree with this many nodes inside each other, the root included. It is well formed: QEMU edits it before
/// the kernel sees it.
fn nested(name: &str, depth: usize) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../platform/trees/virt-128m.dtb");
    let mut tree = fs::read(source).expect("the tree is in the repository");
    let node = [1u32.to_be_bytes(), *b"deep", [0; 4]].concat();
    let mut nodes = node.repeat(depth - 1);
    nodes.extend(2u32.to_be_bytes().repeat(depth - 1));
    // Before the root's end and the structure block's.
    let end = field(&tree, STRUCTURE) + field(&tree, STRUCTURE_SIZE) - 8;
    assert!(field(&tree, STRINGS) > end, "the strings come after the structure");
    for at in [TOTAL_SIZE, STRINGS, STRUCTURE_SIZE] {
        let grown = (field(&tree, at) + nodes.len()) as u32;
        tree[at..at + 4].copy_from_slice(&grown.to_be_bytes());
    }
    tree.splice(end..end, nodes);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, tree).expect("there is room for a tree");
    path
}

/// Linux takes as many.
#[test]
fn a_tree_of_64_levels_boots() {
    let tree = nested("deep.dtb", 64);
    let outcome = Machine::new(&["--mem", "128M", "--smp", "1"]).tree(&tree).exec("echo it is up");
    outcome.succeeded();
    outcome.has_line("it is up");
}

/// What can be read of such a tree names the port for the report, and says how the machine stops after it.
#[test]
fn a_tree_that_cannot_be_read_is_named_on_the_console() {
    let tree = nested("too-deep.dtb", 65);
    let options = ["--mem", "128M", "--smp", "1", "--dtb", tree.to_str().expect("a plain path")];
    let outcome = Machine::new(&options).exec("echo not reached");
    outcome.ended_with(PANICKED);
    for part in ["kernel panic", "no usable device tree", "nested more than 64", "x29 ffff", "from 0x"] {
        assert!(outcome.all().contains(part), "no '{part}'\n{outcome}");
    }
}

/// Boots with the additions of a file in tests/trees; the machine works.
fn boots_with(name: &str) -> Outcome {
    let outcome = Machine::new(&["--mem", "512M"]).tree(&tree(name)).exec("memmap; selftest accounts fork");
    assert!(outcome.succeeded().contains("# 2 programs, 0 failed"), "{outcome}");
    outcome
}

/// Reservations over memory that the kernel already uses are named, and that memory stays in use.
#[test]
fn reservations_over_what_is_in_use_are_named_and_hold_around_it() {
    let cases: [(&str, &[(&str, &str)]); 3] = [
        ("nomap-kernel.dtso", &[("firmware@40000000", "over the kernel")]),
        ("nomap-archive.dtso", &[("firmware@48000000", "over the boot archive"), ("more@48100000", "stays mapped")]),
        ("reserved-in-use.dtso", &[("plain@40000000", "over the kernel"), ("pool@48000000", "none of it is lent")]),
    ];
    for (name, warnings) in cases {
        let outcome = boots_with(name);
        for (node, words) in warnings {
            let named = outcome.log.lines().any(|line| line.contains(node) && line.contains(words));
            assert!(named, "{node}: {words}\n{outcome}");
        }
        let hidden = outcome.output.lines().filter(|line| line.contains("never mapped")).count();
        assert_eq!(hidden > 0, name.starts_with("nomap"), "the rest of it is kept\n{outcome}");
        assert!(!outcome.output.contains("contiguous memory area"), "what lies around it is lent\n{outcome}");
    }
}

/// QEMU's own tree with entries in its memory reservation block.
fn reserving(name: &str, entries: impl Iterator<Item = (u64, u64)>) -> PathBuf {
    const RESERVATIONS: usize = 16;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../platform/trees/virt-128m.dtb");
    let mut tree = fs::read(source).expect("the tree is in the repository");
    tree.resize(tree.len().next_multiple_of(8), 0);
    let start = tree.len() as u32;
    for (base, size) in entries.chain([(0, 0)]) {
        tree.extend([base.to_be_bytes(), size.to_be_bytes()].as_flattened());
    }
    let size = tree.len() as u32;
    tree[RESERVATIONS..RESERVATIONS + 4].copy_from_slice(&start.to_be_bytes());
    tree[TOTAL_SIZE..TOTAL_SIZE + 4].copy_from_slice(&size.to_be_bytes());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, tree).expect("there is room for a tree");
    path
}

/// No reserved memory is used, however many reservations there are; joined ones lose the memory between them.
#[test]
fn more_reservations_than_there_is_room_for() {
    let entries = (0..150).map(|i| (0x4200_0000 + i * 0x2_0000, 0x1000));
    let tree = reserving("many-reservations.dtb", entries);
    let outcome = Machine::new(&["--mem", "128M", "--smp", "1"]).tree(&tree).exec("memmap; selftest accounts");
    assert!(outcome.succeeded().contains("# 1 programs, 0 failed"), "{outcome}");
    assert!(outcome.all().contains("too many reservations, joined with the nearest"), "{outcome}");
}

/// A kernel that stops before it has set up its console reports why on the port that the tree names.
#[test]
fn a_kernel_without_memory_to_run_in_says_so() {
    let tree = reserving("all-reserved.dtb", [(0x4000_0000, 0x800_0000)].into_iter());
    let outcome = Machine::new(&["--mem", "128M", "--smp", "1"]).tree(&tree).exec("echo not reached");
    outcome.ended_with(PANICKED);
    for part in ["no memory to run in", "of 131072 KiB 0 are free; 2048 have to be"] {
        assert!(outcome.all().contains(part), "no '{part}'\n{outcome}");
    }
}
