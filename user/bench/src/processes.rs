//! Rows about processes: fork by what is resident, exec, and the copies that are made afterwards.

use quire_rt::abi::flags::{Clone, sig};
use quire_rt::abi::{PAGE_SIZE, nr};
use quire_rt::{Errno, arch, io};

use crate::measure::{MIB, Outcome, PAGE, Pages, Sheet, area, call, time, unmap, write_pages};
use crate::{Row, own_path, row};

pub const ROWS: &[Row] = &[
    row("fork.exit.0", |sheet| forks(sheet, 0, Pages::Base, 200)),
    row("fork.exit.1M", |sheet| forks(sheet, MIB, Pages::Base, 200)),
    row("fork.exit.64M", |sheet| forks(sheet, 64 * MIB, Pages::Base, 10)),
    row("fork.exit_huge.64M", |sheet| forks(sheet, 64 * MIB, Pages::Default, 10)),
    row("fork.vfork", |sheet| children(sheet, 100, || vfork(leave))),
    row("fork.exec", |sheet| children(sheet, 100, || fork(|| become_noop(0)))),
    row("fork.vfork_exec", |sheet| children(sheet, 100, || vfork(become_noop))),
    row("cow.write.16M", |sheet| copies(sheet, Pages::Base, "cow.reuse.16M")),
    row("cow.write_huge.16M", |sheet| copies(sheet, Pages::Default, "cow.reuse_huge.16M")),
];

/// Forks a child that runs a function. Bypasses the run-time library, which would do work of its own.
#[inline(always)]
fn fork(child: impl FnOnce()) -> Outcome<usize> {
    let pid = call(nr::CLONE, [sig::CHLD as usize, 0, 0, 0, 0])?;
    if pid == 0 {
        child();
        leave(0);
    }
    Ok(pid)
}

/// Makes a child that has its own stack in this address space; this program waits until it ends or calls exec.
fn vfork(child: extern "C" fn(usize) -> !) -> Outcome<usize> {
    #[repr(C, align(16))]
    struct Stack([u8; 4 * PAGE_SIZE]);
    static mut STACK: Stack = Stack([0; 4 * PAGE_SIZE]);
    let flags = (Clone::VM | Clone::VFORK).bits() as usize | sig::CHLD as usize;
    let nowhere = core::ptr::null_mut();
    // SAFETY: one child at a time uses the stack, which is 16-byte aligned; neither function passed here returns, and
    // these flags store no number anywhere.
    let answer = unsafe {
        let top = (&raw mut STACK).add(1) as usize;
        arch::clone_thread(flags, top, nowhere, 0, nowhere, child, 0)
    };
    Errno::from_ret(answer)
}

extern "C" fn leave(status: usize) -> ! {
    loop {
        let _ = call(nr::EXIT_GROUP, [status]);
    }
}

/// Executes this same program with the argument that makes it do nothing.
extern "C" fn become_noop(_: usize) -> ! {
    let args = [c"bench".as_ptr() as usize, c"noop".as_ptr() as usize, 0];
    let _ = call(nr::EXECVE, [own_path(), args.as_ptr() as usize, args[2..].as_ptr() as usize]);
    leave(127)
}

/// Waits for a child, which must exit with status 0.
#[inline(always)]
fn wait(pid: usize) -> Outcome {
    let mut status = 0u32;
    loop {
        match call(nr::WAIT4, [pid, &raw mut status as usize, 0, 0]) {
            Err(Errno::EINTR) => {}
            Ok(_) if status != 0 => return Err(Errno::ECHILD),
            other => return other.map(drop),
        }
    }
}

/// Makes children that end, one after the other.
fn children(sheet: &Sheet, times: usize, make: impl Fn() -> Outcome<usize>) -> Outcome {
    let one = || make().and_then(wait);
    (0..2).try_for_each(|_| one())?;
    let ticks = time(|| (0..times).try_for_each(|_| one()))?;
    sheet.write("", times, ticks);
    Ok(())
}

/// fork, exit and wait, with `resident` bytes more in memory.
fn forks(sheet: &Sheet, resident: usize, pages: Pages, times: usize) -> Outcome {
    let at = if resident != 0 { area(resident, pages)? } else { 0 };
    write_pages(at, resident);
    children(sheet, times, || fork(|| {}))?;
    if resident != 0 { unmap(at, resident) } else { Ok(()) }
}

/// After a fork the child writes to all pages, which copies them; then, alone again, the parent does.
fn copies(sheet: &Sheet, pages: Pages, reuse: &str) -> Outcome {
    const LEN: usize = 16 * MIB;
    let write = |at| {
        time(|| {
            write_pages(at, LEN);
            Ok(())
        })
    };
    let at = area(LEN, pages)?;
    write_pages(at, LEN);
    let child = fork(|| {
        let ticks = write(at).unwrap_or(0);
        sheet.write("", LEN / PAGE, ticks);
        io::flush();
    })?;
    wait(child)?;
    let ticks = write(at)?;
    sheet.write_as(reuse, "", LEN / PAGE, ticks);
    unmap(at, LEN)
}
