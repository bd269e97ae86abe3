//! Close-ups of memory on a machine: `walk` and `fraginfo`.

use crate::harness::Machine;

#[test]
fn a_walk_ends_at_what_is_there() {
    let commands = "walk 1 400000 && walk kernel ffffffff80080000 && walk 1 0 && walk 1 4000000000000";
    let outcome = Machine::virt().exec(commands);
    let said = outcome.succeeded();
    let words = [
        "0x0000000000400000 of process 1 (init)",
        "all zeros: TTBR0",
        "page 0 of /init",
        "EL1 and EL0 read",
        "0xffffffff80080000 of the kernel",
        "part      kernel image",
        "EL1 may execute",
        "no area is here",
        "neither all zeros nor all ones",
    ];
    for word in words {
        assert!(said.contains(word), "no {word:?}\n{outcome}");
    }
    let outcome = Machine::virt().exec("walk; echo $?; walk 1 x; echo $?; walk 999 0; echo $?; walk kernel 0; echo $?");
    let said = outcome.all();
    assert!(said.contains("usage: walk PID|kernel ADDRESS") && said.contains("walk: 999: "), "{outcome}");
    assert_eq!(outcome.output.lines().filter(|line| line.len() == 1).collect::<Vec<_>>(), ["2", "2", "1", "1"]);
}

#[test]
fn page_blocks_of_a_large_machine_fit_on_a_screen() {
    let machine = Machine::new(&["--mem", "8G", "--numa", "2", "--append", "movablecore=1G cma=64M"]);
    let outcome = machine.exec("fraginfo --compact");
    let said = outcome.succeeded();
    let (before, after) = said.split_once("\nCompaction: ").unwrap_or_else(|| panic!("no compaction\n{outcome}"));
    let after = after.split_once("\n\n").map_or("", |(_, picture)| picture);
    for picture in [before, after] {
        let (map, rest) = picture.split_once("\n\n").unwrap_or_else(|| panic!("no totals\n{outcome}"));
        assert!(map.lines().count() <= 24 && map.lines().all(|line| line.len() <= 120), "{outcome}");
        assert!(["zone DMA32", "zone NORMAL", "zone MOVABLE"].iter().all(|zone| map.contains(zone)), "{outcome}");
        assert!(
            ["CMA", "reserved", "unusable free space", "fragmentation index"].iter().all(|word| rest.contains(word)),
            "{outcome}"
        );
    }
    assert!(!said.contains('\u{1b}'), "colours without a terminal\n{outcome}");
}
