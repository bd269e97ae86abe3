//! Memory for a device's DMA: contiguous frames, which stay reserved for the device after the handle is gone, until the
//! next holder declares that the device writes to no memory any more ([`Holding::quiet`]).

use alloc::boxed::Box;

use quire_abi::Errno;
use quire_abi::flags::{Map, Prot};
use quire_mm::Machine as _;
use quire_mm::addr::{PAGE_SIZE, UserAddr};
use quire_mm::fallible::{KArc, try_box};
use quire_mm::mm::MapRequest;
use quire_mm::object::contiguous::Contiguous;
use quire_mm::page_alloc::Gfp;
use quire_platform::tree::Window;

use super::{Device, Holding, pages};
use crate::arch::cache;
use crate::board::BOARD;
use crate::task::point::resched_point;
use crate::task::thread::current;
use crate::task::wait::Sleep;
use crate::vm::Cpu;

/// Memory in the list of a device.
pub struct Kept {
    memory: Contiguous<Cpu>,
    /// The next in the list.
    pub next: Option<Box<Kept>>,
}

/// Memory of a driver for its device.
pub struct DmaRange {
    /// `Some` until the end.
    kept: Option<Box<Kept>>,
    holding: KArc<Holding>,
    bus: u64,
}

impl Device {
    /// The address of memory as the device sees it, if it can reach all of it.
    fn bus_address(&self, address: u64, len: u64) -> Option<u64> {
        let end = address.checked_add(len)?;
        let reaches = |window: &&Window| window.memory.base <= address && end <= window.memory.end();
        self.windows.iter().find(reaches).map(|window| window.bus + (address - window.memory.base))
    }

    /// The zone in which the device can reach all frames, if there is one.
    fn zone(&self) -> Gfp {
        let banks = &BOARD.get().banks;
        let reaches_all = banks.iter().all(|bank| self.bus_address(bank.region.base, bank.region.size).is_some());
        if reaches_all { Gfp::empty() } else { Gfp::DMA }
    }
}

impl DmaRange {
    /// Allocates `bytes` bytes, rounded up to pages, filled with zeros. EINVAL for 0, ENOMEM, also if no memory is free
    /// that the device can reach.
    pub fn new(holding: &KArc<Holding>, bytes: usize) -> Result<Self, Errno> {
        let device = holding.device();
        let memory = Contiguous::new(Cpu, pages(bytes), Gfp::KERNEL | device.zone())?;
        let (address, len) = (memory.addr().get() as u64, (memory.pages() * PAGE_SIZE) as u64);
        let bus = device.bus_address(address, len).ok_or(Errno::ENOMEM)?;
        if !device.is_coherent() {
            // The zeros are in caches.
            cache::flush_to_memory(Cpu.direct_map(memory.addr()), len as usize);
        }
        let kept = Some(try_box(Kept { memory, next: None })?);
        Ok(Self { kept, holding: holding.clone(), bus })
    }

    fn memory(&self) -> Result<&Contiguous<Cpu>, Errno> {
        self.kept.as_ref().map(|kept| &kept.memory).ok_or(Errno::EBADF)
    }

    /// Where the device sees it.
    pub fn bus(&self) -> u64 {
        self.bus
    }

    /// Maps it in the caller's space.
    pub fn map(&self) -> Result<UserAddr, Errno> {
        let memory = self.memory()?;
        let rights = Prot::READ | Prot::WRITE;
        let object = Some((memory.object().clone(), 0));
        let len = memory.pages() * PAGE_SIZE;
        let request = MapRequest { addr: 0, len, prot: rights, flags: Map::SHARED, object, max_prot: rights };
        current().mm().ok_or(Errno::ENOMEM)?.map(&request)
    }

    /// Makes what the program has written to these bytes visible to the device, and what the device writes from now on
    /// visible to the program. Not needed for a coherent device. EINVAL for bytes that are not in it. Takes time in
    /// proportion to their number.
    pub fn sync(&self, offset: usize, len: usize) -> Result<(), Errno> {
        let memory = self.memory()?;
        let end = offset.checked_add(len).filter(|end| *end <= memory.pages() * PAGE_SIZE).ok_or(Errno::EINVAL)?;
        if self.holding.device().is_coherent() {
            return Ok(());
        }
        let mut at = offset;
        while at < end {
            let piece = (end - at).min(PAGE_SIZE);
            cache::flush_to_memory(Cpu.direct_map(memory.addr() + at), piece);
            at += piece;
            resched_point(Sleep::Killable)?;
        }
        Ok(())
    }
}

impl Drop for DmaRange {
    fn drop(&mut self) {
        if let Some(mut kept) = self.kept.take() {
            let mut list = self.holding.device().kept.lock();
            kept.next = list.take();
            *list = Some(kept);
        }
    }
}
