//! Starting CPUs, switching off, resetting.
//!
//! With PSCI, firmware does all three ([`Psci`]). A board without it has its secondary CPUs in a spin table
//! ([`EnableMethod::SpinTable`](crate::tree::EnableMethod)): the kernel stores the CPU's physical entry address in the
//! double word that the tree names, cleans that line to the point of coherency (the CPU reads with its caches off),
//! then `dsb sy` and `sev`. That word may lie in page 0, which Rust must not dereference at address 0; the direct map's
//! alias is fine. Power is then controlled by the board's own registers ([`PowerManager`]).

use core::fmt;
use core::ptr::NonNull;

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::ReadWrite;

use crate::tree::{Conduit, Psci};

/// A call to firmware by the SMC calling convention (Arm DEN 0028), which the kernel implements.
pub trait Firmware {
    /// Calls with x0 to x3 and returns x0.
    fn call(&self, conduit: Conduit, arguments: [u64; 4]) -> u64;
}

/// Firmware's error codes (Arm DEN 0022).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PsciError {
    /// This firmware has no such function.
    NotSupported,
    /// No CPU with this MPIDR, for example.
    InvalidParameters,
    /// Firmware refuses.
    Denied,
    /// The CPU runs already.
    AlreadyOn,
    /// The CPU is being started already.
    OnPending,
    /// Firmware has failed.
    InternalFailure,
    /// No CPU there.
    NotPresent,
    /// The CPU was taken out of service.
    Disabled,
    /// Not a valid entry address.
    InvalidAddress,
    /// A code that is not in the specification.
    Unknown(i32),
}

impl PsciError {
    fn from_code(code: i32) -> Self {
        match code {
            -1 => Self::NotSupported,
            -2 => Self::InvalidParameters,
            -3 => Self::Denied,
            -4 => Self::AlreadyOn,
            -5 => Self::OnPending,
            -6 => Self::InternalFailure,
            -7 => Self::NotPresent,
            -8 => Self::Disabled,
            -9 => Self::InvalidAddress,
            _ => Self::Unknown(code),
        }
    }
}

impl fmt::Display for PsciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => write!(f, "firmware cannot do this"),
            Self::InvalidParameters => write!(f, "firmware knows no such CPU"),
            Self::Denied => write!(f, "firmware refuses"),
            Self::AlreadyOn => write!(f, "the CPU runs already"),
            Self::OnPending => write!(f, "the CPU is being started already"),
            Self::InternalFailure => write!(f, "firmware failed"),
            Self::NotPresent => write!(f, "there is no such CPU"),
            Self::Disabled => write!(f, "the CPU is out of service"),
            Self::InvalidAddress => write!(f, "firmware does not accept the entry point"),
            Self::Unknown(code) => write!(f, "firmware answered {code}"),
        }
    }
}

impl core::error::Error for PsciError {}

impl Psci {
    /// The version as (major, minor); (0, 1) where firmware is too old to be asked.
    pub fn version(&self, firmware: &impl Firmware) -> (u16, u16) {
        let Ok(word) = self.call(firmware, self.version, [0; 3]) else { return (0, 1) };
        ((word >> 16) as u16, word as u16)
    }

    /// Starts the CPU with this MPIDR at the physical address `entry`, with `context` in x0, at the exception level of
    /// the caller, with MMU and caches off. Success does not mean that the CPU runs already.
    pub fn cpu_on(&self, firmware: &impl Firmware, mpidr: u64, entry: u64, context: u64) -> Result<(), PsciError> {
        self.call(firmware, self.cpu_on, [mpidr, entry, context]).map(|_| ())
    }

    /// Switches the machine off. Returns only on an error.
    pub fn system_off(&self, firmware: &impl Firmware) -> PsciError {
        self.call(firmware, self.system_off, [0; 3]).err().unwrap_or(PsciError::InternalFailure)
    }

    /// Resets the machine. Returns only on an error.
    pub fn system_reset(&self, firmware: &impl Firmware) -> PsciError {
        self.call(firmware, self.system_reset, [0; 3]).err().unwrap_or(PsciError::InternalFailure)
    }

    fn call(&self, firmware: &impl Firmware, function: Option<u32>, [a, b, c]: [u64; 3]) -> Result<u32, PsciError> {
        let function = u64::from(function.ok_or(PsciError::NotSupported)?);
        // All answers have 32 bits; the upper half of x0 is undefined.
        let answer = firmware.call(self.conduit, [function, a, b, c]) as i32;
        if answer < 0 { Err(PsciError::from_code(answer)) } else { Ok(answer as u32) }
    }
}

register_structs! {
    Registers {
        (0x00 => _reserved),
        (0x1c => rstc: ReadWrite<u32>),
        (0x20 => rsts: ReadWrite<u32>),
        (0x24 => wdog: ReadWrite<u32>),
        (0x28 => @END),
    }
}

/// The top byte that every word written to the power manager must have.
const PASSWORD: u32 = 0x5a00_0000;
/// RSTC: what the watchdog does when it runs out.
const RSTC_ACTION: u32 = 0x30;
const RSTC_FULL_RESET: u32 = 0x20;
/// RSTS: the partition that firmware boots from next, one bit in two. 63 means: do not boot, stay off.
const RSTS_PARTITION: u32 = 0x555;
/// WDOG: ticks of 16 µs; long enough for the write to RSTC to get there.
const TICKS: u32 = 10;

/// The power manager of Broadcom's BCM2835 and its successors: a watchdog that resets the chip, and a word that tells
/// firmware after the reset what to do.
///
/// What QEMU does not show: it acts at the write to RSTC, before the watchdog runs out, and halts or resets the
/// emulator. The chip resets about 160 µs later, and firmware then halts in a state that draws power, since a Pi 4
/// cannot cut its own supply.
pub struct PowerManager {
    registers: NonNull<Registers>,
}

// SAFETY: the registers belong to this value alone (the constructor's condition), on whatever CPU it is.
unsafe impl Send for PowerManager {}

impl PowerManager {
    /// The smallest region that holds its registers.
    pub const REGISTERS_SIZE: u64 = 0x28;

    /// # Safety
    ///
    /// `registers` is where the power manager's registers are mapped, at least [`PowerManager::REGISTERS_SIZE`] bytes,
    /// readable and writable, as device memory, for as long as the value lives; nobody else uses them.
    pub const unsafe fn new(registers: NonNull<u8>) -> Self {
        Self { registers: registers.cast() }
    }

    /// Switches the board off within a millisecond; returns before that.
    pub fn power_off(&mut self) {
        self.expire(RSTS_PARTITION);
    }

    /// Resets the board within a millisecond; returns before that.
    pub fn reset(&mut self) {
        self.expire(0);
    }

    fn expire(&mut self, partition: u32) {
        // SAFETY: the constructor's caller promises that the registers stay mapped and are ours.
        let registers = unsafe { self.registers.as_ref() };
        registers.rsts.set(PASSWORD | registers.rsts.get() & 0x00ff_ffff & !RSTS_PARTITION | partition);
        registers.wdog.set(PASSWORD | TICKS);
        registers.rstc.set(PASSWORD | registers.rstc.get() & 0x00ff_ffff & !RSTC_ACTION | RSTC_FULL_RESET);
    }
}

#[cfg(test)]
mod tests {
    use core::cell::{Cell, RefCell};

    use super::*;

    struct Recorded {
        calls: RefCell<Vec<(Conduit, [u64; 4])>>,
        answer: i64,
    }

    impl Firmware for Recorded {
        fn call(&self, conduit: Conduit, arguments: [u64; 4]) -> u64 {
            self.calls.borrow_mut().push((conduit, arguments));
            self.answer as u64
        }
    }

    fn firmware(answer: i64) -> Recorded {
        Recorded { calls: RefCell::default(), answer }
    }

    const PSCI: Psci = Psci {
        conduit: Conduit::Smc,
        cpu_on: Some(0xc400_0003),
        system_off: Some(0x8400_0008),
        system_reset: None,
        version: Some(0x8400_0000),
    };

    #[test]
    fn calls_are_made_as_specified() {
        let firmware = firmware(0);
        assert_eq!(PSCI.cpu_on(&firmware, 0x1_0000_0203, 0x4008_0000, 7), Ok(()));
        assert_eq!(PSCI.system_off(&firmware), PsciError::InternalFailure, "the call returned");
        assert_eq!(PSCI.system_reset(&firmware), PsciError::NotSupported);
        let cpu_on = [0xc400_0003, 0x1_0000_0203, 0x4008_0000, 7];
        let expected = [(Conduit::Smc, cpu_on), (Conduit::Smc, [0x8400_0008, 0, 0, 0])];
        assert_eq!(*firmware.calls.borrow(), expected);
    }

    #[test]
    fn answers_are_32_bits() {
        assert_eq!(PSCI.version(&firmware(0x1_0001)), (1, 1));
        assert_eq!(PSCI.version(&firmware(-1)), (0, 1));
        assert_eq!(PSCI.cpu_on(&firmware(0xffff_fffc), 0, 0, 0), Err(PsciError::AlreadyOn));
        assert_eq!(PSCI.cpu_on(&firmware(-77), 0, 0, 0), Err(PsciError::Unknown(-77)));
    }

    #[test]
    fn the_watchdog_runs_out_with_the_right_words() {
        let words: [Cell<u32>; 64] = [const { Cell::new(0) }; 64];
        words[7].set(0x102);
        words[8].set(0x1555);
        // SAFETY: the words outlive the value, may be written through shared references, and are enough.
        let mut power = unsafe { PowerManager::new(NonNull::from(&words).cast()) };
        power.reset();
        assert_eq!((words[7].get(), words[8].get(), words[9].get()), (0x5a00_0122, 0x5a00_1000, 0x5a00_000a));
        power.power_off();
        assert_eq!((words[7].get(), words[8].get(), words[9].get()), (0x5a00_0122, 0x5a00_1555, 0x5a00_000a));
    }
}
