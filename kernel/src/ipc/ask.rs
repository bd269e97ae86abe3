//! Calls that the kernel makes in the name of the current thread, to servers that know what it does not
//! ([`names`](crate::names)).
//!
//! They are calls as any other (`docs/messages.md`), but for three things: registers and windows are the kernel's
//! memory, lent to the call for as long as it lasts; of a handle that the answer names the kernel gets the object, and
//! the server keeps the handle; and only a kill ends them. No lock is held.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::ipc::{AttachedHandle, Attachments, HANDLES, Window, options};
use quire_ipc::Caller;
use quire_mm::addr::{PAGE_SIZE, Pfn};
use quire_mm::fallible::{KArc, try_zeroed};
use quire_mm::machine::Machine as _;

use super::attachments;
use super::handles::{Handle, Handles};
use super::message::{self, Endpoint};
use crate::task::thread::current;
use crate::task::wait::Sleep;
use crate::vm::Cpu;

/// The longest text that a server answers.
pub const ROOM: usize = 4096;

/// A thread's part in this.
pub struct Asking {
    /// The kernel calls in its name.
    is_under_way: AtomicBool,
    /// What was lent with the answer. It belongs to the thread while that runs, and to the server that answers while it
    /// waits.
    lent: UnsafeCell<Option<Handle>>,
    /// The room of its last call, kept for the next one: what a server does not write is the thread's own text.
    room: UnsafeCell<Vec<u8>>,
}

// SAFETY: the cells are accessed by the thread itself when it does not wait, and otherwise only by one that is at work
// on it (`Reply::with_caller`, `Reply::answer_with`), of which there is one at a time.
unsafe impl Sync for Asking {}

impl Asking {
    /// Of a thread in whose name nothing was asked yet.
    pub const fn new() -> Self {
        Self { is_under_way: AtomicBool::new(false), lent: UnsafeCell::new(None), room: UnsafeCell::new(Vec::new()) }
    }

    /// Gives the thread, which waits, the object of the only handle of an answer, with its rights. EBADF, EPERM.
    pub fn lend(&self, from: &Handles, attached: &[AttachedHandle; HANDLES]) -> Result<(), Errno> {
        let [AttachedHandle { number, rights }, ..] = *attached;
        let handle = from.with(number, |handle| handle.copy(rights))?;
        // SAFETY: the caller is at work on the thread.
        let former = unsafe { (*self.lent.get()).replace(handle) };
        debug_assert!(former.is_none(), "a call is answered once");
        Ok(())
    }

    /// # Safety
    /// The thread is current.
    unsafe fn take(&self) -> Option<Handle> {
        // SAFETY: the caller's promise.
        unsafe { (*self.lent.get()).take() }
    }
}

/// If the kernel calls in the caller's name, that thread's part.
pub fn of<'a>(caller: &'a Caller<'_, Cpu>) -> Option<&'a Asking> {
    // (A caller that waits does not change it.)
    let messaging = attachments::thread(caller).former_messaging()?;
    messaging.asking.is_under_way.load(Ordering::Relaxed).then_some(&messaging.asking)
}

/// An answer.
pub struct Answer {
    /// Its label.
    pub label: u64,
    /// Its words.
    pub words: [u64; 6],
    /// The object that it lent.
    pub handle: Option<Handle>,
}

/// Room for a text of up to [`ROOM`] bytes, which the thread keeps for its next call.
pub struct Room(Vec<u8>);

impl Room {
    /// The current thread's. ENOMEM.
    pub fn take() -> Result<Self, Errno> {
        let asking = &current().messaging()?.asking;
        // SAFETY: the thread is current, and the reference is gone at the end of this line.
        let room = unsafe { core::mem::take(&mut *asking.room.get()) };
        if room.len() == ROOM { Ok(Self(room)) } else { Ok(Self(try_zeroed(ROOM)?)) }
    }
}

impl Deref for Room {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(messaging) = current().former_messaging() {
            let room = core::mem::take(&mut self.0);
            // SAFETY: as in `take`.
            let former = unsafe { core::mem::replace(&mut *messaging.asking.room.get(), room) };
            drop(former);
        }
    }
}

/// Frames of user memory that stand for one run of bytes, which begins at `skip` in the first: a window of the
/// kernel's.
pub struct Run<'a> {
    /// The frames; the caller keeps them for as long as the call lasts.
    pub frames: &'a [Pfn],
    /// Bytes of the first that come before.
    pub skip: usize,
}

/// In a window's access, beside what a program may say: it starts at a [`Run`].
pub const RUN: u64 = 1 << 63;

impl Run<'_> {
    /// The kernel's address of a byte of a window.
    ///
    /// # Safety
    /// The window is of this kind, and its caller waits.
    pub unsafe fn byte(start: usize, offset: usize) -> Option<*mut u8> {
        // SAFETY: the caller's promise.
        let run = unsafe { &*core::ptr::with_exposed_provenance::<Run<'_>>(start) };
        let at = run.skip + offset;
        let frame = run.frames.get(at / PAGE_SIZE)?;
        Some(Cpu.direct_map(frame.addr() + at % PAGE_SIZE))
    }

    /// Which byte of its page a byte of a window is.
    ///
    /// # Safety
    /// As for [`Run::byte`].
    pub unsafe fn place(start: usize, offset: usize) -> usize {
        // SAFETY: the caller's promise.
        let run = unsafe { &*core::ptr::with_exposed_provenance::<Run<'_>>(start) };
        (run.skip + offset) % PAGE_SIZE
    }
}

/// As [`ask`], with `len` bytes of frames as the window to be read, or to be written.
pub fn ask_about_frames(
    server: (&KArc<Endpoint>, u64),
    label: u64,
    words: [u64; 6],
    run: &Run<'_>,
    len: usize,
    write: bool,
) -> Result<Answer, Errno> {
    let nothing = Window { start: 0, len: 0, access: 0 };
    let access = RUN | if write { Window::WRITE } else { Window::READ };
    let frames = Window { start: core::ptr::from_ref(run).expose_provenance() as u64, len: len as u64, access };
    // SAFETY: the run and its frames are lent to this function.
    unsafe { ask_with(server, label, words, if write { [nothing, frames] } else { [frames, nothing] }) }
}

/// Calls an endpoint, with a window to be read and one to be written. EPIPE if the server is gone, EDEADLK if it is the
/// caller, EINTR for a caller that is killed.
pub fn ask(
    (endpoint, badge): (&KArc<Endpoint>, u64),
    label: u64,
    words: [u64; 6],
    text: &[u8],
    room: &mut [u8],
) -> Result<Answer, Errno> {
    let window = |start: *const u8, len: usize, access| Window {
        start: start.expose_provenance() as u64,
        len: len as u64,
        access,
    };
    let windows =
        [window(text.as_ptr(), text.len(), Window::READ), window(room.as_mut_ptr(), room.len(), Window::WRITE)];
    // SAFETY: both are lent to this function.
    unsafe { ask_with((endpoint, badge), label, words, windows) }
}

/// Calls an endpoint with windows of the kernel's memory.
///
/// # Safety
/// They are valid until this returns.
unsafe fn ask_with(
    (endpoint, badge): (&KArc<Endpoint>, u64),
    label: u64,
    words: [u64; 6],
    windows: [Window; 2],
) -> Result<Answer, Errno> {
    let messaging = current().messaging()?;
    messaging.record.load(Attachments { windows, ..Attachments::default() });
    let [a, b, c, d, e, f] = words;
    let mut registers = [0, label, a, b, c, d, e, f, 0, 0, options::WORDS | options::room(1)];
    messaging.asking.is_under_way.store(true, Ordering::Relaxed);
    // SAFETY: the registers are this function's, and so are the windows; the call has ended when this returns.
    let called = unsafe { message::call_by(endpoint, badge, &raw mut registers, Sleep::Killable, None) };
    messaging.asking.is_under_way.store(false, Ordering::Relaxed);
    // SAFETY: the thread is current, and no call of its is under way. (An answer may have come too late.)
    let handle = unsafe { messaging.asking.take() };
    if let Err(e) = called {
        messaging.record.unload();
        return Err(e);
    }
    let [_, label, a, b, c, d, e, f, ..] = registers;
    Ok(Answer { label, words: [a, b, c, d, e, f], handle })
}
