//! The memory manager bound to this computer: `quire-mm` over `arch`.

pub mod events;
pub mod fault;
pub mod heap;
pub mod io;
pub mod kernel_map;
pub mod kmap;
pub mod machine;
pub mod percpu;
pub mod pressure;
pub mod random;
pub mod stack;
pub mod vmalloc;

pub use machine::{Cpu, GROUPS, MEMORY, Mm, Object, PAGES, RECLAIM, SPACES, SpinLock};
