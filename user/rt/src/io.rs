//! Bytes in and out. Standard output is buffered by line, standard error not at all. If a program's standard output
//! cannot be written, the program ends with status 1.

use core::fmt::{self, Write};

use quire_abi::layout::{PollFd, poll};
use quire_abi::{Errno, nr};

use crate::sync::Mutex;
use crate::sys;

/// Reads once; 0 bytes means the end.
pub fn read(fd: i32, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes only within the buffer, which is borrowed mutably.
    unsafe { sys::call(nr::READ, [fd as usize, buffer.as_mut_ptr() as usize, buffer.len()]) }
}

/// Writes once, perhaps not all.
pub fn write(fd: i32, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel reads only within the slice.
    unsafe { sys::call(nr::WRITE, [fd as usize, bytes.as_ptr() as usize, bytes.len()]) }
}

/// Writes everything, again after interruptions.
pub fn write_all(fd: i32, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Closes a descriptor.
pub fn close(fd: i32) -> Result<(), Errno> {
    sys::plain!(nr::CLOSE, fd).map(drop)
}

/// A pipe: its reading and its writing end. `flags` are those of [`quire_abi::flags::Open`].
pub fn pipe(flags: u32) -> Result<(i32, i32), Errno> {
    let mut ends = [0i32; 2];
    // SAFETY: the kernel writes two integers, for which there is room.
    unsafe { sys::call(nr::PIPE2, [ends.as_mut_ptr() as usize, flags as usize]) }?;
    Ok((ends[0], ends[1]))
}

/// Another descriptor, the lowest free one, for the same open object.
pub fn dup(fd: i32) -> Result<i32, Errno> {
    sys::plain!(nr::DUP, fd).map(|fd| fd as i32)
}

/// Makes `new` a descriptor for the open object of `old`.
pub fn dup3(old: i32, new: i32, flags: u32) -> Result<i32, Errno> {
    sys::plain!(nr::DUP3, old, new, flags).map(|fd| fd as i32)
}

/// Waits until `fd` can be read; `false` if that takes longer than `milliseconds`.
pub fn wait_readable(fd: i32, milliseconds: u64) -> Result<bool, Errno> {
    let mut watched = [PollFd { fd, events: poll::IN, revents: 0 }];
    let time = crate::time::timespec(milliseconds * 1_000_000);
    // SAFETY: one record is watched, and the kernel writes to that alone.
    let ready = unsafe { sys::call(nr::PPOLL, [watched.as_mut_ptr() as usize, 1, &raw const time as usize, 0, 0]) }?;
    Ok(ready > 0)
}

/// Standard output's buffer.
struct Buffer {
    len: usize,
    bytes: [u8; 2048],
}

static OUT: Mutex<Buffer> = Mutex::new(Buffer { len: 0, bytes: [0; 2048] });

impl Buffer {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.len == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.len] = byte;
            self.len += 1;
        }
    }

    fn flush(&mut self) {
        let len = core::mem::take(&mut self.len);
        if let Err(error) = write_all(1, &self.bytes[..len]) {
            eprint(format_args!("standard output: {error}\n"));
            crate::process::exit_now(1);
        }
    }

    fn end_of_print(&mut self) {
        if self.bytes[..self.len].ends_with(b"\n") {
            self.flush();
        }
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Behind `print!`.
pub fn print(args: fmt::Arguments<'_>) {
    let mut out = OUT.lock();
    // The buffer itself never fails; if a `Display` fails, the text before that was printed.
    let _ = out.write_fmt(args);
    out.end_of_print();
}

/// Prints bytes that need not be UTF-8.
pub fn print_bytes(bytes: &[u8]) {
    let mut out = OUT.lock();
    out.push(bytes);
    out.end_of_print();
}

/// Writes what standard output's buffer still holds.
pub fn flush() {
    OUT.lock().flush();
}

/// Behind `eprint!`: gathers a short message, so that it arrives in one piece.
pub fn eprint(args: fmt::Arguments<'_>) {
    struct Message {
        len: usize,
        bytes: [u8; 256],
    }
    impl Message {
        fn send(&mut self) {
            // There is nowhere to report that standard error cannot be written.
            let _ = write_all(2, &self.bytes[..self.len]);
            self.len = 0;
        }
    }
    impl Write for Message {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for &byte in text.as_bytes() {
                if self.len == self.bytes.len() {
                    self.send();
                }
                self.bytes[self.len] = byte;
                self.len += 1;
            }
            Ok(())
        }
    }
    let mut message = Message { len: 0, bytes: [0; 256] };
    // As in `print`.
    let _ = message.write_fmt(args);
    message.send();
}

/// Prints to standard output.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::io::print(core::format_args!($($arg)*)) };
}

/// Prints a line to standard output.
#[macro_export]
macro_rules! println {
    () => { $crate::io::print(core::format_args!("\n")) };
    ($($arg:tt)*) => { $crate::io::print(core::format_args!("{}\n", core::format_args!($($arg)*))) };
}

/// Prints to standard error.
#[macro_export]
macro_rules! eprint {
    ($($arg:tt)*) => { $crate::io::eprint(core::format_args!($($arg)*)) };
}

/// Prints a line to standard error.
#[macro_export]
macro_rules! eprintln {
    ($($arg:tt)*) => { $crate::io::eprint(core::format_args!("{}\n", core::format_args!($($arg)*))) };
}
