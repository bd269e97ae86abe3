//! The slots of address spaces, and the allocation of their numbers.
//!
//! `tests/loom_asid.rs` compiles this file a second time, with loom's atomics, so the `const` constructors are in the
//! parent module.

use super::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::machine::{Asid, MAX_CPUS, Machine};
use crate::sync::SpinLock;

/// The most ASID bits that the architecture has.
pub(super) const MAX_BITS: u32 = 16;
pub(super) const WORDS: usize = (1 << MAX_BITS) / 64;

/// An address space's ASID: generation in the upper bits, number in the lower ones; 0 before the first activation.
pub struct AsidSlot(pub(super) AtomicU64);

impl AsidSlot {
    /// The number that TLB entries of this space may have; `None` if the space never ran. It must be read after the
    /// stores to its tables have been published; [`crate::table::flush`] does that.
    #[inline]
    pub(crate) fn current(&self) -> Option<Asid> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            context => Some(Asid(context as u16)),
        }
    }
}

/// A space's number at one moment, for display.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsidView {
    /// The number; `None` for a space that never ran.
    pub number: Option<u16>,
    /// The generation to which it belongs.
    pub generation: u64,
    /// The generation at that moment.
    pub current: u64,
    /// The CPUs that run with it, or, if they have not run another space since, did so last: a bit for each.
    pub cpus: u32,
    /// The CPUs that have not flushed their TLBs since this generation began: a bit for each. They flush before they
    /// load a table.
    pub owing: u32,
}

impl AsidView {
    /// Whether the number belongs to the current generation: then TLB entries with it belong to this space. An older
    /// one may have been assigned to another space, and this space gets a new one before it runs again.
    pub fn is_current(&self) -> bool {
        self.number.is_some() && self.generation == self.current
    }
}

pub(super) struct Numbers {
    /// Bit n: number n is taken in this generation. Number 0 is never assigned: TTBR0 holds it when no space is active.
    pub taken: [u64; WORDS],
    /// Where the search continues.
    pub next: usize,
    pub reserved: [u64; MAX_CPUS],
    /// Bit n: CPU n must flush before it loads a table.
    pub owes_flush: u32,
}

/// Hands out ASIDs.
pub struct AsidAllocator<M: Machine> {
    pub(super) machine: M,
    pub(super) bits: AtomicU32,
    pub(super) generation: AtomicU64,
    pub(super) active: [AtomicU64; MAX_CPUS],
    pub(super) numbers: SpinLock<Numbers, M>,
    pub(super) spaces: AtomicUsize,
    pub(super) rollovers: AtomicUsize,
}

impl<M: Machine> AsidAllocator<M> {
    /// Sets the width of the CPUs' ASIDs: 8 or 16 bits (tests use fewer). Before the first activation.
    pub fn set_bits(&self, bits: u32) {
        self.bits.store(bits.clamp(1, MAX_BITS), Ordering::Relaxed);
    }

    /// The ASID with which `slot`'s space runs on `cpu` from now on. Interrupts are masked on that CPU until it has
    /// loaded its table with the result. (A CPU that goes idle need not report that: its last ASID stays recorded and a
    /// roll-over keeps it.)
    #[inline]
    pub fn activate(&self, slot: &AsidSlot, cpu: usize) -> Asid {
        let context = slot.0.load(Ordering::Relaxed);
        let old = self.active[cpu].load(Ordering::Relaxed);
        let same_generation = context & !0xffff == self.generation.load(Ordering::Relaxed);
        // The exchange fails if a roll-over has taken this CPU's ASID away meanwhile: then this CPU owes a flush.
        if old != 0
            && same_generation
            && self.active[cpu].compare_exchange(old, context, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            return Asid(context as u16);
        }
        self.activate_slow(slot, cpu)
    }

    #[cold]
    fn activate_slow(&self, slot: &AsidSlot, cpu: usize) -> Asid {
        let mut numbers = self.numbers.lock();
        let mut context = slot.0.load(Ordering::Relaxed);
        if context & !0xffff != self.generation.load(Ordering::Relaxed) {
            context = self.renew(&mut numbers, context);
            slot.0.store(context, Ordering::Relaxed);
            // Before this CPU walks with the number: code that changes an entry from now on sees the number and
            // invalidates; earlier changes are visible to this CPU's walker (`table::flush`).
            self.machine.publish_tables();
        }
        if numbers.owes_flush & 1 << cpu != 0 {
            numbers.owes_flush &= !(1 << cpu);
            self.machine.tlb_flush_local();
        }
        self.active[cpu].store(context, Ordering::Relaxed);
        Asid(context as u16)
    }

    /// A context of the current generation for a space whose context is `old`.
    fn renew(&self, numbers: &mut Numbers, old: u64) -> u64 {
        let generation = self.generation.load(Ordering::Relaxed);
        if old == 0 {
            self.spaces.fetch_add(1, Ordering::Relaxed);
        } else {
            let number = old & 0xffff;
            let renewed = generation | number;
            let mut kept = false;
            // Several CPUs may have it reserved (threads of one space): all of them learn the new generation.
            for reserved in &mut numbers.reserved {
                if *reserved == old {
                    *reserved = renewed;
                    kept = true;
                }
            }
            if kept {
                return renewed;
            }
            // Not in use at the roll-over: it may keep its number if nobody has taken it since.
            let (word, bit) = (number as usize / 64, 1 << (number % 64));
            if numbers.taken[word] & bit == 0 {
                numbers.taken[word] |= bit;
                return renewed;
            }
        }
        if let Some(number) = self.find(numbers) {
            return generation | number as u64;
        }
        self.roll_over(numbers);
        // At most MAX_CPUS numbers are reserved, and there are more than that.
        let number = self.find(numbers).unwrap_or(0);
        self.generation.load(Ordering::Relaxed) | number as u64
    }

    fn find(&self, numbers: &mut Numbers) -> Option<usize> {
        let end = 1usize << self.bits.load(Ordering::Relaxed);
        let mut n = numbers.next;
        while n < end {
            let free = !numbers.taken[n / 64] & (!0 << (n % 64));
            if free != 0 {
                let found = n / 64 * 64 + free.trailing_zeros() as usize;
                if found >= end {
                    break;
                }
                numbers.taken[found / 64] |= 1 << (found % 64);
                numbers.next = found + 1;
                return Some(found);
            }
            n = (n / 64 + 1) * 64;
        }
        numbers.next = end;
        None
    }

    fn roll_over(&self, numbers: &mut Numbers) {
        self.generation.fetch_add(1 << MAX_BITS, Ordering::Relaxed);
        self.rollovers.fetch_add(1, Ordering::Relaxed);
        numbers.taken.fill(0);
        numbers.taken[0] = 1;
        numbers.next = 1;
        for cpu in 0..MAX_CPUS {
            let active = self.active[cpu].swap(0, Ordering::Relaxed);
            // A CPU that has not been here since the last roll-over still runs with its reserved ASID.
            if active != 0 {
                numbers.reserved[cpu] = active;
            }
            let number = (numbers.reserved[cpu] & 0xffff) as usize;
            numbers.taken[number / 64] |= 1 << (number % 64);
        }
        numbers.owes_flush = !0;
    }

    /// Frees the number of `slot`, whose space has ended: it is active nowhere and never will be again.
    pub fn release(&self, slot: &AsidSlot) {
        if slot.0.swap(0, Ordering::Relaxed) != 0 {
            self.spaces.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The present number of `slot`.
    pub fn view(&self, slot: &AsidSlot) -> AsidView {
        // Under the lock no generation begins.
        let numbers = self.numbers.lock();
        let context = slot.0.load(Ordering::Relaxed);
        let mut view = AsidView {
            number: (context != 0).then_some(context as u16),
            generation: context >> MAX_BITS,
            current: self.generation.load(Ordering::Relaxed) >> MAX_BITS,
            cpus: 0,
            owing: numbers.owes_flush,
        };
        for cpu in 0..MAX_CPUS {
            // At a roll-over the CPU's number becomes a reserved one, until it loads a table again.
            let runs = match self.active[cpu].load(Ordering::Relaxed) {
                0 => numbers.reserved[cpu],
                active => active,
            };
            view.cpus |= u32::from(context != 0 && runs == context) << cpu;
        }
        view
    }

    /// Address spaces that have an ASID.
    pub fn spaces(&self) -> usize {
        self.spaces.load(Ordering::Relaxed)
    }

    /// How often the numbers have run out.
    pub fn rollovers(&self) -> usize {
        self.rollovers.load(Ordering::Relaxed)
    }
}
