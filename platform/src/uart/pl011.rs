//! Arm PrimeCell UART (Arm DDI 0183).
//!
//! What QEMU does not show: it ignores the divisor, line control and the order in which registers are written, has sent
//! each byte before the write returns, and raises the receive interrupt at the first byte. The chip takes divisor and
//! format only with the write to LCRH, wants to be idle and disabled for it, and raises the receive interrupt at the
//! FIFO's threshold or 32 bit times after the last byte: so both sources are enabled. On a Pi 4 its pins lead to
//! Bluetooth unless others are selected; the tree's `Uart::pins` has those.

use core::ptr::NonNull;

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};
use tock_registers::{register_bitfields, register_structs};

use super::{Offer, Patience, Rate};

register_bitfields![u32,
    DR [
        DATA OFFSET(0) NUMBITS(8) [],
        /// Framing, parity, break and overrun.
        ERRORS OFFSET(8) NUMBITS(4) []
    ],
    FR [
        BUSY OFFSET(3) NUMBITS(1) [],
        RXFE OFFSET(4) NUMBITS(1) [],
        TXFF OFFSET(5) NUMBITS(1) []
    ],
    LCRH [
        FEN OFFSET(4) NUMBITS(1) [],
        WLEN OFFSET(5) NUMBITS(2) [Eight = 3]
    ],
    CR [
        UARTEN OFFSET(0) NUMBITS(1) [],
        TXE OFFSET(8) NUMBITS(1) [],
        RXE OFFSET(9) NUMBITS(1) []
    ],
    IFLS [
        RXIFLSEL OFFSET(3) NUMBITS(3) [Eighth = 0]
    ],
    INT [
        RX OFFSET(4) NUMBITS(1) [],
        RT OFFSET(6) NUMBITS(1) [],
        ALL OFFSET(0) NUMBITS(11) [All = 0x7ff]
    ]
];

register_structs! {
    Registers {
        (0x00 => dr: ReadWrite<u32, DR::Register>),
        (0x04 => _reserved0),
        (0x18 => fr: ReadOnly<u32, FR::Register>),
        (0x1c => _reserved1),
        (0x24 => ibrd: ReadWrite<u32>),
        (0x28 => fbrd: ReadWrite<u32>),
        (0x2c => lcrh: ReadWrite<u32, LCRH::Register>),
        (0x30 => cr: ReadWrite<u32, CR::Register>),
        (0x34 => ifls: ReadWrite<u32, IFLS::Register>),
        (0x38 => imsc: ReadWrite<u32, INT::Register>),
        (0x3c => _reserved2),
        (0x44 => icr: WriteOnly<u32, INT::Register>),
        (0x48 => @END),
    }
}

/// Bytes; 16 in the first revisions.
const FIFO_SIZE: usize = 32;

/// A PL011.
pub struct Pl011 {
    registers: NonNull<Registers>,
    patience: Patience,
}

// SAFETY: the registers belong to this value alone (the constructor's second condition), on whatever CPU it is.
unsafe impl Send for Pl011 {}

impl Pl011 {
    /// # Safety
    ///
    /// As for [`super::Uart::new`].
    pub unsafe fn new(registers: NonNull<u8>) -> Self {
        Self { registers: registers.cast(), patience: Patience::default() }
    }

    /// Whether a PL011 answers at `registers`, by its identification registers (Arm DDI 0183, 3.3.15 to 3.3.22). Only
    /// reads. A port that shares its page with other devices, as on a Pi 4, cannot be identified in this way.
    ///
    /// # Safety
    ///
    /// A page at `registers` is mapped as device memory.
    pub unsafe fn is_one(registers: NonNull<u8>) -> bool {
        const FIRST: usize = 0xfe0;
        const PART: u32 = 0x011;
        const PRIMECELL: u32 = 0xb105_f00d;
        let word = |index: usize| {
            // SAFETY: the eight words end with the page.
            let value = unsafe { registers.byte_add(FIRST + index * 4).cast::<u32>().read_volatile() };
            value & 0xff
        };
        let id = |first: usize| (0..4).fold(0, |id, i| id | word(first + i) << (8 * i));
        id(4) == PRIMECELL && id(0) & 0xfff == PART
    }

    fn registers(&self) -> &Registers {
        // SAFETY: the constructor's caller promises that the registers stay mapped and are ours.
        unsafe { self.registers.as_ref() }
    }

    pub(super) fn init(&mut self, rate: Rate) {
        self.flush();
        let registers = self.registers();
        registers.cr.set(0);
        registers.imsc.set(0);
        if let Rate::Set { clock, baud } = rate
            && let Some((whole, fraction)) = divisor(clock, baud)
        {
            registers.ibrd.set(whole);
            registers.fbrd.set(fraction);
        }
        registers.lcrh.write(LCRH::WLEN::Eight + LCRH::FEN::SET);
        registers.ifls.write(IFLS::RXIFLSEL::Eighth);
        registers.icr.write(INT::ALL::All);
        registers.cr.write(CR::UARTEN::SET + CR::TXE::SET + CR::RXE::SET);
    }

    pub(super) fn offer(&mut self, byte: u8) -> Offer {
        let offer = self.patience.look(!self.registers().fr.is_set(FR::TXFF));
        if offer == Offer::Taken {
            self.registers().dr.set(u32::from(byte));
        }
        offer
    }

    pub(super) fn get(&mut self) -> Option<u8> {
        let registers = self.registers();
        // A line that is held down delivers errors for ever: read no more bytes than the FIFO holds.
        for _ in 0..FIFO_SIZE {
            if registers.fr.is_set(FR::RXFE) {
                break;
            }
            let word = registers.dr.extract();
            if word.read(DR::ERRORS) == 0 {
                return Some(word.read(DR::DATA) as u8);
            }
        }
        None
    }

    pub(super) fn set_receive_interrupt(&mut self, on: bool) {
        let sources = if on { INT::RX::SET + INT::RT::SET } else { INT::ALL.val(0) };
        self.registers().imsc.write(sources);
    }

    pub(super) fn acknowledge(&mut self) {
        self.registers().icr.write(INT::ALL::All);
    }

    pub(super) fn flush(&mut self) -> bool {
        self.patience.wait_until(|| !self.registers().fr.is_set(FR::BUSY))
    }
}

/// The clock is divided by 16 and by this: (whole, sixty-fourths). `None` if the clock cannot be divided to the baud
/// rate.
pub(super) fn divisor(clock: u32, baud: u32) -> Option<(u32, u32)> {
    let sixty_fourths = (u64::from(clock) * 4 + u64::from(baud) / 2).checked_div(u64::from(baud))?;
    let (whole, fraction) = (sixty_fourths >> 6, sixty_fourths & 0x3f);
    let possible = whole >= 1 && sixty_fourths <= 0xffff << 6;
    possible.then_some((whole as u32, fraction as u32))
}

#[cfg(test)]
mod tests {
    use super::divisor;

    #[test]
    fn divisors_from_the_manual() {
        // DDI 0183, example 3-1: 4 MHz, 230400 baud.
        assert_eq!(divisor(4_000_000, 230_400), Some((1, 5)));
        assert_eq!(divisor(48_000_000, 115_200), Some((26, 3)));
        assert_eq!(divisor(24_000_000, 115_200), Some((13, 1)));
    }

    #[test]
    fn impossible_rates() {
        assert_eq!(divisor(48_000_000, 0), None);
        assert_eq!(divisor(1_000_000, 115_200), None);
        assert_eq!(divisor(u32::MAX, 1), None);
    }
}
