//! wc: counts lines (`-l`), words (`-w`) and bytes (`-c`).

#![no_std]
#![no_main]

use quire_bin::{Options, chunks, inputs};
use quire_rt::{print, println};

quire_rt::entry!(main);

#[derive(Clone, Copy, Default)]
struct Counts {
    lines: u64,
    words: u64,
    bytes: u64,
}

fn main() -> i32 {
    let options = match Options::parse("lwc", "wc [-lwc] [FILE...]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    let all = !["l", "w", "c"].iter().any(|letter| options.has(letter.as_bytes()[0] as char));
    let print_counts = |counts: Counts, name: &str| {
        for (letter, count) in [('l', counts.lines), ('w', counts.words), ('c', counts.bytes)] {
            if all || options.has(letter) {
                print!("{count:7} ");
            }
        }
        println!("{name}");
    };
    let mut total = Counts::default();
    let status = inputs(&options.operands, |name, fd| {
        let counts = count(fd)?;
        print_counts(counts, if options.operands.is_empty() { "" } else { name.to_str().unwrap_or("?") });
        total.lines += counts.lines;
        total.words += counts.words;
        total.bytes += counts.bytes;
        Ok(())
    });
    if options.operands.len() > 1 {
        print_counts(total, "total");
    }
    status
}

fn count(fd: i32) -> Result<Counts, quire_rt::Errno> {
    let mut counts = Counts::default();
    let mut within = false;
    chunks(fd, |chunk| {
        for byte in chunk {
            counts.lines += (*byte == b'\n') as u64;
            counts.words += (!within && !byte.is_ascii_whitespace()) as u64;
            within = !byte.is_ascii_whitespace();
        }
        counts.bytes += chunk.len() as u64;
        true
    })?;
    Ok(counts)
}
