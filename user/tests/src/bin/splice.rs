//! splice, tee and vmsplice: between pipes, files, sockets and memory.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use quire_rt::abi::flags::{Open, sig};
use quire_rt::abi::layout::Iovec;
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, io};
use user_tests::files::close;
use user_tests::{Checks, raw, start, until_asleep};

quire_rt::entry!(main);

const NOW: u32 = 2;

fn main() -> i32 {
    let mut checks = Checks::new();
    arguments(&mut checks);
    files(&mut checks);
    pipes(&mut checks);
    sockets(&mut checks);
    memory(&mut checks);
    waiting(&mut checks);
    checks.finish()
}

fn pipe() -> (i32, i32) {
    io::pipe(0).expect("a pipe")
}

fn memfd(bytes: &[u8]) -> i32 {
    let fd = raw(nr::MEMFD_CREATE, [c"splice".as_ptr() as usize, 0]).expect("a file") as i32;
    let _ = fs::pwrite(fd, bytes, 0);
    fd
}

/// splice, with places in files if they are given.
fn splice(
    from: i32,
    at: Option<&mut i64>,
    to: i32,
    there: Option<&mut i64>,
    len: usize,
    flags: u32,
) -> Result<usize, Errno> {
    let place = |place: Option<&mut i64>| place.map_or(0, |place| core::ptr::from_mut(place).addr());
    raw(nr::SPLICE, [from as usize, place(at), to as usize, place(there), len, flags as usize])
}

fn tee(from: i32, to: i32, len: usize, flags: u32) -> Result<usize, Errno> {
    raw(nr::TEE, [from as usize, to as usize, len, flags as usize])
}

fn read(fd: i32, most: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; most];
    let n = io::read(fd, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

fn arguments(checks: &mut Checks) {
    let (reader, writer) = pipe();
    let file = memfd(b"0123456789");
    checks.fails(splice(file, None, writer, None, 5, 16), Errno::EINVAL, "unknown flags");
    checks.fails(splice(-1, None, writer, None, 5, 0), Errno::EBADF, "no descriptor");
    checks.fails(splice(writer, None, file, None, 5, 0), Errno::EBADF, "a side that is not read");
    checks.fails(splice(file, None, file, None, 5, 0), Errno::EINVAL, "no pipe");
    checks.fails(splice(reader, None, writer, None, 5, NOW), Errno::EINVAL, "from a pipe to itself");
    checks.fails(splice(reader, Some(&mut 0), file, None, 5, 0), Errno::ESPIPE, "a place in a pipe");
    checks.fails(splice(file, None, writer, Some(&mut 0), 5, 0), Errno::ESPIPE, "of either side");
    checks.fails(splice(file, Some(&mut -1), writer, None, 5, 0), Errno::EINVAL, "a place before a file");
    checks.eq(splice(file, None, writer, None, 0, 0), Ok(0), "nothing");
    checks.fails(splice(reader, None, file, None, 5, NOW), Errno::EAGAIN, "an empty pipe");
    let _ = raw(nr::FCNTL, [file as usize, 4, Open::APPEND.bits() as usize]);
    let _ = io::write(writer, b"x");
    checks.fails(splice(reader, None, file, None, 1, 0), Errno::EINVAL, "a file that is only appended to");
    checks.fails(tee(file, writer, 1, 0), Errno::EINVAL, "tee is for pipes");
    checks.fails(tee(reader, writer, 1, NOW), Errno::EINVAL, "and for two of them");
    [reader, writer, file].iter().for_each(|fd| close(*fd));
}

fn files(checks: &mut Checks) {
    let (reader, writer) = pipe();
    let file = memfd(b"0123456789");
    let _ = fs::lseek(file, 2, 0);
    checks.eq(
        (splice(file, None, writer, None, 3, 0), fs::lseek(file, 0, 1)),
        (Ok(3), Ok(5)),
        "from a file's position",
    );
    checks.eq(read(reader, 9), Ok(b"234".to_vec()), "what is there");
    let mut at = 7;
    checks.eq((splice(file, Some(&mut at), writer, None, 99, 0), at), (Ok(3), 10), "from a place to its end");
    checks.eq((splice(file, Some(&mut at), writer, None, 99, 0), at), (Ok(0), 10), "where there is nothing");
    let target = memfd(b"");
    let mut there = 4;
    checks.eq((splice(reader, None, target, Some(&mut there), 2, 0), there), (Ok(2), 6), "to a place");
    let mut bytes = [1; 6];
    checks.eq((fs::pread(target, &mut bytes, 0), bytes), (Ok(6), *b"\0\0\0\x0078"), "in a file");
    checks.eq(
        (splice(reader, None, target, None, 9, 0), fs::lseek(target, 0, 1)),
        (Ok(1), Ok(1)),
        "and to its position",
    );
    let large: Vec<u8> = (0..200_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    let source = memfd(&large);
    let _ = (fs::lseek(source, 0, 0), fs::lseek(target, 0, 0));
    checks.eq(splice(source, None, writer, None, large.len(), 0), Ok(65536), "a pipe full");
    checks.fails(splice(source, None, writer, None, 1, NOW), Errno::EAGAIN, "is full");
    let mut moved = 0;
    while let Ok(n) = splice(reader, None, target, None, large.len(), NOW) {
        moved += n;
        let _ = splice(source, None, writer, None, large.len(), NOW);
    }
    let mut copy = vec![0; large.len()];
    let right = fs::pread(target, &mut copy, 0) == Ok(large.len()) && copy == large;
    checks.eq((moved, right), (large.len(), true), "a long file through a pipe");
    [reader, writer, file, target, source].iter().for_each(|fd| close(*fd));
}

fn pipes(checks: &mut Checks) {
    let ((reader, writer), (second, end)) = (pipe(), pipe());
    let _ = io::write(writer, b"abcdef");
    checks.eq(tee(reader, end, 4, 0), Ok(4), "a copy");
    checks.eq((read(second, 9), read(reader, 2)), (Ok(b"abcd".to_vec()), Ok(b"ab".to_vec())), "leaves all");
    checks.eq(splice(reader, None, end, None, 9, 0), Ok(4), "a move");
    checks.eq(read(second, 9), Ok(b"cdef".to_vec()), "does not");
    checks.fails(tee(reader, end, 1, NOW), Errno::EAGAIN, "nothing is there");
    let _ = io::write(writer, b"x");
    close(second);
    checks.killed(|| tee(reader, end, 1, 0), sig::PIPE, "nobody reads");
    close(writer);
    let _ = read(reader, 1);
    checks.eq(splice(reader, None, end, None, 1, 0), Ok(0), "the end of a pipe");
    [reader, end].iter().for_each(|fd| close(*fd));
}

fn sockets(checks: &mut Checks) {
    let (reader, writer) = pipe();
    let mut fds = [0i32; 2];
    let _ = raw(nr::SOCKETPAIR, [1, 1, 0, fds.as_mut_ptr() as usize]);
    let _ = io::write(writer, b"to a socket");
    checks.eq(splice(reader, None, fds[0], None, 99, 0), Ok(11), "to a socket");
    checks.eq(splice(fds[1], None, writer, None, 5, 0), Ok(5), "and from it");
    checks.eq((read(reader, 99), read(fds[1], 99)), (Ok(b"to a ".to_vec()), Ok(b"socket".to_vec())), "so many bytes");
    checks.fails(splice(reader, None, fds[0], Some(&mut 0), 1, 0), Errno::ESPIPE, "a socket has no places");
    close(fds[0]);
    checks.eq(splice(fds[1], None, writer, None, 5, 0), Ok(0), "its end");
    [reader, writer, fds[1]].iter().for_each(|fd| close(*fd));
}

fn memory(checks: &mut Checks) {
    let (reader, writer) = pipe();
    let mut room = [0u8; 8];
    let parts = [Iovec { base: b"ab".as_ptr() as u64, len: 2 }, Iovec { base: b"cd".as_ptr() as u64, len: 2 }];
    let vmsplice = |fd: i32, parts: &[Iovec], flags: usize| {
        raw(nr::VMSPLICE, [fd as usize, parts.as_ptr() as usize, parts.len(), flags])
    };
    checks.eq(vmsplice(writer, &parts, 0), Ok(4), "memory into a pipe");
    let place = [Iovec { base: room.as_mut_ptr() as u64, len: 8 }];
    checks.eq((vmsplice(reader, &place, 0), &room[..4]), (Ok(4), &b"abcd"[..]), "and out of it");
    checks.fails(vmsplice(reader, &place, NOW as usize), Errno::EAGAIN, "nothing more");
    checks.fails(vmsplice(reader, &place, 32), Errno::EINVAL, "unknown flags");
    let file = memfd(b"");
    checks.fails(vmsplice(file, &parts, 0), Errno::EBADF, "no pipe");
    [reader, writer, file].iter().for_each(|fd| close(*fd));
}

fn waiting(checks: &mut Checks) {
    let (reader, writer) = pipe();
    let file = memfd(b"");
    let waiter = start(|| (splice(reader, None, file, None, 9, 0) != Ok(4)) as i32).unwrap_or(-1);
    until_asleep(waiter);
    let _ = io::write(writer, b"late");
    checks.eq(process::waitpid(waiter), Ok(Status::Exited(0)), "bytes that come later");
    let (second, end) = pipe();
    let _ = (io::write(writer, &[1; 100]), io::write(end, &[2; 65536]));
    let waiter = start(|| (splice(reader, None, end, None, 100, 0) != Ok(100)) as i32).unwrap_or(-1);
    until_asleep(waiter);
    let _ = read(second, 65536);
    checks.eq(process::waitpid(waiter), Ok(Status::Exited(0)), "room that comes later");
    [reader, writer, second, end, file].iter().for_each(|fd| close(*fd));
}
