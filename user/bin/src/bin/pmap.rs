//! pmap: a process's mappings, and how much of each is in memory, referenced and dirty, as `pmap -x` of Linux shows
//! them; sizes in KiB. Without a number, pmap itself.

#![no_std]
#![no_main]

use quire_bin::{Options, USAGE, kib, number};
use quire_rt::abi::statistics::{AreaInfo, vma};
use quire_rt::{eprintln, info, println};

quire_rt::entry!(main);

const USAGE_LINE: &str = "pmap [PID]";

fn main() -> i32 {
    let options = match Options::parse("", USAGE_LINE) {
        Ok(options) => options,
        Err(status) => return status,
    };
    let pid = match options.operands.as_slice() {
        [] => Some(0),
        [pid] => number(pid.to_bytes()),
        _ => None,
    };
    let Some(pid) = pid else {
        eprintln!("usage: {USAGE_LINE}");
        return USAGE;
    };
    println!("Address              Kbytes       RSS  Referenced     Dirty Mode  Mapping");
    let mut all = AreaInfo::default();
    let mut size = 0;
    for area in info::areas(pid) {
        let area = match area {
            Ok(area) => area,
            Err(error) => {
                eprintln!("pmap: {pid}: {error}");
                return 1;
            }
        };
        print_line(format_args!("{:016x}", area.start), area.end - area.start, &area, mode(area.flags), mapping(&area));
        size += area.end - area.start;
        all.add(&area);
    }
    print_line(format_args!("total"), size, &all, ['-'; 5], "");
    0
}

fn print_line(start: core::fmt::Arguments<'_>, size: u64, area: &AreaInfo, mode: [char; 5], mapping: &str) {
    let (resident, referenced, dirty) = (kib(area.resident), kib(area.referenced), kib(area.dirty()));
    let [r, w, x, s, l] = mode;
    println!("{start:16} {:10} {resident:9} {referenced:11} {dirty:9} {r}{w}{x}{s}{l} {mapping}", size / 1024);
}

/// Rights; `s` for shared, `l` for locked memory.
fn mode(flags: u32) -> [char; 5] {
    let letters = [(vma::READ, 'r'), (vma::WRITE, 'w'), (vma::EXEC, 'x'), (vma::SHARED, 's'), (vma::LOCKED, 'l')];
    letters.map(|(flag, letter)| if flags & flag != 0 { letter } else { '-' })
}

fn mapping(area: &AreaInfo) -> &str {
    match info::text(&area.name) {
        "" if area.flags & vma::HEAP != 0 => "[heap]",
        "" if area.flags & vma::STACK != 0 => "[stack]",
        "" if area.flags & vma::SHARED != 0 => "[shared]",
        // The page that the kernel maps into every process: the return from signal handlers.
        "" if area.flags & vma::OBJECT != 0 => "[kernel]",
        "" => "[anon]",
        name => name,
    }
}
