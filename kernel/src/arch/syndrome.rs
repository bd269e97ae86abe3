//! Decodes ESR_EL1 (Arm ARM D23.2.37).

use core::fmt;

/// An exception syndrome.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Syndrome(pub u64);

/// Exception classes that Quire distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Undefined instruction, or a trap with no class of its own.
    Unknown,
    /// FP or SIMD while they are off.
    FpAccess,
    /// SVC.
    SystemCall,
    /// MSR, MRS or a system instruction that EL0 may not use.
    SystemRegister,
    /// Instruction abort from EL0.
    InstructionAbortLower,
    /// Instruction abort from EL1.
    InstructionAbortSame,
    /// Misaligned PC.
    PcAlignment,
    /// Data abort from EL0.
    DataAbortLower,
    /// Data abort from EL1.
    DataAbortSame,
    /// Misaligned SP.
    SpAlignment,
    /// FP exception.
    FpException,
    /// SError.
    SError,
    /// BRK, or a debug event from EL0.
    Breakpoint,
    /// Anything else.
    Other,
}

impl Syndrome {
    /// EC, bits 31 to 26.
    #[inline(always)]
    pub fn class(self) -> Class {
        match self.0 >> 26 & 0x3f {
            0x00 => Class::Unknown,
            0x07 => Class::FpAccess,
            0x15 => Class::SystemCall,
            0x18 => Class::SystemRegister,
            0x20 => Class::InstructionAbortLower,
            0x21 => Class::InstructionAbortSame,
            0x22 => Class::PcAlignment,
            0x24 => Class::DataAbortLower,
            0x25 => Class::DataAbortSame,
            0x26 => Class::SpAlignment,
            0x2c => Class::FpException,
            0x2f => Class::SError,
            0x30 | 0x32 | 0x3c => Class::Breakpoint,
            _ => Class::Other,
        }
    }

    /// The fault status code of an abort.
    fn status(self) -> u64 {
        self.0 & 0x3f
    }

    /// Whether a data abort was a write. Cache maintenance counts as a read: it needs no more than that (CM, bit 8).
    pub fn is_write(self) -> bool {
        self.0 >> 6 & 1 == 1 && self.0 >> 8 & 1 == 0
    }

    /// Whether an abort was caused by table entries: translation, access flag or permission.
    pub fn is_translation_permission_or_access(self) -> bool {
        matches!(self.status(), 0x04..=0x0f)
    }

    /// Whether an abort is a translation fault.
    pub fn is_translation(self) -> bool {
        matches!(self.status(), 0x04..=0x07)
    }

    /// Whether an abort is for alignment.
    pub fn is_alignment(self) -> bool {
        self.status() == 0x21
    }
}

impl fmt::Display for Syndrome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.class() {
            Class::Unknown => "undefined instruction",
            Class::FpAccess => "FP access",
            Class::SystemCall => "system call",
            Class::SystemRegister => "system register access",
            Class::InstructionAbortLower | Class::InstructionAbortSame => "instruction fetch",
            Class::DataAbortLower | Class::DataAbortSame if self.is_write() => "write",
            Class::DataAbortLower | Class::DataAbortSame => "read",
            Class::PcAlignment => "misaligned pc",
            Class::SpAlignment => "misaligned sp",
            Class::FpException => "FP exception",
            Class::SError => "SError",
            Class::Breakpoint => "breakpoint",
            Class::Other => "exception",
        };
        let is_abort = matches!(
            self.class(),
            Class::DataAbortLower | Class::DataAbortSame | Class::InstructionAbortLower | Class::InstructionAbortSame
        );
        write!(f, "{what}")?;
        if is_abort {
            let level = self.0 & 3;
            match self.status() {
                0x00..=0x03 => write!(f, ", address size fault at level {level}")?,
                0x04..=0x07 => write!(f, ", translation fault at level {level}")?,
                0x08..=0x0b => write!(f, ", access flag fault at level {level}")?,
                0x0c..=0x0f => write!(f, ", permission fault at level {level}")?,
                0x10 => write!(f, ", external abort")?,
                0x14..=0x17 => write!(f, ", external abort on the walk at level {level}")?,
                0x21 => write!(f, ", alignment fault")?,
                0x30 => write!(f, ", TLB conflict")?,
                other => write!(f, ", status {other:#x}")?,
            }
        }
        write!(f, " (ESR {:#x})", self.0)
    }
}

impl fmt::Debug for Syndrome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
