//! grouptop: the tree of control groups, again and again until it is interrupted (Ctrl-C) or `q` is typed: processes, memory and swap with their limits,
//! and how much of the last 10 seconds threads waited for memory, in percent. Groups beside each other are in the order of their memory; with `-s` of their swap, with `-p` of
//! the time, with `-n` of their names. `-d SECONDS` sets the time between two pictures (default 1); `-o` prints one picture, and so does grouptop without a
//! terminal.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use quire_bin::{Options, live};
use quire_closeup::groups::{self, By, Row};
use quire_rt::abi::group::GroupInfo;
use quire_rt::abi::pressure::Pressure;
use quire_rt::{eprintln, info, print};

quire_rt::entry!(main);

fn main() -> i32 {
    let options = match Options::parse_alone("d:ospn", &[], "grouptop [-spn] [-d SECONDS] [-o]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    if let Err(error) = info::record::<Pressure>(0) {
        eprintln!("grouptop: {error}");
        return 1;
    }
    let by = [('s', By::Swap), ('p', By::Pressure), ('n', By::Name)];
    let by = by.into_iter().find(|(letter, _)| options.has(*letter)).map_or(By::Memory, |(_, by)| by);
    live::run("grouptop", &options, |lines| print!("{}", groups::table(&rows(), by, lines)))
}

/// The root, and all groups.
fn rows() -> Vec<Row> {
    let members = info::processes(1).filter(|process| process.control_group == 0).count() as u32;
    let root = GroupInfo { members, ..GroupInfo::default() };
    let all = core::iter::once(root).chain(info::groups());
    all.map(|group| Row { group, pressure: info::record(group.key as usize).unwrap_or_default() }).collect()
}
