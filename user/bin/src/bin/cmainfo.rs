//! cmainfo: the contiguous memory areas: where they are, and how much of each its owner has allocated. `-t` allocates
//! each area as a whole for a moment, to see whether an owner could have it now.

#![no_std]
#![no_main]

use quire_bin::{Options, kib};
use quire_rt::abi::statistics::CmaInfo;
use quire_rt::{Errno, eprintln, info, println};

quire_rt::entry!(main);

fn main() -> i32 {
    let options = match Options::parse_alone("t", &[], "cmainfo [-t]") {
        Ok(options) => options,
        Err(status) => return status,
    };
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
    let tried = if options.has('t') { "  as a whole" } else { "" };
    println!("       first      size KiB      used KiB   allocated      failed{tried}");
    for (number, area) in info::records::<CmaInfo>().enumerate() {
        let tried = match options.has('t').then(|| info::try_cma(number)) {
            None => "",
            Some(Ok(_)) => "         yes",
            Some(Err(_)) => "          no",
        };
        let (size, used) = (kib(area.pages), kib(area.used));
        println!("{:#012x} {size:13} {used:13} {:11} {:11}{tried}", area.start, area.allocated, area.failed);
    }
    0
}
