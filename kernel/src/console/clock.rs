//! The frequency of the clock that a serial port's rate is divided from.

use quire_platform::mailbox::{self, Mailbox, Message, bus_address};
use quire_platform::tree::{Board, Clock, FirmwareClock};

use super::serial::Mapper;
use crate::arch::cache::flush_to_memory;
use crate::arch::smp::image_to_phys;
use crate::board::BootCell;

/// The message to the Pi's firmware. It is in the image, which the firmware itself has loaded and so can reach.
static MESSAGE: BootCell<Message> = BootCell::new(Message::new());

/// The frequency that the firmware sets for the PL011s unless config.txt has another `init_uart_clock`; the config.txt
/// of Quire's cards has this value.
const INIT_UART_CLOCK: u32 = 48_000_000;

/// Its frequency in Hz, if known.
pub fn hertz(board: &Board, clock: Clock, mapper: &Mapper) -> Option<u32> {
    match clock {
        Clock::Fixed(hertz) => Some(hertz),
        Clock::Firmware(which) => ask(board, which, mapper).or(match which {
            FirmwareClock::Uart => Some(INIT_UART_CLOCK),
            // It depends on the model and on other settings.
            FirmwareClock::Core => None,
        }),
        Clock::Unknown => None,
    }
}

/// Asks the firmware, which also lets the clock run.
fn ask(board: &Board, which: FirmwareClock, mapper: &Mapper) -> Option<u32> {
    let registers = board.mailbox?;
    // SAFETY: the one CPU that runs sets up the ports, one after the other.
    let message = unsafe { MESSAGE.boot_mut() };
    message.ask(which);
    let start = core::ptr::from_mut(message);
    let bus = bus_address(image_to_phys(start.addr()).get() as u64)?;
    let size = registers.size.max(mailbox::REGISTERS_SIZE);
    mapper.with(registers.base, size, |registers| {
        flush_to_memory(start.cast(), size_of::<Message>());
        // SAFETY: the registers are mapped and used by nothing else; the message is in memory and in no cache, and its
        // lines are its own.
        let answered = unsafe { Mailbox::new(registers).exchange(bus) };
        flush_to_memory(start.cast(), size_of::<Message>());
        // SAFETY: the firmware is done with the message, or timed out and has not read it.
        answered.then(|| unsafe { start.read_volatile() }.hertz())?
    })?
}
