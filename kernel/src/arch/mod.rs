//! The only place with assembly and system registers.

pub mod barrier;
pub mod cache;
pub mod context;
pub mod cpu;
pub mod early;
pub mod errata;
pub mod firmware;
pub mod fp;
pub mod gic;
mod head;
pub mod mem;
pub mod mmio;
#[cfg(feature = "selftest")]
pub mod probe;
pub mod regs;
pub mod reset;
pub mod smp;
pub mod speculation;
pub mod syndrome;
pub mod timer;
pub mod tlb;
pub mod translate;
pub mod trap;
pub mod uaccess;
