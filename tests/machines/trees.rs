//! Device trees with defects: the kernel reports what it leaves out and boots, or says that the tree is unusable and
//! stops.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Machine, Outcome, PANICKED, tree};

/// Offsets of header fields: total size, where the structure, the strings and the memory reservations are, the
/// structure block's size.
const TOTAL_SIZE: usize = 4;
const STRUCTURE: usize = 8;
const STRINGS: usize = 12;
const RESERVATIONS: usize = 16;
const STRUCTURE_SIZE: usize = 36;

fn field(tree: &[u8], at: usize) -> usize {
    u32::from_be_bytes(tree[at..at + 4].try_into().expect("four bytes")) as usize
}

/// Adds nodes below the root of a tree whose strings come after the structure.
fn add_nodes(tree: &mut Vec<u8>, nodes: &[u8]) {
    // Before the root's end and the structure block's.
    let end = field(tree, STRUCTURE) + field(tree, STRUCTURE_SIZE) - 8;
    assert!(field(tree, STRINGS) > end, "the strings come after the structure");
    for at in [TOTAL_SIZE, STRINGS, STRUCTURE_SIZE, RESERVATIONS] {
        // The memory reservation block comes first, unless `reserving` has moved it to the end.
        if field(tree, at) < end && at == RESERVATIONS {
            continue;
        }
        let grown = (field(tree, at) + nodes.len()) as u32;
        tree[at..at + 4].copy_from_slice(&grown.to_be_bytes());
    }
    tree.splice(end..end, nodes.iter().copied());
}

/// Adds a node that calls `base` memory, by another name than the nodes that QEMU replaces.
fn add_memory(path: &Path, base: u64, size: u64) {
    let mut tree = fs::read(path).expect("the tree was written");
    let property = |name: &[u8], value: &[u8]| {
        let strings = &tree[field(&tree, STRINGS)..];
        let at = strings.windows(name.len()).position(|part| part == name).expect("QEMU has such a property");
        let mut bytes = [3, value.len() as u32, at as u32 + 1].map(u32::to_be_bytes).concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let reg = property(b"\0reg\0", &[base.to_be_bytes(), size.to_be_bytes()].concat());
    let kind = property(b"\0device_type\0", b"memory\0");
    let node = [&1u32.to_be_bytes()[..], b"bank\0\0\0\0", &kind, &reg, &2u32.to_be_bytes()].concat();
    add_nodes(&mut tree, &node);
    fs::write(path, tree).expect("there is room for a tree");
}

/// QEMU's own tree with this many nodes inside each other, the root included. It is well formed: QEMU edits it before
/// the kernel sees it.
fn nested(name: &str, depth: usize) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../platform/trees/virt-128m.dtb");
    let mut tree = fs::read(source).expect("the tree is in the repository");
    let node = [1u32.to_be_bytes(), *b"deep", [0; 4]].concat();
    let mut nodes = node.repeat(depth - 1);
    nodes.extend(2u32.to_be_bytes().repeat(depth - 1));
    add_nodes(&mut tree, &nodes);
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

/// Reservations over memory that the kernel already uses are named, and that memory stays in use; as on Linux, no-map
/// memory over it is ignored as a whole.
#[test]
fn reservations_over_what_is_in_use_are_named() {
    let cases: [(&str, &[(&str, &str)]); 6] = [
        ("nomap-kernel.dtso", &[("firmware@40000000", "over the kernel")]),
        ("nomap-archive.dtso", &[("firmware@48000000", "over the boot archive"), ("more@48100000", "it is ignored")]),
        ("nomap-all.dtso", &[("all@40000000", "it is ignored")]),
        (
            "reserved-all.dtso",
            &[("all@40000000", "leaves the kernel no memory"), ("pool@40000000", "leaves the kernel no memory")],
        ),
        ("reserved-halves.dtso", &[("first@40000000", "leaves the kernel no memory")]),
        ("reserved-in-use.dtso", &[("plain@40000000", "over the kernel"), ("pool@48000000", "none of it is lent")]),
    ];
    for (name, warnings) in cases {
        let outcome = boots_with(name);
        for (node, words) in warnings {
            let named = outcome.log.lines().any(|line| line.contains(node) && line.contains(words));
            assert!(named, "{node}: {words}\n{outcome}");
        }
        let hidden = outcome.output.lines().filter(|line| line.contains("never mapped")).count();
        assert_eq!(hidden, 0, "{outcome}");
        assert!(!outcome.output.contains("contiguous memory area"), "what lies around it is lent\n{outcome}");
    }
}

/// QEMU's own tree with entries in its memory reservation block.
fn reserving(name: &str, entries: impl Iterator<Item = (u64, u64)>) -> PathBuf {
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
    assert!(outcome.all().contains("too many reservations, this one was joined with others"), "{outcome}");
}

/// No reserved memory is used, and hardly any is lost: the nearest two of all are joined.
#[test]
fn reservations_near_each_other_and_far_apart() {
    let near = (0..63).map(|i| (0x4200_0000 + i * 0x2000, 0x1000));
    let entries = [(0x41f0_0000, 0x1000)].into_iter().chain(near).chain([(0x47ff_f000, 0x1000)]);
    let tree = reserving("far-reservations.dtb", entries);
    let outcome = Machine::new(&["--mem", "128M", "--smp", "1"]).tree(&tree).exec("selftest accounts");
    assert!(outcome.succeeded().contains("# 1 programs, 0 failed"), "{outcome}");
}

/// The page records need 4 MiB, and no two whole blocks of 2 MiB are free beside each other; then not even one is.
#[test]
fn memory_in_pieces() {
    let every_second = (0..64).map(|i| (0x4000_0000 + i * 0x40_0000 + 0x1f_f000, 0x2000));
    let every = (0..64).map(|i| (0x4000_0000 + i * 0x20_0000 + 0x10_0000, 0x1000));
    let trees = [("256M", reserving("pieces.dtb", every_second)), ("128M", reserving("small-pieces.dtb", every))];
    for (mem, tree) in trees {
        let outcome = Machine::new(&["--mem", mem, "--smp", "1"]).tree(&tree).exec("selftest accounts");
        assert!(outcome.succeeded().contains("# 1 programs, 0 failed"), "{outcome}");
    }
}

/// A tree that calls the console's registers memory leaves the kernel no port; one that stops finds it all the same,
/// and says what is wrong with the tree.
#[test]
fn a_kernel_that_stops_finds_a_port_that_is_called_memory() {
    let tree = reserving("all-reserved-port.dtb", [(0x4000_0000, 0x800_0000)].into_iter());
    add_memory(&tree, 0x900_0000, 0x1000);
    let outcome = Machine::new(&["--mem", "128M", "--smp", "1"]).tree(&tree).exec("echo not reached");
    outcome.ended_with(PANICKED);
    for part in ["serial: registers out of reach or in memory", "no memory to run in"] {
        assert!(outcome.all().contains(part), "no '{part}'\n{outcome}");
    }
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
