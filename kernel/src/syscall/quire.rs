//! Quire's own calls: queries about the memory manager and the machine, which any process may make, and operations on
//! the machine, which need a handle of machine control ([`control`]).

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::{Control, setting};
use quire_abi::info::{MapAudit, MountInfo, kind};
use quire_abi::layout::Pod;
use quire_abi::statistics::AreaInfo;
use quire_mm::cma::CmaError;
use quire_mm::mm::Mover;

use super::translation::translation;
use super::{Answer, Args};
use super::{areas, device, group, inspect, lookup, statistics};
use crate::arch::uaccess;
use crate::archive;
use crate::boot::info as facts;
use crate::console::log as kernel_log;
use crate::ipc::handles::Target;
use crate::names::mounts;
use crate::names::path::Path;
use crate::power;
use crate::task::credentials::{Privilege, require};
use crate::task::inject;
use crate::task::point::resched_point;
use crate::task::thread::current;
use crate::task::wait::Sleep;
use crate::vm::{Cpu, PAGES, SPACES};

/// Copies record `index` of a kind; returns its size. ENOENT after the last one, EINVAL for an unknown kind or size.
pub fn info(a: Args) -> Answer {
    let index = a.word(1);
    match a.word(0) {
        kind::SYSTEM => answer(a, (index == 0).then(facts::system)),
        kind::ZONE => answer(a, facts::zone(index)),
        kind::REGION => answer(a, facts::region(index)),
        kind::CPU => answer(a, facts::cpu(index)),
        kind::PROCESS => answer(a, facts::process(index)),
        kind::PAGE_TYPE => answer(a, statistics::page_type(index)),
        kind::SLAB => answer(a, statistics::slab(index)),
        kind::VMALLOC => answer(a, statistics::vmalloc(index)),
        kind::COUNTER => answer(a, statistics::counter(index)),
        kind::CMA => answer(a, statistics::cma(index)),
        kind::AREA => answer(a, area(a)?),
        kind::MOUNT => answer(a, mount_info(index)?),
        kind::NODE => answer(a, facts::node(index)),
        kind::GROUP => answer(a, group::info(index)),
        kind::PRESSURE => answer(a, group::pressure(index)),
        kind::DETAIL => answer(a, inspect::detail(a.uint(4), index)?),
        kind::THREAD => answer(a, inspect::thread(a.uint(4), index)?),
        kind::DESCRIPTOR => answer(a, inspect::descriptor(a.uint(4), index)?),
        kind::PAGE_BLOCKS => answer(a, statistics::page_blocks(a.word(4), index)),
        kind::LISTS => answer(a, statistics::lists(a.word(4), index)),
        kind::SWAP => answer(a, (index == 0).then(statistics::swap)),
        kind::BLOCK_USE => answer(a, statistics::block_use(a.word(4), index)?),
        kind::BLOCK_FRAMES => answer(a, statistics::block_frames(index)),
        kind::TRANSLATION => answer(a, Some(translation(a)?)),
        _ => Err(Errno::EINVAL),
    }
}

/// A mount. A path that is longer than its field is omitted.
fn mount_info(index: usize) -> Result<Option<MountInfo>, Errno> {
    let Ok(mount) = u16::try_from(index) else { return Ok(None) };
    let Some(kind) = mounts::kind(mount) else { return Ok(None) };
    let mut path = [0; 64];
    let over = archive::by_number(mounts::covered(mount)).ok_or(Errno::ENOENT)?;
    let len = over.path(&mut path).unwrap_or(0);
    path[len..].fill(0);
    let is_archive = mount == mounts::ARCHIVE;
    let name = if is_archive { *b"rootfs\0\0\0\0\0\0\0\0\0\0" } else { kind.name };
    let flags = if is_archive || kind.is_read_only { MountInfo::READ_ONLY } else { 0 };
    Ok(Some(MountInfo { device: mounts::device(mount).into(), path, kind: name, source: kind.source, flags }))
}

/// A part of an area of the process x4, or of the caller's if x4 is 0. A process that has ended has no areas. EPERM if
/// the caller may not inspect the process, unless x5 is a handle of machine control with AUDIT.
fn area(a: Args) -> Result<Option<AreaInfo>, Errno> {
    let from = a.addr(1);
    if a.word(4) == 0 {
        return Ok(current().mm().and_then(|mm| areas::area(mm, from)));
    }
    Ok(inspect::inspected(a.uint(4), holds(a.uint(5), Control::AUDIT))?.and_then(|mm| areas::area(&mm, from)))
}

fn answer<T: Pod>(a: Args, record: Option<T>) -> Answer {
    if a.word(3) != size_of::<T>() {
        return Err(Errno::EINVAL);
    }
    uaccess::put(a.addr(2), &record.ok_or(Errno::ENOENT)?)?;
    Ok(size_of::<T>())
}

/// Copies the log from a position on; returns the number of bytes, 0 at its end. Positions count from power-on.
/// Overwritten text is skipped; the next position, which shows that, is stored at x3 if x3 is not null.
pub fn log(a: Args) -> Answer {
    let mut from = a.word(2);
    let mut done = 0;
    let mut piece = [0; 256];
    while done < a.word(1) {
        let room = piece.len().min(a.word(1) - done);
        let (n, next) = kernel_log::read(from, &mut piece[..room]);
        if n == 0 {
            break;
        }
        if uaccess::copy_to_user(a.addr(0) + done, &piece[..n])? != n {
            return Err(Errno::EFAULT);
        }
        (from, done) = (next, done + n);
        resched_point(Sleep::Killable)?;
    }
    if let Some(at) = a.opt_addr(3) {
        uaccess::put(at, &from)?;
    }
    Ok(done)
}

/// EPERM unless x0 is a handle of machine control with these rights. EPERM also covers invalid numbers: in either case
/// the caller does not have the right.
pub(super) fn control(a: Args, rights: Control) -> Result<(), Errno> {
    if holds(a.uint(0), rights) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Whether this is a handle of the caller's for machine control with these rights.
pub(super) fn holds(number: u32, rights: Control) -> bool {
    current().process().handles.with(number, |handle| Ok(handle.controls(rights))) == Ok(true)
}

pub fn poweroff(a: Args) -> Answer {
    control(a, Control::POWER)?;
    power::off(a.uint(1))
}

/// Mounts the server of the sender x2 over the directory x1; x3 is the name of its type, in 15 bytes, and x4, unless it
/// is null, that of the source, in 31 bytes. If x5 is 1, the mount is read-only.
pub fn mount(a: Args) -> Answer {
    control(a, Control::MOUNT)?;
    let server = current().process().handles.with(a.uint(2), |handle| match &handle.target {
        Target::Sender(endpoint) => Ok((endpoint.clone(), handle.badge)),
        _ => Err(Errno::EPERM),
    })?;
    if a.word(5) > 1 {
        return Err(Errno::EINVAL);
    }
    let mut kind = mounts::Kind { is_read_only: a.word(5) == 1, ..mounts::Kind::default() };
    let len = uaccess::get_string(&mut kind.name, a.addr(3))?.len();
    kind.name[len..].fill(0);
    if let Some(source) = a.opt_addr(4) {
        let len = uaccess::get_string(&mut kind.source, source)?.len();
        kind.source[len..].fill(0);
    }
    let over = lookup::covered(&mut Path::from_user(a.addr(1))?)?;
    mounts::mount(over, server, kind)?;
    Ok(0)
}

/// A device to drive.
pub fn device(a: Args) -> Answer {
    control(a, Control::DEVICES)?;
    device::take(a)
}

pub fn books(a: Args) -> Answer {
    control(a, Control::AUDIT)?;
    let books = facts::books();
    if a.word(2) != size_of_val(&books) {
        return Err(Errno::EINVAL);
    }
    uaccess::put(a.addr(1), &books)?;
    Ok(0)
}

/// Compares all page tables with the reverse mapping, in both directions. A debug facility: it examines every user page
/// of the machine, one space and one page at a time, and a signal ends it early.
pub fn audit(a: Args) -> Answer {
    control(a, Control::AUDIT)?;
    if a.word(2) != size_of::<MapAudit>() {
        return Err(Errno::EINVAL);
    }
    let found = crate::task::audit::run()?;
    uaccess::put(a.addr(1), &found)?;
    Ok(0)
}

/// Allocates the whole contiguous memory area x1 and frees it; returns its size in pages. ENOENT for an unknown area,
/// EBUSY if pages of it are in use and cannot be moved. A debug facility.
pub fn cma_try(a: Args) -> Answer {
    control(a, Control::CONTIGUOUS)?;
    let area = a.word(1);
    let info = PAGES.cma_info(area).ok_or(Errno::ENOENT)?;
    let start = PAGES.cma_alloc(area, info.pages, 0, Some(&Mover(Cpu))).map_err(|error| match error {
        CmaError::Killed => Errno::EINTR,
        CmaError::BadRequest | CmaError::NoSpace => Errno::EBUSY,
    })?;
    // SAFETY: it was allocated just now, and nothing else refers to it.
    unsafe { PAGES.cma_release(area, start, info.pages) }.map_err(|_| Errno::EBUSY)?;
    Ok(info.pages)
}

/// Compacts all memory as far as possible; returns how many page blocks were emptied. EINTR if the thread is killed.
pub fn compact(a: Args) -> Answer {
    control(a, Control::SETTINGS)?;
    let done = PAGES.compact();
    resched_point(Sleep::Killable)?;
    Ok(done.blocks)
}

/// Makes the x1th allocation of the calling thread from now on fail; 0 cancels that. Returns how many allocations were
/// left until the failure requested before: 0 if it has happened or was not requested.
pub fn fail_nth(a: Args) -> Answer {
    control(a, Control::INJECT)?;
    let n = u32::try_from(a.word(1)).map_err(|_| Errno::EINVAL)?;
    Ok(inject::arm(n) as usize)
}

/// Returns the old value of setting x1, and sets it to x2 unless that is `READ`. Any process may read. EINVAL for an
/// unknown setting or an invalid value.
pub fn setting(a: Args) -> Answer {
    let (which, new) = (a.word(1), a.word(2));
    if which == setting::OOM_SCORE_ADJ {
        return oom_score_adj(a, new);
    }
    if which == setting::HUGE_PAGES {
        let mode = SPACES.huge_pages();
        let old = mode.get() as usize;
        if new != setting::READ {
            control(a, Control::SETTINGS)?;
            mode.set_number(new)?;
        }
        return Ok(old);
    }
    let commit = SPACES.commit();
    let old = commit.setting(which)?;
    if new != setting::READ {
        control(a, Control::SETTINGS)?;
        commit.set(which, new)?;
    }
    Ok(old)
}

/// Any process may raise its own score, as on Linux. The value that root or the holder of machine control sets is the
/// minimum that others may set from then on, also in programs that inherit it.
fn oom_score_adj(a: Args, new: usize) -> Answer {
    /// Added to `oom_score_adj`, so that it can be a call's result.
    const BIAS: i32 = 1000;
    let process = current().process();
    let adj = &process.oom_score_adj;
    let old = (adj.load(Ordering::Relaxed) + BIAS) as usize;
    match new {
        setting::READ => {}
        0..=2000 => {
            let new_adj = new as i32 - BIAS;
            let controls = control(a, Control::OOM);
            if new < old {
                controls?;
            }
            if controls.is_ok() || require(process, Privilege::LeastScore).is_ok() {
                process.oom_score_adj_min.store(new_adj, Ordering::Relaxed);
            }
            adj.store(new_adj, Ordering::Relaxed);
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(old)
}
