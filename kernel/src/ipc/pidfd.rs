//! pidfd: a process as an open file. It refers to that process even after the process has ended and its number belongs
//! to another one.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::poll;
use quire_mm::fallible::KArc;

use super::descriptor::{Descriptor, Object, OpenFile, Rights};
use crate::task::children::News;
use crate::task::process::{Process, Table};

/// Its events: readable once it has ended, with a hang-up once it was waited for.
pub fn ready(process: &Process) -> u16 {
    let readable = poll::IN | poll::RDNORM;
    if process.is_reaped.load(Ordering::Acquire) {
        readable | poll::HUP
    } else if process.news() == News::Ended {
        readable
    } else {
        0
    }
}

/// A new descriptor of a process. (exec closes all descriptors of this kind.)
pub fn descriptor(process: &KArc<Process>, flags: Open) -> Result<Descriptor, Errno> {
    let file = OpenFile::new(Object::PidFd(process.clone()), Open::RDWR | flags)?;
    Ok(Descriptor { file, rights: Rights::READ | Rights::WRITE, close_on_exec: true })
}

/// The process, unless it has been waited for: ESRCH.
pub fn alive<'a>(table: &'a Table, process: &KArc<Process>) -> Result<&'a KArc<Process>, Errno> {
    table.process(process.pid).filter(|found| KArc::ptr_eq(found, process)).ok_or(Errno::ESRCH)
}
