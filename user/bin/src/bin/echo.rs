//! echo: prints its arguments; `-n` leaves the new line out.

#![no_std]
#![no_main]

use quire_bin::basic;

quire_rt::entry!(main);

fn main() -> i32 {
    basic::echo(&basic::arguments())
}
