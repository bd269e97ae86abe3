//! cmainfo: the contiguous memory areas: where they are, and what their owners have of them.

#![no_std]
#![no_main]

use quire_bin::kib;
use quire_rt::abi::statistics::CmaInfo;
use quire_rt::{Errno, eprintln, info, println};

quire_rt::entry!(main);

fn main() -> i32 {
    match info::record::<CmaInfo>(0) {
        Ok(_) => {}
        Err(Errno::ENOENT) => {
            println!("no contiguous memory area");
            return 0;
        }
        Err(error) => {
            eprintln!("cmainfo: {error}");
            return 1;
        }
    }
    println!("       first      size KiB      used KiB   allocated      failed");
    for area in info::records::<CmaInfo>() {
        let (size, used) = (kib(area.pages), kib(area.used));
        println!("{:#012x} {size:13} {used:13} {:11} {:11}", area.start, area.allocated, area.failed);
    }
    0
}
