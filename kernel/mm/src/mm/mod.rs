//! `Mm`: an address space.
