//! From which CPU a busy one takes a thread, and when it looks.
//!
//! Every CPU decides for itself, by loads that it reads without a lock. So what it reads may be old, and all CPUs may
//! read the same. Five rules keep them from chasing each other, and from crowding around one queue:
//! - A thread moves only if it weighs at most half of what the other CPU has more. Then the other one stays at least as
//!   loaded, so no move is taken back, and moves come to an end.
//! - What is left over takes turns: of three equal threads on two CPUs one has a CPU for itself. A CPU that has found
//!   nothing for long takes a thread also if the two loads change places by that, and looks as seldom as before. The
//!   larger of the two loads never grows.
//! - A difference of an eighth or less stays.
//! - A CPU looks at one other queue at a time, and only if its lock is free. It passes over those that had nothing for
//!   it until it has asked all.
//! - A CPU that finds nothing looks half as often as before, down to every [`RAREST`] slices or so: not always at the
//!   same time as others.

/// Slices between two looks of a CPU that finds nothing.
pub const RAREST: u64 = 16;

/// Whether a CPU of this load has so much less than another one that a thread may move.
#[inline]
pub fn is_uneven(own: u64, other: u64) -> bool {
    other.saturating_sub(own) > other / 8
}

/// Whether a thread of this weight may move from another CPU to one of the load `own`.
#[inline]
pub fn may_move(weight: u32, own: u64, other: u64) -> bool {
    is_uneven(own, other) && u64::from(weight) * 2 <= other - own
}

/// Whether a thread of this weight may move so that others have their turn on the less loaded CPU, which has found
/// nothing for long.
#[inline]
pub fn may_take_turn(weight: u32, own: u64, other: u64) -> bool {
    is_uneven(own, other) && u64::from(weight) <= other - own
}

/// When a CPU looks at the others, and whom it has asked. Each CPU has its own.
pub struct Pace {
    due: u64,
    /// Slices until the next look.
    gap: u64,
    /// The CPUs that had nothing, a bit each.
    asked: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

impl Pace {
    /// Of a CPU that has not looked yet.
    pub const fn new() -> Self {
        Self { due: 0, gap: 1, asked: 0 }
    }

    /// The CPU that `cpu` is to take a thread from at `now`, if it is time to look, and there is one: the most loaded
    /// one of the `others` (their numbers and loads) that has much more than this one and was not asked lately.
    #[inline]
    pub fn source(
        &mut self,
        cpu: usize,
        now: u64,
        slice: u64,
        own: u64,
        others: impl Iterator<Item = (usize, u64)>,
    ) -> Option<usize> {
        if now < self.due {
            return None;
        }
        self.due = now + slice * (self.gap + (now / slice + cpu as u64) % self.gap);
        self.gap = (self.gap * 2).min(RAREST);
        let most = others
            .filter(|(cpu, load)| self.asked >> cpu & 1 == 0 && is_uneven(own, *load))
            .max_by_key(|(_, load)| *load)
            .map(|(cpu, _)| cpu);
        self.asked = most.map_or(0, |cpu| self.asked | 1 << cpu);
        most
    }

    /// Whether this CPU has found nothing for long.
    #[inline]
    pub fn is_rare(&self) -> bool {
        self.gap == RAREST
    }

    /// A thread has come from there: there may be more.
    pub fn took_one(&mut self, now: u64, slice: u64) {
        *self = Self { due: now + slice, gap: 1, asked: 0 };
    }
}
