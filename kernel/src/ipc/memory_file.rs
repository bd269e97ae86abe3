//! Files in memory: a file's attributes; its content is a memory object (docs/files.md).
//!
//! Each attribute is one word, which is read and written without a lock; whoever changes the content must have its turn
//! ([`quire_mm::object::file`]).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::access::Owned;
use quire_abi::layout::{Stat, Timespec, mode};
use quire_abi::names::Change;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::KArc;

use crate::task::clock;
use crate::task::credentials::{Credentials, KEEP};
use crate::vm::Object;

/// The device number of files that are in no mount.
const DEVICE: u32 = 2;

/// Permission bits, including set-user-ID and the like.
const PERMISSIONS: u32 = 0o7777;
const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o10;

/// The unit of [`Stat::blocks`], in bytes.
const BLOCK: usize = 512;

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// A file in memory.
pub struct MemoryFile {
    /// Its bytes.
    pub content: KArc<Object>,
    /// The name that it was given when it was made, if it belongs to no server.
    pub name: Vec<u8>,
    number: u64,
    /// The device number of the mount where it was last found.
    device: AtomicU32,
    /// How many names it has.
    links: AtomicU32,
    mode: AtomicU32,
    user: AtomicU32,
    group: AtomicU32,
    /// Times, in nanoseconds since 1970.
    accessed: AtomicU64,
    modified: AtomicU64,
    changed: AtomicU64,
}

impl MemoryFile {
    /// An empty file with these permissions, which belongs to the user and group of these credentials.
    pub fn new(
        content: KArc<Object>,
        name: Vec<u8>,
        permissions: u32,
        owner: &Credentials,
    ) -> Result<KArc<Self>, Errno> {
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Self::make(content, name, permissions, (owner.user.files, owner.group.files), number)
    }

    /// The same for a server, which assigns its number.
    pub fn named(content: KArc<Object>, permissions: u32, owner: (u32, u32), number: u64) -> Result<KArc<Self>, Errno> {
        Self::make(content, Vec::new(), permissions, owner, number)
    }

    fn make(
        content: KArc<Object>,
        name: Vec<u8>,
        permissions: u32,
        (user, group): (u32, u32),
        number: u64,
    ) -> Result<KArc<Self>, Errno> {
        let now = clock::real_ns();
        Ok(KArc::try_new(Self {
            content,
            name,
            number,
            device: AtomicU32::new(DEVICE),
            links: AtomicU32::new(0),
            mode: AtomicU32::new(mode::REG | permissions & PERMISSIONS),
            user: AtomicU32::new(user),
            group: AtomicU32::new(group),
            accessed: AtomicU64::new(now),
            modified: AtomicU64::new(now),
            changed: AtomicU64::new(now),
        })?)
    }

    /// It was read.
    #[inline]
    pub fn note_read(&self) {
        self.accessed.store(clock::real_ns(), Ordering::Relaxed);
    }

    /// Its content was changed.
    #[inline]
    pub fn note_write(&self) {
        let now = clock::real_ns();
        self.modified.store(now, Ordering::Relaxed);
        self.changed.store(now, Ordering::Relaxed);
    }

    /// Notes that it was found in the mount with this device number.
    pub fn note_mount(&self, device: u32) {
        self.device.store(device, Ordering::Relaxed);
    }

    /// Its number in its mount.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The device number of the mount where it was last found.
    pub fn device(&self) -> u32 {
        self.device.load(Ordering::Relaxed)
    }

    /// Sets its number of names.
    pub fn set_links(&self, links: u32) {
        self.links.store(links, Ordering::Relaxed);
        self.changed.store(clock::real_ns(), Ordering::Relaxed);
    }

    /// Sets the times of its last access and change. EPERM unless the caller is its owner or root; EACCES for the
    /// current time if the caller may not write to it either.
    pub fn set_times(&self, by: &Credentials, times: &Change) -> Result<(), Errno> {
        let is_owner = by.is_privileged() || by.user.files == self.user.load(Ordering::Relaxed);
        let is_now = times.what & Change::NOW != 0;
        let may_change = is_owner || is_now && self.may_write(by);
        if !may_change {
            return Err(if is_now { Errno::EACCES } else { Errno::EPERM });
        }
        if times.what & Change::ACCESSED != 0 {
            self.accessed.store(times.accessed, Ordering::Relaxed);
        }
        if times.what & Change::MODIFIED != 0 {
            self.modified.store(times.modified, Ordering::Relaxed);
        }
        self.changed.store(clock::real_ns(), Ordering::Relaxed);
        Ok(())
    }

    fn may_write(&self, by: &Credentials) -> bool {
        self.allows(by).1
    }

    /// Whether `by` may read it, and write it, by its permissions.
    pub fn allows(&self, by: &Credentials) -> (bool, bool) {
        let bits = if by.is_privileged() { 6 } else { self.bits_for(by) };
        (bits & 4 != 0, bits & 2 != 0)
    }

    /// Whether it may be executed; by root, if anybody may.
    pub fn may_execute(&self, by: &Credentials) -> bool {
        let bits = if by.is_privileged() { self.permissions() } else { self.bits_for(by) };
        bits & 0o111 != 0
    }

    /// The three permission bits that apply to `by`.
    fn bits_for(&self, by: &Credentials) -> u32 {
        let mode = self.permissions();
        let shift = if by.user.files == self.user.load(Ordering::Relaxed) {
            6
        } else if by.is_in(self.group.load(Ordering::Relaxed)) {
            3
        } else {
            0
        };
        mode >> shift & 7
    }

    /// Whether [`MemoryFile::end_set_ids`] has something to do.
    #[inline]
    pub fn has_set_ids(&self) -> bool {
        self.mode.load(Ordering::Relaxed) & (SET_USER | SET_GROUP) != 0
    }

    /// Clears the set-user-ID and set-group-ID bits: the file does not lend its owner's rights any more.
    #[cold]
    pub fn end_set_ids(&self) {
        let mode = self.mode.load(Ordering::Relaxed);
        let group = if mode & GROUP_EXECUTES != 0 { SET_GROUP } else { 0 };
        self.mode.fetch_and(!(SET_USER | group), Ordering::Relaxed);
    }

    /// Its permissions.
    pub fn permissions(&self) -> u32 {
        self.mode.load(Ordering::Relaxed) & PERMISSIONS
    }

    /// Type, permissions and owner.
    pub fn owned(&self) -> Owned {
        let [mode, user, group] = [&self.mode, &self.user, &self.group].map(|of| of.load(Ordering::Relaxed));
        Owned { mode, user, group }
    }

    /// fchmod. EPERM unless the caller is its owner or root.
    pub fn set_permissions(&self, by: &Credentials, permissions: u32) -> Result<(), Errno> {
        if !by.is_privileged() && by.user.files != self.user.load(Ordering::Relaxed) {
            return Err(Errno::EPERM);
        }
        let may_lend = by.is_privileged() || by.is_in(self.group.load(Ordering::Relaxed));
        let lent = if may_lend { PERMISSIONS } else { PERMISSIONS & !SET_GROUP };
        self.mode.store(mode::REG | permissions & lent, Ordering::Relaxed);
        self.changed.store(clock::real_ns(), Ordering::Relaxed);
        Ok(())
    }

    /// fchown. Only root may change a file's owner; the owner may set the group to one of its own groups. EPERM.
    pub fn set_owner(&self, by: &Credentials, user: u32, group: u32) -> Result<(), Errno> {
        let owner = self.user.load(Ordering::Relaxed);
        let is_owner = by.user.files == owner;
        let may_user = user == KEEP || is_owner && user == owner;
        let may_group = group == KEEP || is_owner && (group == self.group.load(Ordering::Relaxed) || by.is_in(group));
        if !(by.is_privileged() || may_user && may_group) {
            return Err(Errno::EPERM);
        }
        if user != KEEP {
            self.user.store(user, Ordering::Relaxed);
        }
        if group != KEEP {
            self.group.store(group, Ordering::Relaxed);
        }
        self.end_set_ids();
        self.changed.store(clock::real_ns(), Ordering::Relaxed);
        Ok(())
    }

    /// Its record.
    pub fn stat(&self) -> Stat {
        const SECOND: u64 = 1_000_000_000;
        let time = |of: &AtomicU64| {
            let ns = of.load(Ordering::Relaxed);
            Timespec { sec: (ns / SECOND) as i64, nsec: (ns % SECOND) as i64 }
        };
        Stat {
            dev: self.device.load(Ordering::Relaxed).into(),
            ino: self.number,
            nlink: self.links.load(Ordering::Relaxed),
            mode: self.mode.load(Ordering::Relaxed),
            uid: self.user.load(Ordering::Relaxed),
            gid: self.group.load(Ordering::Relaxed),
            size: self.content.len() as i64,
            blksize: PAGE_SIZE as i32,
            blocks: (self.content.owned_pages() * (PAGE_SIZE / BLOCK)) as i64,
            atime: time(&self.accessed),
            mtime: time(&self.modified),
            ctime: time(&self.changed),
            ..Stat::default()
        }
    }
}
