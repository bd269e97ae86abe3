//! Any text as a command line: no panic, and every key, value and rest is part of the line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quire_platform::bootargs;

fuzz_target!(|line: &str| {
    let mut arguments = bootargs::arguments(line);
    for (key, value) in arguments.by_ref() {
        assert!(line.contains(key) && line.contains(value.unwrap_or_default()));
        bootargs::size(value.unwrap_or_default());
    }
    assert!(line.contains(arguments.rest()));
});
