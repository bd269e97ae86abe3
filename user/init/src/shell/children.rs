//! The shell's children: those it waits for, those in the background, and orphans that no one asked about.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use quire_rt::Errno;
use quire_rt::abi::layout::{Rusage, Timeval};
use quire_rt::process::{self, Status};

/// How a pipeline's processes ended.
pub struct Outcome {
    /// One status per process, in order.
    pub statuses: Vec<Status>,
    /// User and system time of all, in microseconds.
    pub user: u64,
    /// As `user`.
    pub system: u64,
}

/// Background processes; `None` while they run.
#[derive(Default)]
pub struct Children {
    background: BTreeMap<i32, Option<Status>>,
}

fn microseconds(time: Timeval) -> u64 {
    time.sec as u64 * 1_000_000 + time.usec as u64
}

impl Children {
    /// Takes note of a process that nobody waits for yet.
    pub fn add_background(&mut self, pid: i32) {
        self.background.insert(pid, None);
    }

    /// Waits for all of `pids`. Other children that end meanwhile are noted if they are known, else forgotten.
    pub fn wait_for(&mut self, pids: &[i32]) -> Outcome {
        let mut ended: Vec<Option<Status>> = pids.iter().map(|pid| self.background.remove(pid).flatten()).collect();
        let (mut user, mut system) = (0, 0);
        while ended.contains(&None) {
            match process::wait4(-1, 0) {
                Ok(Some(changed)) => match pids.iter().position(|pid| *pid == changed.pid) {
                    Some(at) => {
                        let Rusage { utime, stime, .. } = changed.usage;
                        user += microseconds(utime);
                        system += microseconds(stime);
                        ended[at] = Some(changed.status);
                    }
                    None => self.note(changed.pid, changed.status),
                },
                Ok(None) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        // A process that cannot be waited for is not a child of the shell: status 127, as POSIX says.
        let statuses = ended.into_iter().map(|status| status.unwrap_or(Status::Exited(127))).collect();
        Outcome { statuses, user, system }
    }

    /// Waits for one background process and returns its status, 127 if there is no such child.
    pub fn wait_for_background(&mut self, pid: i32) -> i32 {
        if !self.background.contains_key(&pid) {
            return 127;
        }
        self.wait_for(&[pid]).statuses[0].code()
    }

    /// The background processes that still run.
    pub fn running(&self) -> Vec<i32> {
        self.background.iter().filter(|(_, status)| status.is_none()).map(|(pid, _)| *pid).collect()
    }

    /// Records and returns the children that have ended, without waiting.
    pub fn reap(&mut self) -> Vec<(i32, Status)> {
        while let Some(changed) = process::reap() {
            self.note(changed.pid, changed.status);
        }
        let ended = self.background.iter().filter_map(|(pid, status)| Some((*pid, (*status)?))).collect();
        self.background.retain(|_, status| status.is_none());
        ended
    }

    fn note(&mut self, pid: i32, status: Status) {
        if let Some(noted) = self.background.get_mut(&pid) {
            *noted = Some(status);
        }
    }
}
