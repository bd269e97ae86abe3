//! Calls that the kernel makes in the name of the current thread, to servers that know what it does not ([`names`](crate::names)).
//!
//! They are calls as any other (`docs/messages.md`), but for three things: registers and windows are the kernel's memory, lent to
//! the call for as long as it lasts; a handle that the answer brings goes to the thread's inbox, where only the kernel looks, and not to the
//! process's table; and only a kill ends them. No lock is held.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::ipc::{Cargo, Window, options};
use quire_mm::fallible::KArc;

use super::handles::Handle;
use super::message::{self, Endpoint};
use crate::task::thread::current;
use crate::task::wait::Sleep;

/// An answer.
pub struct Answer {
    /// Its label.
    pub label: u64,
    /// Its words.
    pub words: [u64; 6],
    /// The handle that it brought.
    pub handle: Option<Handle>,
}

/// Calls an endpoint, with a window to be read and one to be written. EPIPE if the server is gone, EDEADLK if it is the caller, EINTR for a
/// caller that is killed.
pub fn ask(
    (endpoint, badge): (&KArc<Endpoint>, u64),
    label: u64,
    words: [u64; 6],
    text: &[u8],
    room: &mut [u8],
) -> Result<Answer, Errno> {
    let messaging = current().messaging()?;
    let window = |start: *const u8, len: usize, access| Window {
        start: start.expose_provenance() as u64,
        len: len as u64,
        access,
    };
    let windows =
        [window(text.as_ptr(), text.len(), Window::READ), window(room.as_mut_ptr(), room.len(), Window::WRITE)];
    messaging.record.load(Cargo { windows, ..Cargo::default() });
    let [a, b, c, d, e, f] = words;
    let mut registers = [0, label, a, b, c, d, e, f, 0, 0, options::WORDS | options::room(1)];
    messaging.is_asking.store(true, Ordering::Relaxed);
    // SAFETY: the registers are this function's, and so are the windows; the call has ended when this returns.
    let called = unsafe { message::call_by(endpoint, badge, &raw mut registers, Sleep::Killable, None) };
    messaging.is_asking.store(false, Ordering::Relaxed);
    if let Err(e) = called {
        messaging.record.unload();
        // (It may have been answered too late.)
        messaging.inbox.clear();
        return Err(e);
    }
    let [_, label, a, b, c, d, e, f, _, handle, _] = registers;
    let handle = match handle as u32 {
        0 => None,
        number => messaging.inbox.take(number).ok(),
    };
    Ok(Answer { label, words: [a, b, c, d, e, f], handle })
}
