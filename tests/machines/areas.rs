//! Contiguous memory areas: they are where the tree and the command line say, are lent to programs, and can be taken
//! back.

use crate::harness::{Machine, tree};

/// An area as `cmainfo -t` shows it.
#[derive(Debug)]
struct Area {
    start: u64,
    mebibytes: u64,
    is_whole: bool,
}

fn areas(output: &str) -> Vec<Area> {
    let area = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let start = u64::from_str_radix(words.first()?.strip_prefix("0x")?, 16).ok()?;
        let size: u64 = words.get(1)?.parse().ok()?;
        Some(Area { start, mebibytes: size >> 10, is_whole: words.last() == Some(&"yes") })
    };
    output.lines().filter_map(area).collect()
}

#[test]
fn areas_of_the_tree_and_of_the_command_line() {
    let machine = Machine::new(&["--mem", "512M", "--append", "cma=12M@0x5c000000"]).tree(&tree("areas.dtso"));
    let outcome = machine.exec("cmainfo -t; selftest cma accounts fork; cmainfo -t");
    let output = outcome.succeeded();
    assert!(output.contains("# 3 programs, 0 failed") && !output.contains("SKIP"), "{outcome}");
    let areas = areas(output);
    let [fixed, placed, argument, after @ ..] = &areas[..] else { panic!("three areas\n{outcome}") };
    assert_eq!((fixed.start, fixed.mebibytes), (0x5400_0000, 16), "{outcome}");
    let range = 0x5800_0000..=0x5a00_0000 - (8 << 20);
    assert!(range.contains(&placed.start) && placed.mebibytes == 8, "{outcome}");
    assert_eq!((argument.start, argument.mebibytes), (0x5c00_0000, 12), "{outcome}");
    assert!(after.len() == 3 && areas.iter().all(|area| area.is_whole), "they can be had\n{outcome}");
}

/// An area that has much of the memory, whose pages find too few other frames, is cleared into swap.
#[test]
fn a_large_area_is_cleared_into_swap() {
    let outcome = Machine::new(&["--mem", "300M", "--append", "cma=64M"]).exec("selftest cma");
    outcome.succeeded();
    assert!(!outcome.output.contains("SKIP"), "{outcome}");
}
