//! yes: writes a line again and again, until nobody reads it.

#![no_std]
#![no_main]

use quire_rt::{args, io};

quire_rt::entry!(main);

fn main() -> i32 {
    let word = args().nth(1).unwrap_or(c"y");
    loop {
        io::print_bytes(word.to_bytes());
        io::print_bytes(b"\n");
    }
}
