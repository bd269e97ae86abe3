//! Stored files that are open, mapped, or have pages in memory: each has one object, whoever opens it
//! (docs/page-cache.md).
//!
//! A file stays in the table until its server ends, or the kernel needs the memory and nobody else has a reference.
//!
//! Lock order: a part of the table (`Rank::Names`) is locked for a binary search and a move of its entries; meanwhile
//! nothing is allocated or dropped, no server is asked, and no address space's areas are locked.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use quire_abi::Errno;
use quire_mm::fallible::{KArc, TryVec, try_box};
use quire_mm::object::paged::Pager;
use quire_mm::page_alloc::{Gfp, Shrinker};
use quire_mm::sync::Rank;

use super::pager::ServerPager;
use super::target::Name;
use super::{Place, flusher, mounts};
use crate::ipc::memory_file::MemoryFile;
use crate::task::point::{ENTRIES, resched_point};
use crate::task::wait::Sleep;
use crate::vm::{Cpu, Object, PAGES, SpinLock, random};

/// The number of parts of the table: a power of two.
const PARTS: usize = 64;

/// The maximum number of files in a part that nobody has open: others are forgotten, starting with the one that was
/// opened longest ago.
const UNUSED: usize = 64;

/// The permissions for execution: the server has checked it.
const PERMISSIONS: u32 = 0o555;

struct Entry {
    key: u64,
    /// When it was opened last.
    opened: u64,
    file: KArc<MemoryFile>,
}

impl Entry {
    fn mount(&self) -> u16 {
        Place::from_word(self.key).mount
    }

    /// Whether anybody but the table has a reference to it.
    fn is_held(&self) -> bool {
        KArc::count(&self.file) > 1 || KArc::count(&self.file.content) > 1
    }

    fn may_go(&self) -> bool {
        !self.is_held() && self.file.content.marked_pages() == 0
    }
}

type Part = Vec<Entry>;

static TABLE: [SpinLock<Part>; PARTS] = [const { SpinLock::new(Cpu, Rank::Names, Vec::new()) }; PARTS];

/// Counts openings.
static NOW: AtomicU64 = AtomicU64::new(0);
/// Distributes files among the parts in a way that nobody can predict.
static SEED: AtomicU64 = AtomicU64::new(0);
/// Files of the table.
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn part(key: u64) -> &'static SpinLock<Part> {
    let mixed = (key ^ SEED.load(Ordering::Relaxed)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    &TABLE[(mixed >> 40) as usize % PARTS]
}

fn place_of(part: &Part, key: u64) -> Result<usize, usize> {
    part.binary_search_by_key(&key, |entry| entry.key)
}

/// The file, if it is in the table.
pub fn find(place: Place) -> Option<KArc<MemoryFile>> {
    let part = part(place.to_word()).lock();
    place_of(&part, place.to_word()).ok().map(|at| part[at].file.clone())
}

/// The file of a name, which its server says is stored. ENOMEM, or the server's error when it is asked for the file's
/// length.
pub fn open(name: &Name) -> Result<KArc<MemoryFile>, Errno> {
    let place = name.place;
    flusher::relieve();
    let file = match find(place) {
        Some(file) => file,
        None => insert(place)?,
    };
    // (If this is interrupted, the next thread asks.)
    Object::turn(&file.content)?.agree()?;
    Ok(file)
}

fn make(place: Place) -> Result<KArc<MemoryFile>, Errno> {
    let pager: Box<dyn Pager> = try_box(ServerPager::new(place))?;
    let file = MemoryFile::named(Object::paged(Cpu, pager)?, PERMISSIONS, (0, 0), place.number() + 1)?;
    file.note_mount(mounts::device(place.mount));
    file.set_links(1);
    Ok(file)
}

fn insert(place: Place) -> Result<KArc<MemoryFile>, Errno> {
    let key = place.to_word();
    let file = make(place)?;
    // What is to be dropped at the end, with no lock held.
    let mut room: Part = Vec::new();
    let mut gone = None;
    loop {
        let mut part = part(key).lock();
        match place_of(&part, key) {
            Ok(at) => return Ok(part[at].file.clone()),
            Err(at) if part.len() < part.capacity() => {
                let opened = NOW.fetch_add(1, Ordering::Relaxed);
                // There is room, so this does not allocate.
                #[allow(clippy::disallowed_methods)]
                part.insert(at, Entry { key, opened, file: file.clone() });
                COUNT.fetch_add(1, Ordering::Relaxed);
                if part.iter().filter(|entry| entry.may_go()).count() > UNUSED {
                    gone = take_oldest(&mut part);
                }
                drop(part);
                drop(gone);
                return Ok(file);
            }
            Err(_) if room.capacity() > part.len() => {
                #[allow(clippy::disallowed_methods)]
                room.append(&mut part);
                core::mem::swap(&mut room, &mut part);
            }
            Err(_) => {
                let wanted = part.len() * 2 + 4;
                drop(part);
                room = TryVec::try_with_capacity(wanted)?;
            }
        }
    }
}

/// Removes the file that was opened longest ago, among those that may be removed.
fn take_oldest(part: &mut Part) -> Option<Entry> {
    let candidates = part.iter().enumerate().filter(|(_, entry)| entry.may_go());
    let (at, _) = candidates.min_by_key(|(_, entry)| entry.opened)?;
    COUNT.fetch_sub(1, Ordering::Relaxed);
    Some(part.remove(at))
}

/// Whether the file is open or mapped, and whether it has pages to be written back.
pub fn state(place: Place) -> (bool, bool) {
    let part = part(place.to_word()).lock();
    place_of(&part, place.to_word())
        .ok()
        .map_or((false, false), |at| (part[at].is_held(), part[at].file.content.marked_pages() != 0))
}

/// Removes the files of a mount that its server has left: those that nobody has open are dropped, and those that are
/// open are not found any more.
pub fn end(mount: u16) {
    let mut lost = 0;
    for part in &TABLE {
        loop {
            let mut room = Vec::new();
            let entry = {
                let mut part = part.lock();
                let at = part.iter().position(|entry| entry.mount() == mount);
                let entry = at.map(|at| part.remove(at));
                if part.is_empty() {
                    core::mem::swap(&mut room, &mut part);
                }
                entry
            };
            drop(room);
            let Some(entry) = entry else { break };
            COUNT.fetch_sub(1, Ordering::Relaxed);
            lost += entry.file.content.marked_pages();
            drop(entry);
            let _ = resched_point(Sleep::Killable);
        }
    }
    if lost != 0 {
        log::warn!("the server of a file system has ended: {lost} pages of its files could not be written");
    }
}

/// Visits the files of a mount that have to be written back and were in the table when this began; no lock is held. An
/// error of `visit` ends it.
pub fn each_marked(mount: u16, mut visit: impl FnMut(&KArc<MemoryFile>) -> Result<(), Errno>) -> Result<(), Errno> {
    for part in &TABLE {
        let mut from = 0;
        loop {
            resched_point(Sleep::Killable)?;
            let (next, file) = {
                let part = part.lock();
                let at = part.partition_point(|entry| entry.key < from);
                let is_it = |entry: &&Entry| entry.mount() == mount && entry.file.content.marked_pages() != 0;
                match part[at..].iter().take(ENTRIES).find(is_it) {
                    Some(entry) => (Some(entry.key + 1), Some(entry.file.clone())),
                    None => (part.get(at + ENTRIES).map(|entry| entry.key), None),
                }
            };
            if let Some(file) = file {
                visit(&file)?;
            }
            let Some(next) = next else { break };
            from = next;
        }
    }
    Ok(())
}

/// Writes back a file's dirty pages: then its pager has them.
pub fn write_back(file: &MemoryFile) -> Result<(), Errno> {
    Object::write_back(&file.content)
}

/// Writes back the dirty pages of the file at a place; returns whether there were any, in which case its server now
/// knows when the file was written.
pub fn was_written_back(place: Place) -> bool {
    find(place).is_some_and(|file| file.content.marked_pages() != 0 && write_back(&file).is_ok())
}

/// Writes back the dirty pages of all files of a mount; returns the first error.
pub fn write_back_all(mount: u16) -> Result<(), Errno> {
    let mut done = Ok(());
    each_marked(mount, |file| match write_back(file) {
        Err(Errno::EINTR) => Err(Errno::EINTR),
        other => {
            done = done.and(other);
            Ok(())
        }
    })?;
    done
}

/// Objects in a page, about.
const IN_A_PAGE: usize = 8;

struct Unused;

impl Shrinker for Unused {
    fn count(&self) -> usize {
        COUNT.load(Ordering::Relaxed) / IN_A_PAGE
    }

    fn scan(&self, target: usize, _gfp: Gfp) -> usize {
        let mut freed = 0;
        for part in &TABLE {
            if freed >= target * IN_A_PAGE {
                break;
            }
            let _ = resched_point(Sleep::Killable);
            let entry = {
                let mut part = part.lock();
                let at = part.iter().position(|entry| entry.may_go() && entry.file.content.cached_pages() == 0);
                at.map(|at| part.remove(at))
            };
            if entry.is_some() {
                COUNT.fetch_sub(1, Ordering::Relaxed);
                freed += 1;
            }
        }
        freed / IN_A_PAGE
    }
}

/// Registers the shrinker that drops the objects of files that nobody has open and that have no pages.
pub fn register_shrinker() {
    if !PAGES.register_shrinker(&Unused) {
        log::warn!("no room for a shrinker");
    }
}

/// Sets the seed by which files are distributed. No file is open yet.
pub fn set_seed() {
    SEED.store(random::number(), Ordering::Relaxed);
}
