//! From which CPU another one takes a thread, and when it looks for one.
//!
//! Every CPU decides for itself, by loads that it reads without a lock. So the values may be outdated, and all CPUs may
//! read the same ones. Five rules keep the CPUs from moving threads back and forth, and from crowding around one queue:
//! - A thread moves only if its weight is at most half of the difference between the loads. Then the other CPU stays at
//!   least as loaded, so no move is reverted, and the moves come to an end.
//! - CPUs take turns with the remainder: of three equal threads on two CPUs one has a CPU for itself. A CPU that has
//!   found nothing for a long time also takes a thread if the move swaps the two loads, and then looks as rarely as
//!   before. The larger of the two loads never grows.
//! - A difference of an eighth or less is left alone.
//! - A CPU looks at one other queue at a time, and only if its lock is free. It skips the CPUs that had nothing for it
//!   until it has asked all.
//! - A CPU that finds nothing looks half as often as before, down to about every [`RAREST`] slices, and not always at
//!   the same time as others.

/// The number of slices between two looks of a CPU that finds nothing.
pub const RAREST: u64 = 16;

/// Whether a CPU of the load `own` has so much less than the other one that a thread may move.
#[inline]
pub fn is_uneven(own: u64, other: u64) -> bool {
    other.saturating_sub(own) > other / 8
}

/// Whether a thread of this weight may move from the other CPU to one of the load `own`.
#[inline]
pub fn may_move(weight: u32, own: u64, other: u64) -> bool {
    is_uneven(own, other) && u64::from(weight) * 2 <= other - own
}

/// Whether a thread of this weight may move so that the threads take turns on the less loaded CPU, which has found
/// nothing for a long time.
#[inline]
pub fn may_take_turn(weight: u32, own: u64, other: u64) -> bool {
    is_uneven(own, other) && u64::from(weight) <= other - own
}

/// When a CPU looks at the others, and which ones it has asked. Each CPU has its own.
pub struct Pace {
    due: u64,
    /// Slices until the next look.
    gap: u64,
    /// The CPUs that had nothing: a bit for each.
    asked: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

impl Pace {
    /// For a CPU that has not looked yet.
    pub const fn new() -> Self {
        Self { due: 0, gap: 1, asked: 0 }
    }

    /// The CPU from which `cpu` should take a thread at `now`, if it is time to look and there is one: the most loaded
    /// of the `others` (their numbers and loads) that has much more than this CPU and was not asked lately.
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

    /// Whether this CPU has found nothing for a long time.
    #[inline]
    pub fn is_rare(&self) -> bool {
        self.gap == RAREST
    }

    /// Notes that a thread was taken from another CPU, which may have more.
    pub fn took_one(&mut self, now: u64, slice: u64) {
        *self = Self { due: now + slice, gap: 1, asked: 0 };
    }
}
