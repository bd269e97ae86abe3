//! The interface between kernel and programs: system-call numbers, errno, flag sets and record layouts. It contains no
//! logic except the rules for checking permissions, which the kernel and the servers share.
//!
//! Where Linux has the call, its AArch64 number, flags and layouts are used (the generic table of
//! `include/uapi/asm-generic/unistd.h`), so that an unmodified static Linux binary runs. Quire's own calls
//! start at [`nr::QUIRE_BASE`].

#![no_std]

pub mod access;
pub mod block;
pub mod device;
pub mod errno;
pub mod flags;
pub mod group;
pub mod info;
pub mod ipc;
pub mod layout;
pub mod linux;
pub mod locks;
pub mod names;
pub mod nr;
pub mod pressure;
pub mod process;
pub mod socket;
pub mod statistics;
pub mod translation;

pub use errno::Errno;

/// Bytes in a page: the 4 KiB granule is the only one that Quire uses.
pub const PAGE_SIZE: usize = 4096;
