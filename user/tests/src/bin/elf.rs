//! elf: malformed ELF files are treated as on Linux, with one exception: where Linux kills the process because it has
//! given up the old program already, execve fails here with the reason.

#![no_std]
#![no_main]

use alloc::ffi::CString;
use alloc::format;
use core::ffi::CStr;

use quire_rt::abi::flags::sig;
use quire_rt::abi::layout::{Rlimit, rlimit};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, args, env, fs, info};
use user_tests::{Checks, child, raw};

extern crate alloc;

quire_rt::entry!(main);

/// How a file of `/etc/elf` must end.
enum Ends {
    /// With this status.
    With(u8),
    /// By this signal.
    By(u32),
    /// Not started for this reason; the caller goes on.
    Refused(Errno),
}
use Ends::{By, Refused, With};

const FILES: &[(&str, Ends)] = &[
    ("plain", With(5)),
    // Behind the end of the file, in its last page, are zeros.
    ("past-end", With(6)),
    ("past-end-touched", By(sig::BUS)),
    ("bss-past-end", Refused(Errno::EFAULT)),
    // 'E' of the magic number is 69.
    ("shared-page", With(76)),
    ("same-twice", With(9)),
    ("overlapping", With(10)),
    ("unsorted", With(11)),
    ("bss-only", With(0)),
    ("empty", With(69)),
    ("bss-tail", With(4)),
    ("behind-bss", With(4)),
    ("behind-file", With(4 + 0x20)),
    ("odd-offset", Refused(Errno::EINVAL)),
    ("less-memory", Refused(Errno::EINVAL)),
    ("huge-memory", Refused(Errno::ENOMEM)),
    ("memory-wraps", Refused(Errno::EINVAL)),
    ("kernel-address", Refused(Errno::EINVAL)),
    // What would lie there otherwise, the stack and the page that handlers return through, gives way.
    ("top-page", With(5)),
    ("top-stack", With(5)),
    ("top-all", With(0)),
    ("no-load", By(sig::SEGV)),
    ("stray-phdr", With(0)),
    ("align-not-power", With(5)),
    ("sections-beyond", With(69)),
    ("sections-odd", With(69)),
    ("class", With(69)),
    ("version", With(69)),
    ("header-size", Refused(Errno::ENOEXEC)),
    ("header-count", Refused(Errno::ENOEXEC)),
    ("machine", Refused(Errno::ENOEXEC)),
    ("entry-nowhere", By(sig::SEGV)),
    ("entry-odd", By(sig::BUS)),
    ("entry-kernel", Refused(Errno::EINVAL)),
    ("interpreted", With(21)),
    ("interpreter-over", With(5)),
    ("properties", With(69)),
    ("properties-wrong", Refused(Errno::ENOEXEC)),
    ("properties-cut", Refused(Errno::ENOEXEC)),
    ("properties-long", Refused(Errno::ENOEXEC)),
    ("far-offset", Refused(Errno::EOVERFLOW)),
    ("interpreter-missing", Refused(Errno::ENOENT)),
    ("interpreter-short", Refused(Errno::EIO)),
    ("interpreter-script", Refused(Errno::ELIBBAD)),
    ("interpreter-directory", Refused(Errno::EACCES)),
    ("script", With(5)),
    ("script-script", With(5)),
    ("script-circle", Refused(Errno::ELOOP)),
    ("script-missing", Refused(Errno::ENOENT)),
    ("script-nothing", Refused(Errno::ENOEXEC)),
    ("script-long", Refused(Errno::ENOEXEC)),
    ("short", Refused(Errno::ENOEXEC)),
    ("nothing", Refused(Errno::ENOEXEC)),
];

/// The status of a child whose exec failed is this plus the errno.
const REFUSED: i32 = 120;

fn main() -> i32 {
    if args().eq([own(), c"one  word", c"/etc/elf/script-arguments", c"x", c""]) {
        return 33;
    }
    let mut words = args();
    match (words.next(), words.next(), words.next()) {
        (Some(name), None, _) if env().any(|word| word == c"NO_ARGUMENTS") => return name.count_bytes() as i32,
        (Some(_), Some(_), Some(_)) => return 0,
        _ => {}
    }
    let mut checks = Checks::new();
    if fs::stat(c"/etc/elf/plain", 0).is_err() {
        checks.skip("files that no linker makes", "they are missing");
        return checks.finish();
    }
    files(&mut checks);
    alignment(&mut checks);
    arguments(&mut checks);
    checks.finish()
}

fn become_file(name: &str) -> i32 {
    let path = CString::new(format!("/etc/elf/{name}")).unwrap_or_default();
    REFUSED + process::execve(&path, [&*path], []).get()
}

/// A program that needs this much memory is refused on machines that have less, with swap.
const LARGE: (&str, u64) = ("top-all", 1 << 30);

fn files(checks: &mut Checks) {
    let system = info::sysinfo();
    let memory = system.map_or(0, |system| (system.totalram + system.totalswap) * u64::from(system.mem_unit));
    for (name, ends) in FILES {
        let wanted = match ends {
            _ if *name == LARGE.0 && memory < LARGE.1 => Status::Exited((REFUSED + Errno::ENOMEM.get()) as u8),
            With(status) => Status::Exited(*status),
            By(signal) => Status::Killed(*signal),
            Refused(error) => Status::Exited((REFUSED + error.get()) as u8),
        };
        checks.eq(child(|| become_file(name)), Ok(wanted), name);
    }
}

fn alignment(checks: &mut Checks) {
    let is_aligned = (0..8).all(|_| child(|| become_file("aligned")) == Ok(Status::Exited(0)));
    checks.ok(is_aligned, "a position-independent program lies where p_align wants it, eight times out of eight");
}

fn own() -> &'static CStr {
    c"/tests/elf"
}

fn arguments(checks: &mut Checks) {
    let none: [&CStr; 0] = [];
    checks.exits(
        || REFUSED + process::execve(own(), none, [c"NO_ARGUMENTS"]).get(),
        0,
        "no arguments at all become an empty name",
    );
    checks.exits(
        || {
            let _ = process::prlimit(rlimit::STACK, Some(Rlimit { cur: 64 << 10, max: 64 << 10 }));
            let long = CString::new(alloc::vec![b'a'; 100_000]).unwrap_or_default();
            (process::execve(own(), [own(), c"x", &*long], []) == Errno::E2BIG) as i32
        },
        1,
        "E2BIG, and the caller lives",
    );
    checks.exits(
        || {
            let path = c"/etc/elf/script-arguments";
            REFUSED + process::execve(path, [c"anything", c"x", c""], []).get()
        },
        33,
        "a script's interpreter gets its argument, the path, and all arguments but the first",
    );
    // Errors of the file take precedence over errors of the arguments.
    let bad = user_tests::KERNEL;
    checks.fails(raw(nr::EXECVE, [c"/etc/motd".as_ptr() as usize, bad, 0]), Errno::EACCES, "EACCES before EFAULT");
}
