//! What a path names: a file of the boot archive, a file whose memory object a server has handed out, or a node that
//! only its server can access: a directory, a symbolic link, a file that is read and written by messages.

use quire_abi::Errno;
use quire_abi::ipc::rights;
use quire_abi::layout::{Stat, Timespec, mode};
use quire_abi::names::node;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::KArc;

use super::walk::{Reached, Served};
use super::{Place, inodes, mounts};
use crate::archive::Node;
use crate::ipc::descriptor::Object;
use crate::ipc::handles::Target;
use crate::ipc::memory_file::MemoryFile;
use crate::ipc::trigger::Trigger;
use crate::task::thread::current;

/// See the module.
pub enum Found {
    /// In the boot archive.
    Archive(&'static Node),
    /// A regular file, and whether it may be read and written.
    File(KArc<MemoryFile>, Allows),
    /// A node that only its server can access.
    Name(Name),
    /// Another object that a process holds.
    Held(Object),
}

/// What a server allows whoever opens a file to do.
#[derive(Clone, Copy, Debug)]
pub struct Allows {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
}

impl Allows {
    /// Neither.
    pub const NOTHING: Self = Self { read: false, write: false };
}

/// A directory, a symbolic link, or a server's file without a memory object.
#[derive(Clone)]
pub struct Name {
    /// Which.
    pub place: Place,
    /// Its type and permissions.
    pub mode: u32,
    /// Its content, if it is stored and was opened.
    pub file: Option<KArc<MemoryFile>>,
    /// The trigger that writing to it sets, if it supports triggers and was opened.
    pub trigger: Option<KArc<Trigger>>,
}

impl Name {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & mode::FMT == mode::DIR
    }

    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode & mode::FMT == mode::LNK
    }

    /// The same with its content, if it is stored, or with its own trigger.
    pub fn opened(mut self) -> Result<Self, Errno> {
        if self.is_stored() && self.file.is_none() {
            self.file = Some(inodes::open(&self)?);
        }
        if self.mode & node::TRIGGER != 0 {
            self.trigger = Some(Trigger::new()?);
        }
        Ok(self)
    }

    /// Whether it is a disk.
    pub fn is_disk(&self) -> bool {
        self.mode & mode::FMT == mode::BLK
    }

    /// Whether it is a file whose content its server keeps.
    pub fn is_stored(&self) -> bool {
        self.mode & node::STORED != 0 && self.mode & mode::FMT == mode::REG
    }
}

impl Found {
    /// The result of a walk. ENOENT for nothing; EIO for an invalid answer.
    pub fn of(reached: Reached) -> Result<Self, Errno> {
        match reached {
            Reached::Archive(node) => node.map(Self::Archive).ok_or(Errno::ENOENT),
            Reached::Server(served) => Self::served(served),
            Reached::Held(Object::Memory(file)) => {
                let (read, write) = file.allows(&current().process().credentials.lock().clone());
                Ok(Self::File(file, Allows { read, write }))
            }
            Reached::Held(object) => Ok(Self::Held(object)),
        }
    }

    fn served(served: Served) -> Result<Self, Errno> {
        let words = served.answer.words;
        let mode = words[node::MODE] as u32;
        let place = Place::new(served.mount, words[node::NUMBER]).ok_or(Errno::EIO)?;
        match (mode & mode::FMT, &served.answer.handle) {
            (mode::REG, Some(handle)) => {
                let Target::Memory(file) = &handle.target else { return Err(Errno::EIO) };
                file.note_mount(mounts::device(served.mount));
                let allows = Allows { read: handle.allows(rights::READ), write: handle.allows(rights::WRITE) };
                Ok(Self::File(file.clone(), allows))
            }
            (mode::REG | mode::DIR | mode::LNK | mode::BLK | mode::SOCK, _) => {
                let name = Name { place, mode, file: None, trigger: None };
                if name.is_stored() || name.is_disk() {
                    mounts::note_stores(served.mount);
                }
                Ok(Self::Name(name))
            }
            _ => Err(Errno::EIO),
        }
    }
}

/// The record that a mount's server has returned, except for a file whose object it lends.
pub fn stat(mount: u16, words: &[u64; 6]) -> Stat {
    const SECOND: u64 = 1_000_000_000;
    let [low, high] = [|word: u64| word as u32, |word: u64| (word >> 32) as u32];
    let time = |ns: u64| Timespec { sec: (ns / SECOND) as i64, nsec: (ns % SECOND) as i64 };
    // For a disk, the word is its device number instead of the time of its last change; its size is 0, as on Linux.
    let is_disk = low(words[node::MODE]) & mode::FMT == mode::BLK;
    let (size, changed, rdev) = match is_disk {
        true => (0, words[node::MODIFIED], words[node::CHANGED]),
        false => (words[node::SIZE], words[node::CHANGED], 0),
    };
    Stat {
        dev: mounts::device(mount).into(),
        ino: words[node::NUMBER] + 1,
        mode: low(words[node::MODE]) & !node::NOTES,
        nlink: high(words[node::MODE]),
        uid: low(words[node::OWNER]),
        gid: high(words[node::OWNER]),
        rdev,
        size: size as i64,
        blocks: if low(words[node::MODE]) & node::STORED != 0 { size.div_ceil(512) as i64 } else { 0 },
        blksize: PAGE_SIZE as i32,
        atime: time(words[node::MODIFIED]),
        mtime: time(words[node::MODIFIED]),
        ctime: time(changed),
        ..Stat::default()
    }
}
