//! Boards: reading device trees, and the few drivers that the kernel itself needs.
//!
//! - [`tree`]: a checked reading of the device tree into a plain [`tree::Board`].
//! - [`bootargs`]: the kernel's command line.
//! - [`uart`]: serial ports.
//! - [`gic`]: the interrupt controller.
//! - [`gpio`]: the functions of pins.
//! - [`mailbox`]: the rates of a Raspberry Pi's clocks, from its firmware.
//! - [`power`]: starting CPUs, switching off, resetting.
//!
//! Nothing here executes a privileged instruction or reads a system register: where a driver needs one it takes a small
//! trait that the kernel implements. This crate contains no board's addresses; all of them come from the tree.

#![cfg_attr(not(test), no_std)]

pub mod bootargs;
pub mod gic;
pub mod gpio;
pub mod mailbox;
pub mod power;
pub mod tree;
pub mod uart;
