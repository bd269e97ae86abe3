//! walk: the translation of an address of a process, or of the kernel: each entry that the MMU reads, with its bits in words, and what is known of
//! the frame. Addresses are hexadecimal, as pmap prints them. Others' processes, and the kernel, take machine control.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;

use quire_bin::{Options, USAGE, number, show};
use quire_closeup::walk::{self, Names};
use quire_rt::abi::group::GroupInfo;
use quire_rt::{eprintln, info, print};

quire_rt::entry!(main);

const USAGE_LINE: &str = "walk PID|kernel ADDRESS";

/// The lowest bit that tells the kernel's half from a process's.
const KERNEL: u64 = 1 << 55;

fn main() -> i32 {
    let options = match Options::parse("", USAGE_LINE) {
        Ok(options) => options,
        Err(status) => return status,
    };
    let [whose, address] = options.operands[..] else { return usage() };
    let Some(address) = hexadecimal(address.to_bytes()) else { return usage() };
    let pid = match whose.to_bytes() {
        b"kernel" if address & KERNEL == 0 => {
            eprintln!("walk: {address:#x} is in a process's half: the kernel's addresses begin with ffff");
            return 1;
        }
        b"kernel" => 0,
        pid => match number(pid) {
            Some(pid) => pid,
            None => return usage(),
        },
    };
    match info::translation(pid, address as usize) {
        Ok(found) => {
            let group = group(found.frame.control_group);
            let owner = owner(pid, address);
            print!("{}", walk::show(&found, &Names { owner: &owner, group: &group }));
            0
        }
        Err(error) => {
            eprintln!("walk: {}: {error}", show(whose.to_bytes()));
            1
        }
    }
}

fn usage() -> i32 {
    eprintln!("usage: {USAGE_LINE}");
    USAGE
}

/// A number with or without 0x.
fn hexadecimal(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(b"0x").unwrap_or(text);
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

fn owner(pid: u32, address: u64) -> String {
    match info::process(pid) {
        _ if address & KERNEL != 0 => "the kernel".into(),
        Some(process) => format!("process {pid} ({})", info::text(&process.name)),
        None if pid == 0 => "walk itself".into(),
        None => format!("process {pid}"),
    }
}

/// The path of a control group from the root, which has the key 0.
fn group(key: u64) -> String {
    let mut path = String::new();
    let mut key = key;
    while key != 0 {
        let found = info::record::<GroupInfo>(usize::from(key as u16)).ok().filter(|group| group.key == key);
        let Some(group) = found else { return format!("{key:#x}, which is gone") };
        path = format!("/{}{path}", info::text(&group.name));
        key = group.parent;
    }
    if path.is_empty() { "/".into() } else { path }
}
