//! kill: sends a signal to processes, or to groups (negative numbers).

#![no_std]
#![no_main]

use quire_bin::{USAGE, number, show};
use quire_rt::abi::flags::sig;
use quire_rt::{args, eprintln, println, process, signal};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut words = args().skip(1).map(|word| word.to_bytes()).peekable();
    let mut signal = sig::TERM;
    match words.peek().copied() {
        Some(b"-l") => {
            (1..sig::COUNT).filter_map(|n| Some((n, signal::name(n)?))).for_each(|(n, name)| println!("{n:2} {name}"));
            return 0;
        }
        Some([b'-', name @ ..]) if name != b"-" => {
            words.next();
            // `-s NAME` and `-n NUMBER` as in POSIX, `-NAME` and `-NUMBER` as in common use.
            let name = if matches!(name, b"s" | b"n") { words.next().unwrap_or_default() } else { name };
            let Some(number) = core::str::from_utf8(name).ok().and_then(signal::parse) else {
                eprintln!("kill: {}: no such signal", show(name));
                return USAGE;
            };
            signal = number;
        }
        _ => {}
    }
    words.next_if_eq(&&b"--"[..]);
    if words.peek().is_none() {
        eprintln!("usage: kill [-SIGNAL] PID... | kill -l");
        return USAGE;
    }
    let mut status = 0;
    for word in words {
        let sent = match number(word) {
            Some(pid) => process::kill(pid, signal).map_err(|error| error.text()),
            None => Err("not a process id"),
        };
        if let Err(why) = sent {
            eprintln!("kill: {}: {why}", show(word));
            status = 1;
        }
    }
    status
}
