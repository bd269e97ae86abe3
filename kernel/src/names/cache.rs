//! The kernel's cache of servers' answers, kept with the servers' consent (`docs/names.md`, "What is kept").
//!
//! Lock order: as in `quire_names`; no other lock is held.

use alloc::vec::Vec;

use quire_abi::access::Owned;
use quire_abi::names::node;
use quire_mm::fallible::KArc;
use quire_mm::page_alloc::{Gfp, Shrinker};
use quire_mm::sync::Rank;
use quire_names::cache::SETS;
use quire_names::{Cache, Entry, Set};

use super::{Place, inodes, mounts};
use crate::ipc::memory_file::MemoryFile;
use crate::ipc::message::Endpoint;
use crate::task::point::resched_point;
use crate::task::wait::Sleep;
use crate::vm::{Cpu, PAGES, SpinLock, random};

/// What is known of a name in a directory; if the name is empty, of the directory itself.
pub enum Kept {
    /// There is nothing of that name.
    Nothing,
    /// A directory with this number.
    Directory(u64),
    /// The directory above has this number, until a name changes.
    Above(u64, u64),
    /// A file, which keeps its attributes; its number; and the rights to it that the server lends.
    File(KArc<MemoryFile>, u64, u32),
    /// A symbolic link: words of [`node`], and its text.
    Link([u64; 6], Vec<u8>),
    /// The directory itself.
    Itself(Directory),
}

/// What is known of a directory. Type, permissions and owner are up to date; the rest is valid until a name changes.
pub struct Directory {
    /// Words of [`node`].
    pub words: [u64; 6],
    /// [`Sample::quiet`](quire_names::Sample::quiet).
    pub as_of: Option<u64>,
    /// All records of its list; empty if they are not known.
    pub list: Vec<u8>,
}

impl Directory {
    /// Its owner and permissions.
    pub fn owned(&self) -> Owned {
        owned(&self.words)
    }
}

/// The owner and permissions in the words of a [`node`].
pub fn owned(words: &[u64; 6]) -> Owned {
    let (mode, user, group) = (words[node::MODE] as u32, words[node::OWNER] as u32, (words[node::OWNER] >> 32) as u32);
    Owned { mode, user, group }
}

impl Kept {
    /// Allocations that it owns.
    fn parts(&self) -> usize {
        match self {
            Self::Link(_, text) | Self::Itself(Directory { list: text, .. }) => usize::from(!text.is_empty()),
            _ => 0,
        }
    }
}

/// An entry.
pub type Known = Entry<Kept>;

/// All that is kept.
pub static KEPT: Cache<Kept, Cpu> = Cache::new([const { SpinLock::new(Cpu, Rank::Names, Set::EMPTY) }; SETS]);

/// An entry for a name in a directory. `None` if memory is lacking.
pub fn known(directory: Place, name: &[u8], generation: u64, kept: Kept) -> Option<KArc<Known>> {
    let parts = kept.parts();
    Entry::new(directory.to_word(), name, generation, kept, parts).ok()
}

/// Drops the answers of a server that will not answer any more: they are no longer valid, and what it lent is returned.
pub fn end(endpoint: &KArc<Endpoint>) {
    mounts::each_of(endpoint, None, |mount| {
        mounts::changes(mount).close();
        purge(mount);
        inodes::end(mount);
    });
}

/// Drops all answers about a file system, since its server revokes them.
pub fn revoke(endpoint: &KArc<Endpoint>, badge: u64) {
    mounts::each_of(endpoint, Some(badge), |mount| {
        mounts::changes(mount).revoke();
        purge(mount);
    });
}

fn purge(mount: u16) {
    // (A thread that ends continues nevertheless.)
    KEPT.purge(|known| Place::from_word(known.directory()).mount == mount, || _ = resched_point(Sleep::Killable));
}

/// Entries in a page, about.
const IN_A_PAGE: usize = 16;

struct Names;

impl Shrinker for Names {
    fn count(&self) -> usize {
        KEPT.count() / IN_A_PAGE
    }

    fn scan(&self, target: usize, _gfp: Gfp) -> usize {
        KEPT.shrink(target.saturating_mul(IN_A_PAGE)) / IN_A_PAGE
    }
}

/// Registers the shrinker that frees the entries' memory when memory runs short.
pub fn register_shrinker() {
    if !PAGES.register_shrinker(&Names) {
        log::warn!("no room for a shrinker");
    }
}

/// Sets the seed, so that nobody can tell how names are distributed.
pub fn set_seed() {
    KEPT.set_seed(random::number() as usize);
}
