//! Devices of the tree that processes drive: their holders, their registers, and the memory that they were given
//! (docs/devices.md).
//!
//! The list of devices is made at boot and does not change. A device has one holder at a time, and keeps the memory
//! that it may still write to when that holder is gone.
//!
//! Lock order: [`CLAIMS`] to change a device's holder; the device's own lock to change its kept memory. Only one at a
//! time, and nothing is allocated, freed or dropped meanwhile.

pub mod interrupt;
pub mod memory;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use quire_abi::Errno;
use quire_mm::Machine as _;
use quire_mm::addr::{PAGE_SIZE, PhysAddr};
use quire_mm::fallible::{KArc, TryVec};
use quire_mm::kernel_table::KernelAttrs;
use quire_mm::sync::Rank;
use quire_platform::tree::{self, Interrupt, Region, Window};
use spin::Once;

use crate::arch::mmio::{self, Width};
use crate::board::{BOARD, BootCell};
use crate::task::point::resched_point;
use crate::task::wait::Sleep;
use crate::vm::vmalloc::VMALLOC;
use crate::vm::{Cpu, SpinLock, io};
use memory::Kept;

/// The number of nodes between two points at which others may run.
const POINT_EVERY: usize = 8;

/// The tree.
static TREE: BootCell<&[u8]> = BootCell::new(&[]);

/// All devices, in the tree's order.
static LIST: Once<Vec<KArc<Device>>> = Once::new();

/// Held to change a device's holder.
static CLAIMS: SpinLock<()> = SpinLock::new(Cpu, Rank::Object, ());

/// A device that a process may drive.
pub struct Device {
    /// The position of its node in the tree.
    place: usize,
    path: Box<[u8]>,
    registers: Box<[Region]>,
    interrupts: Box<[Interrupt]>,
    windows: Box<[Window]>,
    is_coherent: bool,
    /// Strings, each with a NUL.
    compatible: &'static [u8],
    /// Whether it has a holder. Written under [`CLAIMS`].
    is_held: AtomicBool,
    /// Memory that it may still write to.
    kept: SpinLock<Option<Box<Kept>>>,
}

/// Lists the devices of the tree, which is at `address` for good. Called at boot, when the stack is large enough for
/// the walk.
///
/// # Safety
/// As [`BootCell::boot_mut`].
pub unsafe fn init(address: PhysAddr, size: usize) -> Result<(), Errno> {
    let tree = map_tree(address, size)?;
    // SAFETY: the caller's promise.
    unsafe { *TREE.boot_mut() = tree };
    let mut devices: Vec<KArc<Device>> = Vec::new();
    tree::for_each_node(tree, |node| {
        let compatible = node.property("compatible").unwrap_or_default();
        if !compatible.is_empty() && node.registers().next().is_some() {
            devices.try_push(KArc::try_new(Device::new(&node.device(BOARD.get()), compatible)?)?)?;
        }
        Ok::<_, Errno>(())
    })?;
    LIST.call_once(|| devices);
    Ok(())
}

/// The tree's bytes: through the direct map or, if they are not all in memory that the tree describes, through a
/// separate mapping. (A boot loader may place the tree in memory that it does not describe.)
fn map_tree(address: PhysAddr, size: usize) -> Result<&'static [u8], Errno> {
    let start = if BOARD.get().is_memory(&Region { base: address.get() as u64, size: size as u64 }) {
        Cpu.direct_map(address).cast_const()
    } else {
        let mapping = VMALLOC.ioremap(address, size, KernelAttrs::RODATA).map_err(|_| Errno::ENOMEM)?;
        core::ptr::with_exposed_provenance(mapping.get())
    };
    // SAFETY: the tree's memory was reserved before the first allocation, is mapped for good, and is never written.
    Ok(unsafe { core::slice::from_raw_parts(start, size) })
}

/// The device with this number among those with the name `name`: a path if it begins with a slash, otherwise a
/// `compatible` string. ENOENT if there are fewer, ENOMEM.
pub fn find(name: &[u8], number: usize) -> Result<KArc<Device>, Errno> {
    let mut left = number;
    for (at, device) in list().iter().enumerate() {
        if at % POINT_EVERY == POINT_EVERY - 1 {
            resched_point(Sleep::Killable)?;
        }
        if device.is_called(name) {
            if left == 0 {
                return Ok(device.clone());
            }
            left -= 1;
        }
    }
    Err(Errno::ENOENT)
}

fn list() -> &'static [KArc<Device>] {
    LIST.get().map_or(&[], |list| list)
}

fn boxed<T: Clone>(slice: &[T]) -> Result<Box<[T]>, Errno> {
    let mut copy: Vec<T> = TryVec::try_with_capacity(slice.len())?;
    for value in slice {
        copy.try_push(value.clone())?;
    }
    Ok(copy.into_boxed_slice())
}

impl Device {
    fn new(described: &tree::Device, compatible: &'static [u8]) -> Result<Self, Errno> {
        Ok(Self {
            place: described.node,
            path: boxed(described.path.as_bytes())?,
            registers: boxed(&described.registers)?,
            interrupts: boxed(&described.interrupts)?,
            windows: boxed(&described.windows)?,
            is_coherent: described.is_coherent,
            compatible,
            is_held: AtomicBool::new(false),
            kept: SpinLock::new(Cpu, Rank::Object, None),
        })
    }

    fn is_called(&self, name: &[u8]) -> bool {
        match name {
            [b'/', ..] => *self.path == *name,
            name => self.compatible.split(|byte| *byte == 0).any(|known| known == name && !known.is_empty()),
        }
    }

    /// Its path, truncated if it does not fit into the list.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Its registers.
    pub fn registers(&self) -> &[Region] {
        &self.registers
    }

    /// Its interrupts.
    pub fn interrupts(&self) -> &[Interrupt] {
        &self.interrupts
    }

    /// Whether its accesses to memory are coherent with the CPUs' caches.
    pub fn is_coherent(&self) -> bool {
        self.is_coherent
    }

    /// The value of a property of its node. ENOENT.
    pub fn property(&self, name: &str) -> Result<&'static [u8], Errno> {
        tree::property_at(TREE.get(), self.place, name).ok_or(Errno::ENOENT)
    }

    /// Whether it shares registers with another device.
    fn overlaps(&self, other: &Self) -> bool {
        self.registers.iter().any(|region| other.registers.iter().any(|theirs| theirs.overlaps(region)))
    }

    /// Whether the kernel drives it, or part of it is memory.
    fn is_kernels(&self) -> bool {
        let board = BOARD.get();
        let is_taken = |region: &Region| {
            board.touches_memory(region) || board.kernel_registers().any(|kernels| kernels.overlaps(region))
        };
        self.registers.iter().any(is_taken)
    }
}

/// The right to drive a device. There is only one for each device.
pub struct Holding {
    device: KArc<Device>,
    /// The kernel's addresses of the ranges of its registers.
    mapped: Vec<NonNull<u8>>,
}

// SAFETY: the addresses are those of registers, which are accessed by single loads and stores.
unsafe impl Send for Holding {}
// SAFETY: as above.
unsafe impl Sync for Holding {}

impl Holding {
    /// Takes a device. EBUSY if it has a holder, or shares registers with a device that has one, or is driven by the
    /// kernel; ENOMEM.
    pub fn take(device: &KArc<Device>) -> Result<KArc<Self>, Errno> {
        if device.is_kernels() {
            return Err(Errno::EBUSY);
        }
        {
            let _claims = CLAIMS.lock();
            let is_held = |other: &KArc<Device>| other.is_held.load(Ordering::Relaxed) && other.overlaps(device);
            if device.is_held.load(Ordering::Relaxed) || list().iter().any(is_held) {
                return Err(Errno::EBUSY);
            }
            device.is_held.store(true, Ordering::Relaxed);
        }
        // From here on, dropping this releases the device.
        let mut this = Self { device: device.clone(), mapped: Vec::new() };
        for region in &device.registers {
            let mapped = io::map(region.base, region.size).map_err(|_| Errno::ENOMEM)?;
            if let Err(error) = this.mapped.try_push(mapped) {
                // SAFETY: it was mapped just now, and nobody knows it.
                unsafe { io::unmap(mapped) };
                return Err(error.into());
            }
        }
        Ok(KArc::try_new(this)?)
    }

    /// The device.
    pub fn device(&self) -> &KArc<Device> {
        &self.device
    }

    /// The address of a register. EINVAL if it does not exist or is not aligned.
    fn register(&self, range: usize, offset: usize, width: Width) -> Result<usize, Errno> {
        let (region, start) = self.device.registers.get(range).zip(self.mapped.get(range)).ok_or(Errno::EINVAL)?;
        let end = offset.checked_add(width.bytes()).ok_or(Errno::EINVAL)?;
        let at = start.as_ptr().expose_provenance() + offset;
        let is_one = end as u64 <= region.size && at.is_multiple_of(width.bytes());
        if is_one { Ok(at) } else { Err(Errno::EINVAL) }
    }

    /// Reads a register. EINVAL if it does not exist, EIO if the access faults.
    pub fn read(&self, range: usize, offset: usize, width: Width) -> Result<u32, Errno> {
        let at = self.register(range, offset, width)?;
        // SAFETY: a register of the device, mapped for as long as this lives.
        unsafe { mmio::read(at, width) }.ok_or(Errno::EIO)
    }

    /// Writes a register. Errors as for [`Holding::read`].
    pub fn write(&self, range: usize, offset: usize, width: Width, value: u32) -> Result<(), Errno> {
        let at = self.register(range, offset, width)?;
        // SAFETY: as above.
        unsafe { mmio::write(at, width, value) }.ok_or(Errno::EIO)
    }

    /// Frees the memory of former handles, since the device does not write to it any more.
    pub fn quiet(&self) {
        let mut kept = self.device.kept.lock().take();
        while let Some(mut one) = kept {
            kept = one.next.take();
            drop(one);
            let _ = resched_point(Sleep::Killable);
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        for mapped in self.mapped.drain(..) {
            // SAFETY: `take` mapped it, and whoever accesses it has a reference to this.
            unsafe { io::unmap(mapped) };
        }
        let _claims = CLAIMS.lock();
        self.device.is_held.store(false, Ordering::Relaxed);
    }
}

/// Bytes as whole pages.
pub fn pages(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_SIZE)
}
