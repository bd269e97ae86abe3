//! cgroups: control groups by their files. What a group's processes have is charged to it, its limits hold, and who is
//! beyond them is killed, and nobody else.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;

use quire_rt::abi::flags::{Map, Open, madv, sig};
use quire_rt::abi::layout::at;
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, io};
use user_tests::groups::{inside, make, number, path, read, remove, settle, write};
use user_tests::{Checks, PAGE, RW, child, map, mmap, munmap, poke, raw, shared_counters, start, until};

quire_rt::entry!(main);

const MIB: usize = 1 << 20;

fn main() -> i32 {
    let mut checks = Checks::new();
    if fs::stat(c"/sys/fs/cgroup/cgroup.procs", 0).is_err() {
        checks.skip("control groups", "there are none");
        return checks.finish();
    }
    let _ = write("", "cgroup.subtree_control", "+memory");
    directories(&mut checks);
    charges(&mut checks);
    kernel(&mut checks);
    limits(&mut checks);
    reclaim(&mut checks);
    rows(&mut checks);
    beside(&mut checks);
    high(&mut checks);
    kills(&mut checks);
    kills_all(&mut checks);
    crowd(&mut checks);
    nested(&mut checks);
    left_behind(&mut checks);
    settle();
    checks.finish()
}

fn current(group: &str) -> usize {
    number(group, "memory.current", "")
}

/// Writes to each page of new memory.
fn fill(len: usize) -> usize {
    let at = map(len, RW);
    again(at, len);
    at
}

fn again(at: usize, len: usize) {
    for page in (at..at + len).step_by(PAGE) {
        // SAFETY: the test's own mapping.
        unsafe { core::ptr::with_exposed_provenance_mut::<usize>(page).write_volatile(page) };
    }
}

fn is_whole(at: usize, len: usize) -> bool {
    // SAFETY: as in `again`.
    (at..at + len)
        .step_by(PAGE)
        .all(|page| unsafe { core::ptr::with_exposed_provenance::<usize>(page).read_volatile() == page })
}

fn directories(checks: &mut Checks) {
    checks.eq(make("g"), Ok(()), "a group is a directory");
    checks.fails(make("g"), Errno::EEXIST, "of a name of its own");
    checks.eq(read("g", "memory.max").as_deref(), Ok("max\n"), "without a limit at first");
    checks.eq(write("g", "memory.max", "5M\n"), Ok(()), "which can be set");
    checks.eq(read("g", "memory.max").as_deref(), Ok("5242880\n"), "in bytes");
    checks.fails(write("g", "memory.max", "many"), Errno::EINVAL, "by numbers");
    checks.fails(write("g", "cgroup.procs", "999999"), Errno::ESRCH, "a process that there is not");
    checks.fails(write("g", "memory.current", "1"), Errno::EACCES, "what the kernel counts is not written");
    let names: Vec<_> = fs::read_dir(&path("g", "")).unwrap_or_default();
    let has = |name: &str| names.iter().any(|entry| entry.name == name.as_bytes());
    checks.ok(has("memory.max") && has("cgroup.procs") && has("memory.reclaim"), "its files are listed");
    checks.eq(make("g/h"), Ok(()), "groups lie in groups");
    checks.fails(read("g/h", "memory.max"), Errno::ENOENT, "and have what that above distributes");
    checks.eq(write("g", "cgroup.subtree_control", "+memory"), Ok(()), "when it does");
    checks.eq(read("g/h", "memory.max").as_deref(), Ok("max\n"), "memory");
    checks.fails(write("g", "cgroup.procs", "0"), Errno::EBUSY, "then it has no processes of its own");
    checks.fails(remove("g"), Errno::EBUSY, "a group with one below is not removed");
    checks.eq(remove("g/h"), Ok(()), "one without is");
    checks.eq(remove("g"), Ok(()), "as is the other one then");
    checks.fails(read("g", "memory.max"), Errno::ENOENT, "and is gone");
}

fn charges(checks: &mut Checks) {
    let _ = make("g");
    let counts = shared_counters();
    let status = inside("g", || {
        let before = current("g");
        let at = fill(4 * MIB);
        let had = current("g");
        counts[0].store((had - before) as u64, core::sync::atomic::Ordering::SeqCst);
        let grandchild = child(|| {
            again(at, MIB);
            (current("g") < had + MIB) as i32
        });
        let _ = munmap(at, 4 * MIB);
        (grandchild != Ok(Status::Exited(0))) as i32 + 2 * (current("g") > before + MIB / 2) as i32
    });
    checks.eq(
        status,
        Ok(Status::Exited(0)),
        "what a process and its children have is charged to their group, and uncharged",
    );
    let grown = counts[0].load(core::sync::atomic::Ordering::SeqCst) as usize;
    // (With what CPUs have charged in advance.)
    checks.ok((4 * MIB..5 * MIB).contains(&grown), "page by page");
    checks.ok(until(|| current("g") < MIB), "the end of a process ends its charges");
    checks.eq(read("g", "cgroup.procs").as_deref(), Ok(""), "and it is in no group any more");
    checks.ok(number("g", "memory.peak", "") >= 4 * MIB, "the peak stays");
    let _ = munmap(counts.as_ptr().addr(), PAGE);
    checks.eq(remove("g"), Ok(()), "the group can go");
}

/// Writes to so many pages, each with a table of its own. Whether that did not work.
fn spread(pages: usize) -> bool {
    const SPAN: usize = 2 << 20;
    (0..pages).map(|n| 0x10_0000_0000 + n * SPAN).any(|at| {
        let mapped = mmap(at, PAGE, RW, Map::PRIVATE | Map::ANONYMOUS | Map::FIXED, -1, 0);
        if mapped == Ok(at) {
            poke(at, 1);
        }
        mapped != Ok(at)
    })
}

/// What the kernel has for a program is charged too: a table for each of these pages, and stacks of threads.
fn kernel(checks: &mut Checks) {
    const PAGES: usize = 512;
    let _ = make("g");
    let tables = || number("g", "memory.stat", "pagetables ");
    let stacks = || number("g", "memory.stat", "kernel_stack ");
    let status = inside("g", || {
        let before = (current("g"), tables());
        spread(PAGES);
        let grown = (current("g") - before.0, tables() - before.1);
        let is_right = grown.0 >= 2 * PAGES * PAGE && (PAGES * PAGE..PAGES * PAGE * 2).contains(&grown.1);
        let one = stacks();
        // (Its own is charged to the group in which it was made.)
        let other = start(|| until(|| stacks() > one).into()).and_then(process::waitpid);
        i32::from(!is_right) + 2 * i32::from(other != Ok(Status::Exited(1)))
    });
    checks.eq(status, Ok(Status::Exited(0)), "tables and kernel stacks are charged");
    checks.eq(until(|| tables() == 0 && stacks() == 0 && current("g") == 0), true, "and end with the process");
    let _ = write("g", "memory.max", "1M");
    let status = inside("g", || spread(PAGES).into());
    checks.eq(status, Ok(Status::Killed(sig::KILL)), "tables do not go to swap: a program that needs more is killed");
    let _ = remove("g");
}

fn limits(checks: &mut Checks) {
    let _ = make("g");
    let _ = make("idle");
    let _ = write("g", "memory.max", "4M");
    let stalls = || number("g", "memory.pressure", "some ");
    checks.eq(stalls(), 0, "nobody has waited for memory");
    let status = inside("g", || {
        let at = fill(8 * MIB);
        let above = current("g") > 4 * MIB;
        let whole = is_whole(at, 8 * MIB) && is_whole(at, 8 * MIB);
        above as i32 + 2 * !whole as i32 + 4 * (number("g", "memory.swap.current", "") < 3 * MIB) as i32
    });
    checks.eq(status, Ok(Status::Exited(0)), "a set of twice the limit is held, in part in swap");
    checks.ok(number("g", "memory.events", "max ") != 0, "that is counted");
    checks.eq(number("g", "memory.events", "oom_kill "), 0, "nobody was killed");
    let [out, back, left] = ["zswpout ", "zswpin ", "pgsteal "].map(|row| number("g", "memory.stat", row));
    // (What is looked at twice came back, all but what stayed.)
    checks
        .ok(out >= back && back >= 4 * MIB / PAGE && out < usize::MAX && left >= out, "so are pages that go and come");
    checks.eq(number("g", "memory.swap.current", ""), 0, "nothing is left in swap");
    let (there, above) = (stalls(), number("", "memory.pressure", "some "));
    checks.ok(there != 0 && there <= above, "the time in which it waited for memory is told");
    checks.ok(number("g", "memory.pressure", "full ") <= there, "full pressure is some, too");
    checks.eq(number("idle", "memory.pressure", "some "), 0, "others have not waited");
    checks.eq(stalls(), there, "and now nobody does");
    let _ = remove("idle");
    let _ = remove("g");
}

/// What a group has of shared memory and in swap, and what it has given up.
fn rows(checks: &mut Checks) {
    let _ = make("g");
    let row = |name: &str| number("g", "memory.stat", name);
    let status = inside("g", || {
        let before = [row("shmem "), row("zswapped "), row("pglazyfree "), row("pglazyfreed ")];
        let shared = mmap(0, MIB, RW, Map::SHARED | Map::ANONYMOUS, -1, 0).unwrap_or(0);
        again(shared, MIB);
        let has = row("shmem ") - before[0] >= MIB && row("file ") >= MIB;
        let lazy = fill(MIB);
        let _ = raw(nr::MADVISE, [lazy, MIB, madv::FREE as usize]);
        let was_given_up = row("pglazyfree ") - before[2] >= MIB / PAGE;
        let _ = write("g", "memory.reclaim", "2M");
        // (What is of one word goes to swap, too.)
        let is_gone = row("pglazyfreed ") - before[3] >= MIB / PAGE / 2 && row("zswapped ") > before[1];
        i32::from(!has) + 2 * i32::from(!was_given_up) + 4 * i32::from(!is_gone)
    });
    checks.eq(status, Ok(Status::Exited(0)), "memory.stat tells of shared memory, swap, and pages that are given up");
    checks.eq(row("shmem ") + row("zswapped "), 0, "nothing of it is left");
    let _ = remove("g");
}

fn reclaim(checks: &mut Checks) {
    let _ = make("g");
    let status = inside("g", || {
        let at = fill(4 * MIB);
        let before = current("g");
        if write("g", "memory.reclaim", "2M").is_err() {
            return 1;
        }
        let went = before.saturating_sub(current("g"));
        // (What the program itself needs comes back at once.)
        2 * (went < 2 * MIB - 16 * PAGE) as i32 + 4 * !is_whole(at, 4 * MIB) as i32
    });
    checks.eq(status, Ok(Status::Exited(0)), "memory.reclaim takes what is asked for");
    let _ = remove("g");
}

/// While much is taken out of memory, others are served.
fn beside(checks: &mut Checks) {
    use core::sync::atomic::Ordering::SeqCst;
    let _ = make("g");
    let counts = shared_counters();
    let holder = start(|| {
        let _ = write("g", "cgroup.procs", "0");
        let at = fill(12 * MIB);
        counts[0].store(1, SeqCst);
        until(|| counts[2].load(SeqCst) != 0);
        i32::from(!is_whole(at, 12 * MIB))
    });
    checks.ok(until(|| counts[0].load(SeqCst) != 0), "a group has 12 MiB");
    let reclaims = start(|| {
        counts[1].store(1, SeqCst);
        let done = write("g", "memory.reclaim", "10M");
        counts[1].store(2, SeqCst);
        i32::from(done.is_err())
    });
    let mut served = 0;
    while reclaims.is_ok() && counts[1].load(SeqCst) != 2 {
        let before = current("g");
        served += usize::from(counts[1].load(SeqCst) == 1 && before < usize::MAX);
    }
    checks.eq(reclaims.and_then(process::waitpid), Ok(Status::Exited(0)), "10 of them are taken out");
    checks.ok(served >= 3, "meanwhile others read its files");
    counts[2].store(1, SeqCst);
    checks.eq(holder.and_then(process::waitpid), Ok(Status::Exited(0)), "nothing is lost");
    let _ = munmap(counts.as_ptr().addr(), PAGE);
    let _ = remove("g");
}

fn high(checks: &mut Checks) {
    let _ = make("g");
    let _ = write("g", "memory.high", "3M");
    let status = inside("g", || {
        let at = fill(6 * MIB);
        (current("g") > 4 * MIB) as i32 + 2 * !is_whole(at, 6 * MIB) as i32
    });
    checks.eq(status, Ok(Status::Exited(0)), "above high room is made, and nobody waits for ever");
    checks.ok(number("g", "memory.events", "high ") != 0, "that is counted too");
    let _ = remove("g");
}

fn kills(checks: &mut Checks) {
    let _ = make("g");
    let _ = write("g", "memory.max", "3M");
    let _ = write("g", "memory.swap.max", "0");
    let bystander = start(|| {
        let _ = write("g", "cgroup.procs", "0");
        fill(MIB / 2);
        until(|| false);
        0
    });
    checks.ok(until(|| current("g") >= MIB / 2), "a small process in a group");
    let status = inside("g", || {
        fill(8 * MIB);
        0
    });
    checks.eq(status, Ok(Status::Killed(sig::KILL)), "one that needs more than the group may have is killed");
    checks.ok(number("g", "memory.events", "oom_kill ") >= 1, "which the group counts");
    checks.ok(number("g", "memory.swap.events", "max ") >= 1, "as that nothing could go to swap");
    if let Ok(pid) = bystander {
        checks.eq(raw(nr::KILL, [pid as usize, 0]).map(drop), Ok(()), "the other one lives");
        let _ = raw(nr::KILL, [pid as usize, sig::KILL as usize]);
        let _ = process::waitpid(pid);
    }
    let _ = remove("g");
}

fn kills_all(checks: &mut Checks) {
    let _ = make("g");
    let _ = write("g", "memory.max", "3M");
    let _ = write("g", "memory.swap.max", "0");
    checks.eq(write("g", "memory.oom.group", "1"), Ok(()), "a group that dies as one");
    let other = start(|| {
        let _ = write("g", "cgroup.procs", "0");
        fill(MIB / 2);
        until(|| false);
        0
    });
    checks.ok(until(|| current("g") >= MIB / 2), "has two processes");
    let status = inside("g", || {
        fill(8 * MIB);
        0
    });
    checks.eq(status, Ok(Status::Killed(sig::KILL)), "the large one is killed");
    checks.eq(other.and_then(process::waitpid), Ok(Status::Killed(sig::KILL)), "and the other one");
    let _ = remove("g");
}

/// Several processes at the limit at once, none of which can give anything.
fn crowd(checks: &mut Checks) {
    let _ = make("g");
    let _ = write("g", "memory.max", "4M");
    let _ = write("g", "memory.swap.max", "0");
    let hogs: Vec<_> = (0..4)
        .map(|_| {
            start(|| {
                let _ = write("g", "cgroup.procs", "0");
                fill(2 * MIB);
                0
            })
        })
        .collect();
    let ends: Vec<_> = hogs.into_iter().map(|hog| hog.and_then(process::waitpid)).collect();
    let count = |status| ends.iter().filter(|end| **end == Ok(status)).count();
    let (done, killed) = (count(Status::Exited(0)), count(Status::Killed(sig::KILL)));
    checks.eq(done + killed, 4, "a crowd at the limit ends, each by itself or killed");
    checks.ok(done >= 1, "and not all are killed");
    checks.eq(remove("g"), Ok(()), "nothing of it is left");
}

fn nested(checks: &mut Checks) {
    let _ = make("g");
    let _ = write("g", "cgroup.subtree_control", "+memory");
    let _ = write("g", "memory.max", "4M");
    let _ = make("g/a");
    let _ = make("g/b");
    let holder = start(|| {
        let _ = write("g/a", "cgroup.procs", "0");
        let at = fill(3 * MIB);
        until(|| fs::stat(&path("g/done", ""), 0).is_ok());
        !is_whole(at, 3 * MIB) as i32
    });
    checks.ok(until(|| current("g/a") >= 3 * MIB), "a group has three quarters of what that above may have");
    let status = inside("g/b", || {
        let at = fill(3 * MIB);
        (current("g") > 4 * MIB) as i32 + 2 * !is_whole(at, 3 * MIB) as i32
    });
    checks.eq(status, Ok(Status::Exited(0)), "what another one needs, they give together");
    let _ = make("g/done");
    checks.eq(holder.and_then(process::waitpid), Ok(Status::Exited(0)), "nothing is lost");
    let _ = ["g/done", "g/a", "g/b", "g"].map(remove);
    checks.fails(read("g", "memory.max"), Errno::ENOENT, "all of them can go");
}

/// Files in memory stay when their group goes.
fn left_behind(checks: &mut Checks) {
    let mut fine = 0;
    for round in 0..200 {
        let _ = make("g");
        let file = CString::new(format!("/tmp/cgroups-{round}")).unwrap_or_default();
        let status = inside("g", || {
            let Ok(fd) = fs::openat(at::FDCWD, &file, Open::CREAT | Open::WRONLY, 0o600) else { return 1 };
            (io::write(fd, &[round as u8; PAGE]).is_err()) as i32
        });
        fine += (status == Ok(Status::Exited(0)) && remove("g") == Ok(())) as usize;
    }
    checks.eq(fine, 200, "groups that leave files behind come and go");
    let mut whole = 0;
    for round in 0..200 {
        let file = CString::new(format!("/tmp/cgroups-{round}")).unwrap_or_default();
        let text = fs::File::open(&file, Open::empty()).and_then(|file| file.read_to_end()).unwrap_or_default();
        whole += (text.len() == PAGE && text.iter().all(|byte| *byte == round as u8)) as usize;
        let _ = raw(nr::UNLINKAT, [at::FDCWD as usize, file.as_ptr() as usize, 0]);
    }
    checks.eq(whole, 200, "and the files stay");
}
