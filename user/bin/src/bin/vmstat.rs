//! vmstat: the memory manager's counters, one a line, as in /proc/vmstat of Linux. `vmstat WORD...` shows those whose
//! names contain one of the words.

#![no_std]
#![no_main]

use quire_bin::Options;
use quire_rt::abi::statistics::Counter;
use quire_rt::{eprintln, info, println};

quire_rt::entry!(main);

fn main() -> i32 {
    let options = match Options::parse("", "vmstat [WORD...]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    if let Err(error) = info::record::<Counter>(0) {
        eprintln!("vmstat: {error}");
        return 1;
    }
    for counter in info::records::<Counter>() {
        let name = info::text(&counter.name);
        let is_wanted = |word: &&core::ffi::CStr| name.contains(&*quire_bin::show(word.to_bytes()));
        if options.operands.is_empty() || options.operands.iter().any(is_wanted) {
            println!("{name} {}", counter.value);
        }
    }
    0
}
