//! The patterns of access: those of pressbench, a measurement of memory under pressure.
//!
//! Each pattern first fills its pages in order, then warms up, and then is measured. The random numbers are those of
//! pressbench too, so that the figures can be compared with those of a machine.

use alloc::vec::Vec;

/// A pattern of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// All pages in order, again and again.
    Sweep,
    /// Each page equally often, at random.
    Uniform,
    /// At random, with weight 1/rank.
    Zipf,
    /// Nine of ten accesses go to a fifth of the pages.
    Hot,
    /// As `Hot`; the fifth moves half-way.
    Phase,
    /// Fresh pages are written once each, between random accesses to a set of pages that fits; then the set is swept.
    Scan,
    /// A large sweep beside a small set, which is swept now and then.
    Beside,
}

/// References, and from which on faults count.
pub struct Play {
    /// The pages in order.
    pub references: Vec<u32>,
    /// The first reference that is measured.
    pub from: usize,
    /// Only faults of pages below this count.
    pub below: usize,
    /// The number of different pages.
    pub pages: usize,
}

/// pressbench's random numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// A permutation of the numbers below `n`.
fn scatter(rank: usize, n: usize) -> usize {
    (rank as u64 * 2_654_435_761 % n as u64) as usize
}

impl Pattern {
    /// All of them.
    pub const ALL: [Pattern; 7] =
        [Pattern::Sweep, Pattern::Uniform, Pattern::Zipf, Pattern::Hot, Pattern::Phase, Pattern::Scan, Pattern::Beside];

    /// Its name in a trace.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Sweep => "sweep",
            Pattern::Uniform => "uniform",
            Pattern::Zipf => "zipf",
            Pattern::Hot => "hot",
            Pattern::Phase => "phase",
            Pattern::Scan => "scan",
            Pattern::Beside => "beside",
        }
    }

    /// The pattern of this name.
    pub fn named(name: &str) -> Option<Pattern> {
        Pattern::ALL.into_iter().find(|pattern| pattern.name() == name)
    }

    /// The size of its set that a table shows, in tenths of memory.
    pub(crate) fn usual_size(self) -> u64 {
        if self == Pattern::Scan { 4 } else { 15 }
    }

    /// Its references on a machine with this many frames, for a set of `n` pages.
    pub fn play(self, frames: usize, n: usize) -> Play {
        match self {
            Pattern::Scan => scan(frames, n),
            Pattern::Beside => beside(frames, n),
            _ => self.warmed(n),
        }
    }

    /// Filled in order, warmed by as many accesses, measured over as many.
    fn warmed(self, n: usize) -> Play {
        let mut random = Random(88_172_645_463_325_252);
        let mut references: Vec<u32> = (0..n as u32).collect();
        let warm = if self == Pattern::Sweep { 0 } else { n };
        for access in (0..warm).map(|_| 0).chain(0..n) {
            references.push(self.pick(&mut random, n, access) as u32);
        }
        Play { from: n + warm, references, below: n, pages: n }
    }

    /// Access `at` of `n` to `n` pages.
    fn pick(self, random: &mut Random, n: usize, at: usize) -> usize {
        let hot = (n / 5).max(1);
        let weighted = |random: &mut Random| {
            if random.below(10) != 0 { random.below(hot) } else { hot + random.below(n - hot) }
        };
        match self {
            Pattern::Uniform => random.below(n),
            Pattern::Zipf => loop {
                let power = random.below(n.ilog2() as usize + 1);
                let rank = (1 << power) + (random.next() as usize & ((1 << power) - 1)) - 1;
                if rank < n {
                    return scatter(rank, n);
                }
            },
            Pattern::Hot => scatter(weighted(random) % n, n),
            Pattern::Phase => {
                let rank = weighted(random);
                scatter(if at >= n / 2 { (rank + 3 * hot) % n } else { rank % n }, n)
            }
            _ => at % n,
        }
    }
}

/// A set that is swept twice more after it was filled; fresh pages, 1.2 times memory, one random access each; a sweep.
fn scan(frames: usize, set: usize) -> Play {
    let mut random = Random(88_172_645_463_325_252);
    let fresh = frames * 12 / 10;
    let mut references: Vec<u32> = (0..3 * set).map(|at| (at % set) as u32).collect();
    for page in 0..fresh {
        references.push((set + page) as u32);
        references.push(random.below(set) as u32);
    }
    let from = references.len();
    references.extend(0..set as u32);
    Play { references, from, below: set, pages: set + fresh }
}

/// A sixteenth of memory is swept, then half of memory's worth of accesses of a large sweep, eight times.
fn beside(frames: usize, large: usize) -> Play {
    let small = (frames / 16).max(1);
    let mut references: Vec<u32> = (0..(small + large) as u32).collect();
    let from = references.len();
    let mut at = 0;
    for _ in 0..8 {
        references.extend(0..small as u32);
        for _ in 0..frames / 2 {
            references.push((small + at % large) as u32);
            at += 1;
        }
    }
    Play { references, from, below: small, pages: small + large }
}
