//! slabinfo: the kernel's slab caches, as in /proc/slabinfo of Linux. `slabtop` shows them live.

#![no_std]
#![no_main]

use quire_bin::{Options, slab};
use quire_rt::abi::statistics::SlabCacheInfo;
use quire_rt::{eprintln, info, println};

quire_rt::entry!(main);

fn main() -> i32 {
    if let Err(status) = Options::none("slabinfo") {
        return status;
    }
    if let Err(error) = info::record::<SlabCacheInfo>(0) {
        eprintln!("slabinfo: {error}");
        return 1;
    }
    println!("{}", slab::HEADING);
    info::records().for_each(|cache| slab::print(&cache));
    0
}
