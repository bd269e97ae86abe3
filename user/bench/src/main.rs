//! What the memory calls cost. The same binary runs on Quire and on AArch64 Linux; `cargo xtask bench` starts it.
//!
//! It prints a line a row: name, operations, ticks of the virtual counter, and nanoseconds an operation with one
//! decimal. Under QEMU's `-icount shift=0` a nanosecond is an instruction, the kernel's and the program's alike.
//! A row whose call does not work says so: `FAIL name errno`.
//!
//! ```text
//! bench [settle] [poweroff] [noop] [ROW...]
//! ```
//! An argument that is not an option selects the rows whose names begin with it; without such arguments all rows run.
//! `settle` sleeps for five seconds first, so that the kernel can finish work deferred from boot; `poweroff` switches
//! the machine off at the end; `noop` does nothing and is the program that the exec rows run.

#![no_std]
#![no_main]

mod areas;
mod faults;
mod measure;
mod messages;
mod processes;
mod resize;

use quire_rt::abi::layout::at;
use quire_rt::{abi::nr, args, println};

use measure::{Outcome, Sheet, call};

quire_rt::entry!(main);

/// What is measured under one name; some rows have several lines, which begin with it.
struct Row {
    name: &'static str,
    run: fn(&Sheet) -> Outcome,
}

const fn row(name: &'static str, run: fn(&Sheet) -> Outcome) -> Row {
    Row { name, run }
}

/// Calls that do next to nothing.
const NULL_CALLS: &[Row] = &[
    row("sys.getpid", |sheet| null_call(sheet, nr::GETPID)),
    row("sys.getppid", |sheet| null_call(sheet, nr::GETPPID)),
    row("sys.invalid", |sheet| null_call(sheet, 0x1fff)),
    row("sys.clock_gettime", |sheet| {
        let mut now = [0u64; 2];
        let address = now.as_mut_ptr() as usize;
        sheet.each(20_000, "", || call(nr::CLOCK_GETTIME, [1, address]).map(drop))
    }),
];

fn null_call(sheet: &Sheet, number: usize) -> Outcome {
    sheet.each(20_000, "", || {
        let _ = call(number, [0; 0]);
        Ok(())
    })
}

const ROWS: &[&[Row]] = &[NULL_CALLS, areas::ROWS, faults::ROWS, resize::ROWS, processes::ROWS, messages::ROWS];

fn main() -> i32 {
    let has = |word: &str| args().skip(1).any(|arg| arg.to_bytes() == word.as_bytes());
    if has("noop") {
        return 0;
    }
    if has("settle") {
        let five_seconds = [5u64, 0];
        let _ = call(nr::NANOSLEEP, [five_seconds.as_ptr() as usize, 0]);
    }
    let is_option = |arg: &[u8]| [&b"settle"[..], b"poweroff"].contains(&arg);
    let selectors = || args().skip(1).map(|arg| arg.to_bytes()).filter(|arg| !is_option(arg));
    for row in ROWS.iter().copied().flatten() {
        let wanted = selectors().next().is_none() || selectors().any(|start| row.name.as_bytes().starts_with(start));
        if wanted && let Err(errno) = (row.run)(&Sheet::new(row.name)) {
            println!("FAIL {} {errno:?}", row.name);
        }
    }
    println!("DONE");
    if has("poweroff") {
        const POWER_OFF: [usize; 3] = [0xfee1_dead, 0x2812_1969, 0x4321_fedc];
        let _ = call(nr::REBOOT, POWER_OFF);
    }
    0
}

/// This program's path, for exec; null where the kernel does not tell.
fn own_path() -> usize {
    quire_rt::start::auxv(at::EXECFN).map_or(0, |path| path as usize)
}
