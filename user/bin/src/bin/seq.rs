//! seq: numbers, one a line: `seq LAST`, `seq FIRST LAST`, `seq FIRST STEP LAST`.

#![no_std]
#![no_main]

use alloc::vec::Vec;

use quire_bin::{USAGE, number};
use quire_rt::{args, eprintln, println};

extern crate alloc;

quire_rt::entry!(main);

fn main() -> i32 {
    let numbers = args().skip(1).map(|word| number::<i64>(word.to_bytes())).collect::<Option<Vec<_>>>();
    let (first, step, last) = match numbers.as_deref() {
        Some([last]) => (1, 1, *last),
        Some([first, last]) => (*first, 1, *last),
        Some([first, step, last]) if *step != 0 => (*first, *step, *last),
        _ => {
            eprintln!("usage: seq [FIRST [STEP]] LAST, whole numbers, STEP not 0");
            return USAGE;
        }
    };
    let mut next = Some(first);
    while let Some(current) = next.filter(|next| if step > 0 { *next <= last } else { *next >= last }) {
        println!("{current}");
        next = current.checked_add(step);
    }
    0
}
