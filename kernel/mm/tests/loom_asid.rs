//! ASIDs under loom: all interleavings of CPUs that switch spaces while the numbers run out, and of one that
//! invalidates while another runs the space for the first time.
//!
//! The allocator's file is compiled into this test with loom's atomics, a machine of two CPUs, and TLBs that keep
//! entries.

mod atomic {
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

mod machine {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Asid(pub u16);
    pub const MAX_CPUS: usize = 2;
    pub trait Machine: Copy {
        fn publish_tables(self);
        fn tlb_flush_local(self);
    }
}

mod sync {
    use loom::sync::{Mutex, MutexGuard};

    /// The kernel's lock, as far as the allocator uses it.
    pub struct SpinLock<T, M> {
        value: Mutex<T>,
        _machine: M,
    }

    impl<T, M> SpinLock<T, M> {
        pub fn new(machine: M, value: T) -> Self {
            Self { value: Mutex::new(value), _machine: machine }
        }
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.value.lock().unwrap()
        }
    }
}

#[allow(dead_code)]
#[path = "../src/asid/allocator.rs"]
mod allocator;

use std::cell::Cell;

use allocator::{AsidAllocator, AsidSlot, MAX_BITS, Numbers, WORDS};
use atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use machine::{Asid, MAX_CPUS, Machine};

loom::thread_local! {
    static CPU: Cell<usize> = Cell::new(0);
}

/// What a TLB knows: an ASID, and the space whose entry came with it.
type Tlb = Mutex<Vec<(Asid, usize)>>;

/// The TLBs, by address: the allocator wants a machine that can be copied.
#[derive(Clone, Copy)]
struct Cpus {
    tlbs: *const [Tlb; MAX_CPUS],
    /// Whoever gives out an ASID publishes it.
    publishes: bool,
}

impl Cpus {
    fn tlb(&self, cpu: usize) -> &Tlb {
        // SAFETY: `World` has them for as long as its allocator lives.
        unsafe { &(*self.tlbs)[cpu] }
    }
}

impl Machine for Cpus {
    /// DSB: what was stored is seen by whoever looks after a barrier of its own.
    fn publish_tables(self) {
        if self.publishes {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    fn tlb_flush_local(self) {
        self.tlb(CPU.with(Cell::get)).lock().unwrap().clear();
    }
}

struct World<const SPACES: usize> {
    asids: AsidAllocator<Cpus>,
    slots: [AsidSlot; SPACES],
    /// Whether a page is mapped, in each space.
    entries: [AtomicUsize; SPACES],
    cpus: Cpus,
    _tlbs: Box<[Tlb; MAX_CPUS]>,
}

// SAFETY: what `cpus` points to is behind locks, and owned by this.
unsafe impl<const SPACES: usize> Send for World<SPACES> {}
// SAFETY: as above.
unsafe impl<const SPACES: usize> Sync for World<SPACES> {}

impl<const SPACES: usize> World<SPACES> {
    /// ASIDs of two bits: three numbers.
    fn new() -> Arc<Self> {
        Self::make(true)
    }

    fn make(publishes: bool) -> Arc<Self> {
        let tlbs: Box<[Tlb; MAX_CPUS]> = Box::new(std::array::from_fn(|_| Mutex::default()));
        let cpus = Cpus { tlbs: &raw const *tlbs, publishes };
        let mut taken = [0; WORDS];
        taken[0] = 1;
        let asids = AsidAllocator {
            machine: cpus,
            bits: AtomicU32::new(2),
            generation: AtomicU64::new(1 << MAX_BITS),
            active: std::array::from_fn(|_| AtomicU64::new(0)),
            numbers: sync::SpinLock::new(cpus, Numbers { taken, next: 1, reserved: [0; MAX_CPUS], owes_flush: 0 }),
            spaces: AtomicUsize::new(0),
            rollovers: AtomicUsize::new(0),
        };
        let slots = std::array::from_fn(|_| AsidSlot(AtomicU64::new(0)));
        Arc::new(Self { asids, slots, entries: std::array::from_fn(|_| AtomicUsize::new(1)), cpus, _tlbs: tlbs })
    }

    /// `cpu` switches to a space and walks its tables.
    fn run(&self, cpu: usize, space: usize) {
        CPU.with(|it| it.set(cpu));
        let asid = self.asids.activate(&self.slots[space], cpu);
        // A walk is over before an invalidation is.
        let mut tlb = self.cpus.tlb(cpu).lock().unwrap();
        let other = tlb.iter().find(|(known, of)| *known == asid && *of != space);
        assert_eq!(other, None, "CPU {cpu} runs space {space} with the entries of another one");
        if self.entries[space].load(Ordering::Relaxed) != 0 {
            tlb.push((asid, space));
        }
    }

    /// Unmaps the page of a space and invalidates it, as `table::flush` does.
    fn unmap(&self, space: usize) {
        self.entries[space].store(0, Ordering::Relaxed);
        loom::sync::atomic::fence(Ordering::SeqCst);
        if let Some(asid) = self.slots[space].current() {
            (0..MAX_CPUS).for_each(|cpu| self.cpus.tlb(cpu).lock().unwrap().retain(|(known, _)| *known != asid));
        }
    }
}

#[test]
fn a_number_that_is_given_out_anew_comes_without_old_entries() {
    loom::model(|| {
        let world = World::<4>::new();
        // All numbers are taken; CPU 0 has run space 1, and runs space 0; CPU 1 runs space 2.
        [(0, 0), (0, 1), (0, 0), (1, 2)].into_iter().for_each(|(cpu, space)| world.run(cpu, space));
        let far = world.clone();
        // Space 3 takes the number of space 1, which runs nowhere, or is about to.
        let other = thread::spawn(move || far.run(1, 3));
        world.run(0, 1);
        world.run(0, 3);
        other.join().unwrap();
        world.run(0, 1);
        world.run(1, 1);
        assert_ne!(world.asids.rollovers(), 0);
    });
}

#[test]
fn two_cpus_run_out_of_numbers_at_once() {
    loom::model(|| {
        let world = World::<5>::new();
        [(0, 0), (1, 1), (0, 2)].into_iter().for_each(|(cpu, space)| world.run(cpu, space));
        let far = world.clone();
        let other = thread::spawn(move || far.run(1, 3));
        world.run(0, 4);
        other.join().unwrap();
        (0..5).for_each(|space| world.run(0, space));
    });
}

/// A space with one page is first run on CPU 1 while it is unmapped on CPU 0.
fn run_while_unmapped(publishes: bool) {
    loom::model(move || {
        let world = World::<1>::make(publishes);
        let far = world.clone();
        let other = thread::spawn(move || far.run(1, 0));
        world.unmap(0);
        other.join().unwrap();
        assert!(world.cpus.tlb(1).lock().unwrap().is_empty(), "the page is gone, and a TLB has it");
    });
}

#[test]
fn a_space_that_is_first_run_while_it_is_unmapped_keeps_no_entry() {
    run_while_unmapped(true);
}

/// `activate` publishes what it gives out: here is what that is for.
#[test]
#[should_panic(expected = "the page is gone, and a TLB has it")]
fn where_an_asid_is_not_published_an_entry_stays() {
    run_while_unmapped(false);
}

#[test]
fn a_space_that_gets_another_number_while_it_is_unmapped_keeps_no_entry() {
    loom::model(|| {
        let world = World::<4>::new();
        // Space 0 had a number of a past generation.
        [(0, 0), (0, 1), (0, 2), (0, 3)].into_iter().for_each(|(cpu, space)| world.run(cpu, space));
        world.cpus.tlb(0).lock().unwrap().clear();
        let far = world.clone();
        let other = thread::spawn(move || far.run(1, 0));
        world.unmap(0);
        other.join().unwrap();
        let tlb = world.cpus.tlb(1).lock().unwrap();
        assert!(tlb.iter().all(|(_, space)| *space != 0), "the page is gone, and a TLB has it");
    });
}
