//! A serial port for a kernel that stops before it has set up its own.
//!
//! From the first instruction until [`crate::console::serial::init`], a kernel that panics finds its port here: the one
//! that the board's description names or, if the device tree cannot be read, a PL011 that is salvaged from the damaged
//! tree and identifies itself. If there is none, the messages are only in memory, for a debugger.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use quire_mm::addr::PAGE_SIZE;
use quire_platform::tree::UartKind;
use quire_platform::uart::{Pl011, Uart};

use super::serial::{self, Mapper};
use crate::arch::early;
use crate::board::BOARD;
use crate::layout::{FDT_WINDOW, FDT_WINDOW_ALIGN, FDT_WINDOW_SIZE};

/// Where the device tree is, while there is no other port; 0 before and after.
static FDT: AtomicUsize = AtomicUsize::new(0);

/// Whether the board's description has been read from the tree.
static IS_READ: AtomicBool = AtomicBool::new(false);

/// Records that the device tree is at physical `fdt`: from here on a kernel that stops can find a port.
pub fn arm(fdt: usize) {
    FDT.store(fdt, Ordering::Relaxed);
}

/// The tree has been read.
pub fn board_is_known() {
    IS_READ.store(true, Ordering::Relaxed);
}

/// From here on the kernel drives the ports itself.
pub fn disarm() {
    FDT.store(0, Ordering::Relaxed);
}

/// Sets up a port for a kernel that stops, if it has none yet.
pub fn open() {
    let fdt = FDT.swap(0, Ordering::Relaxed);
    if fdt == 0 {
        return;
    }
    // SAFETY: boot ends here, on the one CPU that runs; the mapping stays.
    let shown = Mapper { map: |base, _| unsafe { early::show_registers(base) }, unmap: |_| {} };
    if IS_READ.load(Ordering::Relaxed) {
        let board = BOARD.get();
        serial::adopt(serial::log_or_console(board).and_then(|port| serial::open(board, port, &shown)));
    } else {
        // SAFETY: the registers are mapped until the machine stops, and this is their only user.
        serial::adopt(salvaged_port(fdt).map(|registers| unsafe { Uart::new(UartKind::Pl011, registers) }));
    }
}

/// The first port found in a damaged tree at whose address a PL011 identifies itself.
fn salvaged_port(fdt: usize) -> Option<NonNull<u8>> {
    let offset = fdt % FDT_WINDOW_ALIGN;
    let window = core::ptr::with_exposed_provenance(FDT_WINDOW + offset);
    // SAFETY: the window maps this much of memory until the tree has been read.
    let bytes = unsafe { core::slice::from_raw_parts(window, FDT_WINDOW_SIZE - offset) };
    let ports = quire_platform::tree::salvage(bytes).ports;
    ports.iter().filter(|region| region.base.is_multiple_of(PAGE_SIZE as u64)).find_map(|region| {
        // SAFETY: boot ends here. The page lies in the 2 MiB that are mapped.
        let registers = unsafe { early::show_registers(region.base) }?;
        // SAFETY: as above.
        unsafe { Pl011::is_one(registers) }.then_some(registers)
    })
}
