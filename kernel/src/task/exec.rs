//! exec: a new program in an old process.
//!
//! Everything that can fail is done first, while the old program still exists: the image ([`image`]), the stack
//! ([`super::startup`]), and the process's own tables of descriptors and signal actions. Then the other threads end,
//! and from there on nothing can fail.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::layout::rlimit;
use quire_mm::fallible::KArc;

use super::credentials::Credentials;
use super::entity::work;
use super::exit::clear_number;
use super::process::{FIRST_LIMITS, Process, TABLE};
use super::program::Program;
use super::signal::AltStack;
use super::startup::{self, Start, Strings};
use super::thread::current;
use super::wait::Sleep;
use super::{image, membership, percpu, posix_timer, robust, signal};
use crate::arch::trap::{NO_SYSCALL, PSTATE_USER, TrapFrame};
use crate::arch::{cpu, regs};
use crate::ipc::handles::Handles;
use crate::task::space::{Loaded, Space};

/// Replaces the calling process's program. On success `frame` is the new program's first.
pub fn exec(program: &Program, path: &[u8], args: &Strings, env: &Strings, frame: &mut TrapFrame) -> Result<(), Errno> {
    let process = current().process();
    // (As on Linux, which does not refuse the change of users itself.)
    if process.has_too_many.swap(false, Ordering::Relaxed) && membership::has_too_many(process) {
        return Err(Errno::EAGAIN);
    }
    let stack_limit = process.limit(rlimit::STACK);
    let credentials = process.credentials.lock().clone();
    let (space, image) = image::load(program, stack_limit)?;
    let descriptors = process.descriptors()?.copy_for_program()?;
    let start = Start { limit: stack_limit, path, args, env, credentials: &credentials };
    let (layout, sigreturn) = startup::fill_stack(&space.mm, &image, &start, &process.handles)?;
    let sp = layout.stack;
    space.mm.refuse_huge_pages(current().mm().is_some_and(|mm| mm.refuses_huge_pages()));
    space.note_loaded(Loaded { file: program.to_open(), layout, sigreturn });
    let actions = process.actions.lock().clone();
    let actions = actions.copy_for_exec()?;
    end_other_threads(process)?;

    // Nothing can fail from here on.
    robust::release(current());
    posix_timer::delete_all(process);
    if is_space_shared(process) {
        clear_number(current());
    }
    take_process_number(process);
    process.has_execed.store(true, Ordering::Relaxed);
    let old_descriptors = process.set_descriptors(Some(descriptors));
    let old_actions = core::mem::replace(&mut *process.actions.lock(), actions);
    process.credentials.lock().for_program();
    process.set_name(path);
    switch_space(process, space);
    drop(old_descriptors);
    drop(old_actions);
    drop(current().take_reply());
    process.handles.for_program();
    let thread = current();
    thread.drop_fp();
    regs::set_tls(0);
    thread.clear_child_tid.store(0, Ordering::Relaxed);
    thread.rseq.forget();
    process.barriers.store(0, Ordering::Relaxed);
    process.is_dumpable.store(credentials.is_plain(), Ordering::Relaxed);
    thread.unknown_call.store(usize::MAX, Ordering::Relaxed);
    {
        let mut signals = thread.signals.lock();
        signals.alt_stack = AltStack::default();
        signals.restore = None;
        signals.resume = None;
    }
    *frame = TrapFrame { pc: image.start as u64, sp, pstate: PSTATE_USER, syscall: NO_SYSCALL, ..TrapFrame::default() };
    // All registers are new (see `syscall::enter`).
    thread.set_work(work::SIGNAL);
    Ok(())
}

/// The first program: as [`exec`], for a process under construction. Returns its space and first frame.
pub fn first(path: &[u8], handles: &Handles) -> Result<(KArc<Space>, TrapFrame), Errno> {
    let program = Program::find(path)?;
    let stack_limit = FIRST_LIMITS[rlimit::STACK].cur;
    let (space, image) = image::load(&program, stack_limit)?;
    let mut args = Strings::default();
    args.push(path)?;
    let mut env = Strings::default();
    env.push(b"PATH=/bin:/tests")?;
    env.push(b"HOME=/")?;
    env.push(b"TERM=vt100")?;
    let credentials = Credentials::default();
    let start = Start { limit: stack_limit, path, args: &args, env: &env, credentials: &credentials };
    let (layout, sigreturn) = startup::fill_stack(&space.mm, &image, &start, handles)?;
    let sp = layout.stack;
    space.note_loaded(Loaded { file: program.to_open(), layout, sigreturn });
    let frame =
        TrapFrame { pc: image.start as u64, sp, pstate: PSTATE_USER, syscall: NO_SYSCALL, ..Default::default() };
    Ok((space, frame))
}

/// Ends the process's other threads and waits until they have left. EINTR if one of them called exec first, or the
/// process ends.
fn end_other_threads(process: &Process) -> Result<(), Errno> {
    let me = current();
    process.stop_wait.wait_until(Sleep::Killable, None, || {
        let table = TABLE.lock();
        // Repeated in each round: a thread may have made another before it noticed its end.
        let doomed = signal::doom_others(&table, process, me);
        (doomed.is_err() || table.family(process).thread_count == 1).then_some(doomed)
    })?
}

/// The thread that called exec becomes the process's first and only one, and takes its number.
fn take_process_number(process: &Process) {
    let thread = current();
    let former = {
        let mut table = TABLE.lock();
        // (The others are gone.)
        process.survivor.store(0, Ordering::Release);
        let own = thread.tid();
        thread.take_number_of(process);
        table.reset_exit_signal(process);
        if own == process.pid { None } else { table.remove(own) }
    };
    drop(former);
}

/// Whether another process uses the memory too, which is then not about to vanish.
fn is_space_shared(process: &Process) -> bool {
    process.space.lock().as_ref().is_some_and(|space| KArc::count(space) > 1)
}

/// Switches to the new space.
fn switch_space(process: &Process, space: KArc<Space>) {
    let thread = current();
    let mm = KArc::clone(&space.mm);
    let old = process.space.lock().replace(space);
    let old_mm = {
        let irq = cpu::irq_save();
        let old_mm = thread.set_mm(Some(mm.clone()));
        super::active::activate(percpu::this(), &mm);
        cpu::irq_restore(irq);
        old_mm
    };
    drop(old_mm);
    drop(old);
    process.mm_released.store(true, Ordering::Release);
    process.stop_wait.wake_all();
}
