//! Device trees that cannot be used: the kernel says so on the port that the tree names, and stops.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Machine, TIMED_OUT};

/// Offsets of header fields: total size, where the strings are, the structure block's size.
const TOTAL_SIZE: usize = 4;
const STRUCTURE: usize = 8;
const STRINGS: usize = 12;
const STRUCTURE_SIZE: usize = 36;

fn field(tree: &[u8], at: usize) -> usize {
    u32::from_be_bytes(tree[at..at + 4].try_into().expect("four bytes")) as usize
}

/// QEMU's own tree with nodes nested deeper below its root than any reader goes. It is still well formed: QEMU edits
/// it before the kernel sees it.
fn too_deep(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../platform/trees/virt-128m.dtb");
    let mut tree = fs::read(source).expect("the tree is in the repository");
    let node = [1u32.to_be_bytes(), *b"deep", [0; 4]].concat();
    let levels = 40;
    let mut nodes = node.repeat(levels);
    nodes.extend(2u32.to_be_bytes().repeat(levels));
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

#[test]
fn a_tree_that_cannot_be_read_is_named_on_the_console() {
    let tree = too_deep("too-deep.dtb");
    let options = ["--mem", "128M", "--smp", "1", "--dtb", tree.to_str().expect("a plain path")];
    let outcome = Machine::new(&options).seconds(8).exec("echo not reached");
    // Without a tree nobody knows how to switch the machine off.
    let output = outcome.ended_with(TIMED_OUT);
    for part in ["kernel panic", "no usable device tree", "nested more than", "x29 ffff", "from 0x"] {
        assert!(output.contains(part), "no '{part}'\n{outcome}");
    }
}
