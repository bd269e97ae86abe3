//! The line discipline: processing of typed bytes (termios(3), canonical and raw mode).
//!
//! It is independent of devices and programs: bytes in, bytes and [`Event`]s out.

use quire_abi::flags::sig;
use quire_abi::layout::{Termios, tty};

/// The maximum length of a line, and the maximum number of bytes that wait to be read; further ones are dropped.
const SIZE: usize = 1024;

/// The effect of a typed byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// No effect on readers.
    None,
    /// There is something to read.
    Readable,
    /// A signal for the foreground group.
    Signal(u32),
    /// There is more to do for this byte: [`Line::go_on`].
    More,
}

/// The echo of one step: bounded, like the step.
pub struct Echo {
    bytes: [u8; Echo::SIZE],
    len: usize,
}

impl Echo {
    /// The longest is a piece of a line that is erased.
    const SIZE: usize = ERASED_AT_ONCE * 6 + 2;

    /// Nothing.
    pub fn new() -> Self {
        Self { bytes: [0; Self::SIZE], len: 0 }
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, text: &[u8]) {
        let n = text.len().min(Self::SIZE - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&text[..n]);
        self.len += n;
    }
}

/// Characters that one step erases: the lock masks interrupts.
const ERASED_AT_ONCE: usize = 32;

/// Settings, the line being typed, and what is ready to be read.
pub struct Line {
    /// Settings.
    pub termios: Termios,
    ready: [u8; SIZE],
    /// Bytes of `ready` that can be read.
    ready_len: usize,
    typed: [u8; SIZE],
    typed_len: usize,
    /// Ctrl-D on an empty line: the next read returns 0.
    at_end: bool,
    /// The line is being erased.
    is_erasing: bool,
}

const CONTROL: u8 = 0x1f;

impl Line {
    /// Canonical, with echo, as a login terminal begins.
    pub const fn new() -> Self {
        let mut cc = [0; 19];
        cc[tty::VINTR] = b'C' & CONTROL;
        cc[tty::VQUIT] = b'\\' & CONTROL;
        cc[tty::VERASE] = 0x7f;
        cc[tty::VKILL] = b'U' & CONTROL;
        cc[tty::VEOF] = b'D' & CONTROL;
        cc[tty::VMIN] = 1;
        let termios = Termios {
            iflag: tty::ICRNL,
            oflag: tty::OPOST | tty::ONLCR,
            // B115200, CS8, CREAD.
            cflag: 0o010002 | 0o60 | 0o200,
            lflag: tty::ISIG | tty::ICANON | tty::ECHO | tty::ECHOE | tty::ECHOK | tty::ECHOCTL | tty::ECHOKE,
            line: 0,
            cc,
        };
        Self {
            termios,
            ready: [0; SIZE],
            ready_len: 0,
            typed: [0; SIZE],
            typed_len: 0,
            at_end: false,
            is_erasing: false,
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.termios.lflag & flag != 0
    }

    /// Processes a typed byte; `echo` receives its echo.
    pub fn input(&mut self, byte: u8, echo: &mut Echo) -> Event {
        let byte = if byte == b'\r' && self.termios.iflag & tty::ICRNL != 0 { b'\n' } else { byte };
        let cc = self.termios.cc;
        if self.has(tty::ISIG) && byte != 0 {
            let signal = match byte {
                b if b == cc[tty::VINTR] => sig::INT,
                b if b == cc[tty::VQUIT] => sig::QUIT,
                _ => 0,
            };
            if signal != 0 {
                self.show(byte, echo);
                self.typed_len = 0;
                self.ready_len = 0;
                return Event::Signal(signal);
            }
        }
        if !self.has(tty::ICANON) {
            self.show(byte, echo);
            return self.commit(&[byte]);
        }
        match byte {
            b if b == cc[tty::VERASE] || b == 0x08 => self.erase_character(echo),
            b if b == cc[tty::VKILL] => {
                self.is_erasing = true;
                return self.go_on(echo);
            }
            b if b == cc[tty::VEOF] => {
                self.at_end = self.typed_len == 0;
                return self.finish_line();
            }
            b'\n' => {
                self.push(b'\n');
                if self.has(tty::ECHO) {
                    echo.push(b"\r\n");
                }
                return self.finish_line();
            }
            b if self.push(b) => self.show(b, echo),
            _ => {}
        }
        Event::None
    }

    /// Adds to the line; the last place is kept for its end.
    fn push(&mut self, byte: u8) -> bool {
        let room = if byte == b'\n' { SIZE } else { SIZE - 1 };
        let fits = self.typed_len < room;
        if fits {
            self.typed[self.typed_len] = byte;
            self.typed_len += 1;
        }
        fits
    }

    /// Continues with a byte that takes several steps.
    pub fn go_on(&mut self, echo: &mut Echo) -> Event {
        for _ in 0..ERASED_AT_ONCE {
            self.erase_byte(echo);
        }
        self.is_erasing &= self.typed_len > 0;
        if self.is_erasing { Event::More } else { Event::None }
    }

    /// Erases the last character, with all of its bytes.
    fn erase_character(&mut self, echo: &mut Echo) {
        // The longest in UTF-8.
        for _ in 0..4 {
            if !self.erase_byte(echo) {
                break;
            }
        }
    }

    /// Erases the last byte; returns whether it was a continuation byte.
    fn erase_byte(&mut self, echo: &mut Echo) -> bool {
        let Some(last) = self.typed_len.checked_sub(1) else { return false };
        self.typed_len = last;
        let gone = self.typed[last];
        let is_continuation = gone & 0xc0 == 0x80;
        if self.has(tty::ECHO) && !is_continuation {
            let width = if gone < 0x20 { 2 } else { 1 };
            (0..width).for_each(|_| echo.push(b"\x08 \x08"));
        }
        is_continuation
    }

    fn show(&self, byte: u8, echo: &mut Echo) {
        if !self.has(tty::ECHO) {
            return;
        }
        match byte {
            b'\n' => echo.push(b"\r\n"),
            b'\t' => echo.push(b"\t"),
            0..0x20 if self.has(tty::ECHOCTL) => echo.push(&[b'^', byte | 0x40]),
            _ => echo.push(&[byte]),
        }
    }

    fn finish_line(&mut self) -> Event {
        let line = self.typed;
        let n = core::mem::take(&mut self.typed_len);
        self.commit(&line[..n])
    }

    fn commit(&mut self, bytes: &[u8]) -> Event {
        let n = bytes.len().min(SIZE - self.ready_len);
        self.ready[self.ready_len..self.ready_len + n].copy_from_slice(&bytes[..n]);
        self.ready_len += n;
        Event::Readable
    }

    /// Reads the bytes that are ready: at most a line in canonical mode. `None` if there is nothing yet; 0 bytes at the
    /// end of input, or in raw mode with VMIN 0.
    pub fn read(&mut self, to: &mut [u8]) -> Option<usize> {
        if self.ready_len == 0 {
            let polls = !self.has(tty::ICANON) && self.termios.cc[tty::VMIN] == 0;
            return (core::mem::take(&mut self.at_end) || polls).then_some(0);
        }
        let mut n = to.len().min(self.ready_len);
        if self.has(tty::ICANON)
            && let Some(end) = self.ready[..n].iter().position(|&b| b == b'\n')
        {
            n = end + 1;
        }
        to[..n].copy_from_slice(&self.ready[..n]);
        self.ready.copy_within(n..self.ready_len, 0);
        self.ready_len -= n;
        Some(n)
    }

    /// The number of bytes that are ready.
    pub fn unread(&self) -> usize {
        self.ready_len
    }

    /// Whether a read would return at once.
    pub fn is_readable(&self) -> bool {
        self.ready_len > 0 || self.at_end
    }

    /// Discards input that was not read.
    pub fn discard_input(&mut self) {
        self.typed_len = 0;
        self.ready_len = 0;
        self.at_end = false;
    }
}
