//! poweroff: switches the machine off; a number is the status that an emulator exits with.

#![no_std]
#![no_main]

use quire_bin::{USAGE, number};
use quire_rt::abi::flags::reboot::POWER_OFF;
use quire_rt::{args, eprintln, fs, info};

quire_rt::entry!(main);

fn main() -> i32 {
    let Some(status) = args().nth(1).map_or(Some(0), |word| number(word.to_bytes())) else {
        eprintln!("usage: poweroff [STATUS]");
        return USAGE;
    };
    fs::sync();
    let error = info::poweroff(status);
    // A kernel other than Quire's has only the older call.
    let _ = info::reboot(POWER_OFF);
    eprintln!("poweroff: {error}");
    1
}
