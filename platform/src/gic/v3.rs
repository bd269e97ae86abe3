//! GICv3 and v4 (Arm IHI 0069), without LPIs.
//!
//! Each CPU has a redistributor for its private interrupts: two frames of 64 KiB, in version 4 four. They lie in
//! regions, one after the other, up to one that says it is the last; GICR_TYPER holds the affinity of the CPU that it
//! belongs to. A redistributor has to be woken before its CPU can take interrupts.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use heapless::Vec;
use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};
use tock_registers::{register_bitfields, register_structs};

use super::lines::Lines;
use super::{GicError, MAX_CPUS, PRIORITY_MASK, PRIVATE, Priority, SGIS, SPECIAL, SysRegs};
use crate::tree::Interrupt;

/// Bytes of a distributor's registers.
pub(super) const DISTRIBUTOR_SIZE: u64 = 0x1_0000;
/// Bytes of the smallest redistributor: a control frame and a frame for the interrupts.
pub(super) const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;
const REGIONS: usize = 8;
/// ICC_SRE_EL1.SRE.
const SRE: u64 = 1;

register_structs! {
    Distributor {
        (0x0000 => lines: Lines),
        (0x1000 => _reserved0),
        // By INTID; those of private interrupts are reserved.
        (0x6000 => irouter: [ReadWrite<u64>; SPECIAL.start as usize]),
        (0x7fe0 => _reserved1),
        (0x1_0000 => @END),
    }
}

register_bitfields![u32,
    WAKER [
        PROCESSOR_SLEEP OFFSET(1) NUMBITS(1) [],
        CHILDREN_ASLEEP OFFSET(2) NUMBITS(1) []
    ],
    GICR_CTLR [
        RWP OFFSET(3) NUMBITS(1) []
    ]
];

register_bitfields![u64,
    GICR_TYPER [
        /// Version 4: two more frames follow.
        VLPIS OFFSET(1) NUMBITS(1) [],
        LAST OFFSET(4) NUMBITS(1) [],
        AFFINITY OFFSET(32) NUMBITS(32) []
    ]
];

register_structs! {
    Redistributor {
        (0x0_0000 => ctlr: ReadWrite<u32, GICR_CTLR::Register>),
        (0x0_0004 => iidr: ReadOnly<u32>),
        (0x0_0008 => typer: ReadOnly<u64, GICR_TYPER::Register>),
        (0x0_0010 => _reserved0),
        (0x0_0014 => waker: ReadWrite<u32, WAKER::Register>),
        (0x0_0018 => _reserved1),
        (0x1_0000 => lines: Lines),
        (0x1_1000 => _reserved2),
        (0x2_0000 => @END),
    }
}

/// What the driver records about a CPU once it has come up.
struct Cpu {
    affinity: AtomicU64,
    redistributor: AtomicPtr<Redistributor>,
}

impl Cpu {
    const fn new() -> Self {
        Self { affinity: AtomicU64::new(0), redistributor: AtomicPtr::new(core::ptr::null_mut()) }
    }
}

pub(super) struct Gic {
    distributor: NonNull<Distributor>,
    regions: Vec<(NonNull<u8>, u64), REGIONS>,
    stride: Option<u64>,
    count: u32,
    /// By the kernel's CPU number; a null redistributor for a CPU that has not come up.
    cpus: [Cpu; MAX_CPUS],
}

// SAFETY: the registers are this value's own, and the hardware orders accesses of several CPUs; the parent module says
// what two CPUs must not change at once.
unsafe impl Send for Gic {}
// SAFETY: as above.
unsafe impl Sync for Gic {}

impl Gic {
    /// # Safety
    ///
    /// As for [`super::InterruptController::new`], with at least [`DISTRIBUTOR_SIZE`] bytes.
    pub unsafe fn new(distributor: NonNull<u8>, stride: Option<u64>) -> Self {
        let mut gic = Self {
            distributor: distributor.cast(),
            regions: Vec::new(),
            stride,
            count: PRIVATE,
            cpus: [const { Cpu::new() }; MAX_CPUS],
        };
        gic.count = gic.distributor().lines.count();
        gic
    }

    /// # Safety
    ///
    /// As for [`super::InterruptController::new`], with `size` bytes.
    pub unsafe fn add_region(&mut self, base: NonNull<u8>, size: u64) {
        // There are no more than a tree's description holds.
        let _ = self.regions.push((base, size));
    }

    fn distributor(&self) -> &Distributor {
        // SAFETY: the constructor's caller promises that the registers stay mapped.
        unsafe { self.distributor.as_ref() }
    }

    fn redistributor(&self, cpu: usize) -> Result<&Redistributor, GicError> {
        let found = self.cpus.get(cpu).map_or(core::ptr::null_mut(), |cpu| cpu.redistributor.load(Ordering::Acquire));
        // SAFETY: only `init_cpu` stores here, and only a redistributor that lies inside a region.
        unsafe { found.as_ref() }.ok_or(GicError::NoSuchCpu(cpu))
    }

    /// The registers of an interrupt.
    pub fn lines(&self, cpu: usize, intid: u32) -> Result<&Lines, GicError> {
        match intid {
            0..PRIVATE => Ok(&self.redistributor(cpu)?.lines),
            _ if intid < self.count => Ok(&self.distributor().lines),
            _ => Err(GicError::NoSuchInterrupt(intid)),
        }
    }

    pub fn init_distributor(&self) -> Result<(), GicError> {
        let lines = &self.distributor().lines;
        let words = lines.words() - 1;
        lines.ctlr.set(0);
        lines.wait()?;
        lines.set_group1(1, words);
        lines.reset(1, words);
        lines.wait()?;
        lines.enable_by_affinity()
    }

    pub fn init_cpu<S: SysRegs>(&self, cpu: usize) -> Result<(), GicError> {
        let slot = self.cpus.get(cpu).ok_or(GicError::NoSuchCpu(cpu))?;
        let affinity = affinity(S::mpidr());
        let redistributor = self.find(affinity).ok_or(GicError::NoRedistributor(S::mpidr()))?;
        slot.affinity.store(affinity, Ordering::Relaxed);
        slot.redistributor.store(redistributor.as_ptr(), Ordering::Release);
        let redistributor = self.redistributor(cpu)?;
        redistributor.waker.modify(WAKER::PROCESSOR_SLEEP::CLEAR);
        super::wait_until(|| !redistributor.waker.is_set(WAKER::CHILDREN_ASLEEP))?;
        redistributor.lines.set_group1(0, 1);
        redistributor.lines.reset(0, 1);
        super::wait_until(|| !redistributor.ctlr.is_set(GICR_CTLR::RWP))?;
        (0..SGIS).for_each(|sgi| redistributor.lines.enable(sgi));
        init_cpu_interface::<S>()
    }

    /// The redistributor of the CPU with this affinity.
    fn find(&self, affinity: u64) -> Option<NonNull<Redistributor>> {
        self.regions.iter().find_map(|(base, size)| {
            let mut offset = 0;
            while offset + REDISTRIBUTOR_SIZE <= *size {
                // SAFETY: a whole redistributor fits between `offset` and the region's end, and the region is mapped.
                let found = unsafe { base.add(offset as usize) }.cast::<Redistributor>();
                // SAFETY: as above.
                let typer = unsafe { found.as_ref() }.typer.extract();
                if typer.read(GICR_TYPER::AFFINITY) == affinity {
                    return Some(found);
                }
                if typer.is_set(GICR_TYPER::LAST) {
                    return None;
                }
                let frames = if typer.is_set(GICR_TYPER::VLPIS) { 2 } else { 1 };
                offset = offset.checked_add(self.stride.unwrap_or(frames * REDISTRIBUTOR_SIZE))?;
            }
            None
        })
    }

    pub fn configure(&self, cpu: usize, interrupt: Interrupt, priority: Priority) -> Result<(), GicError> {
        let intid = interrupt.intid;
        let lines = self.lines(cpu, intid)?;
        let redistributor = self.redistributor(cpu)?;
        lines.disable(intid);
        if intid < PRIVATE {
            super::wait_until(|| !redistributor.ctlr.is_set(GICR_CTLR::RWP))?;
        } else {
            lines.wait()?;
            self.distributor().irouter[intid as usize].set(route(self.affinity(cpu)));
        }
        lines.configure(interrupt, priority);
        lines.enable(intid);
        Ok(())
    }

    fn affinity(&self, cpu: usize) -> u64 {
        self.cpus.get(cpu).map_or(0, |cpu| cpu.affinity.load(Ordering::Relaxed))
    }

    /// The word for ICC_SGI1R_EL1 that interrupts one CPU.
    pub fn sgi_to(&self, cpu: usize, sgi: u32) -> Result<u64, GicError> {
        self.redistributor(cpu)?;
        let level = |n: u32| self.affinity(cpu) >> (8 * n) & 0xff;
        let (range, bit) = (level(0) / 16, 1 << (level(0) % 16));
        Ok(level(3) << 48 | range << 44 | level(2) << 32 | u64::from(sgi) << 24 | level(1) << 16 | bit)
    }
}

/// The word for ICC_SGI1R_EL1 that interrupts all CPUs but this one.
pub(super) fn sgi_to_others(sgi: u32) -> u64 {
    1 << 40 | u64::from(sgi) << 24
}

/// The four affinity levels of MPIDR_EL1 in 32 bits, as GICR_TYPER has them.
fn affinity(mpidr: u64) -> u64 {
    (mpidr >> 32 & 0xff) << 24 | mpidr & 0xff_ffff
}

/// The same for GICD_IROUTER, which has the fields at MPIDR_EL1's places.
fn route(affinity: u64) -> u64 {
    affinity >> 24 << 32 | affinity & 0xff_ffff
}

fn init_cpu_interface<S: SysRegs>() -> Result<(), GicError> {
    S::write_icc_sre(S::read_icc_sre() | SRE);
    S::isb();
    if S::read_icc_sre() & SRE == 0 {
        return Err(GicError::NoSystemRegisters);
    }
    S::write_icc_pmr(u64::from(PRIORITY_MASK));
    S::write_icc_bpr1(0);
    // End of interrupt drops the priority and deactivates.
    S::write_icc_ctlr(0);
    S::write_icc_igrpen1(1);
    S::isb();
    Ok(())
}
