//! Policies, priorities, and the weights of nice values.

/// How a thread is scheduled: Linux's policies except SCHED_DEADLINE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// By weight; the thread may preempt others when it wakes.
    Other,
    /// By weight; the thread does not preempt others when it wakes.
    Batch,
    /// By the smallest weight; the thread preempts no other, and every other thread preempts it.
    Idle,
    /// Before all threads of lower priority, until it sleeps or yields.
    Fifo,
    /// The same, but threads of equal priority take turns.
    RoundRobin,
}

/// A policy with its parameter: a nice value from -20 to 19, or a real-time priority from 1 to 99.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// How it is scheduled.
    pub policy: Policy,
    /// The nice value, which is kept while the policy does not use it.
    pub nice: i8,
    /// 0 without a real-time policy.
    pub priority: u8,
}

/// The range of nice values.
pub const NICE: core::ops::RangeInclusive<i32> = -20..=19;

/// The range of real-time priorities.
pub const PRIORITIES: core::ops::RangeInclusive<i32> = 1..=99;

/// The weight of nice 0.
pub const UNIT: u32 = 1024;

/// The weight of [`Policy::Idle`], as on Linux.
const IDLE: u32 = 3;

/// Weights by nice value, -20 first: each is about 1.25 times the next one, so that one step of nice makes a difference
/// of about 10 % of a CPU that two threads share. The numbers are those of Linux's `sched_prio_to_weight`
/// (kernel/sched/core.c), since programs and their users rely on their effect.
const WEIGHTS: [u32; 40] = [
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904, 3906, 3121, 2501,
    1991, 1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29, 23, 18, 15,
];

/// A [`Class`] as one word, with its weight, so that nobody sees half of a class that is being changed, or has to look
/// the weight up.
///
/// ```text
///  56         48     40       32       0
/// | priority | nice | policy | weight |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traits(u64);

impl Traits {
    /// No class: there is no thread.
    pub const NONE: Self = Self(0);

    pub const fn new(class: Class) -> Self {
        let policy = match class.policy {
            Policy::Other => 0,
            Policy::Batch => 1,
            Policy::Idle => 2,
            Policy::Fifo => 3,
            Policy::RoundRobin => 4,
        };
        let (nice, priority) = (class.nice as u8 as u64, class.rank() as u64);
        Self(class.weight() as u64 | policy << 32 | nice << 40 | priority << 48)
    }

    /// The inverse of [`Traits::to_word`].
    #[inline]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// The weight; 0 of nobody.
    #[inline]
    pub const fn weight(self) -> u32 {
        self.0 as u32
    }

    /// [`Class::rank`].
    #[inline]
    pub const fn rank(self) -> u32 {
        (self.0 >> 48) as u32
    }

    #[inline]
    pub const fn policy(self) -> Policy {
        match (self.0 >> 32) as u8 {
            0 => Policy::Other,
            1 => Policy::Batch,
            2 => Policy::Idle,
            3 => Policy::Fifo,
            _ => Policy::RoundRobin,
        }
    }

    pub const fn class(self) -> Class {
        Class { policy: self.policy(), nice: (self.0 >> 40) as i8, priority: self.rank() as u8 }
    }

    /// Whether both have [`Policy::Other`].
    #[inline]
    pub const fn are_usual(self, other: Self) -> bool {
        ((self.0 | other.0) >> 32) as u8 == 0
    }
}

impl Class {
    /// The class of a thread whose class was never set.
    pub const NORMAL: Self = Self { policy: Policy::Other, nice: 0, priority: 0 };

    /// Whether the thread runs before all threads that share by weight.
    pub const fn is_real_time(self) -> bool {
        matches!(self.policy, Policy::Fifo | Policy::RoundRobin)
    }

    /// The weight among threads that share by weight; for a real-time thread, the weight that is used to compare CPUs.
    pub const fn weight(self) -> u32 {
        match self.policy {
            Policy::Idle => IDLE,
            Policy::Fifo | Policy::RoundRobin => WEIGHTS[0],
            Policy::Other | Policy::Batch => WEIGHTS[(self.nice as i32 - *NICE.start()) as usize],
        }
    }

    /// 0 for threads that share by weight, otherwise the priority: the higher rank runs first.
    pub const fn rank(self) -> u32 {
        if self.is_real_time() { self.priority as u32 } else { 0 }
    }
}
