//! Threads: each has its own stack with a guard page below it, and a control block at the thread pointer.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering};

use quire_abi::flags::{Clone, Prot};
use quire_abi::{Errno, PAGE_SIZE, nr};
use quire_malloc::ThreadBlock;

use crate::{arch, mem, sync, sys};

/// The size of a thread's stack in bytes, without the guard page.
const STACK: usize = 256 * 1024;

/// The block that the thread pointer points to.
#[repr(C)]
pub struct Control {
    /// The allocator's part.
    pub heap: ThreadBlock,
}

struct MainControl(core::cell::UnsafeCell<Control>);

// SAFETY: only the main thread's pointer points to this block.
unsafe impl Sync for MainControl {}

static MAIN: MainControl = MainControl(core::cell::UnsafeCell::new(Control { heap: ThreadBlock::new() }));

/// Gives the first thread its control block. The thread pointer must not be used before this.
pub(crate) fn init_main() {
    // SAFETY: this is the only thread, and the block lives as long as the process.
    unsafe { arch::set_thread_pointer(MAIN.0.get() as usize) };
}

/// This thread's control block. There must not be two references to it at once, so this returns a pointer.
pub fn control() -> *mut Control {
    arch::thread_pointer() as *mut Control
}

/// The record of a new thread, at the top of its stack.
#[repr(C, align(16))]
struct Start {
    control: Control,
    /// The thread's id while it lives; the kernel clears it and wakes the futex at exit.
    tid: AtomicU32,
    run: Option<Box<dyn FnOnce() + Send>>,
}

/// A running thread. Dropping it without [`Thread::join`] leaves its stack mapped.
pub struct Thread {
    start: *const Start,
    map: usize,
}

// SAFETY: the handle only reads the atomic `tid` of the shared record and unmaps the stack once the thread is gone.
unsafe impl Send for Thread {}

/// Starts a thread.
pub fn spawn(run: impl FnOnce() + Send + 'static) -> Result<Thread, Errno> {
    let map = mem::mmap_anonymous(PAGE_SIZE + STACK, Prot::READ | Prot::WRITE)?;
    // SAFETY: the lowest page of a fresh mapping that nothing uses yet.
    unsafe { mem::mprotect(map, PAGE_SIZE, Prot::empty()) }?;
    let start = (map + PAGE_SIZE + STACK - size_of::<Start>()) as *mut Start;
    // SAFETY: within the fresh mapping, aligned since its top is page-aligned and the size a multiple of 16.
    unsafe {
        start.write(Start {
            control: Control { heap: ThreadBlock::new() },
            tid: AtomicU32::new(u32::MAX),
            run: Some(Box::new(run)),
        })
    };
    let flags = Clone::VM
        | Clone::FS
        | Clone::FILES
        | Clone::SIGHAND
        | Clone::THREAD
        | Clone::SYSVSEM
        | Clone::SETTLS
        | Clone::PARENT_SETTID
        | Clone::CHILD_CLEARTID;
    // SAFETY: the stack grows down from `start`, which lives at its top; `enter` does not return; `tid` lives
    // until `join` unmaps the stack, which the kernel's clearing of `tid` precedes.
    let ret = unsafe {
        let tid = (*start).tid.as_ptr();
        arch::clone_thread(flags.bits() as usize, start as usize, tid, start as usize, tid, enter, start as usize)
    };
    if let Err(error) = Errno::from_ret(ret) {
        // SAFETY: the thread does not exist, so the record and the mapping belong to this function alone.
        unsafe {
            start.drop_in_place();
            let _ = mem::munmap(map, PAGE_SIZE + STACK);
        }
        return Err(error);
    }
    Ok(Thread { start, map })
}

extern "C" fn enter(start: usize) -> ! {
    let start = start as *mut Start;
    // SAFETY: the record that `spawn` wrote; `run` belongs to this thread alone.
    if let Some(run) = unsafe { (*start).run.take() } {
        run();
    }
    crate::heap::thread_exit();
    loop {
        let _ = sys::plain!(nr::EXIT, 0);
    }
}

impl Thread {
    /// The thread's id, 0 once it has ended.
    pub fn tid(&self) -> u32 {
        // SAFETY: the record lives until `join`.
        unsafe { (*self.start).tid.load(Ordering::Acquire) }
    }

    /// Waits for the thread to end and frees its stack.
    pub fn join(self) {
        loop {
            let tid = self.tid();
            if tid == 0 {
                break;
            }
            // SAFETY: the record lives until the mapping goes below. The kernel wakes without the private flag.
            let _ = sync::futex_wait_shared(unsafe { &(*self.start).tid }, tid, None);
        }
        // SAFETY: the thread is gone: the kernel cleared `tid` as its last access to this memory.
        unsafe {
            let _ = mem::munmap(self.map, PAGE_SIZE + STACK);
        }
    }
}
