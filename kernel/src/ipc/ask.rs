//! Calls that the kernel makes on behalf of the current thread, to servers that have information it lacks
//! ([`names`](crate::names)).
//!
//! They are calls like any other (`docs/messages.md`), with three exceptions: registers and windows are memory of the
//! kernel, lent to the call for its duration; if the answer names a handle, the kernel gets its object, and the server
//! keeps the handle; and only a kill ends them. No lock is held.

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

/// The maximum length of a text in a server's answer.
pub const ROOM: usize = 4096;

/// A thread's part in this.
pub struct Asking {
    /// Whether the kernel makes a call on the thread's behalf.
    is_under_way: AtomicBool,
    /// The handle that was lent with the answer. It belongs to the thread while that runs, and to the answering server
    /// while the thread waits.
    lent: UnsafeCell<Option<Handle>>,
    /// The buffer of its last call, kept for the next one: bytes that a server does not write are the thread's own
    /// text.
    room: UnsafeCell<Vec<u8>>,
}

// SAFETY: the cells are accessed by the thread itself when it does not wait, and otherwise only by a thread that works
// on it (`Reply::with_caller`, `Reply::answer_with`), of which there is one at a time.
unsafe impl Sync for Asking {}

impl Asking {
    /// For a thread on whose behalf nothing was asked yet.
    pub const fn new() -> Self {
        Self { is_under_way: AtomicBool::new(false), lent: UnsafeCell::new(None), room: UnsafeCell::new(Vec::new()) }
    }

    /// Gives the thread, which waits, the object and the rights of the only handle of an answer. EBADF, EPERM.
    pub fn lend(&self, from: &Handles, attached: &[AttachedHandle; HANDLES]) -> Result<(), Errno> {
        let [AttachedHandle { number, rights }, ..] = *attached;
        let handle = from.with(number, |handle| handle.copy(rights))?;
        // SAFETY: this function's caller works on the thread.
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

/// The state of the calling thread, if the kernel makes the call on its behalf.
pub fn of<'a>(caller: &'a Caller<'_, Cpu>) -> Option<&'a Asking> {
    // (A caller that waits does not change this.)
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

/// A buffer for a text of up to [`ROOM`] bytes, which the thread keeps for its next call.
pub struct Room(Vec<u8>);

impl Room {
    /// The current thread's. ENOMEM.
    pub fn take() -> Result<Self, Errno> {
        let asking = &current().messaging()?.asking;
        // SAFETY: the thread is current, and the reference ends on this line.
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

/// Frames of user memory that form one run of bytes, which begins at offset `skip` of the first frame: a window of the
/// kernel's own calls.
pub struct Run<'a> {
    /// The frames; the caller keeps them for the duration of the call.
    pub frames: &'a [Pfn],
    /// The number of bytes of the first frame before the run.
    pub skip: usize,
}

/// A bit in a window's access, which a program may not set: the window's start is the address of a [`Run`].
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

    /// The offset in its page of a byte of a window.
    ///
    /// # Safety
    /// As for [`Run::byte`].
    pub unsafe fn place(start: usize, offset: usize) -> usize {
        // SAFETY: the caller's promise.
        let run = unsafe { &*core::ptr::with_exposed_provenance::<Run<'_>>(start) };
        (run.skip + offset) % PAGE_SIZE
    }
}

/// As [`ask`], with `len` bytes of frames as the readable or the writable window.
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

/// Calls an endpoint, with a readable and a writable window. EPIPE if the server is gone, EDEADLK if the server is the
/// calling process, EINTR if the caller is killed.
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
    // SAFETY: both windows are lent to this function.
    unsafe { ask_with((endpoint, badge), label, words, windows) }
}

/// Calls an endpoint with windows in the kernel's memory.
///
/// # Safety
/// The windows are valid until this returns.
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
    // SAFETY: the registers are this function's own; the windows are valid by the caller's promise; the call has ended
    // when this returns.
    let called = unsafe { message::call_by(endpoint, badge, &raw mut registers, Sleep::Killable, None) };
    messaging.asking.is_under_way.store(false, Ordering::Relaxed);
    // SAFETY: the thread is current, and none of its calls is under way. (The answer may have come too late.)
    let handle = unsafe { messaging.asking.take() };
    if let Err(e) = called {
        messaging.record.unload();
        return Err(e);
    }
    let [_, label, a, b, c, d, e, f, ..] = registers;
    Ok(Answer { label, words: [a, b, c, d, e, f], handle })
}
