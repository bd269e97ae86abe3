//! Code that the small programs share: options, messages, input by file and by line.

#![no_std]

extern crate alloc;

pub mod basic;
pub mod hog;
pub mod keyboard;
pub mod lesson;
pub mod live;
pub mod slab;

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::ffi::CStr;

use quire_rt::abi::flags::Open;
use quire_rt::{Errno, args, eprintln, fs, io, println};

/// Exit status for a wrong command line.
pub const USAGE: i32 = 2;

/// A program's command line.
pub struct Options {
    /// Names, a letter or a word, and values.
    given: Vec<(&'static [u8], &'static [u8])>,
    /// The arguments that are not options.
    pub operands: Vec<&'static CStr>,
}

impl Options {
    /// Reads the command line. `known` lists option letters, with a colon behind those that take a value. `--help` and
    /// unknown options print `usage`; the error is the status to exit with.
    pub fn parse(known: &str, usage: &str) -> Result<Options, i32> {
        Options::parse_long(known, &[], usage)
    }

    /// Reads the command line of a program that takes no arguments.
    pub fn none(usage: &str) -> Result<(), i32> {
        Options::parse_alone("", &[], usage).map(drop)
    }

    /// As [`Options::parse_long`], for a program that takes options only.
    pub fn parse_alone(known: &str, long: &[&str], usage: &str) -> Result<Options, i32> {
        let options = Options::parse_long(known, long, usage)?;
        match options.operands.first() {
            Some(word) => {
                eprintln!("unknown argument {}; usage: {usage}", show(word.to_bytes()));
                Err(USAGE)
            }
            None => Ok(options),
        }
    }

    /// As [`Options::parse`], with options that are words, after two dashes; they have no values.
    pub fn parse_long(known: &str, long: &[&str], usage: &str) -> Result<Options, i32> {
        let mut options = Options { given: Vec::new(), operands: Vec::new() };
        let mut words = args().skip(1);
        while let Some(word) = words.next() {
            match word.to_bytes() {
                b"--help" => {
                    println!("usage: {usage}");
                    return Err(0);
                }
                b"--" => break,
                [b'-', b'-', name @ ..] => {
                    if !long.iter().any(|other| other.as_bytes() == name) {
                        eprintln!("unknown option --{}; usage: {usage}", show(name));
                        return Err(USAGE);
                    }
                    options.given.push((name, b""));
                }
                [b'-', letters @ ..] if !letters.is_empty() => {
                    let mut letters = letters;
                    while let Some((name, rest)) = letters.split_at_checked(1) {
                        let letter = name[0];
                        letters = rest;
                        let at = known.bytes().position(|other| other == letter && letter != b':');
                        let Some(at) = at else {
                            eprintln!("unknown option -{}; usage: {usage}", letter as char);
                            return Err(USAGE);
                        };
                        let mut value = &b""[..];
                        if known.as_bytes().get(at + 1) == Some(&b':') {
                            value = if rest.is_empty() { words.next().map_or(b"", CStr::to_bytes) } else { rest };
                            letters = b"";
                        }
                        options.given.push((name, value));
                    }
                }
                _ => options.operands.push(word),
            }
        }
        options.operands.extend(words);
        Ok(options)
    }

    /// Whether an option was given.
    pub fn has(&self, letter: char) -> bool {
        self.value(letter).is_some()
    }

    /// Whether an option was given that is a word.
    pub fn has_long(&self, name: &str) -> bool {
        self.given.iter().any(|(other, _)| *other == name.as_bytes())
    }

    /// The value of an option, the last one if there are several.
    pub fn value(&self, letter: char) -> Option<&'static [u8]> {
        self.given
            .iter()
            .rev()
            .find(|(other, _)| matches!(other, [other] if *other as char == letter))
            .map(|(_, value)| *value)
    }
}

/// Text of bytes that need not be UTF-8.
pub fn show(bytes: &[u8]) -> Cow<'_, str> {
    alloc::string::String::from_utf8_lossy(bytes)
}

/// A number in decimal.
pub fn number<T: core::str::FromStr>(text: &[u8]) -> Option<T> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// Calls `each` with every file that the operands name, standard input for `-` and for no operands. The status is 1 if
/// a file could not be opened or read; the other files are still processed.
pub fn inputs(operands: &[&'static CStr], mut each: impl FnMut(&CStr, i32) -> Result<(), Errno>) -> i32 {
    let mut status = 0;
    let standard = [c"-"];
    for name in if operands.is_empty() { &standard[..] } else { operands } {
        let done = match name.to_bytes() {
            b"-" => each(name, 0),
            _ => fs::File::open(name, Open::empty()).and_then(|file| each(name, file.fd())),
        };
        if let Err(error) = done {
            io::flush();
            eprintln!("{}: {error}", name.to_string_lossy());
            status = 1;
        }
    }
    status
}

/// Calls `each` with everything that can be read from a descriptor, until it returns false.
pub fn chunks(fd: i32, mut each: impl FnMut(&[u8]) -> bool) -> Result<(), Errno> {
    let mut buffer = [0; 4096];
    loop {
        match io::read(fd, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) if each(&buffer[..n]) => {}
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Calls `each` with every line, its end not included, until it returns false.
pub fn lines(fd: i32, mut each: impl FnMut(&[u8]) -> bool) -> Result<(), Errno> {
    let mut line = Vec::new();
    let mut wanted = true;
    chunks(fd, |mut chunk| {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            line.extend_from_slice(&chunk[..end]);
            wanted = each(&line);
            line.clear();
            chunk = &chunk[end + 1..];
            if !wanted {
                return false;
            }
        }
        line.extend_from_slice(chunk);
        true
    })?;
    if wanted && !line.is_empty() {
        each(&line);
    }
    Ok(())
}

/// Kibibytes of a number of pages.
pub const fn kib(pages: u64) -> u64 {
    pages * (quire_rt::abi::PAGE_SIZE as u64 / 1024)
}
