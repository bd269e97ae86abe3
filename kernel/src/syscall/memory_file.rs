//! Files in memory: creation, length, holes, seals and owner. Transfers are in `content.rs`.

use quire_abi::Errno;
use quire_abi::flags::{Open, falloc, memfd, seal, sig};
use quire_abi::layout::rlimit;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::{KArc, TryVec};
use quire_mm::object::ObjectError;
use quire_mm::object::file::{MAX_LEN, Turn};
use quire_mm::supply::Supply;

use super::file::{limit, table};
use super::{Answer, Args};
use crate::arch::uaccess;
use crate::ipc::descriptor::{Descriptor, Object as Open_, OpenFile, Rights};
use crate::ipc::memory_file::MemoryFile;
use crate::task::point::resched_point;
use crate::task::signal;
use crate::task::thread::current;
use crate::task::wait::Sleep;
use crate::vm::{Cpu, Object};

/// The maximum length of a memfd's name, including its NUL.
const NAME_MAX: usize = 250;

/// Permission bits for execution.
const EXECUTE: u32 = 0o111;

/// The name is shown by /proc.
pub fn memfd_create(a: Args) -> Answer {
    let flags = a.uint(1);
    let huge = if flags & memfd::HUGETLB != 0 { memfd::HUGE_MASK } else { 0 };
    let (exec, no_exec) = (flags & memfd::EXEC != 0, flags & memfd::NOEXEC_SEAL != 0);
    if flags & !(memfd::ALL | huge) != 0 || exec && no_exec {
        return Err(Errno::EINVAL);
    }
    let mut room = [0; NAME_MAX];
    let name = uaccess::get_string(&mut room, a.addr(0)).map_err(|e| match e {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        e => e,
    })?;
    let name = TryVec::try_from_slice(name)?;
    if flags & memfd::HUGETLB != 0 {
        // As on a Linux kernel without hugetlbfs.
        return Err(Errno::ENOSYS);
    }
    let (permissions, seals) = match no_exec {
        true => (0o777 & !EXECUTE, seal::EXEC),
        false if flags & memfd::ALLOW_SEALING != 0 => (0o777, 0),
        false => (0o777, seal::SEAL),
    };
    let content = Object::file(Cpu, seals)?;
    let by = current().process().credentials.lock().clone();
    let file = MemoryFile::new(content, name, permissions, &by)?;
    let file = OpenFile::new(Open_::Memory(file), Open::RDWR | Open::LARGEFILE)?;
    let close_on_exec = flags & memfd::CLOEXEC != 0;
    let descriptor = Descriptor { file, rights: Rights::READ | Rights::WRITE, close_on_exec };
    table()?.insert(descriptor, 0, limit()).map(|fd| fd as usize)
}

/// EFBIG, with SIGXFSZ, for a length beyond the process's limit; EFBIG for a length beyond that of any file.
fn check_length(len: u64) -> Result<(), Errno> {
    if len > current().process().limit(rlimit::FSIZE) {
        signal::send_own(sig::XFSZ);
        return Err(Errno::EFBIG);
    }
    if len > MAX_LEN { Err(Errno::EFBIG) } else { Ok(()) }
}

pub fn ftruncate(a: Args) -> Answer {
    let len = u64::try_from(a.0[1] as i64).map_err(|_| Errno::EINVAL)?;
    let descriptor = table()?.get(a.int(0))?;
    if !descriptor.rights.contains(Rights::WRITE) {
        return Err(Errno::EINVAL);
    }
    cut(descriptor.file.object.memory().ok_or(Errno::EINVAL)?, len)?;
    Ok(0)
}

/// Sets a file's length.
pub(super) fn cut(file: &MemoryFile, len: u64) -> Result<(), Errno> {
    let mut turn = Object::turn(&file.content)?;
    turn.agree()?;
    let (old, seals) = (file.content.len(), file.content.seals());
    if len > old {
        check_length(len)?;
    }
    if len < old && seals & seal::SHRINK != 0 || len > old && seals & seal::GROW != 0 {
        return Err(Errno::EPERM);
    }
    turn.set_len(len)?;
    file.note_write();
    Ok(())
}

pub fn fallocate(a: Args) -> Answer {
    const KNOWN: [u32; 5] = [
        0,
        falloc::KEEP_SIZE,
        falloc::PUNCH_HOLE | falloc::KEEP_SIZE,
        falloc::ZERO_RANGE,
        falloc::ZERO_RANGE | falloc::KEEP_SIZE,
    ];
    let descriptor = table()?.get(a.int(0))?;
    let mode = a.uint(1);
    let (start, len) = (a.0[2] as i64, a.0[3] as i64);
    if start < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    if !KNOWN.contains(&mode) {
        return Err(Errno::EOPNOTSUPP);
    }
    if !descriptor.rights.contains(Rights::WRITE) {
        return Err(Errno::EBADF);
    }
    let file = match &descriptor.file.object {
        Open_::Memory(file) => file,
        Open_::Pipe(..) => return Err(Errno::ESPIPE),
        Open_::Name(name) if name.is_stored() => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::ENODEV),
    };
    let end = start.checked_add(len).ok_or(Errno::EFBIG)? as u64;
    if end > MAX_LEN && mode & falloc::PUNCH_HOLE == 0 {
        return Err(Errno::EFBIG);
    }
    reserve(file, mode, start as u64, end)?;
    Ok(0)
}

/// fallocate from `start` to `end`.
fn reserve(file: &KArc<MemoryFile>, mode: u32, start: u64, end: u64) -> Result<(), Errno> {
    let content = &file.content;
    let mut turn = Object::turn(content)?;
    let empties = mode & (falloc::PUNCH_HOLE | falloc::ZERO_RANGE) != 0;
    if empties && content.seals() & (seal::WRITE | seal::FUTURE_WRITE) != 0 {
        return Err(Errno::EPERM);
    }
    let grows = mode & falloc::KEEP_SIZE == 0 && end > content.len();
    if grows {
        check_length(end)?;
        if content.seals() & seal::GROW != 0 {
            return Err(Errno::EPERM);
        }
    }
    if empties {
        turn.punch(start, end)?;
    }
    if mode & falloc::PUNCH_HOLE == 0 {
        allocate(&mut turn, start, end)?;
    }
    if grows {
        turn.grow(end)?;
    }
    file.note_write();
    Ok(())
}

/// Allocates the pages from `start` to `end`. Pages that were allocated stay if there is no memory for the rest.
fn allocate(turn: &mut Turn<'_, Cpu>, start: u64, end: u64) -> Result<(), Errno> {
    const PAGE: u64 = PAGE_SIZE as u64;
    let (first, last) = ((start / PAGE) as usize, end.div_ceil(PAGE) as usize);
    if last - first > crate::vm::SPACES.commit().total() {
        return Err(Errno::ENOSPC);
    }
    let supply = Supply::new(Cpu);
    let mut index = first;
    while index < last {
        match turn.allocate(index, &supply) {
            Ok(()) => index += 1,
            Err(ObjectError::OutOfMemory) if supply.is_short() => supply.refill()?,
            Err(error) => return Err(error.into()),
        }
        resched_point(Sleep::Killable)?;
    }
    Ok(())
}

/// `F_GET_SEALS`. EINVAL if it is not a file in memory.
pub fn seals(descriptor: &Descriptor) -> Answer {
    let Open_::Memory(file) = &descriptor.file.object else { return Err(Errno::EINVAL) };
    Ok(file.content.seals() as usize)
}

/// `F_ADD_SEALS`.
pub fn add_seals(descriptor: &Descriptor, mut seals: u32) -> Answer {
    if !descriptor.rights.contains(Rights::WRITE) {
        return Err(Errno::EPERM);
    }
    if seals & !seal::ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let Open_::Memory(file) = &descriptor.file.object else { return Err(Errno::EINVAL) };
    let mut turn = Object::turn(&file.content)?;
    let old = file.content.seals();
    if old & seal::SEAL != 0 {
        return Err(Errno::EPERM);
    }
    if seals & seal::EXEC != 0 && file.permissions() & EXECUTE != 0 {
        // A file that may be executed must not be written from now on.
        seals |= seal::SHRINK | seal::GROW | seal::WRITE | seal::FUTURE_WRITE;
    }
    if seals & !old & seal::WRITE != 0 && (turn.has_writers() || turn.has_pins()?) {
        return Err(Errno::EBUSY);
    }
    turn.seal(seals);
    Ok(0)
}

/// The turn that is needed to make a shared mapping, and whether the mapping may ever be writable. EPERM if it is
/// writable at once and that is not allowed.
pub fn turn_to_map(file: &MemoryFile, writes: bool) -> Result<(Turn<'_, Cpu>, bool), Errno> {
    let turn = Object::turn(&file.content)?;
    let is_sealed = file.content.seals() & (seal::WRITE | seal::FUTURE_WRITE) != 0;
    if is_sealed && writes { Err(Errno::EPERM) } else { Ok((turn, !is_sealed)) }
}

/// Sets a file's permissions. EPERM if the caller may not, or if they are sealed.
pub(super) fn set_permissions(file: &MemoryFile, permissions: u32) -> Result<(), Errno> {
    let _turn = Object::turn(&file.content)?;
    let permissions = permissions & 0o7777;
    if file.content.seals() & seal::EXEC != 0 && (permissions ^ file.permissions()) & EXECUTE != 0 {
        return Err(Errno::EPERM);
    }
    let by = current().process().credentials.lock().clone();
    file.set_permissions(&by, permissions)
}

/// Sets a file's user and group.
pub(super) fn set_owner(file: &MemoryFile, user: u32, group: u32) -> Result<(), Errno> {
    let _turn = Object::turn(&file.content)?;
    let by = current().process().credentials.lock().clone();
    file.set_owner(&by, user, group)
}
