//! tmpfs: serves a file system in memory at each of the paths with which it is started.
//!
//! It mounts itself, and serves until it is killed; then its contents are lost.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use quire_fs::request::Answer;
use quire_rt::abi::layout::Stat;
use quire_rt::ipc::{self, Receiver};
use quire_rt::{Errno, args, eprintln, fs, info, time};
use quire_tmpfs::objects::Objects;
use quire_tmpfs::tree::Tree;

quire_rt::entry!(main);

/// The time of day.
const REALTIME: i32 = 0;

/// Permissions of a root: everybody may write, but only owners may remove their files.
const ROOT: u32 = 0o1777;

fn main() -> i32 {
    match start() {
        Ok((receiver, mut trees)) => {
            quire_servers::serve("tmpfs", receiver, |badge, request, room| match trees.get_mut(badge as usize) {
                Some(tree) => tree.serve(request, room, memory),
                None => Answer::error(Errno::EINVAL),
            })
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

/// The machine's memory and the free part of it, in pages.
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
