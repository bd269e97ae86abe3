//! pipe: order, capacity, both ends, and sleeping on either.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};

use quire_rt::abi::flags::{Open, Prot, sig};
use quire_rt::abi::layout::{Iovec, PollFd, mode, poll, tty};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, io, signal, thread, time};
use user_tests::{Checks, KERNEL, PAGE, RW, map, mprotect, munmap, poke, raw, start, until_asleep};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    basics(&mut checks);
    ends(&mut checks);
    sleeping(&mut checks);
    capacity(&mut checks);
    requests(&mut checks);
    transfer(&mut checks);
    cut(&mut checks);
    descriptors(&mut checks);
    checks.finish()
}

fn close(pipe: (i32, i32)) {
    let _ = (io::close(pipe.0), io::close(pipe.1));
}

fn basics(checks: &mut Checks) {
    let (read, write) = io::pipe(0).expect("a pipe");
    checks.eq(io::write(write, b"hello "), Ok(6), "bytes go in");
    checks.eq(io::write(write, b"world"), Ok(5), "and more");
    let mut buffer = [0; 64];
    checks.eq(io::read(read, &mut buffer[..4]), Ok(4), "some come out");
    checks.eq(io::read(read, &mut buffer[4..]), Ok(7), "and the rest, as much as there is");
    checks.eq(&buffer[..11], b"hello world", "in order");
    checks.eq(io::read(read, &mut []), Ok(0), "reading nothing does not sleep");
    checks.eq(io::write(write, &[]), Ok(0), "nor does writing nothing");
    checks.fails(io::read(write, &mut buffer), Errno::EBADF, "the writing end cannot be read");
    checks.fails(io::write(read, b"x"), Errno::EBADF, "nor the reading end written");
    checks.fails(fs::lseek(read, 0, 0), Errno::ESPIPE, "a pipe has no position");
    checks.eq(fs::fstat(read).map(|stat| stat.mode & mode::FMT), Ok(mode::FIFO), "it is a FIFO");
    checks.fails(raw(nr::PIPE2, [&raw mut buffer as usize, 0o7]), Errno::EINVAL, "unknown flags");
    checks.fails(raw(nr::PIPE2, [KERNEL, 0]), Errno::EFAULT, "nowhere to put the descriptors");
    let (next, other) = io::pipe(0).expect("a pipe");
    checks.ok(next == write + 1 && other == write + 2, "and none is left behind");
    close((next, other));
    close((read, write));
}

fn ends(checks: &mut Checks) {
    let (read, write) = io::pipe(0).expect("a pipe");
    let _ = io::write(write, b"last");
    let second = io::dup(write).expect("a descriptor");
    let _ = io::close(write);
    let mut buffer = [0; 16];
    checks.eq(io::read(read, &mut buffer), Ok(4), "what was written stays");
    let _ = io::close(second);
    checks.eq(io::read(read, &mut buffer), Ok(0), "without a writer it ends");
    checks.eq(io::read(read, &mut buffer), Ok(0), "for good");
    let _ = io::close(read);

    let (read, write) = io::pipe(0).expect("a pipe");
    let _ = io::close(read);
    checks.eq(io::write(write, &[]), Ok(0), "writing nothing without a reader is nothing");
    checks.killed(|| io::write(write, b"x"), sig::PIPE, "writing without a reader is a signal");
    checks.exits(
        || {
            let _ = signal::ignore(sig::PIPE);
            (io::write(write, b"x") != Err(Errno::EPIPE)) as i32
        },
        0,
        "and EPIPE if it is ignored",
    );
    let _ = io::close(write);
}

fn sleeping(checks: &mut Checks) {
    let (read, write) = io::pipe(0).expect("a pipe");
    let begin = time::monotonic();
    let pid = start(|| {
        time::sleep_ms(60);
        io::write(write, b"late").is_err() as i32
    })
    .unwrap_or(-1);
    let mut buffer = [0; 16];
    checks.eq(io::read(read, &mut buffer), Ok(4), "a reader sleeps until something comes");
    checks.ok(time::monotonic() - begin >= 50_000_000, "not before it is there");
    let _ = process::waitpid(pid);

    let pid = start(|| {
        let _ = io::close(read);
        time::sleep_ms(30);
        0
    })
    .unwrap_or(-1);
    let _ = io::close(write);
    checks.eq(io::read(read, &mut buffer), Ok(0), "the end of the last writer, by its exit, wakes a reader");
    let _ = process::waitpid(pid);
    let _ = io::close(read);

    let (read, write) = io::pipe(0).expect("a pipe");
    let pid = start(|| {
        let mut byte = [0];
        (io::read(read, &mut byte) != Ok(0)) as i32
    })
    .unwrap_or(-1);
    time::sleep_ms(20);
    let _ = process::kill(pid, sig::KILL);
    checks.eq(process::waitpid(pid), Ok(Status::Killed(sig::KILL)), "a sleeper can be killed");
    checks.eq(io::wait_readable(read, 20), Ok(false), "an empty pipe is not ready");
    let _ = io::write(write, b"x");
    checks.eq(io::wait_readable(read, 2000), Ok(true), "one with something in it is");
    let mut watched =
        [PollFd { fd: 900, events: poll::IN, revents: 0 }, PollFd { fd: write, events: poll::OUT, revents: 0 }];
    let zero = time::timespec(0);
    let ready = raw(nr::PPOLL, [watched.as_mut_ptr() as usize, 2, &raw const zero as usize, 0, 0]);
    checks.eq((ready, watched[0].revents, watched[1].revents), (Ok(2), poll::NVAL, poll::OUT), "ppoll on several");
    close((read, write));
}

fn capacity(checks: &mut Checks) {
    let (read, write) = io::pipe(Open::NONBLOCK.bits()).expect("a pipe");
    let mut buffer = [7; 4096];
    checks.fails(io::read(read, &mut buffer), Errno::EAGAIN, "an empty pipe does not make a NONBLOCK reader sleep");
    let mut total = 0;
    let last = loop {
        match io::write(write, &buffer) {
            Ok(n) => total += n,
            Err(error) => break error,
        }
    };
    checks.eq(last, Errno::EAGAIN, "nor a full one a writer");
    checks.eq(total, 65536, "64 KiB fit in");
    checks.eq(io::read(read, &mut buffer), Ok(4096), "room");
    checks.eq(io::write(write, &buffer), Ok(4096), "is used again");
    close((read, write));
}

/// What fcntl and ioctl say of a pipe, and set.
fn requests(checks: &mut Checks) {
    const SET_SIZE: usize = 1031;
    const GET_SIZE: usize = 1032;
    let (read, write) = io::pipe(Open::NONBLOCK.bits()).expect("a pipe");
    let fcntl = |fd: i32, which: usize, arg: usize| raw(nr::FCNTL, [fd as usize, which, arg]);
    let resize = |bytes: usize| fcntl(write, SET_SIZE, bytes);
    checks.eq(fcntl(read, GET_SIZE, 0), Ok(65536), "64 KiB fit in");
    checks.eq([1, 4096, 5000, 8193].map(resize), [Ok(4096), Ok(4096), Ok(8192), Ok(16384)], "sizes are powers of two");
    checks.eq(fcntl(read, GET_SIZE, 0), Ok(16384), "of the pipe, not of an end");
    checks.fails(resize(u32::MAX as usize), Errno::EINVAL, "a negative size");
    checks.fails(resize(65537), Errno::EPERM, "one that is too large");
    let buffer = [7; 20000];
    checks.eq(io::write(write, &buffer), Ok(16384), "no more than that fits in");
    checks.fails(io::write(write, &[7]), Errno::EAGAIN, "not even a byte");
    checks.fails(resize(8192), Errno::EBUSY, "it does not become too small for what is in it");
    let unread = |fd: i32| {
        let mut count = -1i32;
        raw(nr::IOCTL, [fd as usize, tty::FIONREAD, &raw mut count as usize]).map(|_| count)
    };
    checks.eq((unread(read), unread(write)), (Ok(16384), Ok(16384)), "both ends tell what is in it");
    checks.eq((resize(65536), io::write(write, &buffer)), (Ok(65536), Ok(20000)), "larger, it has room");
    let mut all = [0; 40000];
    let right = io::read(read, &mut all) == Ok(36384) && all[..36384].iter().all(|byte| *byte == 7);
    checks.ok(right && unread(read) == Ok(0), "and all comes out");
    checks.fails(raw(nr::IOCTL, [read as usize, tty::FIONREAD, KERNEL]), Errno::EFAULT, "nowhere to tell it");
    checks.fails(
        raw(nr::IOCTL, [read as usize, tty::TCGETS, &raw mut all as usize]),
        Errno::ENOTTY,
        "it is no terminal",
    );
    let set = |which: usize, on: i32| raw(nr::IOCTL, [read as usize, which, &raw const on as usize]);
    let _ = set(tty::FIONBIO, 0);
    checks.eq(fcntl(read, 3, 0), Ok(0), "FIONBIO makes a reader sleep");
    let _ = set(tty::FIONBIO, 1);
    checks.eq(fcntl(read, 3, 0), Ok(Open::NONBLOCK.bits() as usize), "or not");
    let _ = set(tty::FIOCLEX, 0);
    checks.eq(fcntl(read, 1, 0), Ok(1), "FIOCLEX closes on exec");
    let _ = set(tty::FIONCLEX, 0);
    checks.eq(fcntl(read, 1, 0), Ok(0), "FIONCLEX does not");
    close((read, write));

    let file = fs::open(c"/etc/motd", Open::empty()).unwrap_or(-1);
    let size = fs::fstat(file).map_or(0, |stat| stat.size as i32);
    let _ = fs::lseek(file, 3, 0);
    checks.eq(unread(file), Ok(size - 3), "of a file that is what follows its position");
    checks.fails(fcntl(file, GET_SIZE, 0), Errno::EBADF, "which is no pipe");
    let _ = io::close(file);

    // A writer that sleeps for room wakes when there is more of it.
    let (read, write) = io::pipe(0).expect("a pipe");
    let _ = (fcntl(write, SET_SIZE, 4096), io::write(write, &buffer[..4096]));
    let writer = start(|| (io::write(write, &buffer[..4096]) != Ok(4096)) as i32).unwrap_or(-1);
    until_asleep(writer);
    let _ = fcntl(read, SET_SIZE, 8192);
    checks.eq(process::waitpid(writer), Ok(Status::Exited(0)), "a writer goes on when the pipe is made larger");
    close((read, write));
}

fn transfer(checks: &mut Checks) {
    const BYTES: usize = 1 << 20;
    let (read, write) = io::pipe(0).expect("a pipe");
    let pid = start(|| {
        let _ = io::close(read);
        let mut sent = 0;
        let mut chunk = [0u8; 5000];
        while sent < BYTES {
            let len = chunk.len().min(BYTES - sent);
            (0..len).for_each(|i| chunk[i] = (((sent + i) * 31) >> 3) as u8);
            if io::write_all(write, &chunk[..len]).is_err() {
                return 1;
            }
            sent += len;
        }
        0
    })
    .unwrap_or(-1);
    let _ = io::close(write);
    let (mut received, mut right) = (0, true);
    let mut chunk = [0; 3000];
    while let Ok(n @ 1..) = io::read(read, &mut chunk) {
        right &= (0..n).all(|i| chunk[i] == (((received + i) * 31) >> 3) as u8);
        received += n;
    }
    checks.ok(right && received == BYTES, "a mebibyte comes through as it was sent");
    checks.eq(process::waitpid(pid), Ok(Status::Exited(0)), "from a writer that slept on a full pipe");
    let _ = io::close(read);

    checks.ok(records::<100>(io::write), "short writes of several writers do not mix");
    let in_parts = |fd: i32, record: &[u8]| {
        let parts = record.chunks(100).map(|part| Iovec { base: part.as_ptr() as u64, len: part.len() as u64 });
        let vector: Vec<Iovec> = parts.collect();
        raw(nr::WRITEV, [fd as usize, vector.as_ptr() as usize, vector.len()])
    };
    checks.ok(records::<300>(in_parts), "nor do short vectors");
    let (read, write) = io::pipe(0).expect("a pipe");
    let byte = Iovec { base: b"x".as_ptr() as u64, len: 1 };
    let vector = [byte, Iovec { len: 1 << 63, ..byte }];
    let written = raw(nr::WRITEV, [write as usize, vector.as_ptr() as usize, 2]);
    checks.fails(written, Errno::EINVAL, "a vector with a part of negative length");
    let nowhere = [byte, Iovec { base: KERNEL as u64, len: 1 }];
    let written = raw(nr::WRITEV, [write as usize, nowhere.as_ptr() as usize, 2]);
    checks.fails(written, Errno::EFAULT, "or with a part that is the kernel's");
    let edge = map(3 * PAGE, RW) + PAGE;
    let _ = munmap(edge + PAGE, PAGE);
    let across = |len: usize| raw(nr::WRITE, [write as usize, edge + PAGE - 1984, len]);
    checks.fails(across(4000), Errno::EFAULT, "a short write whose end cannot be read");
    checks.fails(across(200 + 1984), Errno::EFAULT, "even in its last page");
    let _ = io::close(write);
    checks.eq(io::read(read, &mut [0]), Ok(0), "writes nothing");
    let (read, write) = io::pipe(0).expect("a pipe");
    let across = |call: usize, fd: i32, back: usize, len: usize| raw(call, [fd as usize, edge + PAGE - back, len]);
    checks.fails(across(nr::WRITE, write, 1983, 6000), Errno::EFAULT, "a long one");
    checks.eq(across(nr::WRITE, write, PAGE + 1983, 2 * PAGE), Ok(PAGE), "which writes whole pages");
    checks.fails(across(nr::READ, read, 1001, 6000), Errno::EFAULT, "a read whose end cannot be written");
    checks.eq(io::read(read, &mut [0; 6000]), Ok(PAGE), "loses nothing");
    let _ = io::close(write);
    let _ = munmap(edge - PAGE, 2 * PAGE);
    let _ = io::close(read);
}

/// A write whose end comes and goes writes what it counts, and no other bytes.
fn cut(checks: &mut Checks) {
    const LEN: usize = 3 * PAGE - 288;
    static DONE: AtomicBool = AtomicBool::new(false);
    let (read, write) = io::pipe(0).expect("a pipe");
    let at = map(4 * PAGE, RW);
    (0..4 * PAGE / 2)
        .for_each(|i| [i as u8, (i >> 8) as u8].iter().enumerate().for_each(|(k, b)| poke(at + 2 * i + k, *b)));
    let from = at + 100;
    let other = thread::spawn(move || {
        while !DONE.load(SeqCst) {
            let _ = mprotect(at + PAGE, 3 * PAGE, Prot::empty());
            let _ = mprotect(at + PAGE, 3 * PAGE, RW);
        }
    });
    let mut right = true;
    let mut bytes = [0; LEN];
    for _ in 0..300 {
        if let Ok(n) = raw(nr::WRITE, [write as usize, from, LEN]) {
            right &= io::read(read, &mut bytes[..n]) == Ok(n);
            right &= bytes[..n].chunks_exact(2).enumerate().all(|(i, pair)| pair == ((i + 50) as u16).to_le_bytes());
        }
    }
    DONE.store(true, SeqCst);
    other.into_iter().for_each(thread::Thread::join);
    checks.ok(right, "a write whose end comes and goes skips nothing");
    close((read, write));
    let _ = munmap(at, 4 * PAGE);
}

/// Whether all records of several writers come out of a pipe whole.
fn records<const LEN: usize>(put: impl Fn(i32, &[u8]) -> Result<usize, Errno>) -> bool {
    let (read, write) = io::pipe(0).expect("a pipe");
    for writer in 0..4u8 {
        let _ = start(|| (0..200).any(|_| put(write, &[writer; LEN]) != Ok(LEN)).into());
    }
    let _ = io::close(write);
    let mut counts = [0; 4];
    let mut whole = true;
    let mut record = [0; LEN];
    'records: loop {
        let mut len = 0;
        while len < record.len() {
            match io::read(read, &mut record[len..]) {
                Ok(n @ 1..) => len += n,
                _ => break 'records,
            }
        }
        whole &= record.iter().all(|byte| *byte == record[0]);
        counts[record[0] as usize & 3] += 1;
    }
    let _ = io::close(read);
    (0..4).for_each(|_| _ = process::waitpid(-1));
    whole && counts == [200; 4]
}

fn descriptors(checks: &mut Checks) {
    let (read, write) = io::pipe(0).expect("a pipe");
    checks.eq(io::dup3(write, 60, 0), Ok(60), "dup3 to a chosen number");
    checks.fails(io::dup3(write, write, 0), Errno::EINVAL, "dup3 onto itself");
    checks.fails(io::dup3(900, 61, 0), Errno::EBADF, "dup3 of nothing");
    checks.fails(io::dup3(write, 1 << 30, 0), Errno::EBADF, "dup3 to a number that is too large");
    checks.fails(io::dup3(write, 61, 1), Errno::EINVAL, "dup3 with unknown flags");
    let _ = io::close(60);
    checks.fails(io::close(60), Errno::EBADF, "a descriptor closes once");
    let mut opened = [0; 2048];
    let mut count = 0;
    let last = loop {
        match io::dup(read) {
            Ok(fd) if count < opened.len() => {
                opened[count] = fd;
                count += 1;
            }
            Ok(fd) => {
                let _ = io::close(fd);
                break None;
            }
            Err(error) => break Some(error),
        }
    };
    checks.ok(last == Some(Errno::EMFILE) && count >= 60, "descriptors have a limit");
    for fd in &opened[..count] {
        let _ = io::close(*fd);
    }
    checks.ok(io::dup(read).and_then(io::close).is_ok(), "and closing makes room");
    close((read, write));
}
