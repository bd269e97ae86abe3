//! The terminal: the line discipline between the console's port and the programs that have it open.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_abi::layout::{Termios, Winsize, poll, tty};
use quire_mm::UserAddr;
use quire_mm::sync::Rank;

use super::line::{Echo, Event, Line};
use super::serial;
use crate::arch::uaccess;
use crate::ipc::source::Source;
use crate::task::mutex::{Mutex, MutexGuard};
use crate::task::point::resched_point;
use crate::task::signal::{self, Info};
use crate::task::table::TABLE;
use crate::task::wait::Sleep;
use crate::vm::{Cpu, SpinLock};

static LINE: SpinLock<Line> = SpinLock::new(Cpu, Rank::Terminal, Line::new());
static READERS: Source = Source::new();
static OUTPUT: Mutex = Mutex::new();

/// The process group that typed signals go to; 0 for none.
static FOREGROUND: AtomicU32 = AtomicU32::new(0);

/// Rows and columns of the screen, as [`size_word`] packs them. A port does not know them: 0 until a program sets them.
static SIZE: AtomicU64 = AtomicU64::new(0);

/// Processes typed bytes. Runs in the terminal's thread.
pub fn receive(bytes: &[u8]) {
    for &byte in bytes {
        let mut event = with_echo(|line, echo| line.input(byte, echo));
        while event == Event::More {
            event = with_echo(Line::go_on);
        }
        match event {
            Event::None | Event::More => {}
            Event::Readable => {
                READERS.wake(poll::IN | poll::RDNORM);
            }
            Event::Signal(number) => {
                let group = FOREGROUND.load(Ordering::Relaxed);
                if group != 0 {
                    signal::send_to_group(group, &Info::of_kernel(number));
                }
            }
        }
    }
}

/// Runs a step of the line discipline and sends its echo, after releasing the line's lock.
fn with_echo(step: impl FnOnce(&mut Line, &mut Echo) -> Event) -> Event {
    let mut echo = Echo::new();
    let event = step(&mut LINE.lock(), &mut echo);
    // All of it is sent: nothing interrupts the terminal's thread.
    send(echo.bytes());
    event
}

/// Reads; sleeps while there is nothing, unless `nonblocking`: EAGAIN.
pub fn read(to: &mut [u8], nonblocking: bool) -> Result<usize, Errno> {
    if to.is_empty() {
        return Ok(0);
    }
    if nonblocking {
        return LINE.lock().read(to).ok_or(Errno::EAGAIN);
    }
    READERS.sleepers.wait_until(Sleep::Interruptible, None, || LINE.lock().read(to))
}

/// The right to write: one call's output stays together.
pub struct Writer {
    _guard: MutexGuard<'static>,
}

/// Sleeps while another thread writes, unless `nonblocking`: EAGAIN.
pub fn writer(nonblocking: bool) -> Result<Writer, Errno> {
    let guard = if nonblocking { OUTPUT.try_lock()? } else { OUTPUT.lock(Sleep::Interruptible)? };
    Ok(Writer { _guard: guard })
}

impl Writer {
    /// Writes, with a carriage return before each line feed if the settings say so. Returns how many of `bytes` were
    /// sent before a signal came; EINTR if none.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let flags = LINE.lock().termios.oflag;
        let translates = flags & tty::OPOST != 0 && flags & tty::ONLCR != 0;
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let end_of_line = rest.iter().position(|&b| translates && b == b'\n').unwrap_or(rest.len());
            let (sent, wanted) = match end_of_line {
                0 => (send(b"\r\n") / 2, 1),
                length => (send(&rest[..length]), length),
            };
            done += sent;
            if sent < wanted {
                return if done == 0 { Err(Errno::EINTR) } else { Ok(done) };
            }
        }
        Ok(done)
    }
}

/// Sends bytes as fast as the port accepts them; returns how many were sent before the thread was killed, or got a
/// signal while the port was full.
fn send(bytes: &[u8]) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        let sent = serial::offer_console(&bytes[done..]);
        done += sent;
        let cut = if sent == 0 { Sleep::Interruptible } else { Sleep::Killable };
        if resched_point(cut).is_err() {
            break;
        }
    }
    done
}

/// The number of bytes that a read gets at once.
pub fn unread() -> usize {
    LINE.lock().unread()
}

/// The events for `poll`.
pub fn ready() -> u16 {
    let readable = if LINE.lock().is_readable() { poll::IN | poll::RDNORM } else { 0 };
    poll::OUT | poll::WRNORM | readable
}

/// Where threads wait for input.
pub fn source() -> &'static Source {
    &READERS
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
            if TABLE.lock().next_member(group, 0).is_none() {
                return Err(Errno::ESRCH);
            }
            FOREGROUND.store(group, Ordering::Relaxed);
        }
        tty::TIOCGWINSZ => uaccess::put(arg, &size_of(SIZE.load(Ordering::Relaxed)))?,
        tty::TIOCSWINSZ => {
            let new = size_word(uaccess::get(arg)?);
            let group = FOREGROUND.load(Ordering::Relaxed);
            if SIZE.swap(new, Ordering::Relaxed) != new && group != 0 {
                signal::send_to_group(group, &Info::of_kernel(sig::WINCH));
            }
        }
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}
