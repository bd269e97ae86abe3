//! Per-CPU memory: one offset, with a different address on each CPU.
//!
//! A *chunk* is one block of frames per CPU, on that CPU's node, all with the same layout. An offset names a chunk and
//! a place in it, and is valid on all CPUs; adding a CPU's base makes it an address:
//!
//! ```text
//!           CPU 0                     CPU 1
//! chunk 0 | statics | dynamic ... | statics | dynamic ... |
//! chunk 1 | dynamic ............. | dynamic ............. |
//!               ^ offset                ^ the same offset
//! ```
//!
//! Chunk 0 begins with the kernel's static per-CPU variables, copied from a template that the linker makes; the rest is
//! allocated first-fit by a bitmap, one bit per 8 bytes. More chunks are added when there is no room, and stay.
//!
//! The bitmaps' lock has [`Rank::PerCpuAreas`]; pages are allocated without it. Looking up an address takes no lock.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::addr::PAGE_SIZE;
use crate::bitmap;
use crate::fallible::AllocError;
use crate::machine::MAX_CPUS;
use crate::page_alloc::Gfp;
use crate::page_alloc::Machine;
use crate::sync::{Rank, SpinLock};

/// log2 of the pages that a chunk has on each CPU.
const CHUNK_ORDER: u32 = 2;
/// Bytes that a chunk has on each CPU: the largest object.
pub const CHUNK_SIZE: usize = PAGE_SIZE << CHUNK_ORDER;
/// The most chunks.
const MAX_CHUNKS: usize = 16;
/// Bytes for which a bitmap has one bit.
const GRAIN: usize = 8;
const WORDS: usize = CHUNK_SIZE / GRAIN / 64;

/// The position of a per-CPU object, the same on every CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset(usize);

impl Offset {
    /// The offset of a static variable, `bytes` from the start of the template.
    pub const fn of_static(bytes: usize) -> Self {
        Self(bytes)
    }
}

/// Which grains of a chunk are taken.
struct Bitmap([u64; WORDS]);

impl Bitmap {
    fn set(&mut self, first: usize, count: usize, taken: bool) {
        for (index, mask) in bitmap::words(first..first + count) {
            if taken {
                self.0[index] |= mask;
            } else {
                self.0[index] &= !mask;
            }
        }
    }

    /// Takes the first `count` free grains in a row that start at a multiple of `align` grains.
    fn take(&mut self, count: usize, align: usize) -> Option<usize> {
        let aligned = |grain: usize| grain.checked_next_multiple_of(align);
        let first = bitmap::find_clear_run(|index| self.0[index], WORDS * 64, 0, count, aligned)?;
        self.set(first, count, true);
        Some(first)
    }
}

struct Chunks {
    count: usize,
    maps: [Bitmap; MAX_CHUNKS],
}

/// All per-CPU memory of a machine.
pub struct PerCpuAreas<M: Machine> {
    machine: M,
    /// CPUs that have memory here; 0 before [`PerCpuAreas::init`].
    cpus: AtomicUsize,
    /// The address of each chunk on each CPU, published before the chunk is counted.
    bases: [[AtomicUsize; MAX_CPUS]; MAX_CHUNKS],
    chunks: SpinLock<Chunks, M>,
}

impl<M: Machine> PerCpuAreas<M> {
    /// Nothing yet.
    pub const fn new(machine: M) -> Self {
        let chunks = Chunks { count: 0, maps: [const { Bitmap([0; WORDS]) }; MAX_CHUNKS] };
        Self {
            machine,
            cpus: AtomicUsize::new(0),
            bases: [const { [const { AtomicUsize::new(0) }; MAX_CPUS] }; MAX_CHUNKS],
            chunks: SpinLock::new(machine, Rank::PerCpuAreas, chunks),
        }
    }

    /// Makes the first chunk for CPUs 0 to `cpus - 1`, with a copy of the static variables for each. Once, before any
    /// other use.
    pub fn init(&self, cpus: usize, statics: &[u8]) -> Result<(), AllocError> {
        if self.cpus.load(Ordering::Relaxed) != 0 || cpus == 0 || cpus > MAX_CPUS || statics.len() > CHUNK_SIZE {
            return Err(AllocError);
        }
        self.cpus.store(cpus, Ordering::Relaxed);
        if let Err(error) = self.grow() {
            self.cpus.store(0, Ordering::Relaxed);
            return Err(error);
        }
        for cpu in 0..cpus {
            let to = self.address(cpu, Offset(0));
            // SAFETY: the chunk is new, unshared, and at least as large.
            unsafe { to.as_ptr().copy_from_nonoverlapping(statics.as_ptr(), statics.len()) };
        }
        self.chunks.lock().maps[0].set(0, statics.len().div_ceil(GRAIN), true);
        Ok(())
    }

    /// CPUs that have memory here.
    pub fn cpus(&self) -> usize {
        self.cpus.load(Ordering::Relaxed)
    }

    /// The address of `offset` on a CPU that has memory here.
    #[inline]
    pub fn address(&self, cpu: usize, offset: Offset) -> NonNull<u8> {
        let base = self.bases[offset.0 / CHUNK_SIZE][cpu].load(Ordering::Relaxed);
        debug_assert!(base != 0, "an offset that nobody handed out");
        let address = core::ptr::with_exposed_provenance_mut::<u8>(base).wrapping_add(offset.0 % CHUNK_SIZE);
        // SAFETY: offsets come from `alloc` or `init`, after the chunk's bases were written, and those are not 0.
        unsafe { NonNull::new_unchecked(address) }
    }

    /// Zeros of this size and alignment on each CPU.
    pub fn alloc(&self, size: usize, align: usize) -> Result<Offset, AllocError> {
        if size > CHUNK_SIZE || align > PAGE_SIZE || !align.is_power_of_two() {
            return Err(AllocError);
        }
        let (count, align) = (size.max(1).div_ceil(GRAIN), align.div_ceil(GRAIN));
        loop {
            let known = {
                let mut chunks = self.chunks.lock();
                let known = chunks.count;
                let found = chunks.maps[..known].iter_mut().enumerate().find_map(|(chunk, map)| {
                    map.take(count, align).map(|grain| Offset(chunk * CHUNK_SIZE + grain * GRAIN))
                });
                if let Some(offset) = found {
                    drop(chunks);
                    self.clear(offset, size);
                    return Ok(offset);
                }
                known
            };
            // Another CPU may have added a chunk meanwhile, and used all of it: then try again.
            if self.chunks.lock().count == known {
                self.grow()?;
            }
        }
    }

    fn clear(&self, offset: Offset, size: usize) {
        for cpu in 0..self.cpus() {
            // SAFETY: the place was just taken for the caller and has this size on each CPU.
            unsafe { self.address(cpu, offset).write_bytes(0, size) };
        }
    }

    /// Frees memory from [`PerCpuAreas::alloc`] of this size.
    ///
    /// # Safety
    /// It is freed once, and no CPU uses it any more.
    pub unsafe fn free(&self, offset: Offset, size: usize) {
        let (chunk, first) = (offset.0 / CHUNK_SIZE, offset.0 % CHUNK_SIZE / GRAIN);
        self.chunks.lock().maps[chunk].set(first, size.max(1).div_ceil(GRAIN), false);
    }

    /// Bytes taken on each CPU, statics included.
    pub fn used(&self) -> usize {
        let chunks = self.chunks.lock();
        let bits = |map: &Bitmap| map.0.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        chunks.maps.iter().map(bits).sum::<usize>() * GRAIN
    }

    /// Pages of all chunks on all CPUs.
    pub fn pages(&self) -> usize {
        (self.chunks.lock().count * self.cpus()) << CHUNK_ORDER
    }

    /// Adds a chunk.
    fn grow(&self) -> Result<(), AllocError> {
        let mut fresh = [0; MAX_CPUS];
        let cpus = self.cpus();
        let pages = self.machine.pages();
        let mut done = 0;
        while done < cpus {
            let Ok(block) = pages.alloc_pages_node(pages.node_of_cpu(done), CHUNK_ORDER, Gfp::KERNEL) else { break };
            fresh[done] = block.as_ptr().expose_provenance();
            block.into_raw();
            done += 1;
        }
        let placed = done == cpus && cpus != 0 && {
            let mut chunks = self.chunks.lock();
            let number = chunks.count;
            let room = number < MAX_CHUNKS;
            if room {
                self.bases[number].iter().zip(fresh).for_each(|(base, fresh)| base.store(fresh, Ordering::Relaxed));
                chunks.count += 1;
            }
            room
        };
        if placed {
            return Ok(());
        }
        for base in &fresh[..done] {
            let pfn = self.machine.direct_map_to_phys(core::ptr::with_exposed_provenance(*base)).pfn();
            // SAFETY: allocated above at this order, and seen by nobody.
            unsafe { pages.free_pages(pfn, CHUNK_ORDER) };
        }
        Err(AllocError)
    }
}

/// A `T` for each CPU.
pub struct PerCpu<T, M: Machine> {
    areas: &'static PerCpuAreas<M>,
    offset: Offset,
    owns: PhantomData<T>,
}

// SAFETY: it owns its `T`s, and gives out references to them on any CPU.
unsafe impl<T: Send + Sync, M: Machine> Send for PerCpu<T, M> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync, M: Machine> Sync for PerCpu<T, M> {}

impl<T, M: Machine> PerCpu<T, M> {
    /// Makes a value for each CPU with `make`.
    pub fn try_new(areas: &'static PerCpuAreas<M>, mut make: impl FnMut(usize) -> T) -> Result<Self, AllocError> {
        let offset = areas.alloc(size_of::<T>(), align_of::<T>())?;
        for cpu in 0..areas.cpus() {
            // SAFETY: the place is ours alone and has a `T`'s size and alignment.
            unsafe { areas.address(cpu, offset).cast::<T>().write(make(cpu)) };
        }
        Ok(Self { areas, offset, owns: PhantomData })
    }

    /// The value of one CPU; `None` if that CPU has no memory here.
    pub fn get(&self, cpu: usize) -> Option<&T> {
        // SAFETY: `try_new` made a `T` there, which lives as long as `self`.
        (cpu < self.areas.cpus()).then(|| unsafe { self.areas.address(cpu, self.offset).cast::<T>().as_ref() })
    }

    /// This CPU's value; the caller may afterwards be moved to another CPU.
    #[inline]
    pub fn this(&self) -> &T {
        // SAFETY: as above; every running CPU has memory here.
        unsafe { self.areas.address(self.areas.machine.cpu(), self.offset).cast::<T>().as_ref() }
    }

    /// All CPUs'.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.areas.cpus()).filter_map(|cpu| self.get(cpu))
    }
}

impl<T, M: Machine> Drop for PerCpu<T, M> {
    fn drop(&mut self) {
        // SAFETY: each CPU's `T` is dropped once, and then its memory is given back as it was allocated.
        unsafe {
            for cpu in 0..self.areas.cpus() {
                self.areas.address(cpu, self.offset).cast::<T>().drop_in_place();
            }
            self.areas.free(self.offset, size_of::<T>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine as _;
    use crate::page_alloc::FaultInjection;
    use crate::sim::{Sim, SimConfig};
    use proptest::prelude::*;
    use std::rc::Rc;

    fn areas(statics: &[u8]) -> (&'static Sim, &'static PerCpuAreas<&'static Sim>) {
        let mut config = SimConfig::new().bank(1 << 30, 8 << 20, 0).bank(2 << 30, 8 << 20, 1);
        (0..MAX_CPUS).for_each(|cpu| config.node_of_cpu[cpu] = cpu as u8 % 2);
        let machine = Sim::boot(&config);
        let areas: &'static _ = Box::leak(Box::new(PerCpuAreas::new(machine)));
        areas.init(4, statics).unwrap();
        (machine, areas)
    }

    #[test]
    fn statics_are_copied_for_each_cpu_on_its_node() {
        let statics: Vec<u8> = (0..100).collect();
        let (machine, areas) = areas(&statics);
        for cpu in 0..4 {
            let at = areas.address(cpu, Offset::of_static(0));
            // SAFETY: the statics are that long.
            assert_eq!(unsafe { std::slice::from_raw_parts(at.as_ptr(), 100) }, statics);
            assert_eq!(machine.pages().node_of(machine.direct_map_to_phys(at.as_ptr()).pfn()), cpu % 2);
        }
        assert!(areas.alloc(8, 8).unwrap() >= Offset(104), "behind the statics");
        assert!(areas.init(4, &[]).is_err(), "once only");
    }

    #[test]
    fn each_cpu_has_its_own_and_all_end_together() {
        let (_, areas) = areas(&[]);
        let bell = Rc::new(());
        let each = PerCpu::try_new(areas, |cpu| (cpu, bell.clone())).unwrap();
        assert_eq!(each.iter().map(|(cpu, _)| *cpu).collect::<Vec<_>>(), [0, 1, 2, 3]);
        Sim::set_cpu(2);
        assert_eq!(each.this().0, 2);
        assert!(each.get(4).is_none());
        assert_eq!(Rc::strong_count(&bell), 5);
        drop(each);
        assert_eq!((Rc::strong_count(&bell), areas.used()), (1, 0));
    }

    #[test]
    fn no_memory_is_an_error_and_leaks_nothing() {
        let (machine, areas) = areas(&[]);
        areas.alloc(CHUNK_SIZE, 8).unwrap();
        let free = machine.pages().total_free();
        for nth in 1..5 {
            machine.pages().inject_failures(FaultInjection::nth(nth));
            assert!(areas.alloc(8, 8).is_err());
            assert_eq!(machine.pages().total_free(), free);
        }
        machine.pages().inject_failures(FaultInjection::OFF);
        assert!(areas.alloc(8, 8).is_ok());
        assert!(areas.alloc(CHUNK_SIZE + 1, 8).is_err() && areas.alloc(8, 3).is_err());
        let chunks = (0..).take_while(|_| areas.alloc(CHUNK_SIZE, 8).is_ok()).count();
        assert_eq!(chunks, MAX_CHUNKS - 2);
        assert!(PerCpuAreas::new(machine).alloc(8, 8).is_err(), "before init");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn objects_do_not_overlap_on_any_cpu(
            steps in prop::collection::vec((1usize..3000, 0u32..8, any::<usize>(), any::<bool>()), 1..100)
        ) {
            let (_, areas) = areas(&[1; 50]);
            let mut live: Vec<(Offset, usize, u8)> = Vec::new();
            for (i, (size, align, pick, free)) in steps.into_iter().enumerate() {
                if free && !live.is_empty() {
                    let (offset, size, _) = live.swap_remove(pick % live.len());
                    // SAFETY: given back once.
                    unsafe { areas.free(offset, size) };
                } else {
                    let Ok(offset) = areas.alloc(size, 1 << align) else { continue };
                    for cpu in 0..4 {
                        let at = areas.address(cpu, offset);
                        prop_assert!(at.as_ptr().addr().is_multiple_of(1 << align));
                        // SAFETY: the object is ours.
                        unsafe {
                            prop_assert!(std::slice::from_raw_parts(at.as_ptr(), size).iter().all(|&byte| byte == 0));
                            at.write_bytes(i as u8 ^ cpu as u8, size);
                        }
                    }
                    live.push((offset, size, i as u8));
                }
                prop_assert_eq!(areas.used(), 56 + live.iter().map(|(_, size, _)| size.next_multiple_of(8)).sum::<usize>());
            }
            for (offset, size, tag) in live {
                for cpu in 0..4 {
                    // SAFETY: the object is ours.
                    let bytes = unsafe { std::slice::from_raw_parts(areas.address(cpu, offset).as_ptr(), size) };
                    prop_assert!(bytes.iter().all(|&byte| byte == tag ^ cpu as u8));
                }
            }
        }
    }
}
