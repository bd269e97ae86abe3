//! The kernel's log: a ring of text that `dmesg` reads, copied to a serial port as it grows.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use log::{Level, LevelFilter, Metadata, Record};
use quire_mm::sync::Rank;

use super::serial;
use crate::arch::{cpu, timer};
use crate::vm::{Cpu, SpinLock};

/// Bytes that the ring holds.
pub const SIZE: usize = 32 << 10;

/// Text by position since power-on; the last [`SIZE`] bytes of it are kept.
struct Ring {
    bytes: [u8; SIZE],
    /// Positions below this were ever written.
    end: usize,
    /// Positions below this are on the serial port.
    shown: usize,
}

static RING: SpinLock<Ring> = SpinLock::new(Cpu, Rank::Log, Ring { bytes: [0; SIZE], end: 0, shown: 0 });

/// One CPU at a time copies to the port, also the text of others.
static DRAINING: AtomicBool = AtomicBool::new(false);

/// Room for one line, formatted before the ring is locked.
const LINE: usize = 256;

struct Line {
    bytes: [u8; LINE],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let n = s.len().min(LINE - 1 - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        // Longer lines are cut.
        Ok(())
    }
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = timer::now_ns() / 1000;
        let mut line = Line { bytes: [0; LINE], len: 0 };
        let mark = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            _ => "",
        };
        let _ = write!(line, "[{:5}.{:06}] {mark}{}", now / 1_000_000, now % 1_000_000, record.args());
        line.bytes[line.len] = b'\n';
        append(&line.bytes[..=line.len]);
    }

    fn flush(&self) {
        drain();
    }
}

/// Installs the log. `level` is a name of the crate `log`, "info" by default.
pub fn init() {
    // It fails only if a logger is installed already.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Info);
}

/// Sets the level from the kernel argument `loglevel=`; false for an unknown name.
pub fn set_level(name: &str) -> bool {
    name.parse().map(log::set_max_level).is_ok()
}

fn append(text: &[u8]) {
    {
        let mut ring = RING.lock();
        for &b in text {
            let at = ring.end % SIZE;
            ring.bytes[at] = b;
            ring.end += 1;
        }
    }
    drain();
}

/// Copies new text to the serial port, in pieces, so that interrupts are not masked for long.
pub fn drain() {
    while serial::has_log() && !DRAINING.swap(true, Ordering::Acquire) {
        let mut piece = [0; 64];
        loop {
            let n = next_piece(&mut piece);
            if n == 0 {
                break;
            }
            serial::write_log(&piece[..n]);
        }
        DRAINING.store(false, Ordering::Release);
        // Text added between the last check and the release would wait for the next line.
        let ring = RING.lock();
        if ring.shown == ring.end {
            break;
        }
    }
}

fn next_piece(piece: &mut [u8]) -> usize {
    let mut ring = RING.lock();
    ring.shown = ring.shown.max(ring.end.saturating_sub(SIZE));
    let n = piece.len().min(ring.end - ring.shown);
    for (i, b) in piece[..n].iter_mut().enumerate() {
        *b = ring.bytes[(ring.shown + i) % SIZE];
    }
    ring.shown += n;
    n
}

/// Copies log text from position `from` on; returns the bytes copied and the position after them. Text that was
/// overwritten is skipped.
pub fn read(from: usize, to: &mut [u8]) -> (usize, usize) {
    let ring = RING.lock();
    let from = from.clamp(ring.end.saturating_sub(SIZE), ring.end);
    let n = to.len().min(ring.end - from);
    for (i, b) in to[..n].iter_mut().enumerate() {
        *b = ring.bytes[(from + i) % SIZE];
    }
    (n, from + n)
}

/// The position after the last byte.
pub fn end() -> usize {
    RING.lock().end
}

/// The position of the first byte that is kept.
pub fn start() -> usize {
    end().saturating_sub(SIZE)
}

/// Output of a panicking kernel: no lock, no ring.
pub struct Raw;

impl Write for Raw {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        cpu::irq_disable();
        serial::write_raw(s.as_bytes());
        Ok(())
    }
}
