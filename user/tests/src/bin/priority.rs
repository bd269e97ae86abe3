//! priority: nice values, policies and real-time priorities: who may have which, and what they are worth. With an
//! argument: how long a thread that wakes waits beside others.

#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;

use quire_rt::abi::flags::sig;
use quire_rt::abi::layout::{Rlimit, SchedAttr, rlimit};
use quire_rt::abi::nr;
use quire_rt::{Errno, args, process, sched, time};
use user_tests::{Checks, KERNEL, child, cpu_time, raw, start, until};

quire_rt::entry!(main);

const OTHER: usize = 0;
const FIFO: usize = 1;
const ROUND_ROBIN: usize = 2;
const BATCH: usize = 3;
const IDLE: usize = 5;
const RESET_ON_FORK: usize = 0x4000_0000;

fn main() -> i32 {
    let mut checks = Checks::new();
    if args().count() > 1 {
        sleepers(&mut checks);
        return checks.finish();
    }
    nice_values(&mut checks);
    others(&mut checks);
    policies(&mut checks);
    users(&mut checks);
    attributes(&mut checks);
    children(&mut checks);
    weights(&mut checks);
    real_time(&mut checks);
    storm(&mut checks);
    checks.finish()
}

fn nice() -> Result<i32, Errno> {
    nice_of(0, 0)
}

fn nice_of(which: usize, who: usize) -> Result<i32, Errno> {
    raw(nr::GETPRIORITY, [which, who]).map(|answer| 20 - answer as i32)
}

fn set_nice(nice: i32) -> Result<usize, Errno> {
    raw(nr::SETPRIORITY, [0, 0, nice as usize])
}

fn set(tid: usize, policy: usize, priority: u32) -> Result<usize, Errno> {
    raw(nr::SCHED_SETSCHEDULER, [tid, policy, &raw const priority as usize])
}

fn policy() -> Result<usize, Errno> {
    raw(nr::SCHED_GETSCHEDULER, [0])
}

fn priority() -> Option<u32> {
    let mut priority = u32::MAX;
    raw(nr::SCHED_GETPARAM, [0, &raw mut priority as usize]).ok()?;
    // SAFETY: the kernel may have written it.
    Some(unsafe { (&raw const priority).read_volatile() })
}

fn nice_values(checks: &mut Checks) {
    checks.eq(nice(), Ok(0), "a program begins with nice 0");
    for (asked, got) in [(5, 5), (19, 19), (100, 19), (-100, -20), (0, 0)] {
        checks.eq((set_nice(asked), nice()), (Ok(0), Ok(got)), "root may have any");
    }
    let own = process::getpid() as usize;
    checks.eq(
        [nice_of(0, own), nice_of(1, 0)],
        [Ok(0), Ok(0)].map(|nice: Result<i32, Errno>| nice),
        "by its number, its group",
    );
    // (Services are root's, and precede others.)
    checks.ok(nice_of(2, 0).is_ok_and(|nice| nice <= 0), "or its user, of whose processes the first counts");
    checks.fails(raw(nr::GETPRIORITY, [3, 0]), Errno::EINVAL, "a kind of nobody");
    checks.fails(raw(nr::SETPRIORITY, [3, 0, 0]), Errno::EINVAL, "nor to set");
    for which in 0..3 {
        checks.fails(raw(nr::GETPRIORITY, [which, 32_001]), Errno::ESRCH, "nobody");
        checks.fails(raw(nr::SETPRIORITY, [which, 32_001, 0]), Errno::ESRCH, "nobody to set");
    }
}

/// Of a group, and of another user.
fn others(checks: &mut Checks) {
    let Ok(pid) = start(|| {
        loop {
            time::sleep_ms(1000)
        }
    }) else {
        return checks.ok(false, "a child");
    };
    let who = pid as usize;
    let _ = raw(nr::SETPGID, [who, who]);
    checks.eq(raw(nr::SETPRIORITY, [1, who, 7]), Ok(0), "a group");
    checks.eq((nice_of(0, who), nice()), (Ok(7), Ok(0)), "and it alone has it");
    let stranger = || {
        let _ = raw(nr::SETRESUID, [1000, 1000, 1000]);
        let scheduler = set(who, BATCH, 0);
        let ok = raw(nr::SETPRIORITY, [0, who, 8]) == Err(Errno::EPERM) && scheduler == Err(Errno::EPERM);
        (!(ok && nice_of(0, who) == Ok(7))) as i32
    };
    checks.exits(stranger, 0, "which others see, and may not change");
    let of_user = || {
        let _ = raw(nr::SETRESUID, [0, 1001, 0]);
        // The caller's own user is the real one: root.
        (raw(nr::GETPRIORITY, [2, 1001]) != Err(Errno::ESRCH)) as i32
    };
    checks.exits(of_user, 0, "a user without processes");
    let _ = process::kill(pid, sig::KILL);
    let _ = process::waitpid(pid);
}

fn policies(checks: &mut Checks) {
    checks.eq((policy(), priority()), (Ok(OTHER), Some(0)), "a program begins with SCHED_OTHER");
    for (policy, priority) in
        [(OTHER, 1), (FIFO, 0), (ROUND_ROBIN, 100), (BATCH, 1), (IDLE, 1), (4, 0), (6, 0), (77, 0), (usize::MAX, 0)]
    {
        checks.fails(set(0, policy, priority), Errno::EINVAL, "what no policy has");
    }
    for (kind, value) in [(BATCH, 0), (IDLE, 0), (FIFO, 1), (ROUND_ROBIN, 99), (OTHER, 0)] {
        checks.eq((set(0, kind, value), policy(), priority()), (Ok(0), Ok(kind), Some(value)), "each policy");
    }
    let one = 1u32;
    checks.fails(raw(nr::SCHED_SETPARAM, [0, &raw const one as usize]), Errno::EINVAL, "SCHED_OTHER has no priorities");
    let mut slice = [7u64; 2];
    let mut interval = |kind: usize, value: u32| {
        let _ = set(0, kind, value);
        let _ = raw(nr::SCHED_RR_GET_INTERVAL, [0, slice.as_mut_ptr() as usize]);
        let _ = set(0, OTHER, 0);
        // SAFETY: the kernel has written it.
        unsafe { (&raw const slice).read_volatile() }
    };
    checks.eq([interval(FIFO, 1), interval(ROUND_ROBIN, 1)], [[0, 0], [0, 100_000_000]], "a turn of each kind");
    let other = interval(OTHER, 0);
    checks.ok(other[0] == 0 && other[1] > 0, "and a slice");
}

/// What users may who are not root.
fn users(checks: &mut Checks) {
    let user = |limits: &'static [(usize, u64)], run: fn() -> bool| {
        move || {
            for (which, value) in limits {
                let _ = process::prlimit(*which, Some(Rlimit { cur: *value, max: *value }));
            }
            let _ = raw(nr::SETRESUID, [1000, 1000, 1000]);
            (!run()) as i32
        }
    };
    let nicer =
        || set_nice(10) == Ok(0) && set_nice(9) == Err(Errno::EACCES) && set_nice(10) == Ok(0) && nice() == Ok(10);
    checks.exits(user(&[], nicer), 0, "a user may be nice, and stays so");
    let within = || set_nice(10) == Ok(0) && set_nice(5) == Ok(0) && set_nice(4) == Err(Errno::EACCES);
    checks.exits(user(&[(rlimit::NICE, 15)], within), 0, "but for RLIMIT_NICE");
    let urgent = || set(0, FIFO, 1) == Err(Errno::EPERM) && set(0, BATCH, 0) == Ok(0);
    checks.exits(user(&[], urgent), 0, "without real-time priorities");
    let some = || {
        set(0, FIFO, 10) == Ok(0)
            && set(0, FIFO, 11) == Err(Errno::EPERM)
            && set(0, ROUND_ROBIN, 3) == Ok(0)
            && set(0, OTHER, 0) == Ok(0)
    };
    checks.exits(user(&[(rlimit::RTPRIO, 10)], some), 0, "but for RLIMIT_RTPRIO");
    let idle = || set(0, IDLE, 0) == Ok(0) && set(0, OTHER, 0) == Err(Errno::EPERM);
    checks.exits(user(&[], idle), 0, "SCHED_IDLE is left by who may have its nice value");
    let kept = || set(0, OTHER | RESET_ON_FORK, 0) == Ok(0) && set(0, OTHER, 0) == Err(Errno::EPERM);
    checks.exits(user(&[], kept), 0, "and resetting on fork stays");
}

fn attributes(checks: &mut Checks) {
    let size = size_of::<SchedAttr>();
    let get = |size: usize| {
        let mut attr = SchedAttr::default();
        raw(nr::SCHED_GETATTR, [0, &raw mut attr as usize, size, 0]).map(|_| {
            // SAFETY: the kernel has written it.
            unsafe { (&raw const attr).read_volatile() }
        })
    };
    let give = |attr: &SchedAttr| raw(nr::SCHED_SETATTR, [0, core::ptr::from_ref(attr) as usize, 0]);
    let first = get(size).unwrap_or_default();
    checks.eq((first.size as usize, first.policy, first.nice), (size, 0, 0), "sched_getattr");
    checks.ok(first.runtime > 0, "tells the slice");
    checks.eq(get(48).map(|attr| attr.size), Ok(48), "as much as there is room for");
    checks.fails(get(47), Errno::EINVAL, "but for less than the first version");
    checks.eq(give(&SchedAttr { size: size as u32, nice: 3, ..SchedAttr::default() }), Ok(0), "sched_setattr");
    checks.eq((nice(), get(size).map(|attr| attr.nice)), (Ok(3), Ok(3)), "gives a nice value");
    for (asked, got) in [(1_000_000, 1_000_000), (1, 100_000), (u64::MAX, 100_000_000), (0, first.runtime)] {
        let attr = SchedAttr { size: size as u32, nice: 3, runtime: asked, ..SchedAttr::default() };
        checks.eq((give(&attr), get(size).map(|attr| attr.runtime)), (Ok(0), Ok(got)), "and a slice");
    }
    let urgent = SchedAttr { size: 48, policy: FIFO as u32, priority: 2, ..SchedAttr::default() };
    checks.eq(
        (give(&urgent), policy(), priority(), nice()),
        (Ok(0), Ok(FIFO), Some(2), Ok(3)),
        "and a priority, beside it",
    );
    checks.fails(give(&SchedAttr { flags: 0x100, ..urgent }), Errno::EINVAL, "flags that there are not");
    checks.fails(give(&SchedAttr { policy: 6, ..urgent }), Errno::EINVAL, "SCHED_DEADLINE");
    let mut longer = [0u64; 9];
    longer[0] = 72 | (BATCH as u64) << 32;
    checks.eq(raw(nr::SCHED_SETATTR, [0, longer.as_ptr() as usize, 0]), Ok(0), "a later version's record");
    longer[8] = 1;
    checks.fails(raw(nr::SCHED_SETATTR, [0, longer.as_ptr() as usize, 0]), Errno::E2BIG, "with something in it");
    // SAFETY: the kernel has written it.
    checks.eq(unsafe { (&raw const longer[0]).read_volatile() } as u32, size as u32, "and it says what it knows");
    checks.fails(raw(nr::SCHED_SETATTR, [0, KERNEL, 0]), Errno::EFAULT, "nowhere");
    let _ = (set(0, OTHER, 0), set_nice(0));
}

fn children(checks: &mut Checks) {
    let same = || (!(policy() == Ok(BATCH) && nice() == Ok(4))) as i32;
    let _ = (set_nice(4), set(0, BATCH, 0));
    checks.exits(same, 0, "a child is as its parent");
    let reset = || (!(policy() == Ok(OTHER) && nice() == Ok(0))) as i32;
    let _ = set(0, ROUND_ROBIN | RESET_ON_FORK, 5);
    checks.eq(policy(), Ok(ROUND_ROBIN | RESET_ON_FORK), "unless it wants it otherwise");
    checks.exits(reset, 0, "then it begins anew");
    let _ = (set(0, OTHER, 0), set_nice(0));
    checks.ok(child(|| (policy() != Ok(OTHER)) as i32).is_ok(), "and the parent ends as it began");
}

/// Spinners on one CPU, each of which first does something.
fn spinners<const N: usize>(prepare: [fn(); N]) -> [i32; N] {
    let mask = sched::affinity(0).map_or(1, |words| words[0]);
    let cpu = 63 - mask.leading_zeros();
    prepare.map(|prepare| {
        let spin = move || {
            let _ = sched::set_affinity(0, 1 << cpu);
            prepare();
            loop {
                core::hint::spin_loop();
            }
        };
        start(spin).unwrap_or(-1)
    })
}

fn end(pids: &[i32]) {
    for pid in pids {
        let _ = process::kill(*pid, sig::KILL);
        let _ = process::waitpid(*pid);
    }
}

fn weights(checks: &mut Checks) {
    let pids = spinners([|| (), || _ = set_nice(5), || _ = set(0, IDLE, 0)]);
    let times = || pids.map(cpu_time);
    time::sleep_ms(50);
    let before = times();
    let mut parts = [0; 3];
    // 1024 to 335 to 3.
    let is_fair = until(|| {
        let now = times();
        parts = [0, 1, 2].map(|i| now[i] - before[i]);
        let all: u64 = parts.iter().sum();
        all > 200_000_000 && parts[0] > parts[1] * 5 / 2 && parts[0] < parts[1] * 4 && parts[2] * 20 < all
    });
    end(&pids);
    checks.ok(is_fair, "nice 5 is worth a third of nice 0, and SCHED_IDLE next to nothing");
    if !is_fair {
        quire_rt::println!("# {parts:?} ns");
    }
}

fn real_time(checks: &mut Checks) {
    let pids = spinners([|| (), || _ = set(0, FIFO, 50)]);
    let mut parts = [0; 2];
    let has_come = until(|| raw(nr::SCHED_GETSCHEDULER, [pids[1] as usize]) == Ok(FIFO));
    let before = pids.map(cpu_time);
    // 19 to 1. (A host that stops the CPU lengthens the turn of whoever has it; the longer both run, the less that
    // weighs.)
    let goes_first = until(|| {
        parts = [0, 1].map(|i| cpu_time(pids[i]) - before[i]);
        // It may have begun late in a period, and have all of it and most of the next one.
        parts[0] > 0 && parts[1] > 300_000_000 && parts[1] > parts[0] * 4
    });
    end(&pids);
    checks.ok(has_come && goes_first, "a real-time thread goes first");
    checks.ok(parts[0] > 0, "and leaves something for the others");
}

/// One that needs next to nothing, beside loops on its CPU. It preempts them, and with SCHED_BATCH waits for the end of
/// a slice. Only where the host's time does not count (`--icount`).
fn sleepers(checks: &mut Checks) {
    const SLEEPS: u64 = 50;
    let pids = spinners([|| (); 3]);
    time::sleep_ms(50);
    let mask = sched::affinity(0).map_or(1, |words| words[0]);
    let _ = sched::set_affinity(0, 1 << (63 - mask.leading_zeros()));
    let late = [OTHER, BATCH].map(|kind| {
        let _ = set(0, kind, 0);
        let sleep = |_| {
            let begin = time::monotonic();
            time::sleep_ms(5);
            (time::monotonic() - begin).saturating_sub(5_000_000)
        };
        (0..SLEEPS).map(sleep).sum::<u64>() / SLEEPS
    });
    let _ = (set(0, OTHER, 0), sched::set_affinity(0, mask));
    end(&pids);
    checks.ok(late[0] < 500_000, "a thread that sleeps much waits for an eighth of a slice");
    checks.ok(late[1] > 2 * late[0], "and with SCHED_BATCH for the end of one");
    quire_rt::println!("# {late:?} ns late");
}

/// Classes and CPUs of threads change while these run, wait in queues, and go from one to another.
fn storm(checks: &mut Checks) {
    const THREADS: usize = 8;
    let counters = user_tests::shared_counters();
    let all = sched::affinity(0).map_or(1, |words| words[0]);
    let pids: [i32; THREADS] = core::array::from_fn(|i| {
        let run = || loop {
            if i % 2 == 0 {
                sched::yield_now()
            } else {
                time::sleep_ms(1)
            }
            counters[i].fetch_add(1, SeqCst);
        };
        start(run).unwrap_or(-1)
    });
    let movers: [i32; 3] = core::array::from_fn(|i| {
        let change = || {
            let _ = set(0, FIFO, 20);
            for step in i.. {
                let who = pids[step % THREADS];
                let _ = match step % 5 {
                    0 => set(who as usize, FIFO, 1 + (step % 7) as u32),
                    1 => set(who as usize, OTHER, 0),
                    2 => raw(nr::SETPRIORITY, [0, who as usize, step % 20]),
                    3 => sched::set_affinity(who, 1 << (step / 5 % 64) & all)
                        .or(sched::set_affinity(who, all))
                        .map(|()| 0),
                    _ => set(who as usize, IDLE, 0),
                };
                if step % 64 == 0 {
                    time::sleep_ms(1);
                }
            }
            0
        };
        start(change).unwrap_or(-1)
    });
    time::sleep_ms(400);
    end(&movers);
    for pid in pids {
        let _ = (set(pid as usize, OTHER, 0), sched::set_affinity(pid, all));
        let _ = raw(nr::SETPRIORITY, [0, pid as usize, 0]);
    }
    let before: [u64; THREADS] = core::array::from_fn(|i| counters[i].load(SeqCst));
    let goes_on = until(|| (0..THREADS).all(|i| counters[i].load(SeqCst) > before[i]));
    end(&pids);
    checks.ok(goes_on, "threads go on whose classes and CPUs others change all the time");
}
