//! Calls out of the kernel: PSCI firmware, and the debugger's semihosting.

use core::arch::asm;

use quire_platform::power::Firmware;
use quire_platform::tree::Conduit;

/// Firmware by the SMC Calling Convention (Arm DEN 0028): x0 to x3 in, x0 out, x4 to x17 lost.
pub struct Smccc;

macro_rules! call {
    ($instruction:literal, $x:expr) => {{
        let mut x0 = $x[0];
        // SAFETY: the firmware follows the convention; the clobbers are all that it may change.
        unsafe {
            asm!($instruction, inout("x0") x0, inout("x1") $x[1] => _, inout("x2") $x[2] => _,
                inout("x3") $x[3] => _, out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _,
                out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _,
                out("x17") _, options(nostack))
        }
        x0
    }};
}

impl Firmware for Smccc {
    fn call(&self, conduit: Conduit, arguments: [u64; 4]) -> u64 {
        match conduit {
            Conduit::Hvc => call!("hvc #0", arguments),
            Conduit::Smc => call!("smc #0", arguments),
        }
    }
}

/// Ends the emulator with an exit status (Arm semihosting, SYS_EXIT, ADP_Stopped_ApplicationExit). On hardware without
/// a debugger HLT traps, so a kernel argument must enable this.
pub fn semihosting_exit(status: u32) {
    const SYS_EXIT: u64 = 0x18;
    const APPLICATION_EXIT: u64 = 0x20026;
    let block = [APPLICATION_EXIT, u64::from(status)];
    // SAFETY: the host reads the block and ends the machine.
    unsafe { asm!("hlt #0xf000", in("x0") SYS_EXIT, in("x1") block.as_ptr(), options(nostack)) }
}
