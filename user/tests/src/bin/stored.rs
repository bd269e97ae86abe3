//! Stored files: what the kernel does with a file whose server keeps its content, and with one whose server lies about it.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::CStr;

use quire_rt::abi::flags::{Control, Map, Open, Prot, sig};
use quire_rt::abi::layout::mode;
use quire_rt::abi::names::{APPEND, DONE, node, op, word};
use quire_rt::abi::nr;
use quire_rt::ipc::{self, Message, Patience, Receiver, What};
use quire_rt::{Errno, fs, handles, io, process};
use user_tests::files::{close, open, remove, stat};
use user_tests::{Checks, PAGE, is_quire, mmap, munmap, peek, poke, raw};

quire_rt::entry!(main);

/// A directory of the archive for servers of this test.
const MOUNT: &CStr = c"/mnt";

/// Files by number, in their order. The content of the first is a program; the others are lies.
const FILES: [&[u8]; 6] = [b"program", b"huge", b"long", b"short", b"directory", b"syncs"];
const PROGRAM: u64 = 1;
const HUGE: u64 = 2;
const LONG: u64 = 3;
const SHORT: u64 = 4;
const DIRECTORY: u64 = 5;
const SYNCS: u64 = 6;

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
        let mut files = Files { receiver, program, syncs: 0 };
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
            op::WRITE => {
                let at = if room & APPEND != 0 { self.program.len() } else { argument as usize };
                self.program.resize(self.program.len().max(at + text.len()), 0);
                self.program[at..at + text.len()].copy_from_slice(text);
                done(&[text.len() as u64, at as u64])
            }
            op::CUT => {
                self.program.resize(argument as usize, 0);
                done(&[])
            }
            op::UNLINK if self.receiver.may_be_open(7, number) => Err(Errno::EBUSY),
            op::UNLINK => done(&[]),
            _ => Err(Errno::ENOSYS),
        }
    }

    fn found(&self, number: u64) -> [u64; 6] {
        let size = match number {
            PROGRAM => self.program.len() as u64,
            HUGE => 1 << 45,
            SYNCS => self.syncs,
            _ => 2 * PAGE as u64,
        };
        let kind = match number {
            0 | DIRECTORY => mode::DIR,
            _ => mode::REG,
        };
        let stored = if number == 0 { 0 } else { node::STORED };
        [number, u64::from(kind | 0o755 | stored) | 1 << 32, 0, size, 0, 0]
    }

    fn read(&self, number: u64, at: u64, room: usize) -> Result<Message, Errno> {
        let all = &self.program[..];
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
    checks.fails(mmap(0, PAGE, Prot::READ, Map::SHARED, fd, 0), Errno::ENODEV, "a shared one is not there");

    let before = syncs();
    checks.eq(fs::fsync(fd), Ok(()), "fsync is told");
    checks.eq(raw(nr::SYNCFS, [fd as usize]), Ok(0), "syncfs is");
    fs::sync();
    checks.eq(syncs(), before + 3, "and sync");
    let through = open(c"/mnt/program", Open::WRONLY | Open::APPEND | Open::DSYNC, 0).expect("a file");
    checks.eq(io::write(through, b"more"), Ok(4), "bytes are appended");
    checks.eq((syncs(), fs::lseek(through, 0, 1)), (before + 4, Ok(len as u64 + 4)), "and kept, at the end");
    checks.eq(fs::pwrite(fd, b"x", 3), Ok(1), "a byte is written at a place");
    checks.eq(syncs(), before + 4, "and not kept at once");
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

fn liars(checks: &mut Checks) {
    checks.exits(|| executes(c"/mnt/huge"), Errno::ENOMEM.get() as u8, "a program larger than memory is not executed");
    checks.exits(|| executes(c"/mnt/short"), Errno::ENOEXEC.get() as u8, "nor one that ends before it begins");
    checks.exits(|| executes(c"/mnt/long"), Errno::EIO.get() as u8, "nor one of which more is read than was asked for");
    checks.exits(|| executes(c"/mnt/directory"), Errno::EACCES.get() as u8, "nor a directory that is stored");
    let fd = open(c"/mnt/long", Open::RDWR, 0).expect("a file");
    checks.fails(fs::pread(fd, &mut [0; 16], 0), Errno::EIO, "reading more than was asked for");
    checks.fails(fs::pwrite(fd, b"text", 0), Errno::EIO, "writing more than there was");
    checks.fails(mmap(0, PAGE, Prot::READ, Map::PRIVATE, fd, 0), Errno::EIO, "mapping it");
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
