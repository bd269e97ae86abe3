//! What changes in one file system.
//!
//! ```text
//!  63                   20           0
//! | changes that began  | under way   |
//! ```
//! One word has both, so that one look shows whether anything is different. A change ends with its caller, also if that
//! was killed and the server does it later: a server whose answers are kept handles one request after the other, so
//! what is asked from then on is answered after it.
//!
//! The *generation* belongs to all that is kept of a file system. It is 0 while nothing may be kept, and otherwise one
//! that nothing else has ever had: a new server, or one that revokes what it has said, gets another.

use core::sync::atomic::{AtomicU64, Ordering};

/// One more change that began.
const BEGUN: u64 = 1 << 20;
/// Of the word: changes under way.
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

/// What was the case before a request was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    word: u64,
    /// Of what may be kept.
    pub generation: u64,
}

impl Sample {
    /// If no change is under way: what must still be the case when what depends on all names is used
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
    /// Of a file system without a server.
    pub const fn new() -> Self {
        Self { word: AtomicU64::new(0), generation: AtomicU64::new(0) }
    }

    /// It has a new server: from now on answers may be kept.
    pub fn open(&self) {
        self.revoke();
    }

    /// Its server is gone: nothing that was kept is true.
    pub fn close(&self) {
        self.generation.store(0, Ordering::SeqCst);
    }

    /// The server has changed something by itself: nothing that was kept, or is on the way to be, is true.
    pub fn revoke(&self) {
        self.word.fetch_add(BEGUN, Ordering::SeqCst);
        self.generation.store(new_generation(), Ordering::SeqCst);
    }

    /// The generation of what is true; 0 if nothing is.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What is the case now. To be called before the request is sent.
    #[inline]
    pub fn sample(&self) -> Sample {
        Sample { word: self.word.load(Ordering::SeqCst), generation: self.generation.load(Ordering::SeqCst) }
    }

    /// Whether the answer to a request that was sent after this sample is still true.
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

    /// A change begins. What is kept of what it changes must be taken out after this, and before the server is asked.
    pub fn begin(&self) -> Change<'_> {
        self.word.fetch_add(BEGUN | 1, Ordering::SeqCst);
        Change(self)
    }
}

/// A change that is under way, until this is dropped.
pub struct Change<'a>(&'a Changes);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.word.fetch_sub(1, Ordering::SeqCst);
    }
}
