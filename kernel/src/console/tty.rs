//! The terminal: the line discipline between the console's port and the programs that have it open.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_abi::layout::{Termios, Winsize, poll, tty};
use quire_mm::UserAddr;
use quire_mm::sync::Rank;

use super::line::{Event, Line};
use super::serial;
use crate::arch::uaccess;
use crate::ipc;
use crate::task::process::TABLE;
use crate::task::signal;
use crate::task::wait::{Sleep, WaitQueue};
use crate::vm::{Cpu, SpinLock};

static LINE: SpinLock<Line> = SpinLock::new(Cpu, Rank::Terminal, Line::new());
static READERS: WaitQueue = WaitQueue::new();

/// The process group that typed signals go to; 0 for none.
static FOREGROUND: AtomicU32 = AtomicU32::new(0);

/// Rows and columns of the screen, as [`size_word`] packs them. A port does not know them: 0 until somebody tells.
static SIZE: AtomicU64 = AtomicU64::new(0);

/// Takes what came over the line. In the port's interrupt.
pub fn receive(bytes: &[u8]) {
    for &byte in bytes {
        let event = LINE.lock().input(byte, &mut serial::write_console);
        match event {
            Event::None => {}
            Event::Readable => {
                READERS.wake_all();
                ipc::poll::notify();
            }
            Event::Signal(number) => {
                let group = FOREGROUND.load(Ordering::Relaxed);
                if group != 0 {
                    signal::send_to_group(&TABLE.lock(), group, number);
                }
            }
        }
    }
}

/// Reads; sleeps while there is nothing, unless `nonblocking`: EAGAIN.
pub fn read(to: &mut [u8], nonblocking: bool) -> Result<usize, Errno> {
    if to.is_empty() {
        return Ok(0);
    }
    if nonblocking {
        return LINE.lock().read(to).ok_or(Errno::EAGAIN);
    }
    READERS.wait_until(Sleep::Interruptible, None, || LINE.lock().read(to))
}

/// Writes all bytes, each line's end with a carriage return before it where the settings say so.
pub fn write(bytes: &[u8]) -> usize {
    let flags = LINE.lock().termios.oflag;
    if flags & tty::OPOST != 0 && flags & tty::ONLCR != 0 {
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            match piece.split_last() {
                Some((b'\n', text)) => {
                    serial::write_console(text);
                    serial::write_console(b"\r\n");
                }
                _ => serial::write_console(piece),
            }
        }
    } else {
        serial::write_console(bytes);
    }
    bytes.len()
}

/// What `poll` would say.
pub fn ready() -> u16 {
    poll::OUT | if LINE.lock().is_readable() { poll::IN } else { 0 }
}

fn size_word(size: Winsize) -> u64 {
    let fields = [size.rows, size.cols, size.xpixel, size.ypixel];
    fields.iter().rev().fold(0, |word, &field| word << 16 | u64::from(field))
}

fn size_of(word: u64) -> Winsize {
    let field = |n: u32| (word >> (16 * n)) as u16;
    Winsize { rows: field(0), cols: field(1), xpixel: field(2), ypixel: field(3) }
}

/// The requests of ioctl_tty(2) that Quire has; ENOTTY for others.
pub fn ioctl(request: usize, arg: UserAddr) -> Result<usize, Errno> {
    match request {
        tty::TCGETS => {
            let termios = LINE.lock().termios;
            uaccess::put(arg, &termios)?;
        }
        tty::TCSETS | tty::TCSETSW | tty::TCSETSF => {
            let termios: Termios = uaccess::get(arg)?;
            let mut line = LINE.lock();
            line.termios = termios;
            if request == tty::TCSETSF {
                line.discard_input();
            }
        }
        tty::TIOCGPGRP => uaccess::put(arg, &FOREGROUND.load(Ordering::Relaxed))?,
        tty::TIOCSPGRP => {
            let group: u32 = uaccess::get(arg)?;
            let table = TABLE.lock();
            if !table.processes().any(|p| table.family(p).pgid == group) {
                return Err(Errno::ESRCH);
            }
            FOREGROUND.store(group, Ordering::Relaxed);
        }
        tty::TIOCGWINSZ => uaccess::put(arg, &size_of(SIZE.load(Ordering::Relaxed)))?,
        tty::TIOCSWINSZ => {
            let new = size_word(uaccess::get(arg)?);
            let group = FOREGROUND.load(Ordering::Relaxed);
            if SIZE.swap(new, Ordering::Relaxed) != new && group != 0 {
                signal::send_to_group(&TABLE.lock(), group, sig::WINCH);
            }
        }
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}
