//! true: succeeds.

#![no_std]
#![no_main]

quire_rt::entry!(main);

fn main() -> i32 {
    0
}
