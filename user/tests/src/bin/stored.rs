//! Stored files: what the kernel does with a file whose server keeps its content, and with one whose server lies about
//! it.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::CStr;

use quire_rt::abi::flags::{Control, Map, Open, Prot, sig};
use quire_rt::abi::layout::mode;
use quire_rt::abi::names::{DONE, node, op, opened, word};
use quire_rt::abi::nr;
use quire_rt::ipc::{self, Message, Patience, Receiver, What};
use quire_rt::{Errno, fs, handles, io, process};
use user_tests::files::{close, open, remove, stat};
use user_tests::{Checks, PAGE, is_quire, mmap, mprotect, munmap, peek, poke, raw};

quire_rt::entry!(main);

/// A directory of the archive for servers of this test.
const MOUNT: &CStr = c"/mnt";

/// Files by number, in their order. The content of the first is a program; the others are lies.
const FILES: [&[u8]; 9] = [b"program", b"huge", b"long", b"short", b"directory", b"syncs", b"seen", b"full", b"broken"];
const PROGRAM: u64 = 1;
const HUGE: u64 = 2;
const LONG: u64 = 3;
const SHORT: u64 = 4;
const DIRECTORY: u64 = 5;
const SYNCS: u64 = 6;
/// What the server has of the program, by messages.
const SEEN: u64 = 7;
/// A file that cannot become longer than [`ROOM`].
const FULL: u64 = 8;
/// A file that nobody can write.
const BROKEN: u64 = 9;

/// The most bytes that a file of the server's has, but the program.
const ROOM: usize = 3 * PAGE + 100;

fn main() -> i32 {
    let mut checks = Checks::new();
    if !is_quire() {
        checks.skip("stored files", "not on Quire");
    } else if handles::control() == 0 {
        checks.skip("stored files", "the right to mount was not given");
    } else {
        checks.eq(handles::grant(Control::MOUNT), Ok(()), "a child may mount");
        match server() {
            Some(pid) => {
                honest(&mut checks);
                liars(&mut checks);
                refused(&mut checks);
                shared(&mut checks);
                let _ = raw(nr::KILL, [pid as usize, sig::KILL as usize]);
                let _ = process::waitpid(pid);
            }
            None => checks.ok(false, "a server"),
        }
    }
    checks.finish()
}

/// The content of the files, and what was asked.
struct Files {
    receiver: Receiver,
    program: Vec<u8>,
    full: Vec<u8>,
    syncs: u64,
}

/// Serves them in a child, which is mounted by now.
fn server() -> Option<i32> {
    let (reader, writer) = io::pipe(0).ok()?;
    let pid = user_tests::start(|| {
        close(reader);
        let Ok(receiver) = Receiver::new() else { return 1 };
        let Ok(sender) = receiver.sender(7) else { return 1 };
        let Ok(program) = fs::File::open(c"/bin/true", Open::empty()).and_then(|file| file.read_to_end()) else {
            return 1;
        };
        if fs::mount(MOUNT, sender, c"stored").is_err() {
            return 2;
        }
        close(writer);
        let mut files = Files { receiver, program, full: Vec::new(), syncs: 0 };
        let mut received = receiver.receive(Patience::Endless);
        loop {
            let Ok(ipc::Received { what: What::Call { message, .. }, .. }) = received else { return 3 };
            let answer = files.answer(&message).unwrap_or_else(|error| Message::new(error.to_ret() as u64, &[]));
            received = receiver.reply_receive(&answer, Patience::Endless);
        }
    });
    close(writer);
    let _ = io::read(reader, &mut [0]);
    close(reader);
    pid.ok()
}

impl Files {
    fn answer(&mut self, asked: &Message) -> Result<Message, Errno> {
        let [directory, argument, room, ..] = asked.words;
        let (path_len, text_len) = (asked.words[word::PATH] as u32 as usize, asked.words[word::TEXT] as usize);
        let mut texts = Vec::from_iter((0..path_len + text_len).map(|_| 0));
        if !texts.is_empty() && ipc::read_window(0, 0, 0, &mut texts)? != texts.len() {
            return Err(Errno::EFAULT);
        }
        let (name, text) = texts.split_at(path_len);
        let number = match name {
            b"" => directory,
            name => FILES.iter().position(|file| *file == name).ok_or(Errno::ENOENT)? as u64 + 1,
        };
        let done = |words: &[u64]| Ok(Message::new(DONE, words));
        match asked.label {
            op::LOOKUP | op::OPEN => done(&self.found(number)),
            op::ACCESS => done(&[]),
            op::SYNC => {
                self.syncs += 1;
                done(&[])
            }
            op::READ => self.read(number, argument, room as usize),
            op::WRITE if number == LONG => done(&[text.len() as u64 + 1, 0]),
            op::WRITE if number == BROKEN => Err(Errno::EIO),
            op::WRITE => {
                let at = argument as usize;
                let most = if number == FULL { ROOM } else { usize::MAX };
                if at >= most {
                    return Err(Errno::ENOSPC);
                }
                let text = &text[..text.len().min(most - at)];
                let content = self.content(number);
                content.resize(content.len().max(at + text.len()), 0);
                content[at..at + text.len()].copy_from_slice(text);
                done(&[text.len() as u64, at as u64])
            }
            op::CUT => {
                self.content(number).resize(argument as usize, 0);
                done(&[])
            }
            op::UNLINK if self.receiver.opened(7, number) & opened::HELD != 0 => Err(Errno::EBUSY),
            op::UNLINK => done(&[]),
            _ => Err(Errno::ENOSYS),
        }
    }

    fn content(&mut self, number: u64) -> &mut Vec<u8> {
        if number == FULL { &mut self.full } else { &mut self.program }
    }

    fn found(&self, number: u64) -> [u64; 6] {
        let size = match number {
            PROGRAM => self.program.len() as u64,
            HUGE => 1 << 45,
            SYNCS => self.syncs,
            FULL => self.full.len() as u64,
            _ => 2 * PAGE as u64,
        };
        let kind = match number {
            0 | DIRECTORY => mode::DIR,
            _ => mode::REG,
        };
        let stored = if number == 0 || number == SEEN { 0 } else { node::STORED };
        [number, u64::from(kind | 0o755 | stored) | 1 << 32, 0, size, 0, 0]
    }

    fn read(&self, number: u64, at: u64, room: usize) -> Result<Message, Errno> {
        let all = if number == FULL { &self.full[..] } else { &self.program[..] };
        let bytes = match number {
            SHORT => &[],
            _ => all.get(at as usize..).unwrap_or(&[]),
        };
        let bytes = &bytes[..bytes.len().min(room)];
        if !bytes.is_empty() {
            ipc::write_window(0, 1, 0, bytes)?;
        }
        Ok(Message::new(DONE, &[if number == LONG { room as u64 + 1 } else { bytes.len() as u64 }]))
    }
}

fn syncs() -> u64 {
    stat(c"/mnt/syncs").map_or(0, |stat| stat.size as u64)
}

fn executes(name: &'static CStr) -> i32 {
    let error = process::execve(name, [name], []);
    error.get()
}

fn honest(checks: &mut Checks) {
    let program = fs::File::open(c"/bin/true", Open::empty()).and_then(|file| file.read_to_end()).expect("a program");
    let len = program.len();
    let record = stat(c"/mnt/program").expect("a file");
    checks.eq(
        (record.mode, record.size),
        (mode::REG | 0o755, len as i64),
        "its record has its size, and no other bits",
    );
    checks.eq(record.blocks, len.div_ceil(512) as i64, "and its blocks");
    checks.exits(|| executes(c"/mnt/program"), 0, "it is executed");

    let fd = open(c"/mnt/program", Open::RDWR, 0).expect("a file");
    checks.eq(fs::lseek(fd, 0, 2), Ok(len as u64), "its end is known");
    let map = mmap(0, len, Prot::READ | Prot::WRITE, Map::PRIVATE, fd, 0).expect("a mapping");
    checks.ok((0..len).all(|at| peek(map + at) == program[at]), "a private mapping has its bytes");
    poke(map + 5, program[5] ^ 1);
    let mut byte = [0];
    checks.eq(fs::pread(fd, &mut byte, 5), Ok(1), "a byte is read");
    checks.eq(byte[0], program[5], "which nobody has changed by the mapping");
    let _ = munmap(map, len);
    let second = mmap(0, PAGE, Prot::READ, Map::PRIVATE, fd, PAGE).expect("a mapping");
    checks.ok((0..PAGE).all(|at| peek(second + at) == program[PAGE + at]), "so does one of its second page");
    let _ = munmap(second, PAGE);

    let before = syncs();
    checks.eq(fs::fsync(fd), Ok(()), "fsync is told");
    checks.eq(raw(nr::SYNCFS, [fd as usize]), Ok(0), "syncfs is");
    fs::sync();
    checks.eq(syncs(), before + 3, "and sync");
    let through = open(c"/mnt/program", Open::WRONLY | Open::APPEND | Open::DSYNC, 0).expect("a file");
    checks.eq(io::write(through, b"more"), Ok(4), "bytes are appended");
    checks.eq((syncs(), fs::lseek(through, 0, 1)), (before + 4, Ok(len as u64 + 4)), "and kept, at the end");
    checks.eq(fs::pwrite(fd, b"x", 3), Ok(1), "a byte is written at a place");
    checks.eq((syncs(), seen(3)), (before + 4, program[3]), "and not by the server at once");
    checks.eq((fs::fsync(fd), seen(3)), (Ok(()), b'x'), "but by fsync");
    let _ = fs::pwrite(fd, &program[3..4], 3);
    let _ = fs::fsync(fd);
    checks.eq(raw(nr::FTRUNCATE, [fd as usize, len]), Ok(0), "it is cut");
    checks.eq(fs::lseek(fd, 0, 2), Ok(len as u64), "to its length");
    checks.fails(raw(nr::FALLOCATE, [fd as usize, 0, 0, len]), Errno::EOPNOTSUPP, "room is not made");

    close(through);
    checks.fails(remove(c"/mnt/program", 0), Errno::EBUSY, "its server knows that it is open");
    let copy = io::dup(fd).expect("a descriptor");
    close(fd);
    checks.fails(remove(c"/mnt/program", 0), Errno::EBUSY, "as long as a copy is");
    close(copy);
    checks.eq(remove(c"/mnt/program", 0), Ok(0), "and that it is not");
    checks.fails(raw(nr::QUIRE_OPENED, [0, 7, 1]), Errno::EBADF, "nobody else may ask");
}

/// A byte of the program as its server has it.
fn seen(at: usize) -> u8 {
    let fd = open(c"/mnt/seen", Open::empty(), 0).expect("a file");
    let mut byte = [0];
    let _ = fs::pread(fd, &mut byte, at as i64);
    close(fd);
    byte[0]
}

/// Mappings that are shared: the same bytes as read and write have, and the server gets them.
fn shared(checks: &mut Checks) {
    let rights = Prot::READ | Prot::WRITE;
    let fd = open(c"/mnt/program", Open::RDWR, 0).expect("a file");
    let len = fs::lseek(fd, 0, 2).expect("its length") as usize;
    let pages = len.div_ceil(PAGE);
    let map = mmap(0, pages * PAGE, rights, Map::SHARED, fd, 0).expect("a mapping");
    let first = peek(map + 7);
    poke(map + 7, first ^ 1);
    let mut byte = [0];
    checks.eq((fs::pread(fd, &mut byte, 7), byte[0]), (Ok(1), first ^ 1), "what a mapping stores is read");
    checks.eq(fs::pwrite(fd, b"w", (PAGE + 1) as i64), Ok(1), "a byte is written");
    checks.eq(peek(map + PAGE + 1), b'w', "and seen in the mapping");
    checks.eq(raw(nr::MSYNC, [map, pages * PAGE, 4]), Ok(0), "msync writes back");
    checks.eq((seen(7), seen(PAGE + 1)), (first ^ 1, b'w'), "both");
    poke(map + 7, 77);
    checks.eq(seen(7), first ^ 1, "what is stored then is not there at once");
    checks.ok(user_tests::until(|| seen(7) == 77), "but it is written without being asked for");
    poke(map + 8, 78);
    let _ = mprotect(map, PAGE, Prot::READ);
    checks.eq((raw(nr::MSYNC, [map, PAGE, 4]), seen(8)), (Ok(0), 78), "also from what may not be written any more");
    let _ = mprotect(map, PAGE, rights);
    poke(map + 8, 79);
    checks.eq((fs::fsync(fd), seen(8)), (Ok(()), 79), "nor does it miss what may be again");
    checks.exits(
        || {
            poke(map + 9, 80);
            0
        },
        0,
        "a child stores",
    );
    checks.eq(
        (peek(map + 9), raw(nr::MSYNC, [map, PAGE, 4]), seen(9)),
        (80, Ok(0), 80),
        "and its parent writes it back",
    );
    let tail = len % PAGE;
    if tail != 0 {
        poke(map + len, 81);
        let end = open(c"/mnt/program", Open::WRONLY | Open::APPEND, 0).expect("a file");
        checks.eq(raw(nr::FTRUNCATE, [fd as usize, len + 2]), Ok(0), "a file becomes longer");
        checks.eq(peek(map + len), 0, "by zeros, whatever was stored behind its end");
        checks.eq(io::write(end, b"end"), Ok(3), "and by what is appended");
        checks.eq((peek(map + len + 2), seen(len + 2)), (b'e', b'e'), "which its server has at once");
        close(end);
        checks.eq(raw(nr::FTRUNCATE, [fd as usize, len]), Ok(0), "it is cut again");
    }
    checks.eq(raw(nr::FTRUNCATE, [fd as usize, PAGE]), Ok(0), "a file becomes shorter");
    checks.killed(|| peek(map + PAGE), sig::BUS, "what is cut off is not in its mapping");
    checks.fails(raw(nr::MADVISE, [map, PAGE, 9]), Errno::EOPNOTSUPP, "no hole is made");
    let _ = munmap(map, pages * PAGE);
    close(fd);
}

/// Servers that take no more, or nothing.
fn refused(checks: &mut Checks) {
    let fd = open(c"/mnt/full", Open::RDWR, 0).expect("a file");
    let bytes = [b'f'; 2 * PAGE];
    checks.eq(io::write(fd, &bytes), Ok(2 * PAGE), "there is room");
    checks.eq(io::write(fd, &bytes), Ok(ROOM - 2 * PAGE), "for a part");
    checks.fails(io::write(fd, &bytes), Errno::ENOSPC, "and for no more");
    checks.eq(fs::lseek(fd, 0, 2), Ok(ROOM as u64), "the file ends there");
    checks.eq(raw(nr::FTRUNCATE, [fd as usize, 4 * PAGE]), Ok(0), "it becomes longer");
    let mut byte = [1];
    checks.eq((fs::pread(fd, &mut byte, ROOM as i64), byte[0]), (Ok(1), 0), "by zeros");
    close(fd);

    let [one, other] = [(); 2].map(|()| open(c"/mnt/broken", Open::RDWR, 0).expect("a file"));
    checks.eq(fs::pwrite(one, b"lost", 0), Ok(4), "what is written is accepted");
    checks.fails(fs::fsync(one), Errno::EIO, "and its loss told");
    checks.eq(fs::fsync(one), Ok(()), "once");
    checks.fails(fs::fsync(other), Errno::EIO, "to each that had it open");
    checks.eq(fs::fsync(other), Ok(()), "once");
    let third = open(c"/mnt/broken", Open::RDWR, 0).expect("a file");
    checks.eq(fs::fsync(third), Ok(()), "and not to those who come later");
    let map = mmap(0, PAGE, Prot::READ | Prot::WRITE, Map::SHARED, third, 0).expect("a mapping");
    poke(map, 1);
    checks.fails(raw(nr::MSYNC, [map, PAGE, 4]), Errno::EIO, "also by msync");
    let _ = munmap(map, PAGE);
    for fd in [one, other, third] {
        close(fd);
    }
}

fn liars(checks: &mut Checks) {
    checks.exits(|| executes(c"/mnt/huge"), 0, "a program is executed however long its file is");
    checks.exits(|| executes(c"/mnt/short"), Errno::EIO.get() as u8, "but not if it ends before it begins");
    checks.exits(|| executes(c"/mnt/long"), Errno::EIO.get() as u8, "nor one of which more is read than was asked for");
    checks.exits(|| executes(c"/mnt/directory"), Errno::EACCES.get() as u8, "nor a directory that is stored");
    let fd = open(c"/mnt/long", Open::RDWR, 0).expect("a file");
    checks.fails(fs::pread(fd, &mut [0; 16], 0), Errno::EIO, "reading more than was asked for");
    checks.fails(fs::pwrite(fd, b"text", 0), Errno::EIO, "writing more than there was");
    let map = mmap(0, PAGE, Prot::READ, Map::PRIVATE, fd, 0).expect("a mapping");
    checks.killed(|| peek(map), sig::BUS, "looking at it");
    let _ = munmap(map, PAGE);
    close(fd);
    let fd = open(c"/mnt/short", Open::empty(), 0).expect("a file");
    let map = mmap(0, PAGE, Prot::READ, Map::PRIVATE, fd, 0).expect("a mapping");
    checks.killed(|| peek(map), sig::BUS, "what a file does not have is not in its mapping");
    let _ = munmap(map, PAGE);
    close(fd);
    let fd = open(c"/mnt/huge", Open::empty(), 0).expect("a file");
    checks.eq(fs::lseek(fd, 0, 2), Ok(1 << 45), "a file may be huge");
    let map = mmap(0, PAGE, Prot::READ, Map::PRIVATE, fd, 0).expect("a mapping");
    checks.eq(peek(map), 0x7f, "and a part of it mapped");
    let _ = munmap(map, PAGE);
    close(fd);
}
