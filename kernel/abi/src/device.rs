//! Devices that processes drive: the records of `QUIRE_DEVICE` and related calls. See `docs/devices.md`.

use crate::layout::pod;

/// Ranges of registers in a [`DeviceInfo`].
pub const RANGES: usize = 8;

/// A device as its driver sees it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct DeviceInfo {
    /// The path of its node in the device tree, NUL-padded, and truncated if it is longer.
    pub path: [u8; 96],
    /// The number of bytes of each range of its registers; 0 after the last.
    pub ranges: [u64; RANGES],
    /// The physical address of the first range.
    pub address: u64,
    /// The number of its interrupts.
    pub interrupts: u32,
    /// 1 if its accesses to memory are coherent with the CPUs' caches.
    pub is_coherent: u32,
}

impl Default for DeviceInfo {
    fn default() -> Self {
        Self { path: [0; 96], ranges: [0; RANGES], address: 0, interrupts: 0, is_coherent: 0 }
    }
}

pod!(DeviceInfo);
const _: () = assert!(size_of::<DeviceInfo>() == 96 + 8 * RANGES + 16);
