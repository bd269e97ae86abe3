//! head: the first lines of files (`-n COUNT`, 10 if not given).

#![no_std]
#![no_main]

use quire_bin::{Options, USAGE, inputs, lines, number};
use quire_rt::{eprintln, io, println};

quire_rt::entry!(main);

fn main() -> i32 {
    let options = match Options::parse("n:", "head [-n COUNT] [FILE...]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    let Some(count) = number::<usize>(options.value('n').unwrap_or(b"10")) else {
        eprintln!("head: -n wants a number");
        return USAGE;
    };
    inputs(&options.operands, |name, fd| {
        if options.operands.len() > 1 {
            println!("==> {} <==", name.to_string_lossy());
        }
        let mut left = count;
        if left == 0 {
            return Ok(());
        }
        lines(fd, |line| {
            io::print_bytes(line);
            io::print_bytes(b"\n");
            left -= 1;
            left > 0
        })
    })
}
