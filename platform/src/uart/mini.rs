//! The mini-UART of Broadcom's auxiliary block (BCM2711 peripherals, chapter 2).
//!
//! What QEMU does not show: it ignores rate and format, and behaves as if the block were always switched on. On the
//! chip it has to be switched on first ([`MiniUart::switch_on`]): until then reads return 0 and writes are lost. Its
//! rate is divided from the VPU core clock. The firmware reports that clock's frequency, and `enable_uart=1` in
//! config.txt keeps it from changing. The manual's table of the interrupt enable register has receive and transmit
//! exchanged, and calls bits 3:2 unused although receive interrupts need them. Receive errors other than overruns are
//! not reported by this port.

use core::ptr::NonNull;

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};
use tock_registers::{register_bitfields, register_structs};

use super::{Offer, Patience, Rate};

register_bitfields![u32,
    IER [
        RECEIVE OFFSET(0) NUMBITS(1) [],
        REQUIRED OFFSET(2) NUMBITS(2) [Both = 3]
    ],
    LCR [
        /// The manual says one bit; the chip needs both.
        WLEN OFFSET(0) NUMBITS(2) [Eight = 3]
    ],
    LSR [
        DATA_READY OFFSET(0) NUMBITS(1) [],
        TX_EMPTY OFFSET(5) NUMBITS(1) [],
        TX_IDLE OFFSET(6) NUMBITS(1) []
    ],
    CNTL [
        RX_ENABLE OFFSET(0) NUMBITS(1) [],
        TX_ENABLE OFFSET(1) NUMBITS(1) []
    ]
];

register_structs! {
    Registers {
        (0x00 => io: ReadWrite<u32>),
        (0x04 => ier: ReadWrite<u32, IER::Register>),
        (0x08 => _reserved0),
        (0x0c => lcr: ReadWrite<u32, LCR::Register>),
        (0x10 => mcr: ReadWrite<u32>),
        (0x14 => lsr: ReadOnly<u32, LSR::Register>),
        (0x18 => _reserved1),
        (0x20 => cntl: ReadWrite<u32, CNTL::Register>),
        (0x24 => _reserved2),
        (0x28 => baud: ReadWrite<u32>),
        (0x2c => @END),
    }
}

/// A mini-UART.
pub struct MiniUart {
    registers: NonNull<Registers>,
    patience: Patience,
}

// SAFETY: the registers belong to this value alone (the constructor's second condition), on whatever CPU it is.
unsafe impl Send for MiniUart {}

impl MiniUart {
    /// # Safety
    ///
    /// As for [`super::Uart::new`].
    pub unsafe fn new(registers: NonNull<u8>) -> Self {
        Self { registers: registers.cast(), patience: Patience::default() }
    }

    /// Switches the port on in the auxiliary block's enable register.
    ///
    /// # Safety
    ///
    /// The block's registers, 8 bytes, are mapped at `block` as device memory, and nobody else uses them meanwhile.
    pub unsafe fn switch_on(block: NonNull<u8>) {
        const MINI_UART: u32 = 1;
        // SAFETY: the caller's promise; the second word is the enable register.
        let enables = unsafe { block.byte_add(4).cast::<ReadWrite<u32>>().as_ref() };
        enables.set(enables.get() | MINI_UART);
    }

    fn registers(&self) -> &Registers {
        // SAFETY: the constructor's caller promises that the registers stay mapped and are ours.
        unsafe { self.registers.as_ref() }
    }

    pub(super) fn init(&mut self, rate: Rate) {
        self.flush();
        let registers = self.registers();
        registers.cntl.set(0);
        registers.ier.set(0);
        registers.lcr.write(LCR::WLEN::Eight);
        registers.mcr.set(0);
        if let Rate::Set { clock, baud } = rate
            && let Some(divisor) = divisor(clock, baud)
        {
            registers.baud.set(divisor);
        }
        registers.cntl.write(CNTL::RX_ENABLE::SET + CNTL::TX_ENABLE::SET);
    }

    pub(super) fn offer(&mut self, byte: u8) -> Offer {
        let offer = self.patience.look(self.registers().lsr.is_set(LSR::TX_EMPTY));
        if offer == Offer::Taken {
            self.registers().io.set(u32::from(byte));
        }
        offer
    }

    pub(super) fn get(&mut self) -> Option<u8> {
        let registers = self.registers();
        registers.lsr.is_set(LSR::DATA_READY).then(|| registers.io.get() as u8)
    }

    pub(super) fn set_receive_interrupt(&mut self, on: bool) {
        if on {
            self.registers().ier.write(IER::RECEIVE::SET + IER::REQUIRED::Both);
        } else {
            self.registers().ier.set(0);
        }
    }

    pub(super) fn flush(&mut self) -> bool {
        self.patience.wait_until(|| self.registers().lsr.is_set(LSR::TX_IDLE))
    }
}

/// The clock is divided by 8 and by one more than this.
pub(super) fn divisor(clock: u32, baud: u32) -> Option<u32> {
    let eight_bits = u64::from(baud) * 8;
    let divisor = (u64::from(clock) + eight_bits / 2).checked_div(eight_bits)?.checked_sub(1)?;
    u32::try_from(divisor).ok().filter(|divisor| *divisor <= 0xffff)
}

#[cfg(test)]
mod tests {
    use super::divisor;

    #[test]
    fn divisors() {
        assert_eq!(divisor(500_000_000, 115_200), Some(542));
        assert_eq!(divisor(250_000_000, 115_200), Some(270));
        assert_eq!(divisor(500_000_000, 0), None);
        assert_eq!(divisor(1_000, 115_200), None);
        assert_eq!(divisor(u32::MAX, 1), None);
    }
}
