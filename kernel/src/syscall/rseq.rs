//! Restartable sequences, and barriers of other threads.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::{membarrier as cmd, rseq as flag};
use quire_mm::machine::MAX_CPUS;

use super::{Answer, Args};
use crate::task::thread::current;
use crate::task::{membarrier, rseq};

pub fn rseq(a: Args) -> Answer {
    match a.uint(2) {
        0 => rseq::register(a.word(0), a.uint(1), a.uint(3)),
        flag::UNREGISTER => rseq::unregister(a.word(0), a.uint(1), a.uint(3)),
        _ => Err(Errno::EINVAL),
    }
    .map(|()| 0)
}

/// Commands that require a registration of the process, and the commands that register.
const REGISTERED: [(u32, u32); 3] = [
    (cmd::PRIVATE_EXPEDITED, cmd::REGISTER_PRIVATE_EXPEDITED),
    (cmd::PRIVATE_EXPEDITED_SYNC_CORE, cmd::REGISTER_PRIVATE_EXPEDITED_SYNC_CORE),
    (cmd::PRIVATE_EXPEDITED_RSEQ, cmd::REGISTER_PRIVATE_EXPEDITED_RSEQ),
];

const REGISTRATIONS: u32 = cmd::REGISTER_GLOBAL_EXPEDITED
    | cmd::REGISTER_PRIVATE_EXPEDITED
    | cmd::REGISTER_PRIVATE_EXPEDITED_SYNC_CORE
    | cmd::REGISTER_PRIVATE_EXPEDITED_RSEQ;

/// All commands are expedited, by interrupts, and affect all CPUs.
pub fn membarrier(a: Args) -> Answer {
    let (command, flags) = (a.uint(0), a.uint(1));
    let takes_cpu = command == cmd::PRIVATE_EXPEDITED_RSEQ && flags == cmd::FLAG_CPU;
    if flags != 0 && !takes_cpu {
        return Err(Errno::EINVAL);
    }
    let registered = &current().process().barriers;
    let now = registered.load(Ordering::Relaxed);
    match command {
        cmd::QUERY => {
            let private = cmd::PRIVATE_EXPEDITED | cmd::PRIVATE_EXPEDITED_SYNC_CORE | cmd::PRIVATE_EXPEDITED_RSEQ;
            return Ok(
                (cmd::GLOBAL | cmd::GLOBAL_EXPEDITED | private | REGISTRATIONS | cmd::GET_REGISTRATIONS) as usize
            );
        }
        cmd::GET_REGISTRATIONS => {
            // As on Linux, each private registration also counts as the plain one, but does not allow its command.
            let is_private = now & !cmd::REGISTER_GLOBAL_EXPEDITED != 0;
            return Ok((now | if is_private { cmd::REGISTER_PRIVATE_EXPEDITED } else { 0 }) as usize);
        }
        cmd::GLOBAL | cmd::GLOBAL_EXPEDITED => membarrier::everywhere(None, false),
        _ if command.is_power_of_two() && command & REGISTRATIONS != 0 => {
            registered.fetch_or(command, Ordering::Relaxed);
        }
        _ => {
            let (_, needed) = REGISTERED.iter().find(|(known, _)| *known == command).ok_or(Errno::EINVAL)?;
            if now & needed == 0 {
                return Err(Errno::EPERM);
            }
            let only = usize::try_from(a.int(2)).ok().filter(|_| takes_cpu);
            if !takes_cpu || only.is_some_and(|only| only < MAX_CPUS) {
                membarrier::everywhere(only, command == cmd::PRIVATE_EXPEDITED_RSEQ);
            }
        }
    }
    Ok(0)
}
