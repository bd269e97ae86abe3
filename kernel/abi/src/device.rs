//! Devices that processes drive: what the calls `QUIRE_DEVICE` and its kin say. See `docs/devices.md`.

use crate::layout::pod;

/// Ranges of registers in a [`DeviceInfo`].
pub const RANGES: usize = 8;

/// A device as its driver needs to know it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct DeviceInfo {
    /// The path of its node in the device tree, NUL-padded, cut if it is longer.
    pub path: [u8; 96],
    /// How many bytes each range of its registers has; 0 behind the last.
    pub ranges: [u64; RANGES],
    /// Where the first range begins, as the CPU sees it.
    pub address: u64,
    /// How many interrupts it has.
    pub interrupts: u32,
    /// 1 if its accesses to memory see what is in the CPUs' caches.
    pub is_coherent: u32,
}

impl Default for DeviceInfo {
    fn default() -> Self {
        Self { path: [0; 96], ranges: [0; RANGES], address: 0, interrupts: 0, is_coherent: 0 }
    }
}

pod!(DeviceInfo);
const _: () = assert!(size_of::<DeviceInfo>() == 96 + 8 * RANGES + 16);
