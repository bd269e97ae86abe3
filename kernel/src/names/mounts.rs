//! What is mounted where: servers' file systems over directories of the boot archive.
//!
//! A mount is never removed. Its server may die, and another one may replace it; in between nobody can be asked, and
//! operations on names in it fail.
//!
//! Lock order: a mount's lock ([`Rank::Descriptors`]) is held to read or change its server; meanwhile nothing is
//! locked, dropped or allocated.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use quire_abi::Errno;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;
use quire_names::Changes;

use crate::archive::Node;
use crate::ipc::message::Endpoint;
use crate::vm::{Cpu, SpinLock};

/// The boot archive's number.
pub const ARCHIVE: u16 = 0;

/// The maximum number of mounts, including the archive.
pub const MOST_MOUNTS: usize = 32;

/// The device number of the boot archive.
const ARCHIVE_DEVICE: u32 = 1;
/// The device number of the first mount over it.
const FIRST_DEVICE: u32 = 0x10;

/// The endpoint to call, and the sender's badge.
type Server = (KArc<Endpoint>, u64);

/// A server's description of the file system that it mounts.
#[derive(Clone, Copy, Default)]
pub struct Kind {
    /// The name of the type of the file system, NUL-padded.
    pub name: [u8; 16],
    /// The mounted source, NUL-padded; empty if it has no name.
    pub source: [u8; 32],
    /// Nobody may write there.
    pub is_read_only: bool,
}

struct Mount {
    /// The directory of the archive that it covers.
    over: AtomicU32,
    server: SpinLock<Option<(Server, Kind)>>,
    /// Whether its server has allowed an answer to be cached.
    keeps: AtomicBool,
    /// Whether it has files that are not only in memory.
    stores: AtomicBool,
    changes: Changes,
}

static MOUNTS: [Mount; MOST_MOUNTS] = [const {
    Mount {
        over: AtomicU32::new(0),
        server: SpinLock::new(Cpu, Rank::Descriptors, None),
        keeps: AtomicBool::new(false),
        stores: AtomicBool::new(false),
        changes: Changes::new(),
    }
}; MOST_MOUNTS];

/// The number of mounts. Written under [`CHANGES`].
static COUNT: AtomicUsize = AtomicUsize::new(1);

/// Held to add one.
static CHANGES: SpinLock<()> = SpinLock::new(Cpu, Rank::Process, ());

/// Mounts a server over a directory: EBUSY if a mount with a live server is there, or for the root; ENOTDIR; ENOSPC if
/// there are too many mounts.
pub fn mount(over: &Node, server: Server, kind: Kind) -> Result<(), Errno> {
    if !over.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if over.ino == 0 {
        return Err(Errno::EBUSY);
    }
    let former = {
        let _changes = CHANGES.lock();
        let count = COUNT.load(Ordering::Relaxed);
        let number = self::over(over.ino).map_or(count, usize::from);
        let mount = MOUNTS.get(number).ok_or(Errno::ENOSPC)?;
        if self::server(number as u16).is_ok_and(|(endpoint, _)| endpoint.is_open()) {
            return Err(Errno::EBUSY);
        }
        mount.over.store(over.ino, Ordering::Relaxed);
        mount.keeps.store(false, Ordering::Relaxed);
        let former = mount.server.lock().replace((server, kind));
        mount.changes.open();
        COUNT.store(count.max(number + 1), Ordering::Release);
        former
    };
    drop(former);
    Ok(())
}

/// The mount over a directory of the archive. O(mounts).
pub fn over(directory: u32) -> Option<u16> {
    let count = COUNT.load(Ordering::Acquire);
    let is_over = |mount: &Mount| mount.over.load(Ordering::Relaxed) == directory;
    MOUNTS[1..count].iter().position(is_over).map(|at| at as u16 + 1)
}

/// The directory of the archive that a mount covers.
pub fn covered(mount: u16) -> u32 {
    MOUNTS.get(usize::from(mount)).map_or(0, |mount| mount.over.load(Ordering::Relaxed))
}

/// The server of a mount, to be called: EIO if there is none.
pub fn server(mount: u16) -> Result<Server, Errno> {
    let mount = MOUNTS.get(usize::from(mount)).ok_or(Errno::EIO)?;
    let server = mount.server.lock();
    server.as_ref().map(|(server, _)| server.clone()).ok_or(Errno::EIO)
}

/// Whether a mount's server has allowed an answer to be cached.
#[inline]
pub fn keeps(mount: u16) -> bool {
    MOUNTS.get(usize::from(mount)).is_some_and(|mount| mount.keeps.load(Ordering::Relaxed))
}

/// Notes that a mount's server allows answers to be cached.
pub fn note_keeps(mount: u16) {
    if let Some(mount) = MOUNTS.get(usize::from(mount)) {
        mount.keeps.store(true, Ordering::Relaxed);
    }
}

/// Whether a mount has had files that are not only in memory, so that its server must be told of sync.
pub fn stores(mount: u16) -> bool {
    MOUNTS.get(usize::from(mount)).is_some_and(|mount| mount.stores.load(Ordering::Relaxed))
}

/// A mount has such files.
pub fn note_stores(mount: u16) {
    if let Some(mount) = MOUNTS.get(usize::from(mount)) {
        mount.stores.store(true, Ordering::Relaxed);
    }
}

/// All mounts but the archive.
pub fn all() -> impl DoubleEndedIterator<Item = u16> {
    1..COUNT.load(Ordering::Acquire) as u16
}

/// The changes in a mount.
#[inline]
pub fn changes(mount: u16) -> &'static Changes {
    &MOUNTS[usize::from(mount) % MOST_MOUNTS].changes
}

/// Calls `visit` for each mount of a server, or only for those with this badge.
pub fn each_of(endpoint: &KArc<Endpoint>, badge: Option<u64>, mut visit: impl FnMut(u16)) {
    let count = COUNT.load(Ordering::Acquire);
    for (number, mount) in (0..).zip(&MOUNTS[..count]) {
        let is_it =
            mount.server.lock().as_ref().is_some_and(|((server, of), _)| {
                KArc::ptr_eq(server, endpoint) && badge.is_none_or(|badge| badge == *of)
            });
        if is_it {
            visit(number);
        }
    }
}

/// The device number of a mount's files.
pub fn device(mount: u16) -> u32 {
    if mount == ARCHIVE { ARCHIVE_DEVICE } else { FIRST_DEVICE + u32::from(mount) }
}

/// The mount whose files have this device number.
pub fn with_device(device: u32) -> Option<u16> {
    let mount = u16::try_from(device.checked_sub(FIRST_DEVICE)?).ok()?;
    (usize::from(mount) < MOST_MOUNTS).then_some(mount)
}

/// The description of a mount; `None` after the last one.
pub fn kind(mount: u16) -> Option<Kind> {
    let count = COUNT.load(Ordering::Acquire);
    let mount = MOUNTS[..count].get(usize::from(mount))?;
    Some(mount.server.lock().as_ref().map_or(Kind::default(), |(_, kind)| *kind))
}
