//! Kernel arguments that change how memory is distributed: they have the documented effect, and nothing else breaks.

use crate::harness::Machine;

#[test]
fn a_contiguous_memory_area_where_it_was_asked_for() {
    let outcome = Machine::new(&["--append", "cma=64M@1G-1536M"]).exec("cmainfo; free; selftest accounts");
    let output = outcome.succeeded();
    let area = output.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.strip_prefix("0x")?, words.next()?.parse::<u64>().ok()?))
    });
    let (start, kib) = area.unwrap_or_else(|| panic!("cmainfo shows no area\n{outcome}"));
    let start = u64::from_str_radix(start, 16).expect("an address");
    assert_eq!(kib, 64 << 10, "{outcome}");
    assert!(start >= 1 << 30 && start + (64 << 20) <= 1536 << 20, "{start:#x}\n{outcome}");
}

#[test]
fn an_area_that_makes_no_sense_is_named_and_left_out() {
    for argument in ["cma=64M@3G", "cma=much"] {
        let outcome = Machine::new(&["--append", argument]).exec("cmainfo");
        assert!(outcome.succeeded().contains("no contiguous memory area"), "{outcome}");
        assert!(outcome.log.contains(argument), "{outcome}");
    }
}

/// A number of a zone in `zoneinfo`, by the word before it, in pages.
fn zone(output: &str, name: &str, what: &str) -> Option<u64> {
    let zone =
        output.split("Node ").find(|zone| zone.lines().next().is_some_and(|line| line.trim().ends_with(name)))?;
    let value = |line: &str| line.trim().strip_prefix(what)?.trim().parse().ok();
    zone.lines().find_map(value)
}

#[test]
fn zone_movable_and_the_watermarks_are_as_asked_for() {
    for (argument, movable) in [("movablecore=256M", 256), ("kernelcore=256M", 768)] {
        let outcome = Machine::new(&["--append", argument]).exec("zoneinfo");
        let present = zone(outcome.succeeded(), "MOVABLE", "present");
        assert_eq!(present, Some(movable << 8), "{outcome}");
    }
    let outcome = Machine::new(&["--append", "min_free_kbytes=8192"]).exec("zoneinfo");
    let min = zone(outcome.succeeded(), "DMA32", "min");
    assert!(min.is_some_and(|min| min.abs_diff(8192 / 4) <= 1), "{outcome}");
}

/// Requests for everything or nothing do not stop the machine, and the log names those that are not met.
#[test]
fn absurd_zones_and_watermarks_boot() {
    let absurd = [
        ("kernelcore=0", None),
        ("kernelcore=1", None),
        ("kernelcore=4M", Some("the kernel, which keeps")),
        ("movablecore=1020M", Some("the kernel, which keeps")),
        ("movablecore=100G", Some("leaves no zone MOVABLE")),
        ("min_free_kbytes=18446744073709551615", Some("more than a quarter")),
        ("min_free_kbytes=2000000", Some("more than a quarter")),
    ];
    for (argument, why) in absurd {
        let outcome = Machine::new(&["--append", argument]).exec("zoneinfo; selftest accounts fork");
        let output = outcome.succeeded();
        assert!(output.contains("# 2 programs, 0 failed"), "{outcome}");
        let cut_back = why == Some("the kernel, which keeps");
        assert_eq!(zone(output, "MOVABLE", "present").is_some(), cut_back, "{outcome}");
        let warning = outcome.log.lines().find(|line| line.contains(&format!("{argument}:")));
        assert_eq!(warning.is_some(), why.is_some(), "{outcome}");
        assert!(why.is_none_or(|why| warning.is_some_and(|line| line.contains(why))), "{outcome}");
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let malformed = [
        "slab=foo",
        "slub_debug=QX",
        "kernelcore=101%",
        "movablecore=abc",
        "min_free_kbytes=-1",
        "page_poison=maybe",
        "fail_page_alloc=5,,-1",
        "failslab=many",
    ];
    let outcome = Machine::new(&["--append", &malformed.join(" ")]).exec("zoneinfo");
    assert_eq!(zone(outcome.succeeded(), "MOVABLE", "present"), None, "{outcome}");
    for argument in malformed {
        let named = outcome.log.lines().filter(|line| line.contains(&format!("{argument}:"))).count();
        assert_eq!(named, 1, "{argument}\n{outcome}");
    }
    let arguments = "slab=slob slub_debug=P,buffer kernelcore=25%";
    let outcome = Machine::new(&["--append", arguments]).exec("zoneinfo");
    assert_eq!(zone(outcome.succeeded(), "MOVABLE", "present"), Some(768 << 8), "{outcome}");
    for why in ["caches cannot be chosen", "has no effect with slab=slob"] {
        assert!(outcome.log.contains(&format!("slub_debug=P,buffer: {why}")), "{outcome}");
    }
}

/// Arguments without values have their effect all the same.
#[test]
fn a_value_of_an_argument_that_takes_none_is_named() {
    let outcome = Machine::new(&["--append", "norandmaps=3 semihosting=0"]).exec("false");
    outcome.ended_with(1);
    for (argument, key) in [("norandmaps=3", "norandmaps"), ("semihosting=0", "semihosting")] {
        assert!(outcome.log.contains(&format!("{argument}: {key} takes no value; the value is ignored")), "{outcome}");
    }
}

/// Once, with a list of those that are known; arguments after `--` are init's.
#[test]
fn unknown_arguments_are_named() {
    let outcome = Machine::new(&["--append", "quiet root=/dev/sda norandmaps min_fre_kbytes=1 -- init=x"]).exec("true");
    outcome.succeeded();
    let unknown = outcome.log.lines().filter_map(|line| line.split_once("unknown kernel arguments:"));
    let unknown: Vec<&str> = unknown.map(|(_, keys)| keys.trim()).collect();
    assert_eq!(unknown, ["quiet root min_fre_kbytes"], "{outcome}");
    assert!(outcome.log.contains("min_free_kbytes movablecore"), "{outcome}");
    let outcome = Machine::new(&["--append", "loglevel=info"]).exec("true");
    assert!(!outcome.log.contains("unknown kernel arguments"), "{outcome}");
}

#[test]
fn an_area_lies_in_one_zone() {
    let outcome = Machine::new(&["--append", "movablecore=256M cma=512M"]).exec("cmainfo; zoneinfo; selftest accounts");
    assert!(outcome.succeeded().contains("524288"), "{outcome}");
    assert!(zone(&outcome.output, "MOVABLE", "managed").is_some_and(|pages| pages > 200 << 8), "{outcome}");
}

/// The tree may have node numbers above the limit: such nodes' memory and CPUs go to node 0.
#[test]
fn nodes_with_high_numbers_are_taken_as_the_first() {
    let outcome = Machine::new(&["--numa", "9", "--mem", "2G", "--smp", "2"]).exec("selftest accounts");
    assert!(outcome.succeeded().contains("# 1 programs, 0 failed"), "{outcome}");
    assert!(outcome.log.contains("NUMA node number too large"), "{outcome}");
}

/// Allocations fail while programs run; after the last failure every page is accounted for.
#[test]
fn allocations_that_fail_leak_nothing() {
    let arguments = "fail_page_alloc=20,100,0,12 failslab=30,100,0,12";
    let work = "ls /bin; ls /tests; /tests/fork; /tests/thread; /tests/mmap; ".repeat(3);
    // Runs until the last failure has happened, so that later commands succeed.
    let rest = "ls /bin; ".repeat(80);
    let commands =
        format!("{work} {rest} sleep 1; vmstat fail_page_alloc; vmstat failslab; selftest accounts fork thread");
    let outcome = Machine::new(&["--append", arguments]).exec(&commands);
    let output = outcome.succeeded();
    assert!(output.lines().any(|line| line == "fail_page_alloc 12"), "{outcome}");
    assert!(output.lines().any(|line| line == "failslab 12"), "{outcome}");
    assert!(output.contains("# 3 programs, 0 failed"), "{outcome}");
}

/// Lets every allocation of every call fail, one after the other, with the back ends that the other tests do not use.
#[test]
fn each_allocation_that_fails_leaks_nothing() {
    for argument in ["slab=slab", "slab=slob"] {
        let outcome = Machine::new(&["--smp", "2", "--append", argument]).exec("selftest failmem failcall");
        assert!(outcome.succeeded().contains("# 2 programs, 0 failed"), "{outcome}");
    }
}

#[test]
fn nobody_writes_to_free_pages() {
    let outcome = Machine::new(&["--append", "page_poison=1"]).exec("selftest accounts fork mmap thread pipe");
    assert!(outcome.succeeded().contains("# 5 programs, 0 failed"), "{outcome}");
}
