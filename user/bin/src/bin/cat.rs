//! cat: files one after the other to standard output.

#![no_std]
#![no_main]

use quire_bin::{Options, chunks, inputs};
use quire_rt::{Errno, io};

quire_rt::entry!(main);

fn main() -> i32 {
    let options = match Options::parse("", "cat [FILE...]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    inputs(&options.operands, |_, fd| {
        let mut written = Ok::<(), Errno>(());
        chunks(fd, |chunk| {
            written = io::write_all(1, chunk);
            written.is_ok()
        })?;
        written
    })
}
