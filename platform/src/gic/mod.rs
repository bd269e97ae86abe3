//! The interrupt controller: Arm's GIC, version 2 or 3, behind one interface.
//!
//! How it is used: [`InterruptController::new`] and [`InterruptController::init_distributor`] once on the boot CPU,
//! [`InterruptController::init_cpu`] on every CPU, then interrupts are configured, acknowledged and ended.
//!
//! All methods take `&self`, so that the controller can be a `static`. Acknowledging, ending, enabling, disabling and
//! sending touch registers that are a CPU's own or that change single bits when written: no lock.
//! [`InterruptController::configure`] changes words that interrupts share: callers must serialise it with a lock.
//!
//! All interrupts are used as the non-secure world sees them, in one group, with priority drop and deactivation in
//! one step.
//!
//! What QEMU does not show: writes to a distributor take effect at once there, while the chip needs time (RWP is waited
//! for); virt without `secure=on` and raspi4b have a GIC without security, while on a Pi 4 firmware keeps group 0 for
//! itself and the priorities that we write are the upper half of those in the chip.

mod lines;
#[cfg(test)]
mod tests;
mod v2;
mod v3;

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::tree::{Controller, Interrupt, MAX_CPUS, Region};

/// The CPU operations that the drivers need. The kernel implements it next to its other system registers.
pub trait SysRegs {
    /// MPIDR_EL1.
    fn mpidr() -> u64;
    /// `dsb ishst`: a CPU that a later write interrupts sees all earlier stores.
    fn dsb_ishst();
    /// `isb`.
    fn isb();
    /// Reads ICC_SRE_EL1. This method and the following ones are called with a GICv3 only.
    fn read_icc_sre() -> u64;
    /// Writes ICC_SRE_EL1. EL2 has to allow it before the kernel leaves it (ICC_SRE_EL2.Enable).
    fn write_icc_sre(value: u64);
    /// Writes ICC_PMR_EL1.
    fn write_icc_pmr(value: u64);
    /// Writes ICC_BPR1_EL1.
    fn write_icc_bpr1(value: u64);
    /// Writes ICC_CTLR_EL1.
    fn write_icc_ctlr(value: u64);
    /// Writes ICC_IGRPEN1_EL1.
    fn write_icc_igrpen1(value: u64);
    /// Reads ICC_IAR1_EL1, then `dsb sy`: only after that the interrupt is known to be active.
    fn read_icc_iar1() -> u64;
    /// Writes ICC_EOIR1_EL1.
    fn write_icc_eoir1(value: u64);
    /// Writes ICC_SGI1R_EL1.
    fn write_icc_sgi1r(value: u64);
}

/// How urgent an interrupt is. A more urgent one comes first when both are pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Priority {
    /// Before all others.
    Urgent = 0x80,
    /// The default.
    Normal = 0xa0,
}

/// Priorities from here on never reach a CPU.
const PRIORITY_MASK: u8 = 0xf0;
/// INTIDs below this are software-generated.
const SGIS: u32 = 16;
/// INTIDs below this are private to a CPU.
const PRIVATE: u32 = 32;
/// Special INTIDs, which say that there is nothing to handle.
const SPECIAL: core::ops::Range<u32> = 1020..1024;
/// Polls before a controller counts as stuck; a few milliseconds at the least.
const PATIENCE: u32 = 100_000;

/// Why an operation on the controller failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicError {
    /// A register region of the tree is too small or could not be mapped.
    Registers(Region),
    /// It has no such interrupt.
    NoSuchInterrupt(u32),
    /// It cannot serve this CPU, or [`InterruptController::init_cpu`] has not run there.
    NoSuchCpu(usize),
    /// No redistributor belongs to the CPU with this MPIDR.
    NoRedistributor(u64),
    /// It did not react in time.
    Stuck,
    /// The CPU interface cannot be used through system registers: a higher exception level forbids it.
    NoSystemRegisters,
}

impl fmt::Display for GicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registers(region) => {
                write!(f, "registers at {:#x} are too small ({:#x}) or cannot be mapped", region.base, region.size)
            }
            Self::NoSuchInterrupt(intid) => write!(f, "there is no interrupt {intid}"),
            Self::NoSuchCpu(cpu) => write!(f, "CPU {cpu} is not known to the interrupt controller"),
            Self::NoRedistributor(mpidr) => write!(f, "no redistributor for the CPU with MPIDR {mpidr:#x}"),
            Self::Stuck => write!(f, "the interrupt controller does not answer"),
            Self::NoSystemRegisters => write!(f, "a higher exception level withholds the CPU interface"),
        }
    }
}

impl core::error::Error for GicError {}

/// An interrupt that was acknowledged and has to be ended, once, on the same CPU.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an interrupt that is not ended blocks all of its priority and below"]
pub struct Active {
    intid: u32,
    /// The value read; version 2 needs it back, including the sender's number.
    word: u32,
}

impl Active {
    /// The interrupt's number: software-generated below 16, private to this CPU below 32.
    pub fn intid(&self) -> u32 {
        self.intid
    }
}

/// The interrupt controller of this machine.
pub struct InterruptController<S> {
    gic: Gic,
    sysregs: PhantomData<fn() -> S>,
}

#[expect(clippy::large_enum_variant, reason = "there is one, in a static")]
enum Gic {
    V2(v2::Gic),
    V3(v3::Gic),
}

impl<S: SysRegs> InterruptController<S> {
    /// The controller that the tree describes, with its registers mapped by `map`.
    ///
    /// # Safety
    ///
    /// 1. `map` returns an address at which all of the region is mapped, readable and writable, as device memory
    ///    (nGnRnE or nGnRE), for as long as the value lives, or `None`.
    /// 2. Nobody else uses these registers.
    pub unsafe fn new(
        controller: &Controller,
        mut map: impl FnMut(Region) -> Option<NonNull<u8>>,
    ) -> Result<Self, GicError> {
        let mut map_at_least = |region: Region, size: u64| {
            let mapped = if region.size >= size { map(region) } else { None };
            mapped.ok_or(GicError::Registers(region))
        };
        // SAFETY: in all three cases: `map`'s contract covers the registers, and the region was checked to be large
        // enough.
        let gic = unsafe {
            match controller {
                Controller::GicV2 { distributor, cpu_interface } => Gic::V2(v2::Gic::new(
                    map_at_least(*distributor, v2::DISTRIBUTOR_SIZE)?,
                    map_at_least(*cpu_interface, v2::CPU_INTERFACE_SIZE)?,
                )),
                Controller::GicV3 { distributor, redistributors, stride } => {
                    let mut gic = v3::Gic::new(map_at_least(*distributor, v3::DISTRIBUTOR_SIZE)?, *stride);
                    for region in redistributors {
                        gic.add_region(map_at_least(*region, v3::REDISTRIBUTOR_SIZE)?, region.size);
                    }
                    Gic::V3(gic)
                }
            }
        };
        Ok(Self { gic, sysregs: PhantomData })
    }

    /// Brings all shared interrupts into a known state: disabled, level-triggered, of normal priority. Once, on the
    /// boot CPU.
    pub fn init_distributor(&self) -> Result<(), GicError> {
        match &self.gic {
            Gic::V2(gic) => gic.init_distributor(),
            Gic::V3(gic) => gic.init_distributor(),
        }
    }

    /// Lets this CPU, which is number `cpu` to the kernel, take interrupts: the software-generated ones are enabled,
    /// the other private ones not. With interrupts masked, after `init_distributor`.
    pub fn init_cpu(&self, cpu: usize) -> Result<(), GicError> {
        match &self.gic {
            Gic::V2(gic) => gic.init_cpu(cpu),
            Gic::V3(gic) => gic.init_cpu::<S>(cpu),
        }
    }

    /// Sets up and enables an interrupt. A shared one goes to `cpu`; for a private one `cpu` is the CPU that calls.
    pub fn configure(&self, cpu: usize, interrupt: Interrupt, priority: Priority) -> Result<(), GicError> {
        match &self.gic {
            Gic::V2(gic) => gic.configure(cpu, interrupt, priority),
            Gic::V3(gic) => gic.configure(cpu, interrupt, priority),
        }
    }

    /// Enables a configured interrupt again. For a private one `cpu` is the CPU that calls.
    pub fn enable(&self, cpu: usize, intid: u32) -> Result<(), GicError> {
        match &self.gic {
            Gic::V2(gic) => gic.lines(intid)?.enable(intid),
            Gic::V3(gic) => gic.lines(cpu, intid)?.enable(intid),
        }
        Ok(())
    }

    /// Disables an interrupt. One that a CPU is just taking may still arrive. For a private one `cpu` is the CPU that
    /// calls.
    pub fn disable(&self, cpu: usize, intid: u32) -> Result<(), GicError> {
        match &self.gic {
            Gic::V2(gic) => gic.lines(intid)?.disable(intid),
            Gic::V3(gic) => gic.lines(cpu, intid)?.disable(intid),
        }
        Ok(())
    }

    /// Takes the most urgent pending interrupt; `None` if there is none any more.
    pub fn acknowledge(&self) -> Option<Active> {
        let (word, mask) = match &self.gic {
            Gic::V2(gic) => (gic.acknowledge(), 0x3ff),
            Gic::V3(_) => (S::read_icc_iar1() as u32, 0xff_ffff),
        };
        let intid = word & mask;
        (!SPECIAL.contains(&intid)).then_some(Active { intid, word })
    }

    /// Ends an interrupt: the next of the same priority may come.
    pub fn end(&self, active: Active) {
        match &self.gic {
            Gic::V2(gic) => gic.end(active.word),
            Gic::V3(_) => {
                S::write_icc_eoir1(u64::from(active.word));
                S::isb();
            }
        }
    }

    /// Interrupts the CPU with this number. That CPU sees all earlier stores of this one.
    pub fn send(&self, cpu: usize, sgi: u8) -> Result<(), GicError> {
        let sgi = software_generated(sgi)?;
        S::dsb_ishst();
        match &self.gic {
            Gic::V2(gic) => gic.send(cpu, sgi)?,
            Gic::V3(gic) => {
                S::write_icc_sgi1r(gic.sgi_to(cpu, sgi)?);
                S::isb();
            }
        }
        Ok(())
    }

    /// Interrupts all CPUs but this one.
    pub fn send_to_others(&self, sgi: u8) -> Result<(), GicError> {
        let sgi = software_generated(sgi)?;
        S::dsb_ishst();
        match &self.gic {
            Gic::V2(gic) => gic.send_to_others(sgi),
            Gic::V3(_) => {
                S::write_icc_sgi1r(v3::sgi_to_others(sgi));
                S::isb();
            }
        }
        Ok(())
    }
}

fn software_generated(sgi: u8) -> Result<u32, GicError> {
    let intid = u32::from(sgi);
    if intid < SGIS { Ok(intid) } else { Err(GicError::NoSuchInterrupt(intid)) }
}

fn wait_until(done: impl Fn() -> bool) -> Result<(), GicError> {
    for _ in 0..PATIENCE {
        if done() {
            return Ok(());
        }
        core::hint::spin_loop();
    }
    Err(GicError::Stuck)
}
