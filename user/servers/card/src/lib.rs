//! SD cards behind a standard host controller (SD Host Controller Simplified Specification 3.00; Physical Layer
//! Simplified Specification 6.00).
//!
//! Floors, lowest first; none imports a higher one:
//! - [`host`]: the controller: clock, commands, the words of its buffer.
//! - [`csd`]: the size of a card, from its description of itself.
//! - [`card`]: identification, and transfers of sectors.
//!
//! All registers are accessed as whole words, since the Pi's first controller supports nothing else. Data is
//! transferred word by word through the buffer: of the Pi's controllers, the one to which QEMU connects the card has no
//! DMA that could access memory.

#![no_std]

pub mod card;
pub mod csd;
pub mod host;
