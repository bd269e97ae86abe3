//! Changes of the names in one file system.
//!
//! ```text
//!  63                   20           0
//! | changes that began  | under way   |
//! ```
//! Both counts are in one word, so that one comparison shows whether anything has changed. A change ends when its
//! caller does, even if the caller was killed and the server makes the change later: a server whose answers are cached
//! handles one request after the other, so it answers later requests after it has made the change.
//!
//! The *generation* belongs to all cached entries of a file system. It is 0 while nothing may be cached, and otherwise
//! a number that is never used again: a new server gets another one, and so does a server that revokes its answers.

use core::sync::atomic::{AtomicU64, Ordering};

/// One more change that began.
const BEGUN: u64 = 1 << 20;
/// The bits of the word that count changes under way.
const UNDER_WAY: u64 = BEGUN - 1;

static NEXT_GENERATION: AtomicU64 = AtomicU64::new(1);

fn new_generation() -> u64 {
    NEXT_GENERATION.fetch_add(1, Ordering::Relaxed)
}

/// See the module.
pub struct Changes {
    word: AtomicU64,
    generation: AtomicU64,
}

/// The state before a request was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    word: u64,
    /// The generation of cached entries.
    pub generation: u64,
}

impl Sample {
    /// If no change is under way: a value that must still be current when a result that depends on all names is used
    /// ([`Changes::is_as_of`]).
    pub fn quiet(&self) -> Option<u64> {
        (self.word & UNDER_WAY == 0).then_some(self.word)
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self::new()
    }
}

impl Changes {
    /// For a file system without a server.
    pub const fn new() -> Self {
        Self { word: AtomicU64::new(0), generation: AtomicU64::new(0) }
    }

    /// Notes that the file system has a new server: from now on answers may be cached.
    pub fn open(&self) {
        self.revoke();
    }

    /// Notes that the server is gone: nothing that was cached is valid.
    pub fn close(&self) {
        self.generation.store(0, Ordering::SeqCst);
    }

    /// Notes that the server has changed something by itself: neither cached answers nor answers under way are valid.
    pub fn revoke(&self) {
        self.word.fetch_add(BEGUN, Ordering::SeqCst);
        self.generation.store(new_generation(), Ordering::SeqCst);
    }

    /// The generation of valid entries; 0 if none are valid.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Samples the state. Must be called before the request is sent.
    #[inline]
    pub fn sample(&self) -> Sample {
        Sample { word: self.word.load(Ordering::SeqCst), generation: self.generation.load(Ordering::SeqCst) }
    }

    /// Whether the answer to a request that was sent after this sample may be cached, because it is still valid.
    #[inline]
    pub fn may_keep(&self, before: &Sample) -> bool {
        let is_quiet = before.word & UNDER_WAY == 0 && before.generation != 0;
        is_quiet
            && self.word.load(Ordering::SeqCst) == before.word
            && self.generation.load(Ordering::SeqCst) == before.generation
    }

    /// Whether no name was changed since a quiet sample.
    #[inline]
    pub fn is_as_of(&self, word: u64) -> bool {
        self.word.load(Ordering::Acquire) == word
    }

    /// Begins a change. The caller must remove the cached entries that it affects after this, and before it asks the
    /// server.
    pub fn begin(&self) -> Change<'_> {
        self.word.fetch_add(BEGUN | 1, Ordering::SeqCst);
        Change(self)
    }
}

/// A change that is under way until this value is dropped.
pub struct Change<'a>(&'a Changes);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.word.fetch_sub(1, Ordering::SeqCst);
    }
}
