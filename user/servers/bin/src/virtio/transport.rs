//! The registers of a virtio-mmio device (Virtual I/O Device (VIRTIO) 1.3, 4.2.2, and 4.2.4 for devices before version
//! 1).

use core::mem::MaybeUninit;

use quire_rt::device::Device;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PAGE_SIZE, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Offsets.
mod at {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 4;
    pub const DEVICE_ID: usize = 8;
    pub const DEVICE_FEATURES: usize = 0x10;
    pub const DEVICE_FEATURES_SEL: usize = 0x14;
    pub const DRIVER_FEATURES: usize = 0x20;
    pub const DRIVER_FEATURES_SEL: usize = 0x24;
    pub const LEGACY_PAGE_SIZE: usize = 0x28;
    pub const QUEUE_SEL: usize = 0x30;
    pub const QUEUE_NUM_MAX: usize = 0x34;
    pub const QUEUE_NUM: usize = 0x38;
    pub const LEGACY_QUEUE_ALIGN: usize = 0x3c;
    pub const LEGACY_QUEUE_PFN: usize = 0x40;
    pub const QUEUE_READY: usize = 0x44;
    pub const QUEUE_NOTIFY: usize = 0x50;
    pub const INTERRUPT_STATUS: usize = 0x60;
    pub const INTERRUPT_ACK: usize = 0x64;
    pub const STATUS: usize = 0x70;
    pub const QUEUE_DESC: usize = 0x80;
    pub const QUEUE_DRIVER: usize = 0x90;
    pub const QUEUE_DEVICE: usize = 0xa0;
    pub const CONFIG_GENERATION: usize = 0xfc;
    pub const CONFIG: usize = 0x100;
}

/// "virt".
const MAGIC: u32 = 0x7472_6976;
/// The version before 1.
const LEGACY: u32 = 1;

/// The kind of the device; `None` for an empty slot, or for registers of something else.
pub fn kind(device: Device) -> Option<DeviceType> {
    let read = |at| device.read(0, at, 4).ok();
    if read(at::MAGIC)? != MAGIC {
        return None;
    }
    DeviceType::try_from(read(at::DEVICE_ID)?).ok()
}

/// The registers.
pub struct Registers {
    device: Device,
    kind: DeviceType,
    is_legacy: bool,
    config_len: usize,
}

impl Registers {
    /// For a device of the kind that was [found](kind); resets it.
    pub fn new(device: Device, kind: DeviceType) -> Option<Self> {
        let is_legacy = device.read(0, at::VERSION, 4).ok()? == LEGACY;
        let config_len = (device.info().ok()?.ranges[0] as usize).saturating_sub(at::CONFIG);
        let mut this = Self { device, kind, is_legacy, config_len };
        this.set_status(DeviceStatus::empty());
        Some(this)
    }

    /// (The registers were mapped when the device was taken, and the device has answered.)
    fn read(&self, at: usize) -> u32 {
        self.device.read(0, at, 4).unwrap_or(0)
    }

    fn write(&self, at: usize, value: u32) {
        let _ = self.device.write(0, at, 4, value);
    }

    fn write_address(&self, at: usize, address: PhysAddr) {
        self.write(at, address as u32);
        self.write(at + 4, (address >> 32) as u32);
    }
}

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        self.kind
    }

    fn read_device_features(&mut self) -> u64 {
        let half = |which| {
            self.write(at::DEVICE_FEATURES_SEL, which);
            u64::from(self.read(at::DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        for (which, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(at::DRIVER_FEATURES_SEL, which);
            self.write(at::DRIVER_FEATURES, half);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.write(at::QUEUE_SEL, queue.into());
        self.read(at::QUEUE_NUM_MAX)
    }

    fn notify(&mut self, queue: u16) {
        self.write(at::QUEUE_NOTIFY, queue.into());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.read(at::STATUS))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.write(at::STATUS, status.bits());
    }

    fn set_guest_page_size(&mut self, size: u32) {
        if self.is_legacy {
            self.write(at::LEGACY_PAGE_SIZE, size);
        }
    }

    fn requires_legacy_layout(&self) -> bool {
        self.is_legacy
    }

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        self.write(at::QUEUE_SEL, queue.into());
        self.write(at::QUEUE_NUM, size);
        if self.is_legacy {
            self.write(at::LEGACY_QUEUE_ALIGN, PAGE_SIZE as u32);
            self.write(at::LEGACY_QUEUE_PFN, (descriptors / PAGE_SIZE as u64) as u32);
        } else {
            self.write_address(at::QUEUE_DESC, descriptors);
            self.write_address(at::QUEUE_DRIVER, driver);
            self.write_address(at::QUEUE_DEVICE, device);
            self.write(at::QUEUE_READY, 1);
        }
    }

    fn queue_unset(&mut self, queue: u16) {
        self.write(at::QUEUE_SEL, queue.into());
        self.write(if self.is_legacy { at::LEGACY_QUEUE_PFN } else { at::QUEUE_READY }, 0);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.write(at::QUEUE_SEL, queue.into());
        self.read(if self.is_legacy { at::LEGACY_QUEUE_PFN } else { at::QUEUE_READY }) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let status = self.read(at::INTERRUPT_STATUS);
        if status != 0 {
            self.write(at::INTERRUPT_ACK, status);
        }
        InterruptStatus::from_bits_truncate(status)
    }

    fn read_config_generation(&self) -> u32 {
        if self.is_legacy { 0 } else { self.read(at::CONFIG_GENERATION) }
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        if offset + size_of::<T>() > self.config_len {
            return Err(Error::ConfigSpaceTooSmall);
        }
        // With accesses as wide as the field, since some devices require that.
        let width = size_of::<T>().min(4);
        let mut value = MaybeUninit::<T>::zeroed();
        let bytes: *mut u8 = value.as_mut_ptr().cast();
        for at in (0..size_of::<T>()).step_by(width) {
            let part = self.device.read(0, at::CONFIG + offset + at, width).map_err(|_| Error::IoError)?;
            let part = part.to_le_bytes();
            // SAFETY: within the value, which has a multiple of `width` bytes or fewer than 4 of them.
            unsafe { bytes.add(at).copy_from_nonoverlapping(part.as_ptr(), width.min(size_of::<T>() - at)) };
        }
        // SAFETY: any bytes are a valid value of such a type.
        Ok(unsafe { value.assume_init() })
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, offset: usize, value: T) -> Result<()> {
        if offset + size_of::<T>() > self.config_len {
            return Err(Error::ConfigSpaceTooSmall);
        }
        let width = size_of::<T>().min(4);
        for (n, part) in value.as_bytes().chunks(width).enumerate() {
            let mut word = [0; 4];
            word[..part.len()].copy_from_slice(part);
            let at = at::CONFIG + offset + n * width;
            self.device.write(0, at, width, u32::from_le_bytes(word)).map_err(|_| Error::IoError)?;
        }
        Ok(())
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        self.set_status(DeviceStatus::empty());
    }
}
