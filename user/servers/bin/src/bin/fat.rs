//! fat: serves FAT file systems of disks and partitions.
//!
//! Each argument is a mount point and a source: `/disk=vd` mounts the first FAT among the devices named `vd…` in
//! /dev/block that is not served yet, and `/boot/firmware:boot=mmcblk0p1` the partition from which a Raspberry Pi
//! boots, which is mounted read-only and excluded from all other arguments. A mount point that is in use gets no second
//! file system. If there is nothing to mount for any argument, the server ends.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;

use quire_fat::disk::Disk;
use quire_fat::tree::{Kernel, Tree};
use quire_fat::volume::{News, Volume};
use quire_fat::{Clock, DateTime};
use quire_fs::request::{Answer, Request};
use quire_rt::abi::flags::Open;
use quire_rt::abi::layout::mode;
use quire_rt::abi::names::opened;
use quire_rt::ipc::{self, Patience, Receiver};
use quire_rt::{Errno, args, eprintln, fs, info, io, time};
use quire_servers::{Serve, serve_and_rest};

quire_rt::entry!(main);

/// Where disks and partitions are.
const DEVICES: &CStr = c"/dev/block";

/// A file that only the boot partition of a Raspberry Pi contains.
const BOOTS: &CStr = c"start4.elf";

/// The time of day.
const REALTIME: i32 = 0;

/// The delay before changes are written back: after the last change, and after the first one.
const SOON: u64 = 500_000_000;
const LATEST: u64 = 5_000_000_000;

/// The interval at which the server checks whether files that were removed while open have been closed.
const LATER: u64 = 2_000_000_000;

fn main() -> i32 {
    match start() {
        Ok((_, server)) if server.trees.is_empty() => 0,
        Ok((receiver, mut server)) => serve_and_rest("fat", receiver, &mut server),
        Err(error) => {
            eprintln!("fat: {error}");
            1
        }
    }
}

/// The path of a disk or partition.
fn path_of(name: &[u8]) -> Result<CString, Errno> {
    CString::new([DEVICES.to_bytes(), b"/", name].concat()).map_err(|_| Errno::EINVAL)
}

/// A disk or partition, accessed through its file.
struct Device {
    fd: i32,
    len: u64,
    is_read_only: bool,
}

impl Device {
    fn open(name: &[u8]) -> Result<Self, Errno> {
        let path = path_of(name)?;
        let (fd, is_read_only) = match fs::open(&path, Open::RDWR | Open::CLOEXEC) {
            Err(Errno::EROFS) => (fs::open(&path, Open::CLOEXEC)?, true),
            fd => (fd?, false),
        };
        const END: u32 = 2;
        let len = fs::lseek(fd, 0, END)?;
        Ok(Self { fd, len, is_read_only })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = io::close(self.fd);
    }
}

impl Disk for Device {
    fn len(&self) -> u64 {
        self.len
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn read(&mut self, at: u64, mut to: &mut [u8]) -> Result<(), Errno> {
        let mut at = at as i64;
        while !to.is_empty() {
            let read = fs::pread(self.fd, to, at)?;
            if read == 0 {
                return Err(Errno::EIO);
            }
            to = &mut to[read..];
            at += read as i64;
        }
        Ok(())
    }

    fn write(&mut self, at: u64, mut from: &[u8]) -> Result<(), Errno> {
        let mut at = at as i64;
        while !from.is_empty() {
            let written = match fs::pwrite(self.fd, from, at) {
                // (The end of the disk must not be reported as a full file system.)
                Ok(0) | Err(Errno::ENOSPC) => return Err(Errno::EIO),
                written => written?,
            };
            from = &from[written..];
            at += written as i64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        fs::fsync(self.fd)
    }
}

/// Queries to the kernel about the file system with this badge.
struct Asker {
    receiver: Receiver,
    badge: u64,
}

impl Kernel for Asker {
    fn is_caller_in(&self, group: u32) -> bool {
        ipc::caller_in(0, group)
    }

    fn is_open(&self, number: u64) -> bool {
        self.receiver.opened(self.badge, number) & opened::HELD != 0
    }

    fn is_used(&self, number: u64) -> bool {
        self.receiver.opened(self.badge, number) != 0
    }
}

struct RealTime;

impl Clock for RealTime {
    fn now(&self) -> DateTime {
        // (FAT has no times before 1980; this also covers a clock that was never set.)
        const FIRST: i64 = 315_532_800;
        let seconds = (time::nanoseconds(REALTIME) / 1_000_000_000) as i64;
        DateTime::from_unix_seconds(seconds.max(FIRST)).unwrap_or(quire_fat::NoClock::TIME)
    }
}

fn report(news: News) {
    match news {
        News::Damaged(times) => eprintln!("fat: a file system is damaged (errors: {times}) and remains read-only"),
        News::Unchecked(error) => {
            eprintln!("fat: a file system cannot be checked and remains read-only: {error}")
        }
    }
}

/// The file systems that are served, by the badges of their senders.
struct Server {
    trees: Vec<Tree<Device>>,
    /// When the first and the last of the changes were made that are not written back yet.
    changed: Option<(u64, u64)>,
}

impl Serve for Server {
    fn answer(&mut self, badge: u64, request: &Request<'_>, room: usize) -> Answer {
        let Some(tree) = self.trees.get_mut(badge as usize) else { return Answer::error(Errno::EINVAL) };
        let answer = tree.serve(request, room);
        let is_changed = self.trees.iter().any(Tree::is_changed);
        self.changed = is_changed.then(|| {
            let now = time::monotonic();
            (self.changed.map_or(now, |(first, _)| first), now)
        });
        if self.changed.is_some_and(|(first, now)| now - first > LATEST) {
            self.rest();
        }
        answer
    }

    fn patience(&self) -> Patience {
        match self.changed {
            Some((_, last)) => Patience::Until(last + SOON),
            None if self.trees.iter().any(Tree::has_removed) => Patience::Until(time::monotonic() + LATER),
            None => Patience::Endless,
        }
    }

    fn rest(&mut self) {
        for tree in &mut self.trees {
            if let Err(error) = tree.sync() {
                eprintln!("fat: changes cannot be written back: {error}");
            }
        }
        self.changed = None;
    }
}

/// An argument.
struct Rule {
    path: CString,
    prefix: Vec<u8>,
    is_boot: bool,
}

impl Rule {
    fn parse(argument: &[u8]) -> Result<Self, Errno> {
        let equals = argument.iter().position(|byte| *byte == b'=').ok_or(Errno::EINVAL)?;
        let (path, prefix) = (&argument[..equals], argument[equals + 1..].to_vec());
        let boot = path.strip_suffix(b":boot");
        let is_boot = boot.is_some();
        Ok(Self { path: CString::new(boot.unwrap_or(path)).map_err(|_| Errno::EINVAL)?, prefix, is_boot })
    }
}

fn start() -> Result<(Receiver, Server), Errno> {
    let receiver = Receiver::new()?;
    let mut server = Server { trees: Vec::new(), changed: None };
    let (mut served, mut places): (Vec<Vec<u8>>, Vec<CString>) = (Vec::new(), Vec::new());
    let mut devices: Vec<Vec<u8>> = Vec::new();
    for entry in fs::read_dir(DEVICES).unwrap_or_default() {
        if fs::stat(&path_of(&entry.name)?, 0).is_ok_and(|stat| stat.mode & mode::FMT == mode::BLK) {
            devices.push(entry.name);
        }
    }
    for argument in args().skip(1) {
        let rule = Rule::parse(argument.to_bytes())?;
        if places.contains(&rule.path) {
            continue;
        }
        for name in devices.iter().filter(|name| name.starts_with(&rule.prefix)) {
            if served.contains(name) {
                continue;
            }
            let badge = server.trees.len() as u64;
            let Some(tree) = mounted(name, rule.is_boot, Asker { receiver, badge }) else { continue };
            let sender = receiver.sender(badge)?;
            let source = path_of(name)?;
            fs::mount_of(&rule.path, sender, c"vfat", Some(&source), tree.is_read_only())?;
            ipc::close(sender.0)?;
            server.trees.push(tree);
            served.push(name.clone());
            places.push(rule.path);
            break;
        }
    }
    Ok((receiver, server))
}

/// The file system on a disk or partition, if it is a FAT, and a Raspberry Pi's boot partition or not (`is_boot`).
fn mounted(name: &[u8], is_boot: bool, kernel: Asker) -> Option<Tree<Device>> {
    let volume = Device::open(name).and_then(|device| Volume::mount(device, is_boot, &RealTime, report));
    let volume = match volume {
        Ok(mut volume) => (volume.has(BOOTS.to_bytes()) == is_boot).then_some(volume)?,
        // (Something else lies there.)
        Err(Errno::EINVAL) => return None,
        Err(error) => {
            eprintln!("fat: {}: {error}", alloc::string::String::from_utf8_lossy(name));
            return None;
        }
    };
    Some(Tree::new(volume, info::random().ok()?, Box::new(kernel)))
}
