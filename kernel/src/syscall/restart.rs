//! Restarting calls that a signal interrupted (signal(7), and Linux's ERESTART codes).
//!
//! | call | a handler ran | no handler ran: a stop, or another thread took the signal |
//! | --- | --- | --- |
//! | `read`, `readv`, `pread64`, `write`, `writev`, `sendfile`, `splice`, `tee`, `vmsplice` | again with SA_RESTART, else EINTR | again |
//! | `wait4`, `waitid`, `openat`, `ioctl`, `fcntl`, `flock` | again with SA_RESTART, else EINTR | again |
//! | `accept`, `connect`, `send*`, `recv*` | again with SA_RESTART, else EINTR | again |
//! | the same of a socket with SO_RCVTIMEO or SO_SNDTIMEO | EINTR | EINTR |
//! | a message's call that nobody has received, a receive | again with SA_RESTART, else EINTR | again |
//! | `futex` WAIT, WAIT_BITSET without a time-out | again with SA_RESTART, else EINTR | again |
//! | `futex` WAIT, WAIT_BITSET with one | EINTR | goes on until the same point of time |
//! | `nanosleep`, `clock_nanosleep` for a span | EINTR, and what is left | goes on until the same point of time |
//! | `clock_nanosleep` until a time | EINTR | again |
//! | `rt_sigsuspend` | EINTR | again |
//! | `ppoll`, `pselect6` | EINTR | again, with what is left of its time |
//! | `rt_sigtimedwait` | EINTR | EINTR |
//!
//! A transfer that has moved some bytes returns their number and is not restarted. "Again" repeats the call with its
//! arguments; "goes on" makes the call [`restart_syscall`](call), which resumes from the state in
//! [`ThreadSignals::resume`](crate::task::signal::ThreadSignals). A handler discards that state.

use quire_abi::{Errno, nr};

use super::{Answer, futex, time};
use crate::arch::trap::{NO_SYSCALL, TrapFrame};
use crate::task::signal::{self, HandlerAction, Resume};
use crate::task::thread::current;

/// When an interrupted call is repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Never.
    No,
    /// If no handler ran.
    WithoutHandler,
    /// Also after a handler with SA_RESTART.
    ByFlag,
}

fn again(nr: usize) -> Again {
    match nr {
        nr::READ
        | nr::READV
        | nr::PREAD64
        | nr::WRITE
        | nr::WRITEV
        | nr::SENDFILE
        | nr::SPLICE
        | nr::TEE
        | nr::VMSPLICE => Again::ByFlag,
        nr::WAIT4 | nr::WAITID | nr::OPENAT | nr::IOCTL | nr::FCNTL | nr::FLOCK | nr::FUTEX => Again::ByFlag,
        nr::ACCEPT | nr::ACCEPT4 | nr::CONNECT | nr::SENDTO | nr::RECVFROM | nr::SENDMSG | nr::RECVMSG => Again::ByFlag,
        nr::RECVMMSG | nr::SENDMMSG => Again::ByFlag,
        nr::QUIRE_CALL | nr::QUIRE_RECEIVE => Again::ByFlag,
        nr::CLOCK_NANOSLEEP | nr::RT_SIGSUSPEND | nr::PPOLL | nr::PSELECT6 => Again::WithoutHandler,
        _ => Again::No,
    }
}

/// The call of the frame, if it was interrupted. Called once per call.
fn interrupted(frame: &mut TrapFrame) -> Option<usize> {
    let call = core::mem::replace(&mut frame.syscall, NO_SYSCALL);
    if call == NO_SYSCALL {
        return None;
    }
    if frame.x[0] as isize != Errno::EINTR.to_ret() {
        // For an interrupted transfer that has moved some bytes: how it would resume does not matter any more, nor to
        // the next call.
        current().signals.lock().resume = None;
        return None;
    }
    Some(call as usize)
}

/// Called before a handler runs: an interrupted call will be repeated after it, or has ended.
pub fn after_handler(frame: &mut TrapFrame, action: &HandlerAction) {
    let Some(call) = interrupted(frame) else { return };
    let goes_on = current().signals.lock().resume.take().is_some();
    if !goes_on && signal::restarts(action) && again(call) == Again::ByFlag {
        make_again(frame);
    }
}

/// Called if no handler ran: an interrupted call resumes.
pub fn without_handler(frame: &mut TrapFrame) {
    let Some(call) = interrupted(frame) else { return };
    let mut signals = current().signals.lock();
    match signals.resume {
        Some(Resume::Never) => signals.resume = None,
        Some(_) => {
            make_again(frame);
            frame.x[8] = nr::RESTART_SYSCALL as u64;
        }
        None if again(call) != Again::No => make_again(frame),
        None => {}
    }
}

/// Repeats the call at the SVC, which is the instruction before the saved pc.
fn make_again(frame: &mut TrapFrame) {
    const SVC: u64 = 4;
    frame.x[0] = frame.orig_x0;
    frame.pc = frame.pc.wrapping_sub(SVC);
}

/// `restart_syscall`; EINTR if there is nothing to resume.
pub fn call() -> Answer {
    let resume = current().signals.lock().resume.take();
    match resume {
        Some(Resume::Sleep { deadline, rest }) => time::sleep(deadline, rest),
        Some(Resume::Futex { word, expected, bits, until, private }) => {
            futex::wait(word, expected, bits, Some(until), private)
        }
        Some(Resume::Never) | None => Err(Errno::EINTR),
    }
}
