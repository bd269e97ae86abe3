//! The pins of Broadcom's chips: which internal device each pin connects to (BCM2711 ARM Peripherals, 5.2).

use core::ptr::NonNull;

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::ReadWrite;

use crate::tree::Pin;

/// Ten pins a register, three bits each.
const PINS: usize = 10;
const BITS: usize = 3;

/// The function selectors, at the start of the controller's registers.
#[repr(C)]
struct Registers {
    select: [ReadWrite<u32>; 6],
}

/// The smallest region that holds the registers.
pub const REGISTERS_SIZE: u64 = size_of::<Registers>() as u64;

/// Sets pins, one after the other; invalid pin numbers are skipped.
///
/// # Safety
///
/// The registers of such a pin controller, at least [`REGISTERS_SIZE`] bytes, are mapped at `registers` as device
/// memory, and nothing else sets pins meanwhile.
pub unsafe fn set(registers: NonNull<u8>, pins: &[Pin]) {
    // SAFETY: the caller's promise.
    let registers = unsafe { registers.cast::<Registers>().as_ref() };
    for pin in pins {
        let (index, shift) = (usize::from(pin.number) / PINS, usize::from(pin.number) % PINS * BITS);
        if let Some(select) = registers.select.get(index) {
            select.set(select.get() & !(7 << shift) | u32::from(pin.function & 7) << shift);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    #[test]
    fn a_pin_is_set_and_its_neighbours_are_not() {
        let words: &[Cell<u32>; 6] = Box::leak(Box::new([const { Cell::new(0x3fff_ffff) }; 6]));
        let pins = [(14, 4), (15, 0), (59, 2), (60, 1), (255, 1)].map(|(number, function)| Pin { number, function });
        // SAFETY: the words live for ever and may be written through shared references.
        unsafe { set(NonNull::from(words).cast(), &pins) };
        let expected = [0x3fff_ffff, 0x3ffc_7fff & !(7 << 12) | 4 << 12, 0x3fff_ffff, 0x3fff_ffff, 0x3fff_ffff];
        assert!(words.iter().zip(expected).all(|(word, expected)| word.get() == expected));
        assert_eq!(words[5].get(), 0x17ff_ffff);
    }
}
