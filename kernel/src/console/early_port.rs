//! A serial port for a kernel that stops before it has set up its own.
//!
//! From the first instruction until [`crate::console::serial::init`], a kernel that panics finds its port here: the one
//! that the board's description names or, if that has none or the device tree cannot be read, a PL011 whose registers
//! the tree also describes as memory, or that is salvaged from the damaged tree, provided that it identifies itself. If
//! there is none, the messages are only in memory, for a debugger.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use quire_mm::addr::PAGE_SIZE;
use quire_platform::tree::{Region, UartKind};
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
        let port = serial::log_or_console(board).and_then(|port| serial::open(board, port, &shown));
        serial::adopt(port.or_else(|| pl011_among(board.doubtful_ports())));
    } else {
        serial::adopt(salvaged_port(fdt));
    }
}

/// The first port found in a damaged tree at whose address a PL011 identifies itself.
fn salvaged_port(fdt: usize) -> Option<Uart> {
    let offset = fdt % FDT_WINDOW_ALIGN;
    let window = core::ptr::with_exposed_provenance(FDT_WINDOW + offset);
    // SAFETY: the window maps this much of memory until the tree has been read.
    let bytes = unsafe { core::slice::from_raw_parts(window, FDT_WINDOW_SIZE - offset) };
    pl011_among(quire_platform::tree::salvage(bytes).ports.into_iter())
}

/// The first of these regions at whose address a PL011 identifies itself.
fn pl011_among(mut ports: impl Iterator<Item = Region>) -> Option<Uart> {
    ports.find_map(|region| {
        if !region.base.is_multiple_of(PAGE_SIZE as u64) {
            return None;
        }
        // SAFETY: boot ends here. The page lies in the 2 MiB that are mapped.
        let registers = unsafe { early::show_registers(region.base) }?;
        // SAFETY: as above; the registers are mapped until the machine stops, and this is their only user.
        unsafe { Pl011::is_one(registers).then(|| Uart::new(UartKind::Pl011, registers)) }
    })
}
