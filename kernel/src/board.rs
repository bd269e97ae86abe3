//! What boot learns, once, and everybody may read from then on.

use core::cell::UnsafeCell;

use quire_platform::tree::Board;

/// A static that the boot CPU initialises before any other CPU runs, and that is only read from then on.
pub struct BootCell<T>(UnsafeCell<T>);

// SAFETY: `boot_mut` is only called while one CPU runs; afterwards there are only shared references.
unsafe impl<T: Sync> Sync for BootCell<T> {}

impl<T> BootCell<T> {
    /// With a first value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value.
    pub fn get(&self) -> &T {
        // SAFETY: no `&mut` exists once other code than boot runs.
        unsafe { &*self.0.get() }
    }

    /// The value, to change.
    ///
    /// # Safety
    /// Only the boot CPU runs, without interrupts, and no reference from [`BootCell::get`] is in use.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn boot_mut(&self) -> &mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0.get() }
    }
}

/// The board's description, from the device tree.
pub static BOARD: BootCell<Board> = BootCell::new(Board::new());
