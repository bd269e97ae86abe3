//! zoneinfo: the zones of each node, their pages and watermarks, as in /proc/zoneinfo of Linux.

#![no_std]
#![no_main]

use quire_bin::Options;
use quire_rt::abi::info::ZoneInfo;
use quire_rt::{eprintln, info, println};

quire_rt::entry!(main);

fn main() -> i32 {
    if let Err(status) = Options::none("zoneinfo") {
        return status;
    }
    if let Err(error) = info::record::<ZoneInfo>(0) {
        eprintln!("zoneinfo: {error}");
        return 1;
    }
    for zone in info::records::<ZoneInfo>() {
        println!("Node {}, zone {:>8}", zone.node, info::text(&zone.name));
        println!("  pages free     {}", zone.free);
        for (what, pages) in [
            ("min", zone.min),
            ("low", zone.low),
            ("high", zone.high),
            ("spanned", zone.spanned),
            ("present", zone.present),
            ("managed", zone.managed),
        ] {
            println!("        {what:8} {pages}");
        }
        println!("  per-cpu pages  {}", zone.per_cpu);
        println!("  start_pfn:     {}", zone.start_pfn);
    }
    0
}
