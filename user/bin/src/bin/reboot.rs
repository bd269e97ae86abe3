//! reboot: starts the machine again.

#![no_std]
#![no_main]

use quire_bin::Options;
use quire_rt::abi::flags::reboot::RESTART;
use quire_rt::{Errno, eprintln, fs, info};

quire_rt::entry!(main);

fn main() -> i32 {
    if let Err(status) = Options::none("reboot") {
        return status;
    }
    fs::sync();
    let error = info::reboot(RESTART).err().unwrap_or(Errno::EIO);
    eprintln!("reboot: {error}");
    1
}
