//! lab: compares the classic schemes of memory management on a trace; `lab` alone lists schemes and traces. A trace is built in
//! or a file: `lab fits --trace t1`, `lab replace --trace /my.trace --frames 4`.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::ffi::CString;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use quire_bin::{USAGE, chunks, show};
use quire_lab::command;
use quire_rt::abi::flags::Open;
use quire_rt::{Errno, args, eprintln, fs, print};

quire_rt::entry!(main);

/// The maximum size of a trace file.
const LONGEST: usize = 1 << 20;

fn main() -> i32 {
    let words: Vec<_> = args().skip(1).map(|word| show(word.to_bytes())).collect();
    let words: Vec<&str> = words.iter().map(|word| &**word).collect();
    match command::run(&words, read) {
        Ok(text) => {
            print!("{text}");
            0
        }
        Err(error) => {
            eprintln!("lab: {error}");
            USAGE
        }
    }
}

/// The text of a file.
fn read(name: &str) -> Result<String, String> {
    let path = CString::new(name).map_err(|_| Errno::ENOENT.to_string())?;
    let file = fs::File::open(&path, Open::empty()).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let take = |chunk: &[u8]| {
        bytes.extend_from_slice(chunk);
        bytes.len() <= LONGEST
    };
    chunks(file.fd(), take).map_err(|error| error.to_string())?;
    match bytes.len() <= LONGEST {
        true => Ok(show(&bytes).into()),
        false => Err("a trace has at most 1 MiB".into()),
    }
}
