//! Clocks of CPU time: of a process, or of a thread of the calling one.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_mm::fallible::KArc;

use super::cpu_alarm::{Alarms, Part};
use super::process::{Process, TABLE, Table};
use super::sched;
use super::thread::{Thread, current};

/// The CPU time of a process, or of a thread of the calling one.
pub struct CpuClock {
    /// Which.
    pub whose: Whose,
    /// What of it counts.
    pub part: Part,
}

/// See [`CpuClock`].
pub enum Whose {
    /// A process.
    Process(KArc<Process>),
    /// A thread with this number.
    Thread(u32),
}

impl CpuClock {
    /// What waits for this clock. EINVAL if it has ended, ENOMEM.
    pub fn alarms(&self) -> Result<KArc<Alarms>, Errno> {
        match &self.whose {
            Whose::Process(process) => process.cpu_alarms.get_or_make(),
            Whose::Thread(tid) => {
                let new = Alarms::new()?;
                let table = TABLE.lock();
                let thread = own_thread(&table, current().process(), *tid).ok_or(Errno::EINVAL)?;
                thread.cpu_alarms.get_or_put(new)
            }
        }
    }

    /// What it shows; `None` if its thread has ended, or its process has been waited for. The caller holds no lock.
    pub fn now(&self) -> Option<u64> {
        self.now_of(|_| true)
    }

    /// The same of a thread that `is_meant`: others may have the number later.
    pub fn now_of(&self, is_meant: impl Fn(&Thread) -> bool) -> Option<u64> {
        let me = current();
        let spent = match &self.whose {
            Whose::Process(process) => {
                if KArc::ptr_eq(process, me.process()) {
                    sched::charge_current();
                }
                if process.is_reaped.load(Ordering::Relaxed) {
                    return None;
                }
                process.whole.time.spent()
            }
            Whose::Thread(tid) => {
                sched::charge_current();
                let table = TABLE.lock();
                own_thread(&table, me.process(), *tid).filter(|thread| is_meant(thread))?.time.spent()
            }
        };
        Some(self.part.of(spent))
    }
}

/// A thread of a process.
pub fn own_thread<'a>(table: &'a Table, process: &Process, tid: u32) -> Option<&'a Thread> {
    table.thread(tid).filter(|t| t.process.as_ref().is_some_and(|p| core::ptr::eq(&raw const **p, process)))
}
