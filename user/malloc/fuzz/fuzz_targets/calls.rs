//! Any bytes as a sequence of allocator calls: no promise broken, nothing lost.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| quire_malloc_replay::replay(bytes));
