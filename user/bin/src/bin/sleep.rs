//! sleep: waits for some seconds, with a fraction if wanted.

#![no_std]
#![no_main]

use quire_bin::{USAGE, number};
use quire_rt::{args, eprintln, time};

quire_rt::entry!(main);

fn main() -> i32 {
    match args().nth(1).and_then(|word| nanoseconds(word.to_bytes())) {
        Some(nanoseconds) => {
            time::sleep(nanoseconds);
            0
        }
        None => {
            eprintln!("usage: sleep SECONDS[.FRACTION]");
            USAGE
        }
    }
}

/// Nanoseconds of seconds in decimal.
fn nanoseconds(text: &[u8]) -> Option<u64> {
    let dot = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let seconds = if dot == 0 { 0 } else { number::<u64>(&text[..dot])? };
    let mut fraction = 0;
    let mut unit = 100_000_000;
    for digit in text.get(dot + 1..).unwrap_or_default() {
        fraction += unit * (*digit as char).to_digit(10)? as u64;
        unit /= 10;
    }
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction).filter(|_| text != b"." && !text.is_empty())
}
