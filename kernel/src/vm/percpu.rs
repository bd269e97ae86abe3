//! Per-CPU variables of the kernel: static ones, of which each CPU has a copy, and the areas for dynamic ones
//! ([`quire_mm::percpu::PerCpu`]).
//!
//! The linker collects the static ones in a template, which is only copied: a variable's address in the template gives
//! its offset in each CPU's copy.

use core::ops::Deref;

use quire_mm::Machine;
use quire_mm::fallible::AllocError;
use quire_mm::percpu::{Offset, PerCpuAreas};

use super::machine::Cpu;

/// All per-CPU memory.
pub static AREAS: PerCpuAreas<Cpu> = PerCpuAreas::new(Cpu);

unsafe extern "C" {
    static __percpu_start: u8;
    static __percpu_end: u8;
}

fn template() -> *const u8 {
    &raw const __percpu_start
}

/// Makes the static variables' copies for CPUs 0 to `cpus` less 1. The page allocator is up.
pub fn init(cpus: usize) -> Result<(), AllocError> {
    let len = (&raw const __percpu_end).addr() - template().addr();
    // SAFETY: the linker script defines both symbols, in this order, around initialised data that is never written.
    AREAS.init(cpus, unsafe { core::slice::from_raw_parts(template(), len) })
}

/// A static variable of which each CPU has a copy. Declared with [`per_cpu!`].
pub struct Static<T>(T);

// SAFETY: the value in the template is read as bytes only; `Deref` gives this CPU's copy, and sharing it is safe
// because `T` is `Sync`.
unsafe impl<T: Sync> Sync for Static<T> {}

impl<T> Static<T> {
    /// The initial value of the copies.
    ///
    /// # Safety
    /// The result must be the value of a static in the section `.data.percpu`, and its bytes can be copied.
    pub const unsafe fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Static<T> {
    type Target = T;

    /// This CPU's copy; a caller that sleeps may afterwards be on another CPU.
    #[inline]
    fn deref(&self) -> &T {
        let offset = Offset::of_static(core::ptr::from_ref(self).addr() - template().addr());
        // SAFETY: a static of the section (by `new`'s contract) has a copy at its offset on each CPU from `init` on.
        unsafe { AREAS.address(Cpu.cpu(), offset).cast::<T>().as_ref() }
    }
}

/// A per-CPU variable: `per_cpu!(static NAME: Type = first value);`.
macro_rules! per_cpu {
    ($(#[$doc:meta])* $vis:vis static $name:ident: $kind:ty = $first:expr) => {
        $(#[$doc])*
        #[unsafe(link_section = ".data.percpu")]
        $vis static $name: $crate::vm::percpu::Static<$kind> = {
            const { assert!(!core::mem::needs_drop::<$kind>()) };
            // SAFETY: it is in the section, and a value without a destructor can be copied.
            unsafe { $crate::vm::percpu::Static::new($first) }
        };
    };
}
pub(crate) use per_cpu;
