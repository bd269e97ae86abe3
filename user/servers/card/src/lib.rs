//! SD cards behind a standard host controller (SD Host Controller Simplified Specification 3.00; Physical Layer
//! Simplified Specification 6.00).
//!
//! Floors, lowest first; none imports a higher one:
//! - [`host`]: the controller: clock, commands, the words of its buffer.
//! - [`csd`]: what a card says of its size.
//! - [`card`]: identification, and transfers of sectors.
//!
//! All registers are accessed by whole words, since the Pi's first controller knows nothing else. Data goes word by
//! word through the buffer: of the Pi's controllers, the one that QEMU gives the card to has no DMA that would reach
//! memory.

#![no_std]

pub mod card;
pub mod csd;
pub mod host;
