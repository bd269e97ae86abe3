//! prctl, personality, times: what a process says of itself.

#![no_std]
#![no_main]

use quire_rt::abi::flags::{pr, sig};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, io, time};
use user_tests::{Checks, KERNEL, child, raw, shared_counters, start, until};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    flags(&mut checks);
    death(&mut checks);
    subreaper(&mut checks);
    slack(&mut checks);
    huge_pages(&mut checks);
    capabilities(&mut checks);
    others(&mut checks);
    clock(&mut checks);
    checks.finish()
}

fn prctl(option: i32, args: [usize; 4]) -> Result<usize, Errno> {
    raw(nr::PRCTL, [option as usize, args[0], args[1], args[2], args[3]])
}

fn set(option: i32, value: usize) -> Result<usize, Errno> {
    prctl(option, [value, 0, 0, 0])
}

fn flags(checks: &mut Checks) {
    checks.fails(set(12345, 0), Errno::EINVAL, "an unknown option");
    checks.eq(set(pr::GET_DUMPABLE, 0), Ok(1), "a process may be inspected");
    checks.fails(set(pr::SET_DUMPABLE, 2), Errno::EINVAL, "or not");
    checks.eq((set(pr::SET_DUMPABLE, 0), set(pr::GET_DUMPABLE, 0)), (Ok(0), Ok(0)), "as it says");
    checks.exits(|| set(pr::GET_DUMPABLE, 0).map_or(9, |is| is as i32), 0, "and for its child");
    let _ = set(pr::SET_DUMPABLE, 1);
    checks.eq(set(pr::GET_NO_NEW_PRIVS, 0), Ok(0), "it may get privileges");
    checks.fails(set(pr::SET_NO_NEW_PRIVS, 0), Errno::EINVAL, "which is not given back");
    checks.fails(prctl(pr::SET_NO_NEW_PRIVS, [1, 1, 0, 0]), Errno::EINVAL, "nor asked for with more");
    checks.fails(prctl(pr::GET_NO_NEW_PRIVS, [0, 0, 0, 1]), Errno::EINVAL, "nor looked at");
    let given_up = || {
        let done = set(pr::SET_NO_NEW_PRIVS, 1) == Ok(0) && set(pr::GET_NO_NEW_PRIVS, 0) == Ok(1);
        (!done || child(|| set(pr::GET_NO_NEW_PRIVS, 0).map_or(9, |is| is as i32)) != Ok(Status::Exited(1))) as i32
    };
    checks.exits(given_up, 0, "it gives them up for itself and its children");
    checks.eq(set(pr::GET_NO_NEW_PRIVS, 0), Ok(0), "but not its parent");
}

/// Memory without huge pages, for itself, its children and the programs that they start. (What that means for memory is
/// shown by `huge`.)
fn huge_pages(checks: &mut Checks) {
    checks.eq(set(pr::GET_THP_DISABLE, 0), Ok(0), "a process may get huge pages");
    checks.fails(prctl(pr::SET_THP_DISABLE, [1, 1, 0, 0]), Errno::EINVAL, "which it refuses with no more than that");
    checks.fails(set(pr::GET_THP_DISABLE, 1), Errno::EINVAL, "and so is it asked");
    let refused = || {
        let done = set(pr::SET_THP_DISABLE, 1) == Ok(0) && set(pr::GET_THP_DISABLE, 0) == Ok(1);
        (!done || child(|| set(pr::GET_THP_DISABLE, 0).map_or(9, |is| is as i32)) != Ok(Status::Exited(1))) as i32
    };
    checks.exits(refused, 0, "it refuses them for itself and its children");
    checks.eq(set(pr::GET_THP_DISABLE, 0), Ok(0), "but not for its parent");
}

fn death(checks: &mut Checks) {
    let mut signal = 99u32;
    let at = &raw mut signal as usize;
    checks.eq(set(pr::GET_PDEATHSIG, at), Ok(0), "the signal at a parent's end");
    // SAFETY: the kernel has written it.
    checks.eq(unsafe { (at as *const u32).read_volatile() }, 0, "is none");
    checks.fails(set(pr::SET_PDEATHSIG, 65), Errno::EINVAL, "or one that there is");
    checks.fails(set(pr::GET_PDEATHSIG, KERNEL), Errno::EFAULT, "told to somewhere");
    let (read, write) = io::pipe(0).expect("a pipe");
    let parent = start(|| {
        let _ = io::close(read);
        let ready = shared_counters();
        let _ = start(|| {
            let _ = set(pr::SET_PDEATHSIG, sig::KILL as usize);
            ready[0].store(1, core::sync::atomic::Ordering::SeqCst);
            time::sleep_ms(100_000);
            let _ = io::write(write, b"x");
            1
        });
        while ready[0].load(core::sync::atomic::Ordering::SeqCst) == 0 {
            time::sleep_ms(1);
        }
        0
    });
    let _ = (io::close(write), parent.and_then(process::waitpid));
    checks.eq(io::read(read, &mut [0]), Ok(0), "a child ends with its parent");
    let _ = io::close(read);
    let _ = set(pr::SET_PDEATHSIG, sig::TERM as usize);
    let inherited = || {
        let mut signal = 99u32;
        let _ = set(pr::GET_PDEATHSIG, &raw mut signal as usize);
        // SAFETY: as above.
        unsafe { (&raw const signal).read_volatile() as i32 }
    };
    checks.exits(inherited, 0, "a child does not have its parent's");
    let _ = set(pr::SET_PDEATHSIG, 0);
}

fn get(option: i32) -> Result<u32, Errno> {
    let mut value = 99u32;
    set(option, &raw mut value as usize)?;
    // SAFETY: the kernel has written it.
    Ok(unsafe { (&raw const value).read_volatile() })
}

/// Starts a child that starts another one, which runs `run` with its parent's number, and ends.
fn orphan(run: impl FnOnce(i32) -> i32) {
    let middle = start(|| {
        let parent = process::getpid();
        let _ = start(|| run(parent));
        0
    });
    let _ = middle.and_then(process::waitpid);
}

fn subreaper(checks: &mut Checks) {
    checks.eq(get(pr::GET_CHILD_SUBREAPER), Ok(0), "a process adopts nobody");
    checks.fails(set(pr::GET_CHILD_SUBREAPER, KERNEL), Errno::EFAULT, "told to somewhere");
    let adopted = || {
        let me = process::getpid();
        let _ = set(pr::SET_CHILD_SUBREAPER, 5);
        if get(pr::GET_CHILD_SUBREAPER) != Ok(1)
            || child(|| get(pr::GET_CHILD_SUBREAPER).map_or(9, |is| is as i32)) != Ok(Status::Exited(0))
        {
            return 1;
        }
        // The one that lives when its parent ends, and the one that is dead already.
        orphan(|parent| {
            let moved = until(|| process::getppid() != parent);
            if moved && process::getppid() == me { 7 } else { 8 }
        });
        let first = process::waitpid(-1);
        let middle = start(|| {
            let _ = start(|| 5);
            time::sleep_ms(20);
            0
        });
        let _ = middle.and_then(process::waitpid);
        let second = process::waitpid(-1);
        ((first, second) != (Ok(Status::Exited(7)), Ok(Status::Exited(5)))) as i32 * 2
    };
    checks.exits(adopted, 0, "a subreaper adopts its descendants' orphans, and its children are none themselves");
    let nested = || {
        let me = process::getpid();
        let _ = set(pr::SET_CHILD_SUBREAPER, 1);
        let inner = start(|| {
            let own = process::getpid();
            let _ = set(pr::SET_CHILD_SUBREAPER, 1);
            orphan(|_| {
                let inner = until(|| process::getppid() == own);
                let outer = until(|| process::getppid() == me);
                if inner && outer { 7 } else { 8 }
            });
            time::sleep_ms(20);
            0
        });
        let _ = inner.and_then(process::waitpid);
        (process::waitpid(-1) != Ok(Status::Exited(7))) as i32
    };
    checks.exits(nested, 0, "the nearest one does, and when it ends the next one");
    let resigned = || {
        let _ = (set(pr::SET_CHILD_SUBREAPER, 1), set(pr::SET_CHILD_SUBREAPER, 0));
        let (read, write) = io::pipe(0).unwrap_or((-1, -1));
        orphan(|parent| {
            until(|| process::getppid() != parent);
            let _ = io::write(write, &[process::getppid() as u8]);
            0
        });
        let mut heir = [0];
        let _ = io::read(read, &mut heir);
        (heir != [1]) as i32
    };
    checks.exits(resigned, 0, "one that has resigned does not");
    let crowd = || {
        let _ = set(pr::SET_CHILD_SUBREAPER, 1);
        for i in 0..10 {
            let _ = start(|| {
                (0..5).for_each(|_| {
                    _ = start(|| {
                        time::sleep_ms(i % 4);
                        0
                    })
                });
                0
            });
        }
        let mut count = 0;
        while process::waitpid(-1).is_ok() {
            count += 1;
        }
        (count != 60) as i32
    };
    checks.exits(crowd, 0, "and all of them, whenever they end");
}

fn slack(checks: &mut Checks) {
    checks.eq(set(pr::GET_TIMERSLACK, 0), Ok(50_000), "a timer's slack is Linux's default");
    let _ = set(pr::SET_TIMERSLACK, 77);
    checks.eq(set(pr::GET_TIMERSLACK, 0), Ok(77), "or what was set");
    checks.exits(|| set(pr::GET_TIMERSLACK, 0).unwrap_or(0) as i32, 77, "also for a child");
    let _ = set(pr::SET_TIMERSLACK, 0);
    checks.eq(set(pr::GET_TIMERSLACK, 0), Ok(50_000), "0 is the default");
}

fn capabilities(checks: &mut Checks) {
    checks.eq((set(pr::CAPBSET_READ, 0), set(pr::CAPBSET_READ, 40)), (Ok(1), Ok(1)), "no capability was given up");
    checks.fails(set(pr::CAPBSET_READ, 41), Errno::EINVAL, "of those that there are");
    checks.fails(set(pr::CAPBSET_DROP, 0), Errno::EINVAL, "nor can be");
    checks.eq((set(pr::GET_KEEPCAPS, 0), set(pr::GET_SECUREBITS, 0)), (Ok(0), Ok(0)), "no bits about them");
    checks.fails(set(pr::SET_KEEPCAPS, 1), Errno::EINVAL, "nor to be set");
    checks.eq(prctl(pr::CAP_AMBIENT, [1, 5, 0, 0]), Ok(0), "none is ambient");
    checks.fails(prctl(pr::CAP_AMBIENT, [2, 5, 0, 0]), Errno::EPERM, "nor can be");
    checks.fails(prctl(pr::CAP_AMBIENT, [1, 41, 0, 0]), Errno::EINVAL, "least one that there is not");
    let mut at = 1u64;
    checks.eq(set(pr::GET_TID_ADDRESS, &raw mut at as usize), Ok(0), "the word to clear at a thread's end");
}

fn others(checks: &mut Checks) {
    checks.eq(raw(nr::PERSONALITY, [0xffff_ffff]), Ok(0), "a process is Linux's");
    checks.eq(raw(nr::PERSONALITY, [0]), Ok(0), "and stays so");
}

fn clock(checks: &mut Checks) {
    let mut used = [u64::MAX; 4];
    let begin = raw(nr::TIMES, [used.as_mut_ptr() as usize]).unwrap_or(0);
    checks.ok(used.iter().all(|ticks| *ticks < 100_000), "times are there");
    let busy = || {
        let begin = time::monotonic();
        while time::monotonic() - begin < 60_000_000 {}
        0
    };
    let _ = (busy(), child(busy));
    let mut later = [0; 4];
    let end = raw(nr::TIMES, [later.as_mut_ptr() as usize]).unwrap_or(0);
    checks.ok(end - begin >= 12, "a tick is a hundredth of a second");
    checks.ok(later[0] + later[1] > used[0] + used[1], "a process uses some");
    checks.ok(later[2] + later[3] > used[2] + used[3], "and its child");
    checks.fails(raw(nr::TIMES, [KERNEL]), Errno::EFAULT, "a record for nowhere");
    checks.ok(raw(nr::TIMES, [0]).is_ok(), "or for nobody");
}
