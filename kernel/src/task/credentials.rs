//! Who a process is: Linux's user and group numbers, and what they allow.
//!
//! All threads of a process are the same user, as POSIX wants it; Linux keeps the numbers by thread, and its C libraries
//! make the call in each. There are no capabilities: effective user 0 may what root may, and nobody else may.
//!
//! This is for Linux's own calls alone. Quire's own calls ask for a [handle](crate::ipc::handle::Handle) instead, whoever
//! the caller is.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_mm::fallible::KArc;

use super::process::{Process, Table};
use super::thread::current;

/// Leaves a number as it is, in the calls that set several.
pub const KEEP: u32 = u32::MAX;

/// Most supplementary groups (`NGROUPS_MAX`).
pub const MAX_GROUPS: usize = 65536;

/// The numbers of one kind, of a user or of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Who started the process.
    pub real: u32,
    /// Who it acts as.
    pub effective: u32,
    /// Who it may act as again.
    pub saved: u32,
    /// Who it is to files.
    pub files: u32,
}

impl Ids {
    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    fn may_signal(&self, to: &Self) -> bool {
        [self.real, self.effective].iter().any(|id| *id == to.real || *id == to.saved)
    }

    /// setuid and setgid. EINVAL for what is no number, EPERM for one that is not the process's.
    pub fn set(&mut self, id: u32, is_privileged: bool) -> Result<(), Errno> {
        if id == KEEP {
            return Err(Errno::EINVAL);
        }
        if is_privileged {
            (self.real, self.saved) = (id, id);
        } else if id != self.real && id != self.saved {
            return Err(Errno::EPERM);
        }
        (self.effective, self.files) = (id, id);
        Ok(())
    }

    /// setreuid and setregid.
    pub fn set_two(&mut self, real: u32, effective: u32, is_privileged: bool) -> Result<(), Errno> {
        let may_real = real == KEEP || real == self.real || real == self.effective;
        let may_effective = effective == KEEP || self.has(effective);
        if !(is_privileged || may_real && may_effective) {
            return Err(Errno::EPERM);
        }
        let old = *self;
        change(&mut self.real, real);
        change(&mut self.effective, effective);
        if real != KEEP || effective != KEEP && effective != old.real {
            self.saved = self.effective;
        }
        self.files = self.effective;
        Ok(())
    }

    /// setresuid and setresgid.
    pub fn set_three(&mut self, ids: [u32; 3], is_privileged: bool) -> Result<(), Errno> {
        if !is_privileged && !ids.iter().all(|id| *id == KEEP || self.has(*id)) {
            return Err(Errno::EPERM);
        }
        change(&mut self.real, ids[0]);
        change(&mut self.effective, ids[1]);
        change(&mut self.saved, ids[2]);
        self.files = self.effective;
        Ok(())
    }

    /// setfsuid and setfsgid, which say nothing of failure. Answers what it was.
    pub fn set_files(&mut self, id: u32, is_privileged: bool) -> u32 {
        let old = self.files;
        if id != KEEP && (is_privileged || id == old || self.has(id)) {
            self.files = id;
        }
        old
    }
}

fn change(to: &mut u32, id: u32) {
    if id != KEEP {
        *to = id;
    }
}

/// Who a process is.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The user.
    pub user: Ids,
    /// The group.
    pub group: Ids,
    /// Further groups; `None` for none.
    pub groups: Option<KArc<Vec<u32>>>,
}

impl Credentials {
    /// Whether the process may what root may.
    pub fn is_privileged(&self) -> bool {
        self.user.effective == 0
    }

    /// What exec makes of them: the saved numbers are the effective ones.
    pub fn for_program(&mut self) {
        for ids in [&mut self.user, &mut self.group] {
            (ids.saved, ids.files) = (ids.effective, ids.effective);
        }
    }

    fn may_inspect(&self, other: &Self) -> bool {
        let same = |mine: u32, ids: &Ids| [ids.real, ids.effective, ids.saved].iter().all(|id| *id == mine);
        self.is_privileged() || same(self.user.real, &other.user) && same(self.group.real, &other.group)
    }
}

/// What of Linux's calls is for root alone, beside what [`Credentials`] say of single arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// reboot.
    Reboot,
    /// A hard limit goes up (setrlimit, prlimit).
    RaiseLimit,
    /// setgroups.
    SetGroups,
}

/// EPERM unless `process` may do it. This is the one table: a line for each, with who may.
pub fn require(process: &Process, privilege: Privilege) -> Result<(), Errno> {
    let credentials = process.credentials.lock();
    let may = match privilege {
        Privilege::Reboot | Privilege::RaiseLimit | Privilege::SetGroups => credentials.is_privileged(),
    };
    if may { Ok(()) } else { Err(Errno::EPERM) }
}

/// EPERM unless the caller may look into a process and set its limits (prlimit(2), and Linux's `ptrace_may_access`): it is
/// root, or all of the process's users and groups are the caller's real ones.
pub fn permit_inspection(of: &Process) -> Result<(), Errno> {
    let me: &Process = current().process();
    if core::ptr::eq(me, of) {
        return Ok(());
    }
    // One after the other: they are of one rank.
    let mine = me.credentials.lock().clone();
    if mine.may_inspect(&of.credentials.lock()) { Ok(()) } else { Err(Errno::EPERM) }
}

/// EPERM unless the caller may say how a process is scheduled: it is root, or acts as the process's real or effective
/// user (sched_setaffinity(2)).
pub fn permit_scheduling(of: &Process) -> Result<(), Errno> {
    let me: &Process = current().process();
    let user = me.credentials.lock().user.effective;
    let target = of.credentials.lock().user;
    if user == 0 || user == target.real || user == target.effective { Ok(()) } else { Err(Errno::EPERM) }
}

/// EPERM unless the caller may send a process this signal, by kill(2)'s rule: it is root, or its real or effective user is
/// the real or saved one there; SIGCONT it may send within its session, too.
pub fn permit_signal(table: &Table, to: &Process, signal: u32) -> Result<(), Errno> {
    let me: &Process = current().process();
    let is_same_session = || table.family(me).sid == table.family(to).sid;
    if core::ptr::eq(me, to) || signal == sig::CONT && is_same_session() {
        return Ok(());
    }
    // One after the other: they are of one rank.
    let (user, is_privileged) = {
        let mine = me.credentials.lock();
        (mine.user, mine.is_privileged())
    };
    let target = to.credentials.lock().user;
    if is_privileged || user.may_signal(&target) { Ok(()) } else { Err(Errno::EPERM) }
}
