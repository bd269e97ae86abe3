//! Areas of an address space and their tree.
