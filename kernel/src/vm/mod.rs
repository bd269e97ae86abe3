//! The memory manager bound to this computer: `quire-mm` over `arch`.

pub mod fault;
pub mod heap;
pub mod io;
pub mod kernel_map;
pub mod layout;
pub mod machine;
pub mod stack;

pub use machine::{Cpu, Mm, PAGES, SPACES, SpinLock};
