//! The mailbox to a Raspberry Pi's firmware, for the one question that the kernel asks: the rate of a clock.
//!
//! The firmware reads and writes a [`Message`] in memory and bypasses the CPU's caches. So the caller
//! 1. cleans and invalidates the message's cache lines,
//! 2. calls [`Mailbox::exchange`] with the message's address on the firmware's bus ([`bus_address`]),
//! 3. invalidates the cache lines again, and reads [`Message::hertz`].
//!
//! The property interface: github.com/raspberrypi/firmware/wiki/Mailbox-property-interface. QEMU implements it too.

use core::ptr::NonNull;

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, WriteOnly};
use tock_registers::{register_bitfields, register_structs};

use crate::tree::FirmwareClock;

register_bitfields![u32,
    STATUS [
        EMPTY OFFSET(30) NUMBITS(1) [],
        FULL OFFSET(31) NUMBITS(1) []
    ]
];

register_structs! {
    Registers {
        (0x00 => read: ReadOnly<u32>),
        (0x04 => _reserved0),
        (0x18 => read_status: ReadOnly<u32, STATUS::Register>),
        (0x1c => _reserved1),
        (0x20 => write: WriteOnly<u32>),
        (0x24 => _reserved2),
        (0x38 => write_status: ReadOnly<u32, STATUS::Register>),
        (0x3c => @END),
    }
}

/// The smallest region that holds the registers.
pub const REGISTERS_SIZE: u64 = size_of::<Registers>() as u64;

/// The channel of the property interface; the low four bits of what is sent.
const PROPERTIES: u32 = 8;

/// Polls of a register before the driver gives up; a read takes 50 ns or more.
const PATIENCE: usize = 1_000_000;

/// The most answers that an earlier user can have left unread: the queue holds eight.
const STALE: usize = 16;

/// The firmware's bus sees the first GiB of memory here, uncached.
const BUS: u32 = 0xc000_0000;

/// A physical address's equivalent on the firmware's bus, if the bus can reach it.
pub fn bus_address(physical: u64) -> Option<u32> {
    u32::try_from(physical).ok().filter(|low| *low < 1 << 30).map(|low| low | BUS)
}

/// A question and its answer; a cache line of its own.
#[repr(C, align(64))]
pub struct Message([u32; 16]);

const REQUEST: u32 = 0;
const SUCCESS: u32 = 0x8000_0000;
const SET_CLOCK_STATE: u32 = 0x0003_8001;
const GET_CLOCK_RATE: u32 = 0x0003_0002;
const ON: u32 = 1;
/// Set in a tag's third word when the firmware has answered it.
const ANSWERED: u32 = 1 << 31;

impl Message {
    /// Nothing.
    pub const fn new() -> Self {
        Self([0; 16])
    }

    /// Requests that a clock be on, and its frequency.
    pub fn ask(&mut self, clock: FirmwareClock) {
        let clock = clock as u32;
        let size = size_of::<Self>() as u32;
        let switch = [SET_CLOCK_STATE, 8, 8, clock, ON];
        let rate = [GET_CLOCK_RATE, 8, 4, clock, 0];
        self.0 = [0; 16];
        self.0[..2].copy_from_slice(&[size, REQUEST]);
        self.0[2..7].copy_from_slice(&switch);
        self.0[7..12].copy_from_slice(&rate);
    }

    /// The frequency in Hz, if the firmware answered.
    pub fn hertz(&self) -> Option<u32> {
        let done = self.0[1] == SUCCESS && self.0[9] & ANSWERED != 0;
        Some(self.0[11]).filter(|hertz| done && *hertz > 0)
    }
}

impl Default for Message {
    fn default() -> Self {
        Self::new()
    }
}

/// The mailbox.
pub struct Mailbox {
    registers: NonNull<Registers>,
}

impl Mailbox {
    /// # Safety
    ///
    /// The registers of such a mailbox are mapped at `registers`, at least [`REGISTERS_SIZE`] bytes, as device memory,
    /// for as long as the value lives, and nobody else uses them meanwhile.
    pub unsafe fn new(registers: NonNull<u8>) -> Self {
        Self { registers: registers.cast() }
    }

    /// Passes the message at `bus_address` to the firmware and waits for its answer; false if that takes too long.
    ///
    /// # Safety
    ///
    /// A [`Message`] is at that address, in no cache, and nothing else accesses it until this returns.
    pub unsafe fn exchange(&self, bus_address: u32) -> bool {
        // SAFETY: the constructor's caller promises that the registers stay mapped and are ours.
        let registers = unsafe { self.registers.as_ref() };
        let sent = bus_address & !0xf | PROPERTIES;
        for _ in 0..STALE {
            if registers.read_status.is_set(STATUS::EMPTY) {
                break;
            }
            registers.read.get();
        }
        if !(0..PATIENCE).any(|_| !registers.write_status.is_set(STATUS::FULL)) {
            return false;
        }
        registers.write.set(sent);
        (0..PATIENCE).any(|_| !registers.read_status.is_set(STATUS::EMPTY) && registers.read.get() == sent)
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    /// Registers that keep their values: a message sent comes back as the answer, where both are one word.
    fn bench(preset: &[(usize, u32)]) -> (&'static [Cell<u32>; 16], Mailbox) {
        let words: &'static [Cell<u32>; 16] = Box::leak(Box::new([const { Cell::new(0) }; 16]));
        preset.iter().for_each(|(offset, value)| words[offset / 4].set(*value));
        // SAFETY: the words live for ever and may be written through shared references.
        (words, unsafe { Mailbox::new(NonNull::from(words).cast()) })
    }

    #[test]
    fn the_firmware_s_answer_is_awaited() {
        let (words, mailbox) = bench(&[(0, 0xc008_0048)]);
        // SAFETY: nobody answers; there is only the test's memory.
        assert!(unsafe { mailbox.exchange(0xc008_0040) });
        assert_eq!(words[8].get(), 0xc008_0048);
    }

    #[test]
    fn a_mailbox_that_is_full_or_stays_empty_is_given_up() {
        for (preset, sent) in [([(0x18, 1 << 30)], 0x48), ([(0x38, 1 << 31)], 0)] {
            let (words, mailbox) = bench(&preset);
            // SAFETY: as above.
            assert!(!unsafe { mailbox.exchange(0x40) });
            assert_eq!(words[8].get(), sent);
        }
    }

    #[test]
    fn a_message_asks_and_has_the_answer() {
        let mut message = Message::new();
        message.ask(FirmwareClock::Uart);
        assert_eq!(message.0, [64, 0, 0x38001, 8, 8, 2, 1, 0x30002, 8, 4, 2, 0, 0, 0, 0, 0]);
        assert_eq!(message.hertz(), None, "not answered");
        (message.0[1], message.0[9], message.0[11]) = (SUCCESS, ANSWERED | 8, 48_000_000);
        assert_eq!(message.hertz(), Some(48_000_000));
        message.0[1] = 0x8000_0001;
        assert_eq!(message.hertz(), None, "refused");
    }

    #[test]
    fn the_bus_reaches_the_first_gibibyte() {
        assert_eq!(bus_address(0x8_0000), Some(0xc008_0000));
        assert_eq!((bus_address(1 << 30), bus_address(1 << 32)), (None, None));
    }
}
