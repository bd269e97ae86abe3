//! vmallocinfo: the areas of the kernel's vmalloc range and who asked for them, as in /proc/vmallocinfo of Linux.

#![no_std]
#![no_main]

use quire_bin::Options;
use quire_rt::abi::statistics::{VmallocInfo, area};
use quire_rt::{eprintln, info, print, println};

quire_rt::entry!(main);

fn main() -> i32 {
    if let Err(status) = Options::none("vmallocinfo") {
        return status;
    }
    if let Err(error) = info::record::<VmallocInfo>(0) {
        eprintln!("vmallocinfo: {error}");
        return 1;
    }
    for found in info::vmalloc_areas() {
        let kind = match found.kind {
            area::VMALLOC => "vmalloc",
            area::VMAP => "vmap",
            area::IOREMAP => "ioremap",
            _ => "?",
        };
        print!("{:#018x}-{:#018x} {:8} {}", found.start, found.end, found.end - found.start, info::text(&found.caller));
        print!(" pages={}", found.pages);
        if found.phys != u64::MAX {
            print!(" phys={:#x}", found.phys);
        }
        println!(" {kind}{}", if found.lazy != 0 { " unpurged" } else { "" });
    }
    0
}
