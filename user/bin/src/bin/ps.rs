//! ps: the processes; sizes in KiB, time in seconds.

#![no_std]
#![no_main]

use quire_bin::basic;

quire_rt::entry!(main);

fn main() -> i32 {
    basic::ps(&basic::arguments())
}
