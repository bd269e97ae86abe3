//! The terminal.

use quire_abi::layout::{Termios, Winsize, tty};
use quire_abi::{Errno, nr};

use crate::sys;

/// The settings; ENOTTY if `fd` is not a terminal.
pub fn get(fd: i32) -> Result<Termios, Errno> {
    let mut termios = Termios::default();
    // SAFETY: the kernel writes one record.
    unsafe { sys::call(nr::IOCTL, [fd as usize, tty::TCGETS, &raw mut termios as usize]) }?;
    Ok(termios)
}

/// Changes the settings once all output has been written.
pub fn set(fd: i32, termios: &Termios) -> Result<(), Errno> {
    // SAFETY: the kernel reads one record.
    unsafe { sys::call(nr::IOCTL, [fd as usize, tty::TCSETSW, termios as *const Termios as usize]) }.map(drop)
}

/// Columns and rows, if the terminal knows them.
pub fn size(fd: i32) -> Option<(usize, usize)> {
    let mut size = Winsize::default();
    // SAFETY: the kernel writes one record.
    unsafe { sys::call(nr::IOCTL, [fd as usize, tty::TIOCGWINSZ, &raw mut size as usize]) }.ok()?;
    (size.cols > 0 && size.rows > 0).then_some((size.cols as usize, size.rows as usize))
}

/// Sets the terminal's size, which its programs can then query.
pub fn set_size(fd: i32, columns: usize, rows: usize) -> Result<(), Errno> {
    let (rows, cols) = (u16::try_from(rows).unwrap_or(u16::MAX), u16::try_from(columns).unwrap_or(u16::MAX));
    let size = Winsize { rows, cols, ..Winsize::default() };
    // SAFETY: the kernel reads one record.
    unsafe { sys::call(nr::IOCTL, [fd as usize, tty::TIOCSWINSZ, &raw const size as usize]) }.map(drop)
}

/// Makes the terminal the controlling one of this process's session, which has none yet.
pub fn make_controlling(fd: i32) -> Result<(), Errno> {
    const TIOCSCTTY: usize = 0x540e;
    sys::plain!(nr::IOCTL, fd, TIOCSCTTY, 0).map(drop)
}

/// Makes a group the foreground group, to which the terminal's keys send signals.
pub fn set_foreground(fd: i32, group: i32) -> Result<(), Errno> {
    // SAFETY: the kernel reads one word.
    unsafe { sys::call(nr::IOCTL, [fd as usize, tty::TIOCSPGRP, &raw const group as usize]) }.map(drop)
}

/// The foreground group, to which the terminal's keys send signals.
pub fn foreground(fd: i32) -> Result<i32, Errno> {
    let mut group = 0i32;
    // SAFETY: the kernel writes one word.
    unsafe { sys::call(nr::IOCTL, [fd as usize, tty::TIOCGPGRP, &raw mut group as usize]) }?;
    Ok(group)
}
