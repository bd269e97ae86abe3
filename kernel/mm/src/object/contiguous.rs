//! Memory for a device: consecutive frames that do not move, as an object that programs map like any other.
//!
//! The frames are pinned for as long as the [`Contiguous`] exists, which belongs to its device and not to a program: a
//! device may still write to them after the program that asked for them is gone. The memory is freed when the
//! `Contiguous` and all mappings have ended.

use quire_abi::Errno;

use super::{Object, ObjectPage};
use crate::addr::{Pfn, PhysAddr};
use crate::event::Event;
use crate::fallible::KArc;
use crate::frame;
use crate::page::MAX_ORDER;
use crate::page_alloc::Gfp;
use crate::rmap::Release;
use crate::supply::supplied;
use crate::table::Machine;

/// The number of pages between two points at which others may run.
const POINT_EVERY: usize = 64;

/// See the module.
pub struct Contiguous<M: Machine> {
    object: KArc<Object<M>>,
    first: Pfn,
    /// How many of them are pinned.
    pages: usize,
}

impl<M: Machine> Contiguous<M> {
    /// Allocates `pages` pages, filled with zeros, from the zone that `gfp` selects. ENOMEM, also for more than the
    /// largest block of the page allocator. The caller holds no lock.
    pub fn new(machine: M, pages: usize, gfp: Gfp) -> Result<Self, Errno> {
        if pages == 0 || pages > 1 << MAX_ORDER {
            return Err(if pages == 0 { Errno::EINVAL } else { Errno::ENOMEM });
        }
        let object = Object::shared_anon(machine, pages, true)?;
        let first = machine.pages().alloc_single_pages(pages, gfp | Gfp::ZERO)?;
        machine.count(Event::UserAlloc, pages);
        let mut this = Self { object, first, pages: 0 };
        for index in 0..pages {
            if let Err(error) = this.enter(index) {
                (index..pages).for_each(|index| frame::free(machine, Pfn(first.0 + index)));
                return Err(error);
            }
            this.pages = index + 1;
            if index % POINT_EVERY == POINT_EVERY - 1 {
                let _ = machine.resched_point();
            }
        }
        Ok(this)
    }

    /// Pins the frame at `index`, and makes it the object's page. After an error it still belongs to the caller.
    fn enter(&self, index: usize) -> Result<(), Errno> {
        let (machine, pfn) = (self.object.machine, Pfn(self.first.0 + index));
        if !machine.pages().pin_long_term(pfn) {
            return Err(Errno::ENOMEM);
        }
        let entered = supplied(machine, |supply| {
            let mut owned = self.object.owned.lock();
            self.object.enter_locked(&mut owned, index, pfn, supply, false)
        });
        if entered.is_err() {
            let _ = frame::page(machine, pfn).unpin();
            return Err(Errno::ENOMEM);
        }
        debug_assert_eq!(entered, Ok(ObjectPage::Counted(pfn)), "nobody else knows the object");
        // The object has its reference, and the pin another one.
        Release::new(machine).page(pfn);
        Ok(())
    }

    /// The object: what programs map.
    pub fn object(&self) -> &KArc<Object<M>> {
        &self.object
    }

    /// Where the first frame begins.
    pub fn addr(&self) -> PhysAddr {
        self.first.addr()
    }

    /// How many there are.
    pub fn pages(&self) -> usize {
        self.pages
    }
}

impl<M: Machine> Drop for Contiguous<M> {
    fn drop(&mut self) {
        for index in 0..self.pages {
            // The object has a reference too.
            let _ = frame::page(self.object.machine, Pfn(self.first.0 + index)).unpin();
            if index % POINT_EVERY == POINT_EVERY - 1 {
                // An operation that has begun is completed.
                let _ = self.object.machine.resched_point();
            }
        }
    }
}
