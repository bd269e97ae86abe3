//! GICv2 (Arm IHI 0048), the GIC-400 of a Pi 4 among them.
//!
//! A CPU is addressed by a bit in a mask of eight, which is its own number in the GIC and not the kernel's: each
//! CPU learns its bit from the target registers of the private interrupts, which read as the reader's mask.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};

use super::lines::Lines;
use super::{GicError, PRIORITY_MASK, PRIVATE, Priority};
use crate::tree::Interrupt;

/// Bytes of a distributor's registers.
pub(super) const DISTRIBUTOR_SIZE: u64 = 0x1000;
/// Bytes needed of a CPU interface; some trees describe no more.
pub(super) const CPU_INTERFACE_SIZE: u64 = 0x100;
const CPUS: usize = 8;

/// GICC_CTLR: signal interrupts.
const ENABLE: u32 = 1;
/// GICC_CTLR: what to do with the legacy inputs, which is firmware's choice.
const BYPASS: u32 = 0x1e0;

register_structs! {
    CpuInterface {
        (0x00 => ctlr: ReadWrite<u32>),
        (0x04 => pmr: ReadWrite<u32>),
        (0x08 => bpr: ReadWrite<u32>),
        (0x0c => iar: ReadOnly<u32>),
        (0x10 => eoir: WriteOnly<u32>),
        (0x14 => _reserved0),
        (0xd0 => apr: [ReadWrite<u32>; 4]),
        (0xe0 => _reserved1),
        (0x100 => @END),
    }
}

pub(super) struct Gic {
    distributor: NonNull<Lines>,
    cpu_interface: NonNull<CpuInterface>,
    count: u32,
    /// By the kernel's CPU number; 0 for a CPU that has not come up.
    masks: [AtomicU8; CPUS],
}

// SAFETY: the registers are this value's own, and the hardware orders accesses of several CPUs; the parent module says
// what two CPUs must not change at once.
unsafe impl Send for Gic {}
// SAFETY: as above.
unsafe impl Sync for Gic {}

impl Gic {
    /// # Safety
    ///
    /// As for [`super::InterruptController::new`], with at least [`DISTRIBUTOR_SIZE`] and [`CPU_INTERFACE_SIZE`] bytes.
    pub unsafe fn new(distributor: NonNull<u8>, cpu_interface: NonNull<u8>) -> Self {
        let mut gic = Self {
            distributor: distributor.cast(),
            cpu_interface: cpu_interface.cast(),
            count: PRIVATE,
            masks: [const { AtomicU8::new(0) }; CPUS],
        };
        gic.count = gic.distributor().count();
        gic
    }

    fn distributor(&self) -> &Lines {
        // SAFETY: the constructor's caller promises that the registers stay mapped.
        unsafe { self.distributor.as_ref() }
    }

    fn cpu_interface(&self) -> &CpuInterface {
        // SAFETY: as above.
        unsafe { self.cpu_interface.as_ref() }
    }

    /// The registers of an interrupt; for a private one they are this CPU's.
    pub fn lines(&self, intid: u32) -> Result<&Lines, GicError> {
        if intid < self.count { Ok(self.distributor()) } else { Err(GicError::NoSuchInterrupt(intid)) }
    }

    pub fn init_distributor(&self) -> Result<(), GicError> {
        let distributor = self.distributor();
        distributor.ctlr.set(0);
        distributor.reset(1, distributor.words() - 1);
        distributor.ctlr.set(ENABLE);
        Ok(())
    }

    pub fn init_cpu(&self, cpu: usize) -> Result<(), GicError> {
        let distributor = self.distributor();
        let slot = self.masks.get(cpu).ok_or(GicError::NoSuchCpu(cpu))?;
        let mask = distributor.itargetsr[..PRIVATE as usize].iter().fold(0, |mask, target| mask | target.get());
        // Where there is one CPU, the target registers do not exist.
        slot.store(if mask == 0 { 1 } else { mask }, Ordering::Relaxed);
        distributor.reset(0, 1);
        (0..super::SGIS).for_each(|sgi| distributor.enable(sgi));
        let cpu_interface = self.cpu_interface();
        for active in &cpu_interface.apr {
            active.set(0);
        }
        cpu_interface.pmr.set(u32::from(PRIORITY_MASK));
        cpu_interface.bpr.set(0);
        cpu_interface.ctlr.set(cpu_interface.ctlr.get() & BYPASS | ENABLE);
        Ok(())
    }

    pub fn configure(&self, cpu: usize, interrupt: Interrupt, priority: Priority) -> Result<(), GicError> {
        let intid = interrupt.intid;
        let lines = self.lines(intid)?;
        let mask = self.mask(cpu)?;
        lines.disable(intid);
        lines.configure(interrupt, priority);
        if intid >= PRIVATE {
            lines.itargetsr[intid as usize].set(mask);
        }
        lines.enable(intid);
        Ok(())
    }

    pub fn acknowledge(&self) -> u32 {
        self.cpu_interface().iar.get()
    }

    /// `active` as it was acknowledged; for a software-generated interrupt it includes the sender.
    pub fn end(&self, active: u32) {
        self.cpu_interface().eoir.set(active);
    }

    pub fn send(&self, cpu: usize, sgi: u32) -> Result<(), GicError> {
        let mask = self.mask(cpu)?;
        self.distributor().sgir.set(u32::from(mask) << 16 | sgi);
        Ok(())
    }

    pub fn send_to_others(&self, sgi: u32) {
        self.distributor().sgir.set(1 << 24 | sgi);
    }

    fn mask(&self, cpu: usize) -> Result<u8, GicError> {
        let mask = self.masks.get(cpu).map_or(0, |mask| mask.load(Ordering::Relaxed));
        if mask == 0 { Err(GicError::NoSuchCpu(cpu)) } else { Ok(mask) }
    }
}
