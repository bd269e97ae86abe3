//! kill: sends a signal to processes, or to groups (negative numbers).

#![no_std]
#![no_main]

use quire_bin::basic;

quire_rt::entry!(main);

fn main() -> i32 {
    basic::kill(&basic::arguments())
}
