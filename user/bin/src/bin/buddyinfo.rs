//! buddyinfo: free blocks of each order, 0 to 10, as in /proc/buddyinfo of Linux.

#![no_std]
#![no_main]

use quire_bin::Options;
use quire_rt::abi::info::ZoneInfo;
use quire_rt::{eprintln, info, print, println};

quire_rt::entry!(main);

fn main() -> i32 {
    if let Err(status) = Options::none("buddyinfo") {
        return status;
    }
    if let Err(error) = info::record::<ZoneInfo>(0) {
        eprintln!("buddyinfo: {error}");
        return 1;
    }
    for zone in info::records::<ZoneInfo>() {
        print!("Node {}, zone {:>8} ", zone.node, info::text(&zone.name));
        for blocks in zone.blocks {
            print!("{blocks:6} ");
        }
        println!();
    }
    0
}
