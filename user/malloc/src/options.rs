//! What `mallopt` sets, and the dynamic threshold.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A chunk this large is mapped, at first.
const MMAP_THRESHOLD: usize = 128 << 10;
/// The dynamic threshold stops here.
const MMAP_THRESHOLD_MAX: usize = 32 << 20;
const TOP_PAD: usize = 128 << 10;
const MMAP_MAX: usize = 65536;
const ARENA_MAX: usize = 64;

/// A parameter of [`Malloc::set_option`](crate::Malloc::set_option), with glibc's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Parameter {
    /// Trim when the top chunk passes this.
    TrimThreshold = -1,
    /// Ask the system for this much more than needed; keep as much when trimming.
    TopPad = -2,
    /// Map chunks from this size on.
    MmapThreshold = -3,
    /// The most mappings at a time; 0 for none.
    MmapMax = -4,
    /// Fill blocks that are handed out with the complement of this byte, blocks that come back with the byte itself.
    Perturb = -6,
    /// The most arenas; 0 for the default.
    ArenaMax = -8,
}

impl Parameter {
    /// The parameter with C's number.
    pub fn from_c(number: i32) -> Option<Parameter> {
        use Parameter::*;
        [TrimThreshold, TopPad, MmapThreshold, MmapMax, Perturb, ArenaMax].into_iter().find(|p| *p as i32 == number)
    }
}

pub struct Options {
    mmap_threshold: AtomicUsize,
    trim_threshold: AtomicUsize,
    top_pad: AtomicUsize,
    mmap_max: AtomicUsize,
    arena_max: AtomicUsize,
    perturb: AtomicUsize,
    /// 0 while the thresholds follow the program.
    fixed: AtomicUsize,
}

impl Options {
    pub const fn new() -> Options {
        Options {
            mmap_threshold: AtomicUsize::new(MMAP_THRESHOLD),
            trim_threshold: AtomicUsize::new(MMAP_THRESHOLD),
            top_pad: AtomicUsize::new(TOP_PAD),
            mmap_max: AtomicUsize::new(MMAP_MAX),
            arena_max: AtomicUsize::new(ARENA_MAX),
            perturb: AtomicUsize::new(0),
            fixed: AtomicUsize::new(0),
        }
    }

    pub fn mmap_threshold(&self) -> usize {
        self.mmap_threshold.load(Relaxed)
    }

    pub fn trim_threshold(&self) -> usize {
        self.trim_threshold.load(Relaxed)
    }

    pub fn top_pad(&self) -> usize {
        self.top_pad.load(Relaxed)
    }

    pub fn mmap_max(&self) -> usize {
        self.mmap_max.load(Relaxed)
    }

    pub fn arena_max(&self) -> usize {
        self.arena_max.load(Relaxed)
    }

    /// The byte of [`Parameter::Perturb`], if set.
    #[inline(always)]
    pub fn perturb(&self) -> Option<u8> {
        match self.perturb.load(Relaxed) as u8 {
            0 => None,
            byte => Some(byte),
        }
    }

    /// Whether the thresholds follow the program.
    pub fn is_dynamic(&self) -> bool {
        self.fixed.load(Relaxed) == 0
    }

    /// A large chunk of `size` bytes is freed: the program uses such blocks only for a while, so the next ones come
    /// from the heap, and the heap keeps room for two.
    pub fn learn(&self, size: usize) {
        if self.is_dynamic() && size > self.mmap_threshold() && size <= MMAP_THRESHOLD_MAX {
            self.mmap_threshold.store(size, Relaxed);
            self.trim_threshold.store(2 * size, Relaxed);
        }
    }

    /// The heap grew again by `size` bytes that had been trimmed: it keeps as much from now on, so that a program
    /// that fills and empties its heap in turns does not fault it in each time.
    pub fn learn_trim(&self, size: usize) {
        if self.is_dynamic() {
            self.trim_threshold.fetch_max((2 * size).min(2 * MMAP_THRESHOLD_MAX), Relaxed);
        }
    }

    /// The largest mapping that is worth keeping for the next request.
    pub fn spare_max(&self) -> usize {
        if self.is_dynamic() { MMAP_THRESHOLD_MAX } else { 0 }
    }

    /// Returns whether the value was taken.
    pub fn set(&self, parameter: Parameter, value: i32) -> bool {
        use Parameter::*;
        let (place, fixes) = match parameter {
            TrimThreshold => (&self.trim_threshold, true),
            TopPad => (&self.top_pad, true),
            MmapThreshold => (&self.mmap_threshold, true),
            MmapMax => (&self.mmap_max, true),
            Perturb => (&self.perturb, false),
            ArenaMax => (&self.arena_max, false),
        };
        // -1 means never to trim; any other negative value is converted as C would.
        let mut value = value as usize;
        match parameter {
            MmapThreshold if value > MMAP_THRESHOLD_MAX => return false,
            TopPad if value > isize::MAX as usize => return false,
            ArenaMax if value == 0 => value = ARENA_MAX,
            _ => {}
        }
        place.store(value, Relaxed);
        if fixes {
            self.fixed.store(1, Relaxed);
        }
        true
    }
}
