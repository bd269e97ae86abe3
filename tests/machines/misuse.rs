//! The kernel misuses its own memory: the panic is the success, and its message names the object and the code that
//! misused it.

use crate::harness::{Machine, PANICKED};

/// The faults that slub_debug finds, with the words and call sites of each report.
const WAYS: [(&str, &str, &[&str]); 4] = [
    (
        "double-free",
        "double free",
        &["found by misuse::frees_again", "allocated by misuse::allocates", "freed by misuse::frees"],
    ),
    (
        "late-double-free",
        "double free",
        &["found by misuse::frees_again", "allocated by misuse::allocates", "freed by misuse::frees"],
    ),
    (
        "use-after-free",
        "use after free",
        &["found by misuse::allocates", "allocated by misuse::allocates", "freed by misuse::frees"],
    ),
    ("overrun", "overrun", &["found by misuse::frees", "allocated by misuse::allocates"]),
];

/// Boots the self-test build, lets it misuse memory, and looks for the report.
fn check(way: &str, arguments: &str, words: &[&str], sites: &[&str]) {
    let outcome = Machine::new(&["--smp", "1", "--append", &format!("selftest={way} {arguments}")]).selftest();
    outcome.ended_with(PANICKED);
    let said = outcome.log.lines().find(|line| line.contains("kernel panic"));
    let said = said.unwrap_or_else(|| panic!("no panic\n{outcome}"));
    assert!(words.iter().all(|word| said.contains(word)), "not {words:?}\n{outcome}");
    for site in sites {
        let (what, function) = site.rsplit_once(' ').expect("two parts");
        let named = |line: &str| line.trim().starts_with(what) && line.contains(&format!("{function}+"));
        assert!(outcome.log.lines().any(named), "no '{site}'\n{outcome}");
    }
}

/// With all of slub_debug, on a back end that has room for it.
fn check_debugging(back_end: &str) {
    let arguments = format!("slab={back_end} slub_debug=FZPU");
    for (way, fault, sites) in WAYS {
        check(way, &arguments, &["slab: ", fault, ": object 0xffff", " of victim"], sites);
    }
    check("wrong-cache", &arguments, &["freed to the wrong cache", " of other"], &["found by misuse::frees"]);
}

#[test]
fn slub_debugging_names_cache_object_and_call_sites() {
    check_debugging("slub");
}

#[test]
#[ignore = "matrix"]
fn slab_debugging_names_cache_object_and_call_sites() {
    check_debugging("slab");
}

/// An object that is freed twice in a row is always found, since that check costs nothing. SLOB, which has no other
/// checks, finds every free of an object that is free already.
#[test]
fn a_double_free_is_found_without_debugging() {
    for back_end in ["slub", "slab", "slob"] {
        let arguments = format!("slab={back_end}");
        check(
            "double-free",
            &arguments,
            &["slab: double free: object 0xffff", " of victim"],
            &["found by misuse::frees_again"],
        );
    }
    check("late-double-free", "slab=slob", &["double free", " of victim"], &["found by misuse::frees_again"]);
}

#[test]
fn misused_pages_are_named() {
    check("page-double-free", "", &["bad page: pfn 0x", "freed while in use, or twice"], &[]);
    check("page-use-after-free", "page_poison=1", &["was written to after it was freed: byte 100 is 0x41"], &[]);
}

/// Between the final tables and the console's set-up, the kernel finds the port that the tree names.
#[test]
fn a_panic_before_there_is_a_console_is_heard() {
    for board in ["virt", "rpi4"] {
        let machine = Machine::new(&["--board", board, "--append", "selftest=early-panic"]);
        let outcome = machine.selftest();
        outcome.ended_with(PANICKED);
        for part in ["kernel panic", "stopped before there is a console", "from 0x"] {
            assert!(outcome.all().contains(part), "no '{part}'\n{outcome}");
        }
    }
}
