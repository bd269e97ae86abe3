//! echo: prints its arguments; `-n` leaves the new line out.

#![no_std]
#![no_main]

use quire_rt::{args, io, println};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut words = args().skip(1).peekable();
    let newline = words.next_if(|word| word.to_bytes() == b"-n").is_none();
    for (i, word) in words.enumerate() {
        if i > 0 {
            io::print_bytes(b" ");
        }
        io::print_bytes(word.to_bytes());
    }
    if newline {
        println!();
    }
    0
}
