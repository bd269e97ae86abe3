//! The serial ports: one for the terminal, and where the kernel arguments name another for it, one for the log.
//!
//! `console=` and `log=` take an alias or path of the device tree (`serial0`). Without `console=` the tree's
//! `stdout-path` decides, then the first port that is wired to a person.

use core::sync::atomic::{AtomicBool, Ordering};

use quire_mm::sync::Rank;
use quire_platform::bootargs;
use quire_platform::gpio;
use quire_platform::tree::{Board, Interrupt, Pins, Uart as Description};
use quire_platform::uart::{Offer, Rate, Uart};

use crate::vm::{Cpu, SpinLock, io};

struct Ports {
    console: Option<Uart>,
    /// `None` where the log shares the console's port.
    log: Option<Uart>,
}

static PORTS: SpinLock<Ports> = SpinLock::new(Cpu, Rank::Uart, Ports { console: None, log: None });
static HAS_CONSOLE: AtomicBool = AtomicBool::new(false);
static HAS_LOG: AtomicBool = AtomicBool::new(false);

/// Finds and maps the ports. Text that was logged before is printed now.
pub fn init(board: &Board) -> Option<Interrupt> {
    let args = board.chosen.bootargs.as_str();
    let console = console_of(board);
    let other = bootargs::find(args, "log")
        .and_then(|name| board.uart(name))
        .filter(|u| console.is_none_or(|c| c.registers != u.registers));
    // First, so that the console has pins that both could have.
    let log_port = other.and_then(open);
    let console_port = console.and_then(open);
    HAS_CONSOLE.store(console_port.is_some(), Ordering::Relaxed);
    HAS_LOG.store(console_port.is_some() || log_port.is_some(), Ordering::Relaxed);
    *PORTS.lock() = Ports { console: console_port, log: log_port };
    super::log::drain();
    console.and_then(|c| c.interrupt)
}

/// The port for the terminal.
pub fn console_of(board: &Board) -> Option<&Description> {
    bootargs::find(board.chosen.bootargs.as_str(), "console")
        .and_then(|name| board.uart(name))
        .or(board.stdout())
        .or(board.uarts.iter().find(|u| !u.occupied))
        .or(board.uarts.first())
}

/// Takes a port for a kernel that ends before [`init`]. What was logged is printed.
pub fn adopt(port: Uart) {
    PORTS.lock().console = Some(port);
    HAS_LOG.store(true, Ordering::Relaxed);
    super::log::drain();
}

fn open(uart: &Description) -> Option<Uart> {
    if let Some(Pins { registers, pins }) = &uart.pins
        && let Ok(controller) = io::map(registers.base, registers.size.max(gpio::REGISTERS_SIZE))
    {
        // SAFETY: the controller's registers are mapped, and only this sets pins, on the one CPU that runs; then nobody
        // uses the mapping.
        unsafe {
            gpio::set(controller, pins);
            io::unmap(controller);
        }
    }
    let registers = io::map(uart.registers.base, uart.registers.size.max(Uart::REGISTERS_SIZE)).ok()?;
    // SAFETY: the registers of this port are mapped as device memory for good, and this is its only driver.
    let mut port = unsafe { Uart::new(uart.kind, registers) };
    port.init(match uart.clock {
        Some(clock) => Rate::Set { clock, baud: 115_200 },
        None => Rate::Keep,
    });
    Some(port)
}

/// Whether log text can go anywhere yet.
pub fn has_log() -> bool {
    HAS_LOG.load(Ordering::Relaxed)
}

/// Prints log text, each line's end with a carriage return before it. The lock is open while the port is full.
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

/// Bytes that are sent while the ports are locked: no more than a port takes at once.
const AT_ONCE: usize = 32;

/// Sends what the terminal's port takes without waiting, a few bytes at most; answers how many. Bytes that a port
/// which does not drain loses count as sent, and so do all where there is no port.
pub fn offer_console(bytes: &[u8]) -> usize {
    let mut ports = PORTS.lock();
    let Some(port) = ports.console.as_mut() else { return bytes.len() };
    let few = &bytes[..bytes.len().min(AT_ONCE)];
    few.iter().position(|&byte| port.offer(byte) == Offer::Full).unwrap_or(few.len())
}

/// Sends bytes to the terminal as they are, in any context. The lock is open while the port is full: a slow line
/// masks no interrupts.
#[cfg(feature = "selftest")]
pub fn write_console(bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[offer_console(rest)..];
        core::hint::spin_loop();
    }
}

/// Lets input interrupt, or not.
pub fn set_input_interrupt(on: bool) {
    if let Some(port) = PORTS.lock().console.as_mut() {
        port.set_receive_interrupt(on);
    }
}

/// What came, as much as there is room for. The port interrupts again only when something comes to an empty queue.
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

/// Waits until all that was written is out: before the machine stops.
pub fn flush() {
    let mut ports = PORTS.lock();
    let ports = &mut *ports;
    for port in [&mut ports.console, &mut ports.log].into_iter().flatten() {
        port.flush();
    }
}

/// A dying kernel prints past the lock: whoever holds it may never let go.
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
