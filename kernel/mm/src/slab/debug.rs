//! The boot options that check every object: red zones, poison, owner tracking, failure injection.
//!
//! A cache with any of them has no fast path and no per-CPU objects; SLUB's caches then work like SLAB's without
//! arrays, from the lists. SLOB supports failures only: its objects have no room for more.
//!
//! ```text
//! | red zone | object | red zone | link | state | allocated by | freed by | padding |
//!            ^ what the owner gets
//! ```
//!
//! | option        | what it does                                                                       |
//! | ------------- | ---------------------------------------------------------------------------------- |
//! | all of them   | `state` says whether the object is live: a second free is found, whenever it comes |
//! | `F` CHECKS    | only that                                                                           |
//! | `Z` RED_ZONE  | the red zones' bytes say so too, and are looked at when the object is freed or allocated |
//! | `P` POISON    | a free object is filled with a pattern, which is looked at when it is allocated     |
//! | `U` TRACK     | who allocated and who freed it last is recorded, for reports                        |
//!
//! A faulty object is reported and never reused; its slab counts it as live.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::page_alloc::Gfp;
use crate::page_alloc::Machine;
use crate::slab::cache::{KmemCache, Setup};
use crate::slab::debug_flags::DebugFlags;
use crate::slab::geometry::Geometry;
use crate::slab::report::{Fault, Report, Track};

const RED_LIVE: u8 = 0xcc;
const RED_FREE: u8 = 0xbb;
const POISON_FREE: u8 = 0x6b;
const POISON_NEW: u8 = 0x5a;
const STATE_LIVE: usize = 0x1157_0b1e_c700_11fe;
const STATE_FREE: usize = 0xf4ee_0b1e_c700_dead;

/// An object with its surrounding metadata.
struct Cell<'a> {
    object: usize,
    geometry: &'a Geometry,
    flags: DebugFlags,
    constructed: bool,
}

impl<'a> Cell<'a> {
    fn new<M: Machine>(cache: &KmemCache<M>, setup: &'a Setup<M>, object: usize) -> Self {
        let constructed = cache.spec.constructor.is_some();
        Self { object, geometry: &setup.geometry, flags: setup.debug, constructed }
    }

    fn has(&self, flag: DebugFlags) -> bool {
        self.flags.contains(flag)
    }

    fn state(&self) -> &AtomicUsize {
        let at = self.object + self.geometry.link + size_of::<usize>();
        // SAFETY: the geometry has room for an aligned word here in every cell, and only atomics touch it.
        unsafe { &*core::ptr::with_exposed_provenance::<AtomicUsize>(at) }
    }

    /// The record of the object's allocation (0) or free (1).
    fn track(&self, which: usize) -> Option<*mut Track> {
        let at = self.object + self.geometry.link + 2 * size_of::<usize>() + which * size_of::<Track>();
        self.has(DebugFlags::TRACK).then(|| core::ptr::with_exposed_provenance_mut(at))
    }

    fn record<M: Machine>(&self, machine: M, which: usize) {
        if let Some(track) = self.track(which) {
            // SAFETY: the geometry has room for the track, and only the thread that changes the state writes it.
            unsafe { track.write(Track::here(machine)) };
        }
    }

    fn recorded(&self, which: usize) -> Option<Track> {
        // SAFETY: as above; a report may read a track while it is written, and then shows wrong values at worst.
        self.track(which).map(|track| unsafe { track.read_volatile() }).filter(|track| *track != Track::default())
    }

    /// Fills a part of the cell, named by distances from the object's start.
    fn fill(&self, from: isize, to: isize, byte: u8) {
        let start = core::ptr::with_exposed_provenance_mut::<u8>(self.object.wrapping_add_signed(from));
        // SAFETY: callers pass parts of the cell: red zones, which belong to the allocator, and the object while it is
        // free.
        unsafe { start.write_bytes(byte, (to - from) as usize) }
    }

    /// The first byte of a part of the cell that is not `byte`.
    fn first_other(&self, from: isize, to: isize, byte: u8) -> Option<isize> {
        let start = core::ptr::with_exposed_provenance::<u8>(self.object.wrapping_add_signed(from));
        // SAFETY: as above.
        let bytes = unsafe { core::slice::from_raw_parts(start, (to - from) as usize) };
        bytes.iter().position(|&found| found != byte).map(|at| from + at as isize)
    }

    fn red_zones(&self) -> [(isize, isize); 2] {
        let (lead, size, link) =
            (self.geometry.lead as isize, self.geometry.size as isize, self.geometry.link as isize);
        if self.has(DebugFlags::RED_ZONE) { [(-lead, 0), (size, link)] } else { [(0, 0); 2] }
    }

    fn paint(&self, byte: u8) {
        self.red_zones().into_iter().for_each(|(from, to)| self.fill(from, to, byte));
    }

    /// The first wrong byte of the red zones.
    fn first_overrun(&self, byte: u8) -> Option<isize> {
        self.red_zones().into_iter().find_map(|(from, to)| self.first_other(from, to, byte))
    }

    fn is_poisoned(&self) -> bool {
        self.has(DebugFlags::POISON) && !self.constructed
    }

    fn poison(&self, byte: u8) {
        if self.is_poisoned() {
            self.fill(0, self.geometry.size as isize, byte);
        }
    }

    /// The fault of an object that should have been free since its last check.
    fn fault_of_free(&self) -> Option<(Fault, isize)> {
        if let Some(at) = self.first_overrun(RED_FREE) {
            return Some((Fault::Overrun, at));
        }
        let size = self.geometry.size as isize;
        let written = if self.is_poisoned() { self.first_other(0, size, POISON_FREE) } else { None };
        written.map(|at| (Fault::UseAfterFree, at))
    }
}

/// Initialises an object of a new slab as free.
pub(super) fn prepare<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, object: usize) {
    if !setup.debug.intersects(DebugFlags::LAYOUT) {
        return;
    }
    let cell = Cell::new(cache, setup, object);
    cell.paint(RED_FREE);
    cell.poison(POISON_FREE);
    cell.state().store(STATE_FREE, Ordering::Relaxed);
    for track in [0, 1].into_iter().filter_map(|which| cell.track(which)) {
        // SAFETY: the geometry has room for the track, and the object is unshared.
        unsafe { track.write(Track::default()) };
    }
}

/// The first intact object from `take`.
pub(super) fn alloc<M: Machine>(
    cache: &KmemCache<M>,
    setup: &Setup<M>,
    gfp: Gfp,
    mut take: impl FnMut() -> *mut u8,
) -> *mut u8 {
    if setup.injection.hits(0, setup.geometry.size, gfp) {
        return core::ptr::null_mut();
    }
    loop {
        let object = take();
        if object.is_null() || !setup.debug.intersects(DebugFlags::LAYOUT) {
            return object;
        }
        let cell = Cell::new(cache, setup, object.addr());
        let fault = match cell.state().swap(STATE_LIVE, Ordering::AcqRel) {
            STATE_FREE => cell.fault_of_free(),
            _ => Some((Fault::UseAfterFree, (setup.geometry.link + size_of::<usize>()) as isize)),
        };
        if let Some((fault, offset)) = fault {
            tell(cache, setup, &cell, fault, offset);
            cache.this_cpu().count_free();
            continue;
        }
        cell.paint(RED_LIVE);
        cell.poison(POISON_NEW);
        cell.record(cache.machine, 0);
        return object;
    }
}

/// Whether an object that is being freed may be reused.
pub(super) fn may_free<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, object: NonNull<u8>) -> bool {
    let address = object.as_ptr().addr();
    if !setup.debug.intersects(DebugFlags::LAYOUT) {
        return true;
    }
    if cache.slab_of(setup, address).is_none() {
        return false;
    }
    let cell = Cell::new(cache, setup, address);
    // Of two concurrent frees, one finds the object free.
    let fault = match cell.state().compare_exchange(STATE_LIVE, STATE_FREE, Ordering::AcqRel, Ordering::Relaxed) {
        Ok(_) => cell.first_overrun(RED_LIVE).map(|at| (Fault::Overrun, at)),
        Err(STATE_FREE) => Some((Fault::DoubleFree, 0)),
        Err(_) => Some((Fault::Overrun, (setup.geometry.link + size_of::<usize>()) as isize)),
    };
    if let Some((fault, offset)) = fault {
        tell(cache, setup, &cell, fault, offset);
        if fault == Fault::Overrun {
            // It counts as freed, but is never handed out again.
            cache.this_cpu().count_free();
        }
        return false;
    }
    cell.paint(RED_FREE);
    cell.poison(POISON_FREE);
    cell.record(cache.machine, 1);
    true
}

#[cold]
fn tell<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, cell: &Cell<'_>, fault: Fault, offset: isize) {
    (setup.report)(&Report {
        fault,
        cache: cache.name(),
        object: cell.object,
        offset,
        found: Track::here(cache.machine),
        allocated: cell.recorded(0),
        freed: cell.recorded(1),
    });
}
