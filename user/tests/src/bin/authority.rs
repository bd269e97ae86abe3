//! Authority: machine control is bound to its handle, whatever the user id, and Linux's calls follow Linux's rule for
//! users.

#![no_std]
#![no_main]

use quire_rt::abi::flags::{Control, reboot, setting, sig};
use quire_rt::abi::info::{Books, MapAudit};
use quire_rt::abi::layout::{HandleInfo, Rlimit, rlimit};
use quire_rt::abi::nr;
use quire_rt::{Errno, args, handles, info, mem, process};
use user_tests::{Checks, PAGE, RW, child, is_quire, map, raw, start};

quire_rt::entry!(main);

const USER: usize = 1000;
const OTHER: usize = 1001;
const KEEP: usize = u32::MAX as usize;

fn main() -> i32 {
    if args().nth(1).is_some() {
        // What a new program was given.
        return handles::all().first().map_or(0, |handle| handle.rights as i32);
    }
    let mut checks = Checks::new();
    if is_quire() {
        without_a_handle(&mut checks);
        with_a_handle(&mut checks);
        passing_on(&mut checks);
        through_another(&mut checks);
    }
    becoming_another(&mut checks);
    what_root_may(&mut checks);
    checks.finish()
}

fn without_a_handle(checks: &mut Checks) {
    let mut books = Books::default();
    let mut audit = MapAudit::default();
    let (books, audit) = (&raw mut books as usize, &raw mut audit as usize);
    // No handle, a descriptor, a nonexistent handle.
    for number in [0, 1, HandleInfo::FIRST as usize + 7, usize::MAX] {
        let answers = [
            raw(nr::QUIRE_POWEROFF, [number, 0]),
            raw(nr::QUIRE_BOOKS, [number, books, size_of::<Books>()]),
            raw(nr::QUIRE_AUDIT, [number, audit, size_of::<MapAudit>()]),
            raw(nr::QUIRE_SETTING, [number, setting::OVERCOMMIT_MEMORY, setting::OVERCOMMIT_NEVER]),
            raw(nr::QUIRE_SETTING, [number, setting::OOM_SCORE_ADJ, 0]),
            raw(nr::QUIRE_FAIL_NTH, [number, 1]),
            raw(nr::QUIRE_CMA_TRY, [number, 0]),
            raw(nr::QUIRE_COMPACT, [number, 0]),
        ];
        checks.eq(answers, [Err(Errno::EPERM); 8], "what changes the machine takes a handle");
    }
    let read = raw(nr::QUIRE_SETTING, [0, setting::OVERCOMMIT_MEMORY, setting::READ]);
    checks.ok(read.is_ok(), "anybody may read a setting");
    checks.exits(
        || {
            let adj = |value: usize| raw(nr::QUIRE_SETTING, [0, setting::OOM_SCORE_ADJ, value]);
            let answers = [adj(1300), adj(setting::READ), adj(1200)];
            (answers != [Ok(1000), Ok(1300), Err(Errno::EPERM)]) as i32
        },
        0,
        "anybody may offer itself to the OOM killer, and not take it back",
    );
}

fn with_a_handle(checks: &mut Checks) {
    let control = handles::control() as usize;
    checks.ok(control >= HandleInfo::FIRST as usize, "this program was given one");
    checks.eq(handles::all().first().map(|handle| handle.rights), Some(given().bits()), "with the rights of the file");
    let old = info::setting(setting::OVERCOMMIT_RATIO, None).unwrap_or(50);
    checks.eq(info::setting(setting::OVERCOMMIT_RATIO, Some(old)), Ok(old), "a setting");
    checks.fails(raw(nr::QUIRE_POWEROFF, [control, 0]), Errno::EPERM, "another right");
    checks.fails(raw(nr::CLOSE, [control]), Errno::EBADF, "it is no descriptor: close");
    checks.fails(raw(nr::DUP, [control]), Errno::EBADF, "dup");
    checks.eq(raw(nr::CLOSE_RANGE, [50, KEEP, 0]), Ok(0), "close_range");
    checks.eq(info::setting(setting::OVERCOMMIT_RATIO, Some(old)), Ok(old), "does not reach it");
}

/// What `/etc/grants` says of this program.
fn given() -> Control {
    Control::SETTINGS | Control::OOM
}

fn may_set() -> bool {
    let old = info::setting(setting::OVERCOMMIT_RATIO, None).unwrap_or(50);
    info::setting(setting::OVERCOMMIT_RATIO, Some(old)).is_ok()
}

fn become_again() -> i32 {
    process::execve(c"/tests/authority", [c"authority", c"again"], []).get() + 200
}

fn passing_on(checks: &mut Checks) {
    checks.exits(|| may_set() as i32, 0, "a child gets nothing by itself");
    checks.exits(become_again, 0, "nor does a new program");
    checks.eq(handles::grant(Control::SETTINGS), Ok(()), "a right is named");
    checks.exits(|| may_set() as i32, 1, "a child has it");
    let rights = Control::SETTINGS.bits() as u8;
    checks.exits(become_again, rights, "a new program has it, and no other right");
    let more = [handles::control() as usize, Control::all().bits() as usize];
    checks.fails(raw(nr::QUIRE_GRANT, more), Errno::EPERM, "rights that one does not have cannot be named");
    checks.fails(raw(nr::QUIRE_GRANT, [3, 0]), Errno::EBADF, "nor what is no handle");
    checks.exits(
        || {
            let more = [handles::control() as usize, given().bits() as usize];
            (raw(nr::QUIRE_GRANT, more) != Err(Errno::EPERM)) as i32
        },
        0,
        "nor by a child that got less",
    );
    checks.eq(handles::grant(Control::empty()), Ok(()), "nothing is named");
    checks.exits(|| may_set() as i32, 0, "and nothing passes");
}

/// Root, too, does not act through a process that has more authority.
fn through_another(checks: &mut Checks) {
    let byte = 0_u64;
    let part = [&raw const byte as usize, 1];
    let there = [0x40_0000_usize, 1];
    for pid in [1, process::getppid() as usize] {
        for call in [nr::PROCESS_VM_READV, nr::PROCESS_VM_WRITEV] {
            let answer = raw(call, [pid, part.as_ptr() as usize, 1, there.as_ptr() as usize, 1, 0]);
            checks.fails(answer, Errno::EPERM, "the memory of a process with more rights");
        }
        let pidfd = raw(nr::PIDFD_OPEN, [pid, 0]).unwrap_or(KEEP);
        checks.fails(raw(nr::PIDFD_GETFD, [pidfd, 0, 0]), Errno::EPERM, "and its descriptors");
        let _ = raw(nr::CLOSE, [pidfd]);
    }
}

/// Real, effective and saved numbers.
fn ids(number: usize) -> [u32; 3] {
    let mut ids = [u32::MAX; 3];
    let at = ids.as_mut_ptr() as usize;
    let _ = raw(number, [at, at + 4, at + 8]);
    ids
}

fn users() -> [u32; 3] {
    ids(nr::GETRESUID)
}

const REFUSED: Result<usize, Errno> = Err(Errno::EPERM);

fn becoming_another(checks: &mut Checks) {
    checks.eq((users(), ids(nr::GETRESGID)), ([0; 3], [0; 3]), "a process is root's at first");
    // Each in a child of its own; its exit status says what is wrong.
    let mut in_child = |run: fn() -> bool, what: &str| checks.exits(|| run() as i32, 1, what);
    in_child(
        || raw(nr::SETUID, [USER]) == Ok(0) && users() == [1000; 3] && raw(nr::SETUID, [0]) == REFUSED,
        "setuid by root is for ever",
    );
    in_child(
        || {
            let down = raw(nr::SETRESUID, [KEEP, USER, KEEP]) == Ok(0) && users() == [0, 1000, 0];
            let not_other = raw(nr::SETUID, [OTHER]) == REFUSED;
            down && not_other && raw(nr::SETUID, [0]) == Ok(0) && users() == [0; 3]
        },
        "a process that keeps a saved id can return to it",
    );
    in_child(
        || {
            let first = raw(nr::SETRESUID, [USER, OTHER, USER]) == Ok(0);
            let swap = raw(nr::SETREUID, [OTHER, USER]) == Ok(0) && users() == [1001, 1000, 1000];
            first && swap && raw(nr::SETREUID, [0, KEEP]) == REFUSED && raw(nr::SETREUID, [KEEP, 0]) == REFUSED
        },
        "setreuid swaps",
    );
    in_child(
        || {
            let other = raw(nr::SETRESUID, [USER, USER, USER]) == Ok(0);
            other && raw(nr::SETRESUID, [KEEP, OTHER, KEEP]) == REFUSED && users() == [1000; 3]
        },
        "setresuid: all or nothing",
    );
    in_child(
        || {
            let group = raw(nr::SETRESGID, [1, 2, 3]) == Ok(0) && ids(nr::GETRESGID) == [1, 2, 3];
            let other = raw(nr::SETUID, [USER]) == Ok(0) && raw(nr::SETGID, [3]) == Ok(0);
            group && other && raw(nr::GETEGID, []) == Ok(3) && raw(nr::SETGID, [2]) == REFUSED
        },
        "groups likewise",
    );
    in_child(
        || raw(nr::SETFSUID, [USER]) == Ok(0) && raw(nr::SETFSUID, [KEEP]) == Ok(USER),
        "setfsuid answers what it was",
    );
    in_child(
        || raw(nr::SETUID, [KEEP]) == Err(Errno::EINVAL) && raw(nr::GETRESUID, [0, 0, 0]) == Err(Errno::EFAULT),
        "an invalid number",
    );
    in_child(groups, "supplementary groups");
}

fn groups() -> bool {
    // As on Linux, they come back in order.
    let wanted = [9u32, 7, 8];
    let mut got = [0u32; 3];
    let (from, to) = (wanted.as_ptr() as usize, got.as_mut_ptr() as usize);
    let set = raw(nr::SETGROUPS, [3, from]) == Ok(0) && raw(nr::GETGROUPS, [0, 0]) == Ok(3);
    let small = raw(nr::GETGROUPS, [2, to]) == Err(Errno::EINVAL);
    let got_all = raw(nr::GETGROUPS, [3, to]) == Ok(3) && got == [7, 8, 9];
    let inherited = child(|| (raw(nr::GETGROUPS, [0, 0]) != Ok(3)) as i32) == Ok(process::Status::Exited(0));
    let many = raw(nr::SETGROUPS, [65537, from]) == Err(Errno::EINVAL);
    let _ = raw(nr::SETUID, [USER]);
    set && small && got_all && inherited && many && raw(nr::SETGROUPS, [0, 0]) == REFUSED
}

fn limit(which: usize, cur: u64, max: u64) -> Result<(), Errno> {
    process::prlimit(which, Some(Rlimit { cur, max })).map(drop)
}

fn what_root_may(checks: &mut Checks) {
    const MIB: u64 = 1 << 20;
    let at = map(16 << 20, RW);
    checks.exits(
        || {
            let lowered = limit(rlimit::MEMLOCK, MIB, MIB).is_ok() && mem::mlock(at, 16 << 20).is_ok();
            let raised = limit(rlimit::MEMLOCK, MIB, 2 * MIB).is_ok() && mem::munlock(at, 16 << 20).is_ok();
            (!lowered || !raised) as i32
        },
        0,
        "root locks more than its limit, and raises hard limits",
    );
    checks.exits(
        || {
            let lowered = limit(rlimit::MEMLOCK, MIB, MIB).is_ok();
            let other = raw(nr::SETUID, [USER]) == Ok(0);
            let bound = mem::mlock(at, 16 << 20) == Err(Errno::ENOMEM) && mem::mlock(at, PAGE).is_ok();
            let low =
                limit(rlimit::MEMLOCK, MIB, 2 * MIB) == Err(Errno::EPERM) && limit(rlimit::MEMLOCK, 1, MIB).is_ok();
            !(lowered && other && bound && low) as i32
        },
        0,
        "others do not",
    );
    checks.exits(
        || {
            let _ = raw(nr::SETUID, [USER]);
            let (parent, one) = (process::getppid() as usize, 1u64);
            let root = raw(nr::PRLIMIT64, [parent, rlimit::AS, 0, 0]) == REFUSED
                && raw(nr::SCHED_SETAFFINITY, [parent, 8, &raw const one as usize]) == REFUSED;
            (!root || raw(nr::PRLIMIT64, [process::getpid() as usize, rlimit::AS, 0, 0]) != Ok(0)) as i32
        },
        0,
        "nor do they see or set root's limits, or say where its threads run",
    );
    checks.exits(
        || {
            let _ = raw(nr::SETUID, [USER]);
            let call = [reboot::MAGIC1 as usize, reboot::MAGIC2[0] as usize, reboot::CAD_OFF as usize, 0];
            (raw(nr::REBOOT, call) != REFUSED) as i32
        },
        0,
        "nor switch off by reboot",
    );
    checks.exits(
        || {
            let _ = raw(nr::SETUID, [USER]);
            let parent = process::getppid() as usize;
            let group = (-process::getpgid(0).unwrap_or(0)) as usize;
            let to_root = raw(nr::KILL, [parent, 0]) == REFUSED && raw(nr::TKILL, [parent, 0]) == REFUSED;
            let to_own = raw(nr::KILL, [process::getpid() as usize, 0]) == Ok(0) && raw(nr::KILL, [group, 0]) == Ok(0);
            let cont = raw(nr::KILL, [parent, sig::CONT as usize]) == Ok(0);
            !(to_root && to_own && cont) as i32
        },
        0,
        "nor do they signal root's processes, but for SIGCONT within the session",
    );
    calls_of_root(checks);
    checks.exits(
        || {
            let sleeper = start(|| {
                let _ = raw(nr::SETUID, [OTHER]);
                quire_rt::time::sleep_ms(60_000);
                0
            });
            let pid = sleeper.unwrap_or(0);
            let killed = raw(nr::KILL, [pid as usize, sig::KILL as usize]) == Ok(0);
            (!killed || process::waitpid(pid) != Ok(process::Status::Killed(sig::KILL))) as i32
        },
        0,
        "root signals anybody",
    );
}

/// Calls that Linux has for root alone, and Quire has not.
fn calls_of_root(checks: &mut Checks) {
    const UMOUNT2: usize = 39;
    const MOUNT: usize = 40;
    const PIVOT_ROOT: usize = 41;
    const CHROOT: usize = 51;
    const VHANGUP: usize = 58;
    const SWAPON: usize = 224;
    const SWAPOFF: usize = 225;
    // acct, kexec_load, init_module, delete_module, finit_module, kexec_file_load, move_mount, fsopen, fsmount, fspick
    const OTHERS: [usize; 10] = [89, 104, 105, 106, 273, 294, 429, 430, 432, 433];
    let at = c"/".as_ptr() as usize;
    let all_are = |wanted: Errno| {
        raw(MOUNT, [at, at, at, 0, 0]) == Err(wanted)
            && raw(PIVOT_ROOT, [at, at]) == Err(wanted)
            && [UMOUNT2, CHROOT, VHANGUP, SWAPON, SWAPOFF].iter().all(|call| raw(*call, [at, 0]) == Err(wanted))
            && OTHERS.iter().all(|call| raw(*call, [0; 5]) == Err(wanted))
    };
    checks.exits(
        || {
            let _ = raw(nr::SETUID, [USER]);
            all_are(Errno::EPERM) as i32
        },
        1,
        "nor do they mount, change the root, or swap",
    );
    if is_quire() {
        checks.ok(all_are(Errno::ENOSYS), "root hears that there are no such calls");
    }
}
