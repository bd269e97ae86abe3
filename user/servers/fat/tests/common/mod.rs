//! File systems made by `mkfs.vfat`, served in memory, and read and checked by the host's tools.

#![allow(dead_code)]

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::rc::Rc;

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::{at, dtype};
use quire_abi::names::{APPEND, Change, node, op};
use quire_fat::disk::Disk;
use quire_fat::tree::{Kernel, Tree};
use quire_fat::volume::{News, Volume};
use quire_fat::{Clock, DateTime};
use quire_fs::request::{Answer, Request};

/// 2026-02-03 04:05:06.
pub const NOW: i64 = 1_770_091_506;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> DateTime {
        DateTime::from_unix_seconds(NOW).unwrap()
    }
}

/// A disk in memory.
#[derive(Default)]
pub struct Memory {
    pub bytes: Vec<u8>,
    pub flushes: usize,
    pub reads: usize,
    pub writes: usize,
    /// How many more writes succeed; later ones fail.
    pub fails_after: Option<usize>,
    /// This byte cannot be read.
    pub bad: Option<u64>,
    pub is_read_only: bool,
}

#[derive(Clone)]
pub struct Image(pub Rc<RefCell<Memory>>);

impl Disk for Image {
    fn len(&self) -> u64 {
        self.0.borrow().bytes.len() as u64
    }
    fn is_read_only(&self) -> bool {
        self.0.borrow().is_read_only
    }
    fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), Errno> {
        let mut memory = self.0.borrow_mut();
        memory.reads += 1;
        assert!(memory.reads < 1_000_000, "it does not end");
        if memory.bad.is_some_and(|bad| (at..at + to.len() as u64).contains(&bad)) {
            return Err(Errno::EIO);
        }
        to.copy_from_slice(memory.bytes.get(at as usize..at as usize + to.len()).ok_or(Errno::EIO)?);
        Ok(())
    }
    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Errno> {
        let mut memory = self.0.borrow_mut();
        assert!(!memory.is_read_only, "a write to what is for reading");
        memory.writes += 1;
        if let Some(left) = memory.fails_after.as_mut() {
            *left = left.checked_sub(1).ok_or(Errno::EIO)?;
        }
        memory.bytes.get_mut(at as usize..at as usize + from.len()).ok_or(Errno::EIO)?.copy_from_slice(from);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), Errno> {
        self.0.borrow_mut().flushes += 1;
        Ok(())
    }
}

/// Runs a program of the host, possibly one for administrators. `cargo xtask setup` installs them.
pub fn tool(name: &str, arguments: &[&str]) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let mut command = Command::new("/usr/bin/env");
    command.env("PATH", path).env("MTOOLS_SKIP_CHECK", "1").env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
    command.arg(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The bytes of a file system of `kib` KiB that mkfs.vfat makes with these arguments.
pub fn made(name: &str, kib: usize, arguments: &[&str]) -> Vec<u8> {
    let path = path_of(name);
    let _ = fs::remove_file(&path);
    let size = kib.to_string();
    let all = [&["-C", "-i", "51554952"], arguments, &[path.to_str().unwrap(), &size]].concat();
    let done = tool("mkfs.vfat", &all);
    assert!(done.status.success(), "mkfs.vfat: {done:?}");
    fs::read(&path).unwrap()
}

/// The result of fsck.vfat for these bytes: the status, and the text.
pub fn checked(name: &str, bytes: &[u8]) -> (i32, String) {
    let path = path_of(name);
    fs::write(&path, bytes).unwrap();
    let done = tool("fsck.vfat", &["-n", "-v", path.to_str().unwrap()]);
    (done.status.code().unwrap(), String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The contents of a file according to mtools.
pub fn mtype(name: &str, bytes: &[u8], file: &str) -> Vec<u8> {
    let path = path_of(name);
    fs::write(&path, bytes).unwrap();
    let done = tool("mtype", &["-i", path.to_str().unwrap(), &format!("::{file}")]);
    assert!(done.status.success(), "mtype {file}: {done:?}");
    done.stdout
}

/// The numbers of files that are open.
#[derive(Clone, Default)]
pub struct Opened(pub Rc<RefCell<Vec<u64>>>);

impl Kernel for Opened {
    fn is_caller_in(&self, _: u32) -> bool {
        false
    }
    fn is_open(&self, number: u64) -> bool {
        self.0.borrow().contains(&number)
    }
    fn is_used(&self, number: u64) -> bool {
        self.is_open(number)
    }
}

/// A served file system.
pub struct Served {
    pub opened: Opened,
    pub tree: Tree<Image>,
    pub image: Image,
    pub user: u32,
}

thread_local! {
    static NEWS: RefCell<Vec<News>> = const { RefCell::new(Vec::new()) };
}

/// The news that was reported in this thread.
pub fn news() -> Vec<News> {
    NEWS.with(|news| news.take())
}

pub fn mounted(bytes: Vec<u8>) -> Result<Served, Errno> {
    mounted_as(bytes, false)
}

pub fn mounted_as(bytes: Vec<u8>, is_read_only: bool) -> Result<Served, Errno> {
    let image = Image(Rc::new(RefCell::new(Memory { bytes, ..Memory::default() })));
    image.0.borrow_mut().is_read_only = is_read_only;
    let report = |news| NEWS.with(|all| all.borrow_mut().push(news));
    let volume = Volume::mount(image.clone(), is_read_only, &Fixed, report)?;
    let opened = Opened::default();
    Ok(Served { tree: Tree::new(volume, 77, Box::new(opened.clone())), image, user: 0, opened })
}

fn result(answer: Answer) -> Result<Answer, Errno> {
    Errno::from_ret(answer.label as isize).map(|_| answer)
}

impl Served {
    pub fn ask(&mut self, op: u64, directory: u64, path: &str, argument: u64) -> Result<Answer, Errno> {
        self.request(&Request { op, directory, argument, path: path.as_bytes(), ..self.blank() })
    }

    pub fn blank<'a>(&self) -> Request<'a> {
        let identity = (self.user, self.user);
        Request { op: 0, directory: 0, argument: 0, mode: 0, identity, follow: true, path: b"", text: b"" }
    }

    pub fn request(&mut self, request: &Request<'_>) -> Result<Answer, Errno> {
        result(self.tree.serve(request, 4096))
    }

    pub fn open(&mut self, path: &str, flags: Open) -> Result<u64, Errno> {
        self.ask(op::OPEN, 0, path, flags.bits().into()).map(|answer| answer.words[node::NUMBER])
    }

    pub fn lookup(&mut self, path: &str) -> Result<[u64; 6], Errno> {
        self.ask(op::LOOKUP, 0, path, 0).map(|answer| answer.words)
    }

    pub fn size(&mut self, path: &str) -> Result<u64, Errno> {
        self.lookup(path).map(|words| words[node::SIZE])
    }

    pub fn write(&mut self, number: u64, at: u64, text: &[u8]) -> Result<usize, Errno> {
        let asked = Request { op: op::WRITE, directory: number, argument: at, text, ..self.blank() };
        self.request(&asked).map(|answer| answer.words[0] as usize)
    }

    pub fn append(&mut self, number: u64, text: &[u8]) -> Result<(usize, u64), Errno> {
        let asked = Request { op: op::WRITE, directory: number, mode: APPEND, text, ..self.blank() };
        self.request(&asked).map(|answer| (answer.words[0] as usize, answer.words[1]))
    }

    pub fn read(&mut self, number: u64, at: u64) -> Result<Vec<u8>, Errno> {
        self.ask(op::READ, number, "", at).map(|answer| answer.text)
    }

    /// All of a file.
    pub fn content(&mut self, path: &str) -> Result<Vec<u8>, Errno> {
        let number = self.open(path, Open::empty())?;
        let mut all = Vec::new();
        loop {
            let piece = self.read(number, all.len() as u64)?;
            if piece.is_empty() {
                return Ok(all);
            }
            all.extend(piece);
        }
    }

    /// Makes a file with this content.
    pub fn put(&mut self, path: &str, text: &[u8]) -> Result<u64, Errno> {
        let number = self.open(path, Open::CREAT | Open::TRUNC | Open::RDWR)?;
        let mut at = 0;
        while at < text.len() {
            let end = text.len().min(at + (64 << 10));
            at += self.write(number, at as u64, &text[at..end])?;
        }
        Ok(number)
    }

    pub fn mkdir(&mut self, path: &str) -> Result<(), Errno> {
        self.ask(op::MKDIR, 0, path, 0).map(drop)
    }

    pub fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        self.ask(op::UNLINK, 0, path, 0).map(drop)
    }

    pub fn rmdir(&mut self, path: &str) -> Result<(), Errno> {
        self.ask(op::UNLINK, 0, path, at::REMOVEDIR.into()).map(drop)
    }

    /// Moves a name in the way of the kernel.
    pub fn rename(&mut self, old: &str, new: &str, flags: u64) -> Result<(), Errno> {
        let found = self.ask(op::PARENT, 0, old, op::RENAME)?;
        let text = &old.as_bytes()[found.words[1] as usize..];
        let directory = found.words[0];
        let asked =
            Request { op: op::RENAME, path: new.as_bytes(), argument: flags, mode: directory, text, ..self.blank() };
        self.request(&asked).map(drop)
    }

    pub fn set(&mut self, path: &str, change: Change) -> Result<(), Errno> {
        let text = quire_abi::layout::bytes_of(&change);
        let asked = Request { op: op::SET, path: path.as_bytes(), text, ..self.blank() };
        self.request(&asked).map(drop)
    }

    pub fn cut(&mut self, number: u64, len: u64) -> Result<(), Errno> {
        self.ask(op::CUT, number, "", len).map(drop)
    }

    pub fn sync(&mut self) -> Result<(), Errno> {
        self.ask(op::SYNC, 0, "", 0).map(drop)
    }

    /// Names in a directory, in their order.
    pub fn list(&mut self, path: &str) -> Result<Vec<String>, Errno> {
        let number = self.open(path, Open::DIRECTORY)?;
        let (mut names, mut place) = (Vec::new(), 0);
        loop {
            let asked = Request { op: op::READDIR, directory: number, argument: place, ..self.blank() };
            let records = result(self.tree.serve(&asked, 1024))?.text;
            if records.is_empty() {
                return Ok(names);
            }
            let mut at = 0;
            while at < records.len() {
                let len = u16::from_le_bytes([records[at + 16], records[at + 17]]) as usize;
                place = u64::from_le_bytes(records[at + 8..at + 16].try_into().unwrap());
                let name = &records[at + dtype::HEADER..at + len];
                let name = name.split(|byte| *byte == 0).next().unwrap();
                names.push(String::from_utf8(name.to_vec()).unwrap());
                at += len;
            }
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.image.0.borrow().bytes.clone()
    }

    /// Syncs; the host must find no errors.
    #[track_caller]
    pub fn is_clean(&mut self, name: &str) -> Vec<u8> {
        self.sync().unwrap();
        let bytes = self.bytes();
        let (status, text) = checked(name, &bytes);
        assert_eq!(status, 0, "{text}");
        bytes
    }
}
