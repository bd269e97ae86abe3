//! Switching the machine off, and restarting it.

use core::sync::atomic::{AtomicBool, Ordering};

use quire_platform::power::PowerManager;
use quire_platform::tree::Power;

use crate::arch::cpu;
use crate::arch::firmware::{Smccc, semihosting_exit};
use crate::board::BOARD;
use crate::console::serial;
use crate::interrupts;
use crate::vm::io;

/// The kernel argument `semihosting`: a debugger or an emulator handles HLT.
static SEMIHOSTING: AtomicBool = AtomicBool::new(false);

/// Reads the kernel argument.
pub fn init_semihosting(args: &str) {
    let wanted = quire_platform::bootargs::arguments(args).any(|(key, _)| key == "semihosting");
    SEMIHOSTING.store(wanted, Ordering::Relaxed);
}

/// Maps the board's power switch early, so that it works when nothing else does.
pub fn init() {
    MANAGER.call_once(|| match BOARD.get().power {
        Some(Power::Bcm2835Pm(region)) => {
            io::map(region.base, region.size).ok().map(|p| p.as_ptr().expose_provenance())
        }
        None => None,
    });
}

static MANAGER: spin::Once<Option<usize>> = spin::Once::new();

fn manager() -> Option<PowerManager> {
    let registers = (*MANAGER.get()?)?;
    let registers = core::ptr::NonNull::new(core::ptr::with_exposed_provenance_mut(registers))?;
    // SAFETY: `init` mapped the registers for good; the caller is the last code to run, and makes one manager.
    Some(unsafe { PowerManager::new(registers) })
}

/// Switches off. Under an emulator with semihosting `status` is its exit status.
pub fn off(status: u32) -> ! {
    cpu::irq_disable();
    interrupts::stop_others();
    serial::flush();
    end_emulator(status);
    if let Some(psci) = &BOARD.get().psci {
        psci.system_off(&Smccc);
    }
    if let Some(mut manager) = manager() {
        manager.power_off();
    }
    cpu::park()
}

/// Resets.
pub fn reset() -> ! {
    cpu::irq_disable();
    interrupts::stop_others();
    serial::flush();
    if let Some(psci) = &BOARD.get().psci {
        psci.system_reset(&Smccc);
    }
    if let Some(mut manager) = manager() {
        manager.reset();
    }
    cpu::park()
}

/// Stops with the power on.
pub fn halt() -> ! {
    cpu::irq_disable();
    interrupts::stop_others();
    serial::flush();
    end_emulator(0);
    cpu::park()
}

/// After a panic a machine stops with the power on, so that its state can be inspected; an emulator exits.
pub fn stop_after_panic(status: u32) -> ! {
    end_emulator(status);
    cpu::park()
}

fn end_emulator(status: u32) {
    if SEMIHOSTING.load(Ordering::Relaxed) {
        semihosting_exit(status);
    }
}
