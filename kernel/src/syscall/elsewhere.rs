//! The memory of other processes: process_vm_readv, process_vm_writev, process_madvise.

use quire_abi::Errno;
use quire_mm::fallible::KArc;

use super::buffers::{Buffers, with_vector};
use super::{Answer, Args, memory, pidfd};
use crate::task::credentials::{Privilege, permit_takeover, require};
use crate::task::point::resched_point;
use crate::task::process::{Process, TABLE};
use crate::task::space::{Space, visit};
use crate::task::thread::current;
use crate::task::wait::Sleep;

/// The address space of a process. ESRCH if the process no longer has memory, EPERM if the caller may not act through
/// it.
fn space_of(process: &Process) -> Result<KArc<Space>, Errno> {
    permit_takeover(process)?;
    process.space.lock().clone().ok_or(Errno::ESRCH)
}

pub fn process_vm(a: Args, writes: bool) -> Answer {
    if a.word(5) != 0 {
        return Err(Errno::EINVAL);
    }
    with_vector(a.addr(1), a.word(2), |local| {
        with_vector(a.addr(3), a.word(4), |remote| {
            if local.left() == 0 || remote.left() == 0 {
                return Ok(0);
            }
            let process = TABLE.lock().owner(a.uint(0)).cloned().ok_or(Errno::ESRCH)?;
            copy(&space_of(&process)?, local, remote, writes)
        })
    })
}

/// Copies in pieces; bytes that were copied before an error count.
fn copy(space: &KArc<Space>, local: &mut Buffers<'_>, remote: &mut Buffers<'_>, writes: bool) -> Answer {
    let mut bytes = [0u8; 1024];
    let mut done = 0;
    while local.left() > 0 && remote.left() > 0 {
        let most = bytes.len().min(local.left()).min(remote.left());
        let copied = if writes {
            local.take(&mut bytes[..most]).and_then(|n| visit(space, || remote.put(&bytes[..n])))
        } else {
            visit(space, || remote.take(&mut bytes[..most])).and_then(|n| local.put(&bytes[..n]))
        };
        match copied {
            Ok(n) => done += n,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        if copied != Ok(most) || resched_point(Sleep::Killable).is_err() {
            break;
        }
    }
    Ok(done)
}

/// As on Linux: only advice that changes nothing that the process could see, and the caller needs a privilege in
/// addition to the right to inspect the process.
pub fn process_madvise(a: Args) -> Answer {
    const WILLNEED: i32 = 3;
    const COLD: i32 = 20;
    const PAGEOUT: i32 = 21;
    const COLLAPSE: i32 = 25;
    if a.word(4) != 0 {
        return Err(Errno::EINVAL);
    }
    with_vector(a.addr(1), a.word(2), |parts| {
        let (process, _) = pidfd::named(a.int(0))?;
        if !matches!(a.int(3), WILLNEED | COLD | PAGEOUT | COLLAPSE) {
            return Err(Errno::EINVAL);
        }
        let space = space_of(&process)?;
        if !KArc::ptr_eq(&process, current().process()) {
            require(current().process(), Privilege::Advise)?;
        }
        let mut done = 0;
        while parts.left() > 0 {
            let (start, len) = parts.next_part();
            match visit(&space, || memory::advise(start.get(), len, a.int(3))) {
                Ok(_) => done += len,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    })
}
