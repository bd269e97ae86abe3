//! swapout: takes the private memory of processes out of memory, and says how many pages went. The processes go on: a page comes
//! back when it is needed.

#![no_std]
#![no_main]

use quire_bin::{Options, USAGE, number, show};
use quire_rt::abi::flags::madv;
use quire_rt::abi::nr;
use quire_rt::abi::statistics::{AreaInfo, vma};
use quire_rt::{Errno, eprintln, info, io, println, sys};

quire_rt::entry!(main);

fn main() -> i32 {
    let options = match Options::parse("", "swapout PID...") {
        Ok(options) => options,
        Err(status) => return status,
    };
    if options.operands.is_empty() {
        eprintln!("usage: swapout PID...");
        return USAGE;
    }
    if info::sysinfo().is_ok_and(|info| info.totalswap == 0) {
        eprintln!("swapout: there is no swap");
        return 1;
    }
    let mut status = 0;
    for word in options.operands.iter().map(|word| word.to_bytes()) {
        let done = match number(word) {
            Some(pid) => swap_out(pid).map_err(|error| error.text()),
            None => Err("not a process id"),
        };
        match done {
            Ok(0) => println!("{}: nothing went", show(word)),
            Ok(1) => println!("{}: 1 page went", show(word)),
            Ok(pages) => println!("{}: {pages} pages went", show(word)),
            Err(why) => {
                eprintln!("swapout: {}: {why}", show(word));
                status = 1;
            }
        }
    }
    status
}

/// Advises all private areas of a process to go; returns how many pages are in memory no more.
fn swap_out(pid: u32) -> Result<u64, Errno> {
    // SAFETY: the call takes no pointer.
    let fd = unsafe { sys::call(nr::PIDFD_OPEN, [pid as usize, 0]) }? as i32;
    let done = swap_out_by(pid, fd);
    let _ = io::close(fd);
    done
}

fn swap_out_by(pid: u32, fd: i32) -> Result<u64, Errno> {
    let before = resident(pid)?;
    for area in info::areas(pid).map_while(Result::ok).filter(is_private) {
        let part = [area.start as usize, (area.end - area.start) as usize];
        // SAFETY: `part` outlives the call. What becomes of the other process's memory changes nothing that it sees.
        let done = unsafe {
            sys::call(nr::PROCESS_MADVISE, [fd as usize, (&raw const part) as usize, 1, madv::PAGEOUT as usize, 0])
        };
        match done {
            // What is locked stays, and what is unmapped meanwhile is gone.
            Ok(_) | Err(Errno::EINVAL | Errno::ENOMEM) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(before.saturating_sub(resident(pid)?))
}

/// Pages of a process's private areas that are in memory.
fn resident(pid: u32) -> Result<u64, Errno> {
    info::areas(pid).map(|area| area.map(|area| if is_private(&area) { area.resident } else { 0 })).sum()
}

fn is_private(area: &AreaInfo) -> bool {
    area.flags & vma::SHARED == 0
}
