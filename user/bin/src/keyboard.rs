//! The terminal's keys one by one, as they are pressed.
//!
//! While a [`Keyboard`] is there, the terminal neither edits nor echoes lines. It is as it was found when the keyboard is
//! dropped, and when a signal from the terminal or from another program ends this one. Ctrl-C is still such a signal.

use alloc::boxed::Box;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use quire_rt::abi::flags::sig;
use quire_rt::abi::layout::{Termios, tty as bits};
use quire_rt::signal::Info;
use quire_rt::{Errno, io, process, signal, tty};

/// Signals that end a program that does not expect them.
const ENDINGS: [u32; 4] = [sig::HUP, sig::INT, sig::QUIT, sig::TERM];

/// `handler` of a signal that is ignored.
const IGNORED: u64 = 1;

/// The settings of the terminal as they were found, for as long as they are changed: null, or a leaked box.
static FOUND: AtomicPtr<Termios> = AtomicPtr::new(ptr::null_mut());

/// Standard input, if it is a terminal whose keys are for this program.
pub struct Keyboard(());

impl Keyboard {
    /// `None` if there is no terminal, or if it is another program's now.
    pub fn open() -> Option<Keyboard> {
        let found = tty::get(0).ok()?;
        // A terminal that tells no group has one program.
        if tty::foreground(0).is_ok_and(|group| process::getpgid(0) != Ok(group)) {
            return None;
        }
        let mut each = found;
        each.lflag &= !(bits::ICANON | bits::ECHO);
        each.cc[bits::VMIN] = 1;
        each.cc[bits::VTIME] = 0;
        FOUND.store(Box::leak(Box::new(found)), Ordering::Release);
        for ending in ENDINGS {
            let before = signal::handle(ending, end, 0, signal::set(&ENDINGS));
            if before.is_ok_and(|before| before.handler == IGNORED) {
                let _ = signal::ignore(ending);
            }
        }
        let keyboard = Keyboard(());
        tty::set(0, &each).ok()?;
        Some(keyboard)
    }

    /// The next key, if one is pressed in so many milliseconds; an error at the end of input. A key's further bytes, and
    /// further keys, stay for whoever reads next.
    pub fn key(&self, milliseconds: u64) -> Result<Option<u8>, Errno> {
        match io::wait_readable(0, milliseconds) {
            Ok(true) => {}
            Ok(false) | Err(Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut key = [0];
        match io::read(0, &mut key) {
            Ok(1) => Ok(Some(key[0])),
            Ok(_) => Err(Errno::EIO),
            Err(Errno::EINTR) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        restore();
        // Not before: a signal that comes meanwhile ends the program, and must put the terminal back itself.
        FOUND.store(ptr::null_mut(), Ordering::Release);
    }
}

/// Puts the terminal back.
fn restore() {
    // SAFETY: it is null or points at a leaked box, which nobody writes to.
    if let Some(found) = unsafe { FOUND.load(Ordering::Acquire).as_ref() } {
        let _ = tty::set(0, found);
    }
}

/// Puts the terminal back and lets the signal do what it does without a handler, when this one has returned.
extern "C" fn end(signal: i32, _: *const Info, _: *mut u8) {
    restore();
    let _ = signal::default(signal as u32);
    let _ = process::kill(process::getpid(), signal as u32);
}
