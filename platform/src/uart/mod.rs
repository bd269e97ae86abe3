//! Serial ports, polled for output and interrupt-driven for input: enough for the kernel's log, panics and debug
//! console. Everything else about a console belongs in a process.
//!
//! A [`Uart`] has one owner, who may keep it in a `static` behind a lock. No method waits for ever: a port that does
//! not drain loses bytes, and from then on is polled only once per byte until it drains again.

mod mini;
mod pl011;

use core::cell::Cell;
use core::ptr::NonNull;

pub use mini::MiniUart;
pub use pl011::Pl011;

use crate::tree::UartKind;

/// The rate that a port is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// As firmware left it.
    Keep,
    /// Divided from the port's clock.
    Set {
        /// The port's clock in Hz.
        clock: u32,
        /// Bits a second.
        baud: u32,
    },
}

/// Polls of a full port before a byte is dropped. A byte takes 87 µs at 115200 baud and a port keeps 16 or more; a read
/// of a device register takes 50 ns or more, so this is several milliseconds.
const PATIENCE: u32 = 100_000;

/// The result of offering a byte to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The port has accepted it.
    Taken,
    /// The port is full: offer it again.
    Full,
    /// The port has been full for too long, and the byte is dropped.
    Lost,
}

/// Any of the ports that Quire drives.
pub enum Uart {
    /// Arm PrimeCell PL011.
    Pl011(Pl011),
    /// Broadcom's mini-UART.
    Mini(MiniUart),
}

impl Uart {
    /// The smallest region that holds the registers of any port.
    pub const REGISTERS_SIZE: u64 = 0x48;

    /// A port in the state in which firmware or the boot loader left it: it can print at once.
    ///
    /// # Safety
    ///
    /// 1. `registers` is where the registers of a port of this kind are mapped, at least
    ///    [`Uart::REGISTERS_SIZE`] bytes, readable and writable, as device memory, for as long as the value lives.
    /// 2. Nobody else uses them meanwhile.
    pub unsafe fn new(kind: UartKind, registers: NonNull<u8>) -> Self {
        // SAFETY: the caller's promises are those that both constructors require.
        unsafe {
            match kind {
                UartKind::Pl011 => Self::Pl011(Pl011::new(registers)),
                UartKind::MiniUart => Self::Mini(MiniUart::new(registers)),
            }
        }
    }

    /// Whether a port of this kind can divide its clock, in Hz, to a rate, in bits a second.
    pub fn has_rate(kind: UartKind, clock: u32, baud: u32) -> bool {
        match kind {
            UartKind::Pl011 => pl011::divisor(clock, baud).is_some(),
            UartKind::MiniUart => mini::divisor(clock, baud).is_some(),
        }
    }

    /// Waits until earlier output has been sent, then sets 8 bits, no parity, no flow control, no interrupts, and the
    /// rate.
    pub fn init(&mut self, rate: Rate) {
        match self {
            Self::Pl011(port) => port.init(rate),
            Self::Mini(port) => port.init(rate),
        }
    }

    /// Sends a byte if there is room for it now.
    pub fn offer(&mut self, byte: u8) -> Offer {
        match self {
            Self::Pl011(port) => port.offer(byte),
            Self::Mini(port) => port.offer(byte),
        }
    }

    /// Waits for room and sends a byte; false if the port did not take it in time.
    pub fn put(&mut self, byte: u8) -> bool {
        loop {
            match self.offer(byte) {
                Offer::Taken => return true,
                Offer::Full => core::hint::spin_loop(),
                Offer::Lost => return false,
            }
        }
    }

    /// The next byte received. Bytes with receive errors are skipped.
    pub fn get(&mut self) -> Option<u8> {
        match self {
            Self::Pl011(port) => port.get(),
            Self::Mini(port) => port.get(),
        }
    }

    /// Whether arriving bytes raise the port's interrupt.
    pub fn set_receive_interrupt(&mut self, on: bool) {
        match self {
            Self::Pl011(port) => port.set_receive_interrupt(on),
            Self::Mini(port) => port.set_receive_interrupt(on),
        }
    }

    /// Clears the interrupt. Call it before reading with [`Uart::get`] until nothing is left, so that a byte that
    /// arrives after the last read raises it again.
    pub fn acknowledge(&mut self) {
        match self {
            Self::Pl011(port) => port.acknowledge(),
            // Its interrupt follows the FIFO: reading clears it.
            Self::Mini(_) => {}
        }
    }

    /// Waits until every byte is on the wire; false if that took too long.
    pub fn flush(&mut self) -> bool {
        match self {
            Self::Pl011(port) => port.flush(),
            Self::Mini(port) => port.flush(),
        }
    }
}

/// A line break is sent as carriage return and line feed, as terminals expect.
impl core::fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}

/// A bounded wait, which is shortened while the port is known to be stuck.
#[derive(Default)]
struct Patience {
    /// Unsuccessful polls since the last successful one.
    misses: Cell<u32>,
}

impl Patience {
    /// Records the result of a poll, and decides what happens to the byte that waits.
    fn look(&self, ready: bool) -> Offer {
        if ready {
            self.misses.set(0);
            return Offer::Taken;
        }
        let misses = self.misses.get();
        if misses >= PATIENCE {
            return Offer::Lost;
        }
        self.misses.set(misses + 1);
        Offer::Full
    }

    fn wait_until(&self, ready: impl Fn() -> bool) -> bool {
        loop {
            match self.look(ready()) {
                Offer::Taken => return true,
                Offer::Full => core::hint::spin_loop(),
                Offer::Lost => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests;
