//! ps: the processes; sizes in KiB, time in seconds.

#![no_std]
#![no_main]

use quire_bin::{Options, kib};
use quire_rt::{eprintln, info, println};

quire_rt::entry!(main);

fn main() -> i32 {
    if let Err(status) = Options::none("ps") {
        return status;
    }
    if let Err(error) = info::process_from(0) {
        eprintln!("ps: {error}");
        return 1;
    }
    println!("  PID  PPID  PGID S CPU THR       VSZ       RSS     TIME COMMAND");
    for process in info::processes(0) {
        println!(
            "{:5} {:5} {:5} {} {:3} {:3} {:9} {:9} {:5}.{:02} {}",
            process.pid,
            process.ppid,
            process.pgid,
            char::from_u32(process.state).unwrap_or('?'),
            process.cpu,
            process.threads,
            kib(process.vsize),
            kib(process.rss),
            process.cpu_ns / 1_000_000_000,
            process.cpu_ns / 10_000_000 % 100,
            info::text(&process.name)
        );
    }
    0
}
