//! Restartable sequences: a program's record of the CPU that it runs on, and critical sections that are aborted when they are
//! interrupted (rseq(2), and Linux's `kernel/rseq.c`).
//!
//! A thread that has registered a record finds a [`work`] bit set when it may have left its CPU, or a
//! signal is to be delivered, since it was last in its program. Then, before it returns there, the record is written and an
//! interrupted section is left. Others pay for a look at a switch to another CPU and at a served fault.
//!
//! A fault that was served counts as a preemption: the thread may have slept.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use quire_abi::Errno;
use quire_abi::flags::{rseq, sig};
use quire_abi::layout::{Rseq, RseqSection};
use quire_mm::UserAddr;
use quire_mm::addr::USER_END;

use super::entity::{Entity, work};
use super::percpu;
use super::signal::{self, Info};
use super::thread::{self, Thread, current};
use crate::arch::trap::TrapFrame;
use crate::arch::uaccess;

/// What a thread has registered.
pub struct Registration {
    /// The record; 0 for none.
    at: AtomicUsize,
    len: AtomicU32,
    /// The word before each place where an aborted section continues.
    signature: AtomicU32,
}

impl Registration {
    /// None.
    pub const fn new() -> Self {
        Self { at: AtomicUsize::new(0), len: AtomicU32::new(0), signature: AtomicU32::new(0) }
    }

    /// Whether there is one.
    #[inline]
    pub fn is_there(&self) -> bool {
        self.at.load(Ordering::Relaxed) != 0
    }

    fn get(&self) -> (usize, u32, u32) {
        let at = self.at.load(Ordering::Relaxed);
        (at, self.len.load(Ordering::Relaxed), self.signature.load(Ordering::Relaxed))
    }

    fn set(&self, (at, len, signature): (usize, u32, u32)) {
        self.at.store(at, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.signature.store(signature, Ordering::Relaxed);
    }

    /// exec: there is none.
    pub fn forget(&self) {
        self.set((0, 0, 0));
    }

    /// fork: a child with memory of its own has its parent's.
    pub fn inherit(&self, parent: &Self) {
        self.set(parent.get());
    }
}

#[unsafe(no_mangle)]
fn thread_has_moved(entity: &Entity) {
    note(thread::of(entity));
}

/// A thread may have left its CPU, or a section is to be aborted.
#[inline]
pub fn note(thread: &Thread) {
    if thread.rseq.is_there() {
        thread.set_work(work::RSEQ);
    }
}

/// Registers the calling thread's record. EBUSY for the one that is registered, EINVAL for another, EPERM for another signature.
pub fn register(at: usize, len: u32, signature: u32) -> Result<(), Errno> {
    let thread = current();
    let (former, former_len, former_signature) = thread.rseq.get();
    if former != 0 {
        return Err(match () {
            () if former != at || former_len != len => Errno::EINVAL,
            () if former_signature != signature => Errno::EPERM,
            () => Errno::EBUSY,
        });
    }
    if len < rseq::SIZE || !at.is_multiple_of(rseq::ALIGNMENT) {
        return Err(Errno::EINVAL);
    }
    uaccess::check(UserAddr::new(at), len as usize)?;
    thread.rseq.set((at, len, signature));
    note(thread);
    Ok(())
}

/// Undoes that. The record then says that the CPU is not known.
pub fn unregister(at: usize, len: u32, signature: u32) -> Result<(), Errno> {
    let thread = current();
    let (former, former_len, former_signature) = thread.rseq.get();
    if former != at || former == 0 || former_len != len {
        return Err(Errno::EINVAL);
    }
    if former_signature != signature {
        return Err(Errno::EPERM);
    }
    put_cpu(UserAddr::new(at), 0, rseq::CPU_UNINITIALIZED, 0)?;
    thread.rseq.forget();
    Ok(())
}

fn put_cpu(at: UserAddr, start: u32, cpu: u32, node: u32) -> Result<(), Errno> {
    uaccess::put_all(at, &[start, cpu])?;
    // The number among a process's running threads is the CPU's.
    uaccess::put_all(at + core::mem::offset_of!(Rseq, node), &[node, start])
}

/// The thread returns to its program: an interrupted section is left, and the record says where the thread runs. A record that is
/// no longer there, or says what it may not, is a fault of the program.
pub fn resume(frame: &mut TrapFrame) {
    let at = current().rseq.at.load(Ordering::Relaxed);
    if at == 0 {
        return;
    }
    let here = percpu::this();
    // If the thread moves meanwhile, there is work again.
    let (cpu, node) = (here.id() as u32, here.node.load(Ordering::Relaxed));
    if leave_section(frame).and_then(|()| put_cpu(UserAddr::new(at), cpu, cpu, node)).is_err() {
        refuse();
    }
}

/// A handler is about to run: an interrupted section is left before that.
pub fn before_handler(frame: &mut TrapFrame) {
    if current().rseq.is_there() && leave_section(frame).is_err() {
        refuse();
    }
}

/// SIGSEGV, whose handler would find the record as wrong as it is.
fn refuse() {
    let thread = current();
    thread.rseq.forget();
    signal::reset_action(thread.process(), sig::SEGV);
    signal::force(thread, Info::of_kernel(sig::SEGV));
}

/// If the program is in the section that its record names, it continues where that says. The name is taken back.
fn leave_section(frame: &mut TrapFrame) -> Result<(), Errno> {
    let (at, _, signature) = current().rseq.get();
    let name = UserAddr::new(at) + core::mem::offset_of!(Rseq, section);
    let section: u64 = uaccess::get(name)?;
    if section == 0 {
        return Ok(());
    }
    let section: RseqSection = uaccess::get(UserAddr::new(section as usize))?;
    let RseqSection { version, flags, start, len, abort } = section;
    let is_below = |addr: u64| addr < USER_END as u64;
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    if version != 0 || !is_below(start) || !is_below(end) || !is_below(abort) || abort.wrapping_sub(start) < len {
        return Err(Errno::EINVAL);
    }
    let before: u32 =
        uaccess::get(UserAddr::new((abort as usize).checked_sub(size_of::<u32>()).ok_or(Errno::EINVAL)?))?;
    if before != signature {
        return Err(Errno::EINVAL);
    }
    let is_within = frame.pc.wrapping_sub(start) < len;
    if is_within {
        let record_flags: u32 = uaccess::get(UserAddr::new(at) + core::mem::offset_of!(Rseq, flags))?;
        if flags != 0 || record_flags != 0 {
            return Err(Errno::EINVAL);
        }
    }
    uaccess::put(name, &0u64)?;
    if is_within {
        frame.pc = abort;
    }
    Ok(())
}
