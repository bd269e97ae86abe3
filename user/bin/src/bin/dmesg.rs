//! dmesg: the kernel's log.

#![no_std]
#![no_main]

use quire_bin::Options;
use quire_rt::{eprintln, info, io};

quire_rt::entry!(main);

fn main() -> i32 {
    if let Err(status) = Options::none("dmesg") {
        return status;
    }
    let mut buffer = [0; 1024];
    let mut offset = 0;
    loop {
        match info::log(&mut buffer, offset) {
            Ok(0) => return 0,
            Ok(n) => {
                io::print_bytes(&buffer[..n]);
                offset += n;
            }
            Err(error) => {
                eprintln!("dmesg: {error}");
                return 1;
            }
        }
    }
}
