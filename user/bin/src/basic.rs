//! Commands that the shell has built in, too, so that they work when no process can be made: what they do, without leaving the calling program
//! when they cannot write.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use quire_rt::abi::flags::sig;
use quire_rt::{eprintln, info, io, process, signal};

use crate::{USAGE, kib, number, show};

/// Writes to standard output; the exit status.
fn put(name: &str, text: &[u8]) -> i32 {
    io::flush();
    match io::write_all(1, text) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{name}: {error}");
            1
        }
    }
}

/// echo: prints its arguments; `-n` leaves the new line out.
pub fn echo(mut words: &[&[u8]]) -> i32 {
    let is_line = words.first() != Some(&&b"-n"[..]);
    if !is_line {
        words = &words[1..];
    }
    let mut text = words.join(&b' ');
    if is_line {
        text.push(b'\n');
    }
    put("echo", &text)
}

/// kill: sends a signal to processes, or to groups (negative numbers).
pub fn kill(words: &[&[u8]]) -> i32 {
    let mut words = words.iter().copied().peekable();
    let mut signal = sig::TERM;
    match words.peek().copied() {
        Some(b"-l") => {
            let names = (1..sig::COUNT).filter_map(|n| Some(format!("{n:2} {}\n", signal::name(n)?)));
            return put("kill", names.collect::<String>().as_bytes());
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

/// ps: the processes; sizes in KiB, time in seconds.
pub fn ps(words: &[&[u8]]) -> i32 {
    match words {
        [] => {}
        [b"--help"] => return put("ps", b"usage: ps\n"),
        [word, ..] => {
            eprintln!("unknown argument {}; usage: ps", show(word));
            return USAGE;
        }
    }
    if let Err(error) = info::process_from(0) {
        eprintln!("ps: {error}");
        return 1;
    }
    let mut status = put("ps", b"  PID  PPID  PGID S CPU THR       VSZ       RSS     TIME COMMAND\n");
    let mut rows = info::processes(0).map(|process| {
        format!(
            "{:5} {:5} {:5} {} {:3} {:3} {:9} {:9} {:5}.{:02} {}\n",
            process.pid,
            process.ppid,
            process.pgid,
            char::from_u32(process.state).unwrap_or('?'),
            process.cpu,
            process.threads,
            kib(process.vsize),
            kib(process.rss),
            process.cpu_ns / 1_000_000_000,
            process.cpu_ns / 10_000_000 % 100,
            info::text(&process.name)
        )
    });
    /// Rows that are written at a time.
    const ROWS: usize = 32;
    while status == 0 {
        let text: String = rows.by_ref().take(ROWS).collect();
        if text.is_empty() {
            break;
        }
        status = put("ps", text.as_bytes());
    }
    status
}

/// The arguments of a program.
pub fn arguments() -> Vec<&'static [u8]> {
    quire_rt::args().skip(1).map(|word| word.to_bytes()).collect()
}
