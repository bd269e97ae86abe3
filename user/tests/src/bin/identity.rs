//! identity: information about process and system: ids, names, memory, random bytes.

#![no_std]
#![no_main]

use quire_rt::abi::nr;
use quire_rt::{Errno, info, process};
use user_tests::{Checks, raw, start};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    checks.ok(process::getpid() > 1 && process::gettid() == process::getpid(), "a process has a number");
    checks.ok(process::getppid() > 0, "so has its parent");
    let ids = [nr::GETUID, nr::GETEUID, nr::GETGID, nr::GETEGID].map(|number| raw(number, []));
    checks.eq(ids, [Ok(0); 4], "it belongs to root");
    checks.ok(process::getpgid(0).is_ok_and(|group| group > 0), "it is in a group");
    checks.eq(process::getpgid(process::getpid()), process::getpgid(0), "its own number is as good as 0");
    checks.ok(raw(nr::GETSID, [0]).is_ok(), "and in a session");
    checks.exits(
        || {
            let session = process::setsid();
            (session != Ok(process::getpid()) || process::getpgid(0) != Ok(process::getpid())) as i32
        },
        0,
        "setsid starts a session and a group",
    );
    checks.exits(|| (process::setsid().and(process::setsid()) != Err(Errno::EPERM)) as i32, 0, "but only once");
    let first = start(|| 0).and_then(|pid| process::waitpid(pid).map(|_| pid)).unwrap_or(0);
    let second = start(|| 0).and_then(|pid| process::waitpid(pid).map(|_| pid)).unwrap_or(0);
    checks.ok(first > 0 && second > 0 && first != second, "numbers are not used again at once");

    match info::uname() {
        Ok(names) => {
            checks.eq(info::text(&names.machine), "aarch64", "uname: the machine");
            checks.ok(!info::text(&names.sysname).is_empty(), "uname: the system");
            checks.ok(info::text(&names.release).contains('.'), "uname: the release");
        }
        Err(error) => checks.fails(Err::<(), _>(error), Errno::EIO, "uname"),
    }
    match info::sysinfo() {
        Ok(info) => {
            checks.ok(info.mem_unit >= 1 && info.totalram * info.mem_unit as u64 > 32 << 20, "sysinfo: memory");
            checks.ok(info.freeram > 0 && info.freeram < info.totalram, "sysinfo: some of it is free");
            checks.ok(info.procs >= 2, "sysinfo: processes");
            checks.ok(info.uptime >= 0, "sysinfo: up");
        }
        Err(error) => checks.fails(Err::<(), _>(error), Errno::EIO, "sysinfo"),
    }
    random(&mut checks);
    checks.finish()
}

fn random(checks: &mut Checks) {
    let get = |buffer: &mut [u8], flags: usize| raw(nr::GETRANDOM, [buffer.as_mut_ptr() as usize, buffer.len(), flags]);
    // Not the pool of the last resort, so that it never waits: GRND_INSECURE.
    let flags = 4;
    let mut bytes = [0u8; 256];
    checks.eq(get(&mut bytes, flags), Ok(256), "getrandom");
    let bits: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
    checks.ok((824..1224).contains(&bits), "about half the bits are set");
    let mut again = [0u8; 256];
    checks.ok(get(&mut again, flags) == Ok(256) && again != bytes, "others every time");
    checks.eq(get(&mut [], flags), Ok(0), "none at all");
    checks.fails(get(&mut bytes, 0x100), Errno::EINVAL, "unknown flags");
}
