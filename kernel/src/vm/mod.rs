//! The memory manager bound to this computer: `quire-mm` over `arch`.

pub mod areas;
pub mod audit;
pub mod events;
pub mod fault;
pub mod heap;
pub mod inject;
pub mod io;
pub mod kernel_map;
pub mod kmap;
pub mod layout;
pub mod machine;
pub mod percpu;
pub mod pressure;
pub mod random;
pub mod space;
pub mod stack;
pub mod statistics;
pub mod vmalloc;

pub use machine::{Cpu, Mm, Object, PAGES, SPACES, SpinLock};
