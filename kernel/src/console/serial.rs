//! The serial ports: one for the terminal and, if the kernel arguments name another, one for the log.
//!
//! `console=` and `log=` take an alias or path of the device tree (`serial0`) or Linux's name of a port (`ttyAMA0`),
//! and after a comma its rate; the last `console=` that names a port counts. Without one, the tree's `stdout-path`
//! decides, then the first port that leads to a connector. Ports are set up completely, whatever state firmware left
//! them in.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use quire_mm::sync::Rank;
use quire_platform::bootargs::{self, BAUD};
use quire_platform::gpio;
use quire_platform::tree::{Board, Interrupt, Pins, Uart as Description, UartKind};
use quire_platform::uart::{MiniUart, Offer, Rate, Uart};

use super::clock;
use crate::vm::{Cpu, SpinLock, io};

struct Ports {
    console: Option<Uart>,
    /// `None` where the log shares the console's port.
    log: Option<Uart>,
}

static PORTS: SpinLock<Ports> = SpinLock::new(Cpu, Rank::Uart, Ports { console: None, log: None });
static HAS_CONSOLE: AtomicBool = AtomicBool::new(false);
static HAS_LOG: AtomicBool = AtomicBool::new(false);

/// A way to map registers.
pub struct Mapper {
    /// Maps the registers at a physical address.
    pub map: fn(u64, u64) -> Option<NonNull<u8>>,
    /// Unmaps registers that are no longer used.
    pub unmap: fn(NonNull<u8>),
}

/// The running kernel's way to map registers.
const MAPPED: Mapper = Mapper {
    map: |base, size| io::map(base, size).ok(),
    // SAFETY: `map` made the mapping, and its user no longer needs it.
    unmap: |registers| unsafe { io::unmap(registers) },
};

impl Mapper {
    /// Lets `work` use the registers at `base` for a while.
    pub fn with<T>(&self, base: u64, size: u64, work: impl FnOnce(NonNull<u8>) -> T) -> Option<T> {
        let registers = (self.map)(base, size)?;
        let done = work(registers);
        (self.unmap)(registers);
        Some(done)
    }
}

/// A port and its rate in bits per second.
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    uart: &'a Description,
    baud: u32,
}

/// Finds and maps the ports, and prints the text logged so far.
pub fn init(board: &Board) -> Option<Interrupt> {
    let console = console_of(board);
    let other = named(board, "log").filter(|log| console.is_none_or(|c| c.uart.registers != log.uart.registers));
    // The log first, so that pins that both could use go to the console.
    let log_port = other.and_then(|log| open(board, log, &MAPPED));
    let console_port = console.and_then(|console| open(board, console, &MAPPED));
    HAS_CONSOLE.store(console_port.is_some(), Ordering::Relaxed);
    HAS_LOG.store(console_port.is_some() || log_port.is_some(), Ordering::Relaxed);
    *PORTS.lock() = Ports { console: console_port, log: log_port };
    super::log::drain();
    console.and_then(|console| console.uart.interrupt)
}

/// The port for the terminal.
fn console_of(board: &Board) -> Option<Choice<'_>> {
    let options = &board.chosen.stdout_options;
    let plain = |uart| Choice { uart, baud: BAUD };
    named(board, "console")
        .or(board.stdout().map(|uart| Choice { uart, baud: bootargs::baud(options).unwrap_or(BAUD) }))
        .or(board.uarts.iter().find(|uart| !uart.occupied).map(plain))
        .or(board.uarts.first().map(plain))
}

/// The port for the messages of a kernel that stops before [`init`].
pub fn log_or_console(board: &Board) -> Option<Choice<'_>> {
    named(board, "log").or_else(|| console_of(board))
}

/// The port named by the last argument `key` that names an existing one. The others are reported in the log.
fn named<'a>(board: &'a Board, key: &str) -> Option<Choice<'a>> {
    let mut choice = None;
    for (_, value) in bootargs::arguments(&board.chosen.bootargs).filter(|(name, _)| *name == key) {
        let value = value.unwrap_or_default();
        let (name, options) = value.split_once(',').unwrap_or((value, ""));
        let Some(uart) = board.uart(name) else {
            log::warn!("{key}={value}: no such serial port");
            continue;
        };
        let baud = bootargs::baud(options).unwrap_or_else(|| {
            log::warn!("{key}={value}: not a rate such as 115200 or 115200n8; {BAUD} is used");
            BAUD
        });
        choice = Some(Choice { uart, baud });
    }
    choice
}

/// Uses a port for a kernel that stops before [`init`].
pub fn adopt(port: Option<Uart>) {
    HAS_LOG.store(port.is_some(), Ordering::Relaxed);
    // SAFETY: one CPU runs, and the kernel is stopping: a holder of the lock does not continue.
    unsafe { (*PORTS.as_ptr()).log = port };
}

/// Sets a port up, whatever state it is in.
pub fn open(board: &Board, choice: Choice<'_>, mapper: &Mapper) -> Option<Uart> {
    let Choice { uart, baud } = choice;
    if let Some(Pins { registers, pins }) = &uart.pins {
        let size = registers.size.max(gpio::REGISTERS_SIZE);
        // SAFETY: the controller's registers are mapped, and only this sets pins, on the one CPU that runs.
        mapper.with(registers.base, size, |controller| unsafe { gpio::set(controller, pins) });
    }
    if let (UartKind::MiniUart, Some(block)) = (uart.kind, uart.switch) {
        // SAFETY: as above, for the block's registers.
        mapper.with(block.base, block.size, |block| unsafe { MiniUart::switch_on(block) });
    }
    let rate = match clock::hertz(board, uart.clock, mapper) {
        Some(clock) if Uart::has_rate(uart.kind, clock, baud) => Rate::Set { clock, baud },
        Some(clock) => {
            log::warn!("serial port: no rate of {baud} with a clock of {clock} Hz; it is taken as {BAUD}");
            Rate::Set { clock, baud: BAUD }
        }
        None => Rate::Keep,
    };
    let registers = (mapper.map)(uart.registers.base, uart.registers.size.max(Uart::REGISTERS_SIZE))?;
    // SAFETY: the registers of this port are mapped as device memory for good, and this is its only driver.
    let mut port = unsafe { Uart::new(uart.kind, registers) };
    port.init(rate);
    Some(port)
}

/// Whether there is a port for log text yet.
pub fn has_log() -> bool {
    HAS_LOG.load(Ordering::Relaxed)
}

/// Prints log text, with a carriage return before each line feed. The lock is released while the port is full.
pub fn write_log(text: &[u8]) {
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        match line.split_last() {
            Some((b'\n', line)) => {
                send_log(line);
                send_log(b"\r\n");
            }
            _ => send_log(line),
        }
    }
}

fn send_log(bytes: &[u8]) {
    for &byte in bytes {
        while offer_log(byte) == Offer::Full {
            core::hint::spin_loop();
        }
    }
}

fn offer_log(byte: u8) -> Offer {
    let mut ports = PORTS.lock();
    let ports = &mut *ports;
    ports.log.as_mut().or(ports.console.as_mut()).map_or(Offer::Lost, |port| port.offer(byte))
}

/// Bytes sent under the lock: no more than a port accepts at once.
const AT_ONCE: usize = 32;

/// Sends bytes while the terminal's port accepts them without waiting, a few at most; returns how many. Bytes dropped
/// by a stuck port count as sent, and so do all bytes if there is no port.
pub fn offer_console(bytes: &[u8]) -> usize {
    let mut ports = PORTS.lock();
    let Some(port) = ports.console.as_mut() else { return bytes.len() };
    let few = &bytes[..bytes.len().min(AT_ONCE)];
    few.iter().position(|&byte| port.offer(byte) == Offer::Full).unwrap_or(few.len())
}

/// Sends bytes to the terminal unchanged, in any context. The lock is released while the port is full, so that a slow
/// line does not keep interrupts masked.
#[cfg(feature = "selftest")]
pub fn write_console(bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[offer_console(rest)..];
        core::hint::spin_loop();
    }
}

/// Enables or disables the input interrupt.
pub fn set_input_interrupt(on: bool) {
    if let Some(port) = PORTS.lock().console.as_mut() {
        port.set_receive_interrupt(on);
    }
}

/// Reads received bytes, as many as there is room for. The port interrupts again only when a byte arrives at an empty
/// FIFO.
pub fn take_input(bytes: &mut [u8]) -> usize {
    let mut ports = PORTS.lock();
    let Some(port) = ports.console.as_mut() else { return 0 };
    port.acknowledge();
    let mut n = 0;
    while n < bytes.len()
        && let Some(byte) = port.get()
    {
        bytes[n] = byte;
        n += 1;
    }
    n
}

/// Waits until all output has been sent, before the machine stops.
pub fn flush() {
    let mut ports = PORTS.lock();
    let ports = &mut *ports;
    for port in [&mut ports.console, &mut ports.log].into_iter().flatten() {
        port.flush();
    }
}

/// Prints for a panicking kernel, without the lock, since its holder may never release it.
pub fn write_raw(text: &[u8]) {
    // SAFETY: the other CPUs are stopped or stopping; two writers at once would only mix their text.
    let ports = unsafe { &mut *PORTS.as_ptr() };
    if let Some(port) = ports.log.as_mut().or(ports.console.as_mut()) {
        for &byte in text {
            if byte == b'\n' {
                port.put(b'\r');
            }
            port.put(byte);
        }
    }
}
