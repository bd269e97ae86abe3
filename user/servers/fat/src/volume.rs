//! The file system, and whether it may be changed.
//!
//! A damaged table may mark a cluster as free that belongs to a file, or assign it to two files: a server that writes
//! by such a table destroys other files. So the whole file system is checked before the first change; if the check
//! finds such damage, nothing is ever written.

use alloc::vec::Vec;

use hadris_fat::sync::{FatFs, check};
use hadris_fat::{CacheOptions, Detail};
use hadris_fs::{Clock, DateTime, Finding, MountOptions, Name, Severity};
use quire_abi::Errno;

use crate::disk::{Device, Disk};
use crate::error::errno;

/// The number of cached positions in chains, of all files.
const POSITIONS: usize = 64;
/// The number of cached names of one directory.
const NAMES: usize = 256;

/// Memory for the check: paths, and a bit for each cluster. It needs one pass over the file system for every million
/// clusters.
const CHECK_MEMORY: usize = 1024 + (128 << 10);

/// News about a file system, to be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The check has found damage because of which writing would destroy files, this many times.
    Damaged(u64),
    /// It could not be checked.
    Unchecked(Errno),
}

/// A mounted file system.
pub struct Volume<D: Disk> {
    /// The file system in `hadris-fat`.
    pub fat: FatFs<Device<D>>,
    device: Device<D>,
    is_read_only: bool,
    is_checked: bool,
    /// Told once.
    report: fn(News),
    /// Whether something was changed since the last [`Volume::sync`].
    is_changed: bool,
}

impl<D: Disk> Volume<D> {
    /// Mounts the file system on a disk. EINVAL if it is not FAT, EIO if it is invalid.
    pub fn mount(disk: D, is_read_only: bool, clock: &'static dyn Clock, report: fn(News)) -> Result<Self, Errno> {
        let device = Device::new(disk);
        let is_read_only = is_read_only || device.with(|disk| disk.is_read_only());
        let options = MountOptions::new().with_clock(clock);
        let options = if is_read_only { options.read_only() } else { options };
        let fat = FatFs::mount(device.clone(), options).map_err(|error| errno(error.into_error()))?;
        let cache = CacheOptions::new().with_chain_positions(POSITIONS).with_blocks(0).with_directory_entries(NAMES);
        let fat = fat.with_cache(cache);
        Ok(Self { fat, device, is_read_only, is_checked: false, report, is_changed: false })
    }

    /// Whether it is read-only.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Whether there is a file of this name in the root.
    pub fn has(&mut self, name: &[u8]) -> bool {
        let found = self.fat.lookup(self.fat.root(), Name::new(name));
        found.is_ok_and(|id| {
            self.fat.forget(id, 1);
            true
        })
    }

    /// Called before a change: EROFS if it may not be changed.
    pub fn change(&mut self) -> Result<(), Errno> {
        if self.is_read_only {
            return Err(Errno::EROFS);
        }
        if !self.is_checked {
            self.check()?;
        }
        self.is_changed = true;
        Ok(())
    }

    /// Checks it before the first change. EROFS if it is damaged, from now on.
    fn check(&mut self) -> Result<(), Errno> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(CHECK_MEMORY).map_err(|_| Errno::ENOSPC)?;
        memory.resize(CHECK_MEMORY, 0);
        let (mut damage, mut other) = (0, 0);
        let count = |finding: &Finding<'_>| {
            other += u64::from(finding.severity() == Severity::Error);
            damage += u64::from(Detail::from_code(finding.detail()).is_some_and(destroys));
        };
        let news = match check(&mut self.device, &mut memory, count) {
            Ok(_) if damage == 0 => {
                self.is_checked = true;
                if other == 0 {
                    // (A file system that was not unmounted counts as clean again from the next sync on.)
                    self.fat.mark_clean().map_err(errno)?;
                }
                return Ok(());
            }
            Ok(_) => News::Damaged(damage),
            Err(error) => News::Unchecked(errno(error)),
        };
        self.is_read_only = true;
        (self.report)(news);
        Err(Errno::EROFS)
    }

    /// Whether there is something to write back.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Makes all changes permanent, and marks the file system as clean.
    pub fn sync(&mut self) -> Result<(), Errno> {
        if !self.is_changed {
            return Ok(());
        }
        self.fat.sync().map_err(errno)?;
        self.is_changed = false;
        Ok(())
    }
}

/// Whether writing to a file system with this damage may increase the damage. (Lost clusters, a chain that is too long,
/// and marks that an interrupted change leaves do no harm.)
fn destroys(detail: Detail) -> bool {
    matches!(
        detail,
        Detail::InvalidCluster
            | Detail::BrokenChain
            | Detail::CyclicChain
            | Detail::CrossLink
            | Detail::BadCluster
            | Detail::DotEntries
            | Detail::ReservedEntries
    )
}

/// A time, which may be unknown, in nanoseconds since 1970.
pub fn nanoseconds(time: Option<DateTime>) -> u64 {
    time.map_or(0, |time| {
        let seconds = u64::try_from(time.unix_seconds()).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(time.nanoseconds().into())
    })
}

/// The time that is `nanoseconds` after the beginning of 1970.
pub fn time(nanoseconds: u64) -> Result<DateTime, Errno> {
    DateTime::new((nanoseconds / 1_000_000_000) as i64, (nanoseconds % 1_000_000_000) as u32).map_err(|_| Errno::EINVAL)
}
