//! Credentials: Linux's user and group ids, and what they allow.
//!
//! All threads of a process have the same ids, as POSIX requires; Linux keeps them per thread, and its C libraries make
//! the call in each. There are no capabilities: effective user 0 has root's privileges, and no other user has any of
//! them.
//!
//! This applies to Linux's calls only. Quire's own calls require a [handle](crate::ipc::handles::Handle) instead,
//! whatever the user.

use core::sync::atomic::Ordering;

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_mm::fallible::KArc;

use super::process::{Process, Table};
use super::thread::current;

/// Leaves an id unchanged, in the calls that set several.
pub const KEEP: u32 = u32::MAX;

/// Most supplementary groups (`NGROUPS_MAX`).
pub const MAX_GROUPS: usize = 65536;

/// The ids of one kind, user or group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// The user who started the process.
    pub real: u32,
    /// The user whose rights it has.
    pub effective: u32,
    /// The user whose rights it may take again.
    pub saved: u32,
    /// The user for file access.
    pub files: u32,
}

impl Ids {
    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    fn may_signal(&self, to: &Self) -> bool {
        [self.real, self.effective].iter().any(|id| *id == to.real || *id == to.saved)
    }

    /// setuid and setgid. EINVAL for an invalid id, EPERM for one that the process may not take.
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

    /// setfsuid and setfsgid, which do not report failure. Returns the old id.
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

/// The credentials of a process.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The user.
    pub user: Ids,
    /// The group.
    pub group: Ids,
    /// Further groups, in order; `None` for none.
    pub groups: Option<KArc<Vec<u32>>>,
}

impl Credentials {
    /// Whether the process has root's privileges.
    pub fn is_privileged(&self) -> bool {
        self.user.effective == 0
    }

    /// Whether a group is among those for access to files.
    pub fn is_in(&self, group: u32) -> bool {
        let others = self.groups.as_ref().map_or(&[][..], |groups| groups);
        self.group.files == group || others.binary_search(&group).is_ok()
    }

    /// exec: the effective ids become the saved ones.
    pub fn for_program(&mut self) {
        for ids in [&mut self.user, &mut self.group] {
            (ids.saved, ids.files) = (ids.effective, ids.effective);
        }
    }

    /// Whether it acts with the rights of those who started it.
    pub fn is_plain(&self) -> bool {
        [self.user, self.group].iter().all(|ids| ids.real == ids.effective)
    }

    fn may_inspect(&self, other: &Self) -> bool {
        self.is_privileged() || other.is_all_of(self.user.real, self.group.real)
    }

    /// Whether all of its ids, but those for access to files, are these.
    fn is_all_of(&self, user: u32, group: u32) -> bool {
        let same = |ids: &Ids, id: u32| [ids.real, ids.effective, ids.saved].iter().all(|own| *own == id);
        same(&self.user, user) && same(&self.group, group)
    }
}

/// Operations of Linux's calls that only root may do, beside the rules of [`Credentials`] about single arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// reboot.
    Reboot,
    /// A hard limit goes up (setrlimit, prlimit).
    RaiseLimit,
    /// setgroups.
    SetGroups,
    /// clock_settime, settimeofday.
    SetTime,
    /// sethostname, setdomainname.
    SetNames,
    /// A timer of a clock that would wake the machine.
    WakeAlarm,
    /// process_madvise for another process.
    Advise,
    /// syslog, but for reading all of the log and asking for its size.
    Syslog,
    /// What it sets `oom_score_adj` to is the least that others may set from then on.
    LeastScore,
    /// A call that Linux has for root alone, and Quire has not.
    UnknownCall,
}

/// EPERM unless `process` has the privilege. This is the only such table: one line for each privilege.
pub fn require(process: &Process, privilege: Privilege) -> Result<(), Errno> {
    let credentials = process.credentials.lock();
    let may = match privilege {
        Privilege::Reboot | Privilege::RaiseLimit | Privilege::SetGroups => credentials.is_privileged(),
        Privilege::SetTime | Privilege::SetNames | Privilege::Syslog | Privilege::WakeAlarm | Privilege::Advise => {
            credentials.is_privileged()
        }
        Privilege::LeastScore | Privilege::UnknownCall => credentials.is_privileged(),
    };
    if may { Ok(()) } else { Err(Errno::EPERM) }
}

/// EPERM unless the caller may inspect a process and set its limits (prlimit(2), and Linux's `ptrace_may_access`): it
/// is root, or all user and group ids of the process equal the caller's real ones.
pub fn permit_inspection(of: &Process) -> Result<(), Errno> {
    let me: &Process = current().process();
    if core::ptr::eq(me, of) {
        return Ok(());
    }
    // Locked one after the other, since both locks have the same rank.
    let mine = me.credentials.lock().clone();
    let is_open = mine.is_privileged() || of.is_dumpable.load(Ordering::Relaxed);
    if is_open && mine.may_inspect(&of.credentials.lock()) { Ok(()) } else { Err(Errno::EPERM) }
}

/// EPERM unless the caller may act through a process, by its memory or its descriptors (Linux's `PTRACE_MODE_ATTACH`): it may
/// inspect it, and has its authority ([`permit_authority`]).
pub fn permit_takeover(of: &Process) -> Result<(), Errno> {
    permit_inspection(of)?;
    permit_authority(of)
}

/// EPERM unless the caller has each right of machine control that the process has, and that over processes if the process
/// holds other handles: whatever the users are, nobody uses the rights of another one. EINTR if the thread is killed meanwhile.
pub fn permit_authority(of: &Process) -> Result<(), Errno> {
    let me: &Process = current().process();
    if core::ptr::eq(me, of) {
        return Ok(());
    }
    let needed = of.handles.authority()?;
    if needed.is_empty() || me.handles.authority()?.contains(needed) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Whether the caller may see what a process holds, by /proc: as [`permit_inspection`], but its ids for access to files count.
pub fn permits_look(of: &Process) -> bool {
    let me: &Process = current().process();
    if core::ptr::eq(me, of) {
        return true;
    }
    let (user, group) = {
        let mine = me.credentials.lock();
        (mine.user.files, mine.group.files)
    };
    user == 0 || of.is_dumpable.load(Ordering::Relaxed) && of.credentials.lock().is_all_of(user, group)
}

/// EPERM unless the caller may change a process's scheduling: it is root, or its effective user is the process's real
/// or effective user (sched_setaffinity(2)).
pub fn permit_scheduling(of: &Process) -> Result<(), Errno> {
    let me: &Process = current().process();
    let user = me.credentials.lock().user.effective;
    let target = of.credentials.lock().user;
    if user == 0 || user == target.real || user == target.effective { Ok(()) } else { Err(Errno::EPERM) }
}

/// EPERM unless the caller may send a process this signal, by kill(2)'s rule: it is root, or its real or effective user
/// is the target's real or saved user; SIGCONT is also allowed within the session.
pub fn permit_signal(table: &Table, to: &Process, signal: u32) -> Result<(), Errno> {
    let me: &Process = current().process();
    let is_same_session = || table.family(me).sid == table.family(to).sid;
    if core::ptr::eq(me, to) || signal == sig::CONT && is_same_session() {
        return Ok(());
    }
    // Locked one after the other, since both locks have the same rank.
    let (user, is_privileged) = {
        let mine = me.credentials.lock();
        (mine.user, mine.is_privileged())
    };
    let target = to.credentials.lock().user;
    if is_privileged || user.may_signal(&target) { Ok(()) } else { Err(Errno::EPERM) }
}
