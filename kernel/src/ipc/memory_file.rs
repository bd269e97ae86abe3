//! Files in memory: the attributes that a file has beside its content, which is a memory object (docs/files.md).
//!
//! Each attribute is one word, and is read and written without a lock; whoever changes the content has its turn
//! ([`quire_mm::object::file`]).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::layout::{Stat, Timespec, mode};
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::KArc;

use crate::task::clock;
use crate::task::credentials::{Credentials, KEEP};
use crate::vm::Object;

/// The device number of files without a name.
const DEVICE: u64 = 2;

/// Permission bits, and those for set-user-ID and others.
const PERMISSIONS: u32 = 0o7777;
const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o10;

/// Bytes of a block of [`Stat::blocks`].
const BLOCK: usize = 512;

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// A file in memory.
pub struct MemoryFile {
    /// Its bytes.
    pub content: KArc<Object>,
    number: u64,
    mode: AtomicU32,
    user: AtomicU32,
    group: AtomicU32,
    /// Times, in nanoseconds since 1970.
    accessed: AtomicU64,
    modified: AtomicU64,
    changed: AtomicU64,
}

impl MemoryFile {
    /// An empty file with these permissions, which belongs to whoever has these credentials.
    pub fn new(content: KArc<Object>, permissions: u32, owner: &Credentials) -> Result<KArc<Self>, Errno> {
        let now = clock::real_ns();
        Ok(KArc::try_new(Self {
            content,
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            mode: AtomicU32::new(mode::REG | permissions),
            user: AtomicU32::new(owner.user.files),
            group: AtomicU32::new(owner.group.files),
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

    /// Whether [`MemoryFile::end_set_ids`] has something to do.
    #[inline]
    pub fn has_set_ids(&self) -> bool {
        self.mode.load(Ordering::Relaxed) & (SET_USER | SET_GROUP) != 0
    }

    /// The file does not lend its owner's rights any more.
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

    /// fchmod. EPERM unless it is the owner's or root's call.
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

    /// fchown. Only root gives a file away; its owner may give it to a group that the owner is in. EPERM.
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
            dev: DEVICE,
            ino: self.number,
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
