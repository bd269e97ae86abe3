//! selftest: runs the programs of /tests, or those named, and prints one TAP line for each: whether all its checks
//! passed, it exited with 0, the kernel's counts are what they were before, and its reverse mapping agrees with all
//! page tables. `-v` shows every check. With `--pressure`, memory is short all the time while a program runs, and pages leave
//! and come back.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;

use quire_bin::Options;
use quire_bin::hog::Hog;
use quire_rt::abi::flags::{Control, Open, sig};
use quire_rt::abi::info::{Books, MapAudit};
use quire_rt::process::Status;
use quire_rt::{Errno, env, eprintln, fs, handles, info, io, println, process, time};

quire_rt::entry!(main);

/// A program that takes longer hangs.
const LIMIT_MS: u64 = 240_000;

/// How long the counts may take to settle: an exit finishes after the parent has been told of it.
const SETTLE_MS: u64 = 2_000;

/// Looks at the counts, one like the other, before the first program.
const START_LOOKS: u32 = 30;

/// Programs that use a service, which keeps the memory that it once needed. They run again if the counts do not balance: a leak would show
/// each time.
const SERVED: [&str; 9] = ["cgroups", "freezer", "kept", "names", "proc", "servers", "stored", "tasks", "triggers"];

/// So often at most: a service of several threads needs some until all have what they need.
const RUNS: usize = 6;

fn main() -> i32 {
    let options = match Options::parse_long("v", &["pressure"], "selftest [-v] [--pressure] [NAME...]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    let programs = match programs(&options.operands) {
        Ok(programs) => programs,
        Err(error) => {
            eprintln!("selftest: /tests: {error}");
            return 1;
        }
    };
    // Children keep this program's rights until they call exec; then `handles::GRANTS` says what each program gets.
    let _ = handles::grant(Control::all());
    let mut report = Report { verbose: options.has('v'), line: [0; 256], len: 0, checks: 0, failed: 0 };
    // One empty run first, so that this program has allocated what it needs before the counts are first read.
    let _ = run(None, false, &mut report);
    // Services may still be starting.
    let _ = at_rest(START_LOOKS);
    let is_short = options.has_long("pressure");
    let mut failures = 0;
    for (number, (name, path)) in programs.iter().enumerate() {
        let begin = time::monotonic();
        let mut runs = if SERVED.contains(&&**name) { RUNS } else { 1 };
        let (status, books, hog) = loop {
            (report.checks, report.failed) = (0, 0);
            let before = at_rest(1);
            let hog = is_short.then(Hog::start);
            let status = run(Some(path), is_short, &mut report);
            let hog = hog.map(|hog| hog.map(Hog::stop));
            let books = before.and_then(balance_when_quiet);
            runs -= 1;
            if runs == 0 || report.failed != 0 || balanced(&books) {
                break (status, books, hog);
            }
        };
        let audit = audited();
        let milliseconds = (time::monotonic() - begin) / 1_000_000;
        let good = status == Ok(Status::Exited(0)) && report.failed == 0 && report.checks > 0;
        let good = good && balanced(&books) && agrees(&audit) && hog.is_none_or(is_fine);
        failures += !good as u32;
        let word = if good { "ok" } else { "not ok" };
        println!("{word} {} - {name}: {} checks in {milliseconds} ms", number + 1, report.checks);
        if !good {
            explain(status, &report, &books);
            explain_audit(&audit);
        }
        explain_hog(hog);
    }
    println!("1..{}", programs.len());
    println!("# {} programs, {failures} failed", programs.len());
    (failures > 0) as i32
}

/// Names and paths of the programs to run.
fn programs(names: &[&'static CStr]) -> Result<Vec<(alloc::string::String, CString)>, Errno> {
    let names: Vec<Vec<u8>> = if names.is_empty() {
        fs::read_dir(c"/tests")?.into_iter().map(|entry| entry.name).collect()
    } else {
        names.iter().map(|name| name.to_bytes().to_vec()).collect()
    };
    names
        .into_iter()
        .map(|name| {
            let path = if name.contains(&b'/') { name.clone() } else { [b"/tests/", &name[..]].concat() };
            Ok((quire_bin::show(&name).into_owned(), CString::new(path).map_err(|_| Errno::EINVAL)?))
        })
        .collect()
}

/// The counts before a program and, once they are at rest, after it.
type Balance = Result<(Books, Books), Errno>;

/// A kernel without these counts (ENOSYS) counts as balanced.
fn balanced(books: &Balance) -> bool {
    match books {
        Ok((before, after)) => before == after,
        Err(error) => *error == Errno::ENOSYS,
    }
}

/// The counts once they have not changed for some looks, 10 ms apart: the previous program may still be freeing its last stack on another CPU.
fn at_rest(looks: u32) -> Result<Books, Errno> {
    let limit = time::monotonic() + SETTLE_MS * 1_000_000;
    let mut last = info::books()?;
    let mut same = 0;
    loop {
        time::sleep_ms(10);
        let now = info::books()?;
        same = if now == last { same + 1 } else { 0 };
        if same == looks || time::monotonic() > limit {
            return Ok(now);
        }
        last = now;
    }
}

fn balance_when_quiet(before: Books) -> Balance {
    let limit = time::monotonic() + SETTLE_MS * 1_000_000;
    loop {
        let after = info::books()?;
        if after == before || time::monotonic() > limit {
            return Ok((before, after));
        }
        time::sleep_ms(5);
    }
}

/// How the hog had ended before it was stopped, if it had.
type HogEnd = Result<Option<Status>, Errno>;

/// It may have been killed for want of memory, if the program has used so much.
fn is_fine(end: HogEnd) -> bool {
    matches!(end, Ok(None | Some(Status::Killed(_))))
}

fn explain_hog(end: Option<HogEnd>) {
    match end {
        None | Some(Ok(None)) => {}
        Some(Ok(Some(status))) => println!("# the hog did not stay until the end: {status}"),
        Some(Err(error)) => println!("# the hog could not be started: {error}"),
    }
}

/// A kernel that cannot compare (ENOSYS) counts as agreeing.
fn agrees(audit: &Result<MapAudit, Errno>) -> bool {
    match audit {
        Ok(audit) => audit.entries > 0 && audit.pages > 0 && audit.unlisted == 0 && audit.miscounted == 0,
        Err(error) => *error == Errno::ENOSYS,
    }
}

/// Compares the reverse mapping with the page tables, once nothing changes them.
fn audited() -> Result<MapAudit, Errno> {
    let limit = time::monotonic() + SETTLE_MS * 1_000_000;
    loop {
        let audit = info::audit();
        if agrees(&audit) || audit.is_err() || time::monotonic() > limit {
            return audit;
        }
        time::sleep_ms(5);
    }
}

fn explain_audit(audit: &Result<MapAudit, Errno>) {
    match audit {
        Ok(audit) => println!(
            "# page tables: {} of {} entries are not in the reverse map; {} of {} pages have other holders than it lists",
            audit.unlisted, audit.entries, audit.miscounted, audit.pages
        ),
        Err(error) => println!("# page tables and reverse map cannot be compared: {error}"),
    }
}

fn explain(status: Result<Status, Errno>, report: &Report, books: &Balance) {
    match status {
        Ok(Status::Exited(0)) => {}
        Ok(status) => println!("# it ended with: {status}"),
        Err(error) => println!("# it could not be run: {error}"),
    }
    if report.failed > 0 {
        println!("# {} checks failed", report.failed);
    }
    if report.checks == 0 {
        println!("# it made no check");
    }
    let (before, after) = match books {
        Ok(books) => books,
        Err(error) => {
            println!("# the resource counts cannot be read: {error}");
            return;
        }
    };
    for (what, before, after) in [
        ("free pages", before.free_pages, after.free_pages),
        ("slab objects", before.slab_objects, after.slab_objects),
        ("page tables", before.page_tables, after.page_tables),
        ("address spaces", before.address_spaces, after.address_spaces),
        ("processes", before.processes, after.processes),
        ("threads", before.threads, after.threads),
        ("open objects", before.objects, after.objects),
        ("promised pages", before.committed, after.committed),
    ] {
        if before != after {
            println!("# the resource counts do not balance: {what} {before} before, {after} after");
        }
    }
}

/// Counts TAP lines. Its line buffer is part of the structure: memory allocated while a program runs would show in the
/// counts.
struct Report {
    verbose: bool,
    line: [u8; 256],
    len: usize,
    checks: u32,
    failed: u32,
}

impl Report {
    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.len < self.line.len() {
                self.line[self.len] = byte;
                self.len += 1;
            }
        }
    }

    fn end_line(&mut self) {
        let line = &self.line[..self.len];
        let (passed, failed) = (line.starts_with(b"ok "), line.starts_with(b"not ok "));
        self.checks += (passed || failed) as u32;
        self.failed += failed as u32;
        if self.verbose || !passed && !line.starts_with(b"1..") && !line.is_empty() {
            io::print_bytes(b"    ");
            io::print_bytes(line);
            io::print_bytes(b"\n");
        }
        self.len = 0;
    }
}

/// Tells a program that memory is short.
const SHORT: &CStr = c"PRESSURE=1";

/// Runs a program, or nothing if there is no path, and feeds its output to the report.
fn run(path: Option<&CString>, is_short: bool, report: &mut Report) -> Result<Status, Errno> {
    let (read, write) = io::pipe(Open::CLOEXEC.bits())?;
    let forked = process::fork();
    if let Ok(0) = forked {
        let _ = process::setpgid(0, 0);
        let _ = io::dup3(write, 1, 0);
        let _ = io::dup3(write, 2, 0);
        if let Some(path) = path {
            let _ = handles::grant_to(path.to_bytes());
            let error = process::execve(path, [&**path], env().chain(is_short.then_some(SHORT)));
            eprintln!("{}: {error}", path.to_string_lossy());
            process::exit_now(127);
        }
        process::exit_now(0);
    }
    let _ = io::close(write);
    let gathered = forked.and_then(|pid| {
        let limit = time::monotonic() + LIMIT_MS * 1_000_000;
        let hung = gather(read, limit, report) == Err(Errno::ETIMEDOUT);
        if hung {
            println!("# it took more than {} s and was killed", LIMIT_MS / 1000);
            let _ = process::kill(-pid, sig::KILL);
            let _ = process::kill(pid, sig::KILL);
        }
        process::waitpid(pid)
    });
    if report.len > 0 {
        report.end_line();
    }
    let _ = io::close(read);
    gathered
}

fn gather(fd: i32, limit: u64, report: &mut Report) -> Result<(), Errno> {
    let mut buffer = [0; 512];
    loop {
        let left = limit.saturating_sub(time::monotonic()) / 1_000_000;
        match io::wait_readable(fd, left) {
            Ok(true) | Err(Errno::ENOSYS) => {}
            Ok(false) => return Err(Errno::ETIMEDOUT),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error),
        }
        match io::read(fd, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => report.feed(&buffer[..n]),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}
