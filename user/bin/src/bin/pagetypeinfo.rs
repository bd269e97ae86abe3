//! pagetypeinfo: page blocks and free blocks by migrate type, as in /proc/pagetypeinfo of Linux.

#![no_std]
#![no_main]

use quire_bin::Options;
use quire_rt::abi::info::ORDERS;
use quire_rt::abi::statistics::PageTypeInfo;
use quire_rt::{eprintln, info, print, println};

quire_rt::entry!(main);

fn main() -> i32 {
    if let Err(status) = Options::none("pagetypeinfo") {
        return status;
    }
    if let Err(error) = info::record::<PageTypeInfo>(0) {
        eprintln!("pagetypeinfo: {error}");
        return 1;
    }
    print!("{:41}", "Free blocks per migrate type at order");
    (0..ORDERS).for_each(|order| print!(" {order:6}"));
    println!();
    for line in info::records::<PageTypeInfo>() {
        let (zone, name) = (info::text(&line.zone), info::text(&line.name));
        print!("Node {:4}, zone {zone:>8}, type {name:>12}", line.node);
        line.free.iter().for_each(|blocks| print!(" {blocks:6}"));
        println!();
    }
    println!();
    println!("{:32}{:>12}", "Number of page blocks (2 MiB)", "");
    for line in info::records::<PageTypeInfo>().filter(|line| line.page_blocks != 0) {
        let (zone, name) = (info::text(&line.zone), info::text(&line.name));
        println!("Node {:4}, zone {zone:>8}, type {name:>12} {:6}", line.node, line.page_blocks);
    }
    0
}
