//! GICv3's CPU interface, for the interrupt controller's driver.

use core::arch::asm;

use quire_platform::gic::SysRegs;

use super::{barrier, regs};

/// This CPU's registers.
pub struct CpuInterface;

macro_rules! register {
    (read $name:ident, $register:literal) => {
        fn $name() -> u64 {
            let v: u64;
            // SAFETY: the driver reads it on a machine with a GICv3 only.
            unsafe { asm!(concat!("mrs {}, ", $register), out(reg) v, options(nostack, preserves_flags)) }
            v
        }
    };
    (write $name:ident, $register:literal) => {
        fn $name(v: u64) {
            // SAFETY: as above; what it configures is the delivery of interrupts.
            unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) v, options(nostack, preserves_flags)) }
        }
    };
}

impl SysRegs for CpuInterface {
    fn mpidr() -> u64 {
        regs::mpidr()
    }

    fn dsb_ishst() {
        barrier::dsb_ishst();
    }

    fn isb() {
        barrier::isb();
    }

    fn read_icc_iar1() -> u64 {
        let v: u64;
        // SAFETY: only the driver acknowledges; the DSB completes the activation of the interrupt.
        unsafe { asm!("mrs {}, S3_0_C12_C12_0", "dsb sy", out(reg) v, options(nostack, preserves_flags)) }
        v
    }

    register!(read read_icc_sre, "S3_0_C12_C12_5");
    register!(write write_icc_sre, "S3_0_C12_C12_5");
    register!(write write_icc_pmr, "S3_0_C4_C6_0");
    register!(write write_icc_bpr1, "S3_0_C12_C12_3");
    register!(write write_icc_ctlr, "S3_0_C12_C12_4");
    register!(write write_icc_igrpen1, "S3_0_C12_C12_7");
    register!(write write_icc_eoir1, "S3_0_C12_C12_1");
    register!(write write_icc_sgi1r, "S3_0_C12_C11_5");
}
