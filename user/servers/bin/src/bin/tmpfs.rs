//! tmpfs: serves a file system in memory at each of the paths that it is started with.
//!
//! It mounts itself, closes descriptor 3 as a sign that it is ready, and serves until it is killed; then what it had is lost.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use quire_fs::request::{Answer, Request, TEXT_MAX, lengths};
use quire_rt::abi::ipc::{Cargo, Parcel};
use quire_rt::abi::layout::Stat;
use quire_rt::abi::names::op;
use quire_rt::ipc::{self, Message, Patience, Receiver, What};
use quire_rt::{Errno, args, eprintln, fs, info, io, time};
use quire_tmpfs::objects::Objects;
use quire_tmpfs::tree::Tree;

quire_rt::entry!(main);

/// The descriptor whose end is the sign.
const READY: i32 = 3;

/// The time of day.
const REALTIME: i32 = 0;

/// Permissions of a root: everybody's, but what belongs to somebody is removed by nobody else.
const ROOT: u32 = 0o1777;

fn main() -> i32 {
    match start() {
        Ok((receiver, mut trees)) => {
            let _ = io::close(READY);
            serve(receiver, &mut trees)
        }
        Err(error) => {
            eprintln!("tmpfs: {error}");
            1
        }
    }
}

fn start() -> Result<(Receiver, Vec<Tree<Kernel>>), Errno> {
    let receiver = Receiver::new()?;
    let mut trees = Vec::new();
    for path in args().skip(1) {
        let sender = receiver.sender(trees.len() as u64)?;
        trees.push(Tree::new(Kernel, ROOT).numbered_from(info::random()?));
        fs::mount(path, sender, c"tmpfs")?;
        ipc::close(sender.0)?;
    }
    Ok((receiver, trees))
}

fn serve(receiver: Receiver, trees: &mut [Tree<Kernel>]) -> i32 {
    let mut texts = [0; 2 * TEXT_MAX];
    let mut received = receiver.receive(Patience::Endless);
    loop {
        received = match received.map(|received| received.what) {
            Ok(What::Call { badge, message }) => {
                let answer = answer(trees, badge, &message, &mut texts).unwrap_or_else(Answer::error);
                send(receiver, &answer)
            }
            Ok(_) | Err(Errno::EINTR) => receiver.receive(Patience::Endless),
            Err(error) => {
                eprintln!("tmpfs: {error}");
                return 1;
            }
        }
    }
}

fn answer(trees: &mut [Tree<Kernel>], badge: u64, message: &Message, texts: &mut [u8]) -> Result<Answer, Errno> {
    let tree = trees.get_mut(badge as usize).ok_or(Errno::EINVAL)?;
    let (path, text) = lengths(&message.words)?;
    let texts = texts.get_mut(..path + text).ok_or(Errno::EINVAL)?;
    // (Windows of the kernel's are always there; another caller's page may be missing.)
    if !texts.is_empty() && ipc::read_window(0, 0, 0, texts)? != texts.len() {
        return Err(Errno::EFAULT);
    }
    let request = Request::new(message.label, &message.words, texts)?;
    let room = if request.op == op::READDIR { (request.mode as usize).min(TEXT_MAX) } else { TEXT_MAX };
    let answer = tree.serve(&request, room, memory);
    if !answer.text.is_empty() && ipc::write_window(0, 1, 0, &answer.text)? != answer.text.len() {
        return Err(Errno::EFAULT);
    }
    Ok(answer)
}

/// Answers the call, and receives the next one.
fn send(receiver: Receiver, answer: &Answer) -> Result<ipc::Received, Errno> {
    let message = Message { label: answer.label, words: answer.words };
    let Some((number, rights)) = answer.handle else {
        return receiver.reply_receive(&message, Patience::Endless);
    };
    let mut cargo = Cargo::default();
    cargo.handles[0] = Parcel { number, rights };
    // (If it cannot be lent, to a caller that is not the kernel, there is no answer yet.)
    match receiver.reply_carrying_receive(&message, &cargo, Patience::Endless) {
        Err(error @ (Errno::EBADF | Errno::EMFILE | Errno::EPERM | Errno::ENOMEM)) => {
            receiver.reply_receive(&Message { label: error.to_ret() as u64, ..Message::default() }, Patience::Endless)
        }
        received => received,
    }
}

/// What the machine has of memory, and what is free of it, in pages.
fn memory() -> (u64, u64) {
    info::sysinfo().map_or((0, 0), |memory| {
        let pages = |amount: u64| amount * u64::from(memory.mem_unit) / quire_rt::abi::PAGE_SIZE as u64;
        (pages(memory.totalram), pages(memory.freeram))
    })
}

/// The kernel's memory objects.
struct Kernel;

impl Objects for Kernel {
    fn make(&mut self, mode: u32, owner: (u32, u32), number: u64) -> Result<u32, Errno> {
        ipc::memory(mode, owner, number)
    }
    fn stat(&self, handle: u32) -> Stat {
        // (It is our own handle.)
        ipc::memory_stat(handle).unwrap_or_default()
    }
    fn set_links(&mut self, handle: u32, links: u32) {
        let _ = ipc::memory_links(handle, links);
    }
    fn close(&mut self, handle: u32) {
        let _ = ipc::close(handle);
    }
    fn now(&self) -> u64 {
        time::nanoseconds(REALTIME)
    }
    fn is_caller_in(&self, group: u32) -> bool {
        ipc::caller_in(0, group)
    }
}
