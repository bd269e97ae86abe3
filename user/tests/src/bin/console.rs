//! console: the output of one write call is not interleaved with others'. This program prints lines of 63 equal letters
//! each; the reader of the terminal counts lines that are mixed.

#![no_std]
#![no_main]

use quire_rt::abi::layout::Iovec;
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{io, println};
use user_tests::{Checks, raw, start};

quire_rt::entry!(main);

const LINES: usize = 25;

fn main() -> i32 {
    let mut checks = Checks::new();
    io::flush();
    let letters = |letter: u8| {
        let mut line = [letter; 64];
        line[63] = b'\n';
        (0..LINES).any(|_| io::write(1, &line) != Ok(64)).into()
    };
    let parts = |letter: u8| {
        let (text, end) = ([letter; 21], *b"\n");
        let part = |bytes: &[u8]| Iovec { base: bytes.as_ptr() as u64, len: bytes.len() as u64 };
        let vector = [part(&text), part(&text), part(&text), part(&end)];
        (0..LINES).any(|_| raw(nr::WRITEV, [1, vector.as_ptr() as usize, vector.len()]) != Ok(64)).into()
    };
    let writers = [start(|| letters(b'a')), start(|| letters(b'b')), start(|| parts(b'c')), start(|| parts(b'd'))];
    let whole = writers.map(|pid| pid.map(process::waitpid));
    checks.eq(whole, [Ok(Ok(Status::Exited(0))); 4], "every call writes all that it is given");
    println!("lines {}", LINES * 4);
    checks.finish()
}
