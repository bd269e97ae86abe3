//! Memory for the DMA of virtio devices. A driver allocates all of it when it starts, and only gives its devices
//! buffers in this memory, so nothing is copied on the way to them.

use core::cell::{Cell, RefCell};
use core::ptr::NonNull;

use alloc::vec::Vec;

use quire_rt::Errno;
use quire_rt::device::{Device, Dma};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// The process's memory of this kind. The process has one thread.
struct Pool {
    /// The device for which memory is allocated.
    device: Cell<Option<Device>>,
    ranges: RefCell<Vec<Dma>>,
}

// SAFETY: the drivers' processes have one thread.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool { device: Cell::new(None), ranges: RefCell::new(Vec::new()) };

/// A part of a device's memory, valid for as long as the process lives.
pub struct Slot {
    start: NonNull<u8>,
    len: usize,
}

impl Slot {
    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the memory is mapped for good, initially filled with zeros, and belongs to nobody else.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The first bytes, to be lent to a device.
    ///
    /// # Safety
    /// No other reference to the bytes is in use for as long as this one is, or the device has them.
    pub unsafe fn lent<'a>(&self, len: usize) -> &'a mut [u8] {
        // SAFETY: the memory is mapped for good; the rest is the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), len.min(self.len)) }
    }

    /// Cuts off the first bytes.
    pub fn split(self, at: usize) -> (Self, Self) {
        let at = at.min(self.len);
        // SAFETY: within the memory.
        let rest = unsafe { self.start.add(at) };
        (Self { start: self.start, len: at }, Self { start: rest, len: self.len - at })
    }
}

/// See the module.
pub struct Memory;

impl Memory {
    /// Selects the device for which memory is allocated from now on.
    pub fn use_device(device: Device) {
        POOL.device.set(Some(device));
    }

    /// Allocates `bytes` bytes for the device's DMA.
    pub fn take(bytes: usize) -> Result<Slot, Errno> {
        let device = POOL.device.get().ok_or(Errno::ENODEV)?;
        let mut ranges = POOL.ranges.borrow_mut();
        ranges.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let range = device.memory(bytes)?;
        let start = range.start();
        ranges.push(range);
        Ok(Slot { start, len: bytes })
    }

    /// The address by which the devices access an address of this process.
    fn bus(address: NonNull<u8>, len: usize) -> Option<PhysAddr> {
        let at = address.addr().get();
        POOL.ranges.borrow().iter().find_map(|range| {
            let offset = at.checked_sub(range.start().addr().get())?;
            let is_within = offset.checked_add(len)? <= range.len();
            is_within.then_some(range.bus() + offset as u64)
        })
    }
}

// SAFETY: memory comes from the kernel, page by page, filled with zeros, and is given to one caller only.
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        match Self::take(pages * PAGE_SIZE) {
            // (An address of 0 is an error to the callers.)
            Err(_) => (0, NonNull::dangling()),
            Ok(slot) => (Self::bus(slot.start, slot.len).unwrap_or(0), slot.start),
        }
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        // The memory is not freed: a driver sets its device up once.
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        // Only called for devices on PCI.
        NonNull::dangling()
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        // (A driver gives no other buffers. A device finds nothing at the highest address.)
        Self::bus(buffer.cast(), buffer.len()).unwrap_or(PhysAddr::MAX)
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
