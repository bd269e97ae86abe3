//! From the first Rust instruction to init: what exists before there are processes.

pub mod archive;
pub mod early_table;
pub mod info;
pub mod memory;
pub mod power;

use core::cell::UnsafeCell;

use quire_platform::tree::{Board, TreeError};

use crate::vm::layout::{FDT_WINDOW, FDT_WINDOW_SIZE};

/// A static that the boot CPU fills in before anybody else runs, and that is only read from then on.
pub struct BootCell<T>(UnsafeCell<T>);

// SAFETY: `boot_mut` is for the time when one CPU runs; after it there are only shared references.
unsafe impl<T: Sync> Sync for BootCell<T> {}

impl<T> BootCell<T> {
    /// With a first value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value.
    pub fn get(&self) -> &T {
        // SAFETY: nobody has `&mut` once anybody but the boot code runs.
        unsafe { &*self.0.get() }
    }

    /// The value, to change.
    ///
    /// # Safety
    /// Only the boot CPU runs, without interrupts, and no reference from [`BootCell::get`] is in use.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn boot_mut(&self) -> &mut T {
        // SAFETY: what the caller promises.
        unsafe { &mut *self.0.get() }
    }
}

/// What the device tree says.
pub static BOARD: BootCell<Board> = BootCell::new(Board::new());

/// Reads the device tree at physical `fdt` through its window. Answers its size.
pub fn read_tree(fdt: usize) -> Result<usize, TreeError> {
    const BLOCK: usize = 2 << 20;
    let offset = fdt % BLOCK;
    let window = FDT_WINDOW + offset;
    let header = core::ptr::with_exposed_provenance::<[u8; quire_platform::tree::HEADER_SIZE]>(window);
    // SAFETY: the window maps 4 MiB from the tree's 2 MiB boundary; a header is 40 bytes.
    let size = quire_platform::tree::total_size(unsafe { &*header })?;
    if offset + size > FDT_WINDOW_SIZE {
        return Err(TreeError::Size(size));
    }
    // SAFETY: as above, and the size was checked against the window.
    let bytes = unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(window), size) };
    // SAFETY: the first thing that boot does, on one CPU.
    unsafe { BOARD.boot_mut() }.read(bytes)?;
    Ok(size)
}
