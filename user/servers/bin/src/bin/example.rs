//! example: a file system with one file, which contains a greeting (docs/servers.md).

#![no_std]
#![no_main]

extern crate alloc;

use quire_fs::request::{Answer, Found, Request};
use quire_rt::abi::layout::mode;
use quire_rt::abi::names::op;
use quire_rt::ipc::{self, Receiver};
use quire_rt::{Errno, eprintln, fs};

quire_rt::entry!(main);

/// Numbers of the directory and the file.
const ROOT: u64 = 0;
const FILE: u64 = 1;

fn main() -> i32 {
    match start() {
        Ok(receiver) => quire_servers::serve("example", receiver, |_, request, room| {
            answer(request, room).unwrap_or_else(Answer::error)
        }),
        Err(error) => {
            eprintln!("example: {error}");
            1
        }
    }
}

fn start() -> Result<Receiver, Errno> {
    let receiver = Receiver::new()?;
    fs::mount(c"/mnt", receiver.sender(0)?, c"example")?;
    Ok(receiver)
}

fn answer(request: &Request<'_>, room: usize) -> Result<Answer, Errno> {
    let found = |number, mode| Answer::done(Found { number, mode, links: 1, ..Found::default() }.to_words());
    match (request.op, request.directory, request.path) {
        (op::READ, FILE, _) => {
            let text = alloc::format!("Good day, process {}.\n", ipc::caller(0)?.pid);
            let rest = text.as_bytes().get(request.argument as usize..).unwrap_or(&[]);
            Ok(Answer::text(rest[..rest.len().min(room)].to_vec()))
        }
        (op::LOOKUP | op::OPEN | op::ACCESS, ROOT, b"" | b".") => Ok(found(ROOT, mode::DIR | 0o555)),
        (op::LOOKUP | op::OPEN | op::ACCESS, ROOT, b"greeting") => Ok(found(FILE, mode::REG | 0o444)),
        (_, ROOT, path) if path == b".." || path.starts_with(b"../") => Ok(Answer::up(2)),
        _ => Err(Errno::ENOENT),
    }
}
