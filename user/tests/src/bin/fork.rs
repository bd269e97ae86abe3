//! fork: two processes with the same memory, each with its own copy from then on.

#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;

use quire_rt::abi::{Errno, flags::Open, nr};
use quire_rt::{fs, io, process, time};
use user_tests::{Checks, PAGE, RW, child, map, peek, poke, raw, shared_counters, start};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    copies(&mut checks);
    generations(&mut checks);
    shared(&mut checks);
    descriptors(&mut checks);
    orphans(&mut checks);
    checks.fails(raw(nr::CLONE, [0x1_0000, 0, 0, 0, 0]), Errno::EINVAL, "a thread without shared handlers is refused");
    checks.fails(
        raw(nr::CLONE, [0x800, 0, 0, 0, 0]),
        Errno::EINVAL,
        "shared handlers without shared memory are refused",
    );
    checks.finish()
}

fn copies(checks: &mut Checks) {
    let (private, untouched) = (map(4 * PAGE, RW), map(PAGE, RW));
    for page in 0..4 {
        poke(private + page * PAGE, page as u8 + 1);
    }
    checks.exits(
        || {
            let same = (0..4).all(|page| peek(private + page * PAGE) == page as u8 + 1) && peek(untouched) == 0;
            poke(private, 100);
            poke(untouched, 100);
            (same && peek(private) == 100 && peek(private + PAGE) == 2) as i32
        },
        1,
        "a child sees its parent's memory and can write to it",
    );
    checks.ok(peek(private) == 1 && peek(untouched) == 0, "what a child writes stays with the child");

    let (read, write) = io::pipe(0).expect("a pipe");
    let pid = start(|| {
        // (Where allocations fail the byte may never come, but the end does.)
        let _ = io::close(write);
        let mut byte = [0];
        let _ = io::read(read, &mut byte);
        (peek(private + PAGE) == 2 && peek(untouched) == 0) as i32
    })
    .expect("a child");
    poke(private + PAGE, 77);
    poke(untouched, 77);
    let _ = (io::write(write, b"x"), io::close(write));
    checks.eq(
        process::waitpid(pid),
        Ok(process::Status::Exited(1)),
        "what a parent writes later stays with the parent",
    );
    checks.ok(peek(private + PAGE) == 77, "and the parent has it");
    let _ = io::close(read);
    // Once the child has ended the parent is the only owner again. It may write in place or copy: the program must not
    // notice.
    for round in 0..10 {
        let _ = child(|| 0);
        poke(private, round);
    }
    checks.eq(peek(private), 9, "writing goes on after children came and went");
}

fn generations(checks: &mut Checks) {
    let memory = map(PAGE, RW);
    poke(memory, 0);
    fn descend(memory: usize, depth: u8) -> i32 {
        poke(memory, depth);
        if depth == 12 {
            return 12;
        }
        match child(|| descend(memory, depth + 1)) {
            Ok(process::Status::Exited(12)) if peek(memory) == depth => 12,
            _ => 1,
        }
    }
    checks.exits(|| descend(memory, 1), 12, "twelve generations keep their own copies of a page");
    checks.eq(peek(memory), 0, "and the first has its own");

    let pids: [i32; 20] = core::array::from_fn(|i| {
        start(|| {
            poke(memory, i as u8);
            time::sleep_ms(10);
            (peek(memory) == i as u8) as i32
        })
        .unwrap_or(-1)
    });
    let distinct = (0..20).all(|i| pids[i] > 0 && !pids[..i].contains(&pids[i]));
    checks.ok(distinct, "twenty children at once have ids of their own");
    let good = pids.iter().all(|pid| process::waitpid(*pid) == Ok(process::Status::Exited(1)));
    checks.ok(good, "and copies of their own");
}

fn shared(checks: &mut Checks) {
    let counters = shared_counters();
    for _ in 0..4 {
        let _ = start(|| {
            (0..1000).for_each(|_| {
                counters[0].fetch_add(1, SeqCst);
            });
            0
        });
    }
    while process::wait4(-1, 0).is_ok() {}
    checks.eq(counters[0].load(SeqCst), 4000, "a shared mapping is the same memory for all");
}

fn descriptors(checks: &mut Checks) {
    let path = c"/init";
    let Ok(fd) = fs::open(path, Open::empty()) else {
        return checks.skip("a child shares the file position", "there is no /init");
    };
    checks.exits(|| fs::lseek(fd, 100, 0).is_err() as i32, 0, "a child has its parent's descriptors");
    checks.eq(fs::lseek(fd, 0, 1), Ok(100), "and shares the file position");
    checks.exits(|| io::close(fd).is_err() as i32, 0, "a child can close its descriptor");
    checks.ok(fs::fstat(fd).is_ok(), "the parent's stays open");
    let _ = io::close(fd);
}

fn orphans(checks: &mut Checks) {
    let me = process::getpid();
    checks.exits(|| (process::getppid() != me) as i32, 0, "a child knows its parent");
    let counters = shared_counters();
    checks.exits(
        || {
            let parent = process::getpid();
            let _ = start(|| {
                for _ in 0..200 {
                    if process::getppid() != parent {
                        counters[1].store(process::getppid() as u64, SeqCst);
                        return 0;
                    }
                    time::sleep_ms(5);
                }
                1
            });
            0
        },
        0,
        "a parent may end before its child",
    );
    for _ in 0..200 {
        if counters[1].load(SeqCst) != 0 {
            break;
        }
        time::sleep_ms(5);
    }
    checks.eq(counters[1].load(SeqCst), 1, "process 1 then is the parent");
}
