//! vmstat: `vmstat DELAY [COUNT]` shows memory and CPUs every DELAY seconds, as vmstat(8) of Linux does; without numbers all
//! counters of the memory manager, one a line, as in /proc/vmstat of Linux, or those whose names contain a WORD.
//!
//! The first row counts from boot. `in` counts timer interrupts alone. User and system time are
//! sampled at the ends of slices. `bi` and `bo` are pages of files on disks. What Quire does not have (buffers, a host that
//! steals time) or does not count (threads that wait for a disk) is 0.

#![no_std]
#![no_main]

use core::ffi::CStr;

use quire_bin::{Options, USAGE, kib, number};
use quire_rt::abi::info::CpuInfo;
use quire_rt::abi::statistics::Counter;
use quire_rt::{Errno, eprintln, info, io, println, time};

quire_rt::entry!(main);

/// Rows between two headings, so that one is always on the screen.
const ROWS_A_HEADING: u64 = 20;

fn main() -> i32 {
    let options = match Options::parse("", "vmstat [DELAY [COUNT] | WORD...]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    let words = &options.operands[..];
    let done = match words.first().and_then(|word| number::<u64>(word.to_bytes())) {
        None => counters(words),
        Some(delay) => match words.get(1).map(|word| number::<u64>(word.to_bytes())) {
            _ if delay == 0 || words.len() > 2 => return usage(),
            None => watch(delay, u64::MAX),
            Some(Some(count)) if count > 0 => watch(delay, count),
            Some(_) => return usage(),
        },
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("vmstat: {error}");
            1
        }
    }
}

fn usage() -> i32 {
    eprintln!("vmstat: DELAY and COUNT are numbers above 0");
    USAGE
}

fn counters(words: &[&CStr]) -> Result<(), Errno> {
    info::record::<Counter>(0)?;
    for counter in info::records::<Counter>() {
        let name = info::text(&counter.name);
        let is_wanted = |word: &&CStr| name.contains(&*quire_bin::show(word.to_bytes()));
        if words.is_empty() || words.iter().any(is_wanted) {
            println!("{name} {}", counter.value);
        }
    }
    Ok(())
}

/// What was counted since boot, of all CPUs together.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// Nanoseconds that passed, once for each CPU.
    all: u64,
    idle: u64,
    system: u64,
    ticks: u64,
    switches: u64,
    /// Pages that came back from swap, that went there, that were read from disks, and written.
    pages: [u64; 4],
}

impl Counts {
    fn now() -> Result<Counts, Errno> {
        info::record::<CpuInfo>(0)?;
        let time = time::monotonic();
        let add = |sum: Counts, cpu: CpuInfo| Counts {
            all: sum.all + time,
            idle: sum.idle + cpu.idle_ns,
            system: sum.system + cpu.system_ns,
            ticks: sum.ticks + cpu.ticks,
            switches: sum.switches + cpu.switches,
            ..sum
        };
        let counts =
            Counts { pages: info::counters(["pswpin", "pswpout", "pgpgin_pages", "nr_written"]), ..Counts::default() };
        Ok(info::records::<CpuInfo>().filter(|cpu| cpu.online == 1).fold(counts, add))
    }

    fn since(self, before: Counts) -> Counts {
        Counts {
            all: self.all.saturating_sub(before.all),
            idle: self.idle.saturating_sub(before.idle),
            system: self.system.saturating_sub(before.system),
            ticks: self.ticks.saturating_sub(before.ticks),
            switches: self.switches.saturating_sub(before.switches),
            pages: core::array::from_fn(|n| self.pages[n].saturating_sub(before.pages[n])),
        }
    }
}

/// Shows `count` rows, `delay` seconds apart.
fn watch(delay: u64, count: u64) -> Result<(), Errno> {
    let mut before = Counts::default();
    let mut seconds = (time::monotonic() / 1_000_000_000).max(1);
    for row in 0..count {
        if row % ROWS_A_HEADING == 0 {
            println!("procs -----------memory---------- ---swap-- -----io---- -system-- ------cpu-----");
            println!(" r  b   swpd   free   buff  cache   si   so    bi    bo   in   cs us sy id wa st");
        }
        let now = Counts::now()?;
        show(now.since(before), seconds)?;
        io::flush();
        (before, seconds) = (now, delay);
        if row + 1 < count {
            time::sleep_ms(delay.saturating_mul(1000));
        }
    }
    Ok(())
}

fn show(counts: Counts, seconds: u64) -> Result<(), Errno> {
    let free = info::system()?.free;
    let [swapped, file, shared] = info::counters(["nr_swap_used", "nr_file_pages", "nr_shmem"]).map(kib);
    let running = info::processes(0).filter(|process| process.state == u32::from(b'R')).count();
    let share = |part: u64| (part.min(counts.all) * 100).checked_div(counts.all).unwrap_or(0);
    let idle = share(counts.idle);
    let system = share(counts.system).min(100 - idle);
    let [swap_in, swap_out, read, written] = counts.pages.map(|pages| kib(pages) / seconds);
    println!(
        "{running:2} {none:2} {swapped:6} {:6} {none:6} {:6} {swap_in:4} {swap_out:4} {read:5} {written:5} {:4} {:4} {:2} {system:2} {idle:2} \
         {none:2} {none:2}",
        kib(free),
        file + shared,
        counts.ticks / seconds,
        counts.switches / seconds,
        100 - idle - system,
        none = 0,
    );
    Ok(())
}
