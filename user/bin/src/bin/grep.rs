//! grep: lines that contain a pattern: `^`, `$`, `.` and `*` as usual; every other character matches itself.

#![no_std]
#![no_main]

use quire_bin::{Options, USAGE, inputs, lines};
use quire_rt::{eprintln, io, print, println};

quire_rt::entry!(main);

fn main() -> i32 {
    let options = match Options::parse("vicnq", "grep [-vicnq] PATTERN [FILE...]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    let Some((pattern, files)) = options.operands.split_first() else {
        eprintln!("grep: no pattern given");
        return USAGE;
    };
    let pattern = Pattern { text: pattern.to_bytes(), fold: options.has('i') };
    let mut found = 0usize;
    let status = inputs(files, |name, fd| {
        let (mut number, mut count) = (0, 0);
        let prefix = |mark: &str| {
            if files.len() > 1 {
                print!("{}{mark}", name.to_string_lossy());
            }
        };
        lines(fd, |line| {
            number += 1;
            if pattern.finds(line) != options.has('v') {
                count += 1;
                if !options.has('c') && !options.has('q') {
                    prefix(":");
                    if options.has('n') {
                        print!("{number}:");
                    }
                    io::print_bytes(line);
                    io::print_bytes(b"\n");
                }
            }
            !(options.has('q') && count > 0)
        })?;
        if options.has('c') {
            prefix(":");
            println!("{count}");
        }
        found += count;
        Ok(())
    });
    match (status, found) {
        (0, 0) => 1,
        (0, _) => 0,
        _ => USAGE,
    }
}

struct Pattern {
    text: &'static [u8],
    fold: bool,
}

impl Pattern {
    fn finds(&self, line: &[u8]) -> bool {
        match self.text {
            [b'^', rest @ ..] => self.here(rest, line),
            text => (0..=line.len()).any(|start| self.here(text, &line[start..])),
        }
    }

    /// Whether the pattern matches at the start of `line`.
    fn here(&self, pattern: &[u8], line: &[u8]) -> bool {
        match pattern {
            [] => true,
            [b'$'] => line.is_empty(),
            [byte, b'*', rest @ ..] => {
                let most = line.iter().take_while(|other| self.one(*byte, **other)).count();
                (0..=most).any(|taken| self.here(rest, &line[taken..]))
            }
            [b'\\', byte, rest @ ..] => line.first() == Some(byte) && self.here(rest, &line[1..]),
            [byte, rest @ ..] => {
                line.first().is_some_and(|first| self.one(*byte, *first)) && self.here(rest, &line[1..])
            }
        }
    }

    fn one(&self, pattern: u8, byte: u8) -> bool {
        pattern == b'.' || pattern == byte || self.fold && pattern.eq_ignore_ascii_case(&byte)
    }
}
