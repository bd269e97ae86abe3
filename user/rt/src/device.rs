//! Devices to drive: their registers, interrupts and memory. `docs/devices.md` describes each call.

use core::ffi::CStr;
use core::ptr::NonNull;

use quire_abi::device::DeviceInfo;
use quire_abi::ipc::rights;
use quire_abi::layout::HandleInfo;
use quire_abi::{Errno, nr};

use crate::ipc::Signaller;
use crate::{handles, sys};

/// A device that this process may drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device(pub u32);

/// Takes the device with this number among those with the name `name`: a path in the device tree, or a `compatible`
/// string. Requires the right to take devices. ENOENT after the last one, EBUSY if another process drives it.
pub fn take(name: &CStr, number: usize) -> Result<Device, Errno> {
    // SAFETY: the kernel reads a terminated string.
    unsafe { sys::call(nr::QUIRE_DEVICE, [handles::control() as usize, name.as_ptr() as usize, number]) }
        .map(|handle| Device(handle as u32))
}

/// The devices that the program was started with.
pub fn granted() -> impl Iterator<Item = Device> {
    handles::all().iter().filter(|handle| handle.kind == HandleInfo::DEVICE).map(|handle| Device(handle.number))
}

impl Device {
    /// The record that its driver needs.
    pub fn info(self) -> Result<DeviceInfo, Errno> {
        let mut info = DeviceInfo::default();
        // SAFETY: the kernel writes one record.
        unsafe {
            sys::call(nr::QUIRE_DEVICE_INFO, [self.0 as usize, &raw mut info as usize, size_of::<DeviceInfo>()])
        }?;
        Ok(info)
    }

    /// Reads a property of its node; returns the property's length, which may exceed the buffer's.
    pub fn property(self, name: &CStr, room: &mut [u8]) -> Result<usize, Errno> {
        let to = room.as_mut_ptr() as usize;
        // SAFETY: the kernel reads a terminated string, and writes only within the room.
        unsafe { sys::call(nr::QUIRE_DEVICE_PROPERTY, [self.0 as usize, name.as_ptr() as usize, to, room.len()]) }
    }

    /// Reads a register of 1, 2 or 4 bytes of a range. EINVAL if there is none, EIO if it does not answer.
    #[inline]
    pub fn read(self, range: usize, offset: usize, bytes: usize) -> Result<u32, Errno> {
        sys::plain!(nr::QUIRE_DEVICE_READ, self.0, range, offset, bytes).map(|value| value as u32)
    }

    /// Writes a register.
    #[inline]
    pub fn write(self, range: usize, offset: usize, bytes: usize, value: u32) -> Result<(), Errno> {
        sys::plain!(nr::QUIRE_DEVICE_WRITE, self.0, range, offset, bytes, value).map(drop)
    }

    /// Fills a buffer of whole words from one register. EIO if it was not filled completely.
    pub fn read_words(self, range: usize, offset: usize, to: &mut [u8]) -> Result<(), Errno> {
        let (at, len) = (to.as_mut_ptr() as usize, to.len());
        // SAFETY: the kernel writes only within the buffer.
        let done = unsafe { sys::call(nr::QUIRE_DEVICE_READ_WORDS, [self.0 as usize, range, offset, at, len]) }?;
        if done == len { Ok(()) } else { Err(Errno::EIO) }
    }

    /// Writes a buffer of whole words to one register. EIO if not everything was written.
    pub fn write_words(self, range: usize, offset: usize, from: &[u8]) -> Result<(), Errno> {
        let (at, len) = (from.as_ptr() as usize, from.len());
        // SAFETY: the kernel reads only within the buffer.
        let done = unsafe { sys::call(nr::QUIRE_DEVICE_WRITE_WORDS, [self.0 as usize, range, offset, at, len]) }?;
        if done == len { Ok(()) } else { Err(Errno::EIO) }
    }

    /// From now on one of its interrupts, of which 0 is the first, sets the events of a signaller, once each time after
    /// it was unmasked.
    pub fn interrupt(self, index: usize, signaller: Signaller) -> Result<Interrupt, Errno> {
        sys::plain!(nr::QUIRE_INTERRUPT, self.0, index, signaller.0).map(|handle| Interrupt(handle as u32))
    }

    /// Allocates memory for the device's DMA: contiguous, filled with zeros, and mapped here.
    pub fn memory(self, bytes: usize) -> Result<Dma, Errno> {
        let mut bus = 0u64;
        // SAFETY: the kernel writes one word.
        let handle = unsafe { sys::call(nr::QUIRE_DMA, [self.0 as usize, bytes, &raw mut bus as usize]) }? as u32;
        let start = sys::plain!(nr::QUIRE_DMA_MAP, handle)?;
        let start = NonNull::new(core::ptr::with_exposed_provenance_mut(start)).ok_or(Errno::ENOMEM)?;
        Ok(Dma { handle, bus, start, len: bytes })
    }

    /// Declares, after a reset, that the device no longer writes to memory whose handles are gone.
    pub fn quiet(self) -> Result<(), Errno> {
        sys::plain!(nr::QUIRE_DEVICE_QUIET, self.0).map(drop)
    }

    /// Grants it to the program that this process executes next.
    pub fn grant(self) -> Result<(), Errno> {
        sys::plain!(nr::QUIRE_GRANT, self.0, rights::CONTROL).map(drop)
    }

    /// Lets go of it.
    pub fn release(self) -> Result<(), Errno> {
        crate::ipc::close(self.0)
    }
}

/// An interrupt of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt(pub u32);

impl Interrupt {
    /// Unmasks the interrupt: the device does not assert it any more.
    #[inline]
    pub fn unmask(self) -> Result<(), Errno> {
        sys::plain!(nr::QUIRE_UNMASK, self.0).map(drop)
    }
}

/// Memory for a device's DMA. It stays mapped for as long as the process lives.
#[derive(Debug)]
pub struct Dma {
    handle: u32,
    bus: u64,
    start: NonNull<u8>,
    len: usize,
}

impl Dma {
    /// Where the device sees it.
    pub fn bus(&self) -> u64 {
        self.bus
    }

    /// Where this process sees it.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Closes the handle. The memory stays reserved for the device until its driver [declares](Device::quiet) that the
    /// device no longer writes anywhere, and stays mapped until it is unmapped.
    pub fn close(self) -> Result<(), Errno> {
        crate::ipc::close(self.handle)
    }

    /// Makes a part consistent between this process and the device: before the device reads what was written here, and
    /// before what the device has written is read here. Not needed for a coherent device.
    pub fn sync(&self, offset: usize, len: usize) -> Result<(), Errno> {
        sys::plain!(nr::QUIRE_DMA_SYNC, self.handle, offset, len).map(drop)
    }
}
