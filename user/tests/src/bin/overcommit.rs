//! overcommit: how much memory may be promised in each of the three modes, and that promises are returned.
//!
//! On Linux the modes are files of /proc/sys/vm; where they cannot be written there is nothing to check.

#![no_std]
#![no_main]

use quire_rt::abi::flags::{Map, Mremap, Open, Prot, setting};
use quire_rt::{Errno, fs, info, io, mem};
use user_tests::{Checks, PAGE, RW, is_quire, mmap, mprotect, munmap, poke};

quire_rt::entry!(main);

const ANON: Map = Map::PRIVATE.union(Map::ANONYMOUS);
const SHARED: Map = Map::SHARED.union(Map::ANONYMOUS);

fn set_mode(mode: usize) -> Result<(), Errno> {
    if is_quire() {
        return info::setting(setting::OVERCOMMIT_MEMORY, Some(mode)).map(drop);
    }
    let fd = fs::open(c"/proc/sys/vm/overcommit_memory", Open::WRONLY)?;
    let written = io::write(fd, &[b'0' + mode as u8]);
    let _ = io::close(fd);
    written.map(drop)
}

/// All memory and swap, the limit of mode 2, and what is promised, in bytes.
fn memory() -> (usize, usize, usize) {
    if let Ok(system) = info::system() {
        let bytes = |pages: u64| pages as usize * PAGE;
        let swap = info::counter("nr_swap_total").unwrap_or(0);
        return (bytes(system.managed + swap), bytes(system.commit_limit), bytes(system.committed));
    }
    let mut text = [0; 4096];
    let read = fs::open(c"/proc/meminfo", Open::empty()).and_then(|fd| {
        let read = io::read(fd, &mut text);
        let _ = io::close(fd);
        read
    });
    let text = core::str::from_utf8(&text[..read.unwrap_or(0)]).unwrap_or("");
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
        line.split_whitespace().next().and_then(|number| number.parse::<usize>().ok()).unwrap_or(0) << 10
    };
    (value("MemTotal:") + value("SwapTotal:"), value("CommitLimit:"), value("Committed_AS:"))
}

fn anon(len: usize, prot: Prot, flags: Map) -> Result<usize, Errno> {
    mmap(0, len, prot, ANON | flags, -1, 0)
}

/// Whether a mapping of this kind is granted; unmaps it again.
fn fits(len: usize, prot: Prot, flags: Map) -> bool {
    let at = mmap(0, len, prot, flags, -1, 0);
    at.is_ok_and(|at| munmap(at, len) == Ok(()))
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let old = if is_quire() { info::setting(setting::OVERCOMMIT_MEMORY, None).unwrap_or(0) } else { 0 };
    if set_mode(0).is_err() {
        checks.skip("overcommit", "the mode cannot be set");
        return checks.finish();
    }
    guess(&mut checks);
    always(&mut checks);
    never(&mut checks);
    checks.eq(set_mode(old), Ok(()), "the old mode again");
    settings(&mut checks);
    checks.finish()
}

fn guess(checks: &mut Checks) {
    let (total, _, _) = memory();
    let none = Prot::empty();
    checks.ok(fits(total / 4 * 3, RW, ANON), "mode 0: most of memory can be promised");
    checks.ok(!fits(2 * total, RW, ANON), "twice the memory cannot, at once");
    let parts = [(); 3].map(|()| anon(total / 4 * 3, RW, Map::empty()));
    checks.ok(parts.iter().all(Result::is_ok), "but in parts");
    parts.iter().flatten().for_each(|at| assert!(munmap(*at, total / 4 * 3).is_ok()));
    checks.ok(fits(2 * total, RW, ANON | Map::NORESERVE), "NORESERVE is not counted");
    checks.ok(fits(2 * total, Prot::READ, ANON), "nor is what cannot be written");
    checks.ok(!fits(2 * total, RW, SHARED), "shared memory is");
    checks.ok(fits(2 * total, RW, SHARED | Map::NORESERVE), "but for NORESERVE");
    let at = anon(2 * total, none, Map::empty()).unwrap_or(0);
    checks.fails(mprotect(at, 2 * total, RW), Errno::ENOMEM, "mprotect asks for what becomes writable");
    checks.eq(mprotect(at, total / 2, RW), Ok(()), "and gets what can be");
    let _ = munmap(at, 2 * total);
    let at = anon(PAGE, RW, Map::empty()).unwrap_or(0);
    // SAFETY: the test's own mapping.
    let grown = unsafe { mem::mremap(at, PAGE, 2 * total, Mremap::MAYMOVE, 0) };
    checks.fails(grown, Errno::ENOMEM, "mremap asks for what it adds");
    // SAFETY: the end only moves above the heap's memory.
    let brk = |end| unsafe { mem::brk(end) };
    let start = brk(0);
    checks.eq(brk(start + 2 * total), start, "brk is counted too");
    let _ = munmap(at, PAGE);
}

fn always(checks: &mut Checks) {
    let (total, _, _) = memory();
    checks.eq(set_mode(1), Ok(()), "mode 1");
    checks.ok(fits(8 * total, RW, ANON), "promises everything");
    checks.ok(fits(8 * total, RW, SHARED), "shared memory, too");
}

fn never(checks: &mut Checks) {
    checks.eq(set_mode(2), Ok(()), "mode 2");
    let (_, limit, committed) = memory();
    let left = limit.saturating_sub(committed);
    checks.ok(left > 64 * PAGE, "there is something left to promise");
    checks.ok(fits(left / 2, RW, ANON), "half of it can be");
    checks.ok(!fits(left + left / 4, RW, ANON), "more than all of it cannot");
    checks.ok(!fits(left + left / 4, RW, ANON | Map::NORESERVE), "NORESERVE or not");
    checks.ok(!fits(left + left / 4, RW, SHARED), "nor shared");
    checks.ok(fits(left + left / 4, Prot::READ, ANON), "read-only memory is not counted");
    let most = left / 5 * 3;
    let at = anon(most, RW, Map::empty()).unwrap_or(0);
    checks.fails(anon(most, RW, Map::empty()), Errno::ENOMEM, "what is promised is promised");
    let (_, _, now) = memory();
    checks.ok(now >= committed + most, "and shows");
    checks.fails(user_tests::child(|| 0), Errno::ENOMEM, "fork would promise it once more");
    checks.eq(mmap(at, most, RW, ANON | Map::FIXED, -1, 0), Ok(at), "MAP_FIXED exchanges the old for the new");
    let keep = Mremap::MAYMOVE | Mremap::DONTUNMAP;
    // SAFETY: the test's own mapping.
    checks.fails(unsafe { mem::mremap(at, most, most, keep, 0) }, Errno::ENOMEM, "DONTUNMAP would promise it twice");
    // SAFETY: as above.
    let moved = unsafe { mem::mremap(at, most, most / 2, Mremap::MAYMOVE, 0) };
    checks.eq(moved, Ok(at), "mremap gives back");
    checks.ok(fits(most / 2, RW, ANON), "which another may have");
    poke(at, 1);
    checks.eq(mprotect(at, most / 2, Prot::READ), Ok(()), "memory that was written is made read-only");
    checks.ok(!fits(left - most / 4, RW, ANON), "and stays promised");
    let _ = munmap(at, most / 2);
    checks.ok(fits(most, RW, ANON), "until it is unmapped");
    checks.exits(|| anon(left / 2, RW, Map::empty()).is_ok() as i32, 1, "a child that ends");
    checks.ok(fits(most, RW, ANON), "gives everything back");
    let shared = mmap(0, most, RW, SHARED, -1, 0).unwrap_or(0);
    checks.exits(|| (munmap(shared, most).is_ok() && !fits(most, RW, ANON)) as i32, 1, "shared memory counts once");
    let _ = munmap(shared, most);
    checks.ok(fits(most, RW, ANON), "until the last has unmapped it");
}

fn settings(checks: &mut Checks) {
    if !is_quire() {
        return checks.skip("settings", "Linux's are files");
    }
    for which in [setting::OVERCOMMIT_MEMORY, setting::OVERCOMMIT_RATIO] {
        checks.fails(info::setting(which, Some(1 << 40)), Errno::EINVAL, "a value that cannot be");
    }
    checks.fails(info::setting(99, None), Errno::EINVAL, "a nonexistent setting");
    let (all, limit, _) = memory();
    // Swap is promised in addition, whatever the setting.
    let swap = info::counter("nr_swap_total").unwrap_or(0) as usize * PAGE;
    let total = all - swap;
    let old = info::setting(setting::OVERCOMMIT_RATIO, Some(25)).unwrap_or(50);
    checks.ok((memory().1 - swap).abs_diff(total / 4) < total / 100, "a quarter of memory");
    let _ = info::setting(setting::OVERCOMMIT_KBYTES, Some(4096));
    checks.eq(memory().1 - swap, 4 << 20, "4 MiB");
    let _ = info::setting(setting::OVERCOMMIT_RATIO, Some(old));
    checks.eq(memory().1, limit, "as before");
}
