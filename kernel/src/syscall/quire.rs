//! Quire's own calls: what the memory manager and the machine look like, the log, switching off.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::setting;
use quire_abi::info::{MapAudit, kind};
use quire_abi::layout::Pod;
use quire_abi::statistics::AreaInfo;
use quire_mm::cma::CmaError;
use quire_mm::fallible::KArc;

use super::{Answer, Args};
use crate::arch::uaccess;
use crate::boot::{info as facts, power};
use crate::console::log as kernel_log;
use crate::task::point::resched_point;
use crate::task::process::TABLE;
use crate::task::thread::current;
use crate::task::wait::Sleep;
use crate::vm::{PAGES, SPACES, areas, inject, statistics};

/// Copies record `index` of a kind; answers its size. ENOENT past the last, EINVAL for an unknown kind or size.
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
        _ => Err(Errno::EINVAL),
    }
}

/// A part of an area of the process x4, or of the caller's for 0. A process that has ended has none.
fn area(a: Args) -> Result<Option<AreaInfo>, Errno> {
    let from = a.addr(1);
    if a.word(4) == 0 {
        return Ok(current().mm().and_then(|mm| areas::area(mm, from)));
    }
    let process = TABLE.lock().process(a.uint(4)).cloned().ok_or(Errno::ESRCH)?;
    // The space's lock may spin for a fault's time: it is not taken under the table's.
    let mm = process.space.lock().as_ref().map(|space| KArc::clone(&space.mm));
    Ok(mm.and_then(|mm| areas::area(&mm, from)))
}

fn answer<T: Pod>(a: Args, record: Option<T>) -> Answer {
    if a.word(3) != size_of::<T>() {
        return Err(Errno::EINVAL);
    }
    uaccess::put(a.addr(2), &record.ok_or(Errno::ENOENT)?)?;
    Ok(size_of::<T>())
}

/// Copies the log from a position on; answers the bytes copied. 0 at its end. The position counts from power-on;
/// what has been overwritten is skipped, which shows in the next position: it is stored at x3 where that is given.
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

pub fn poweroff(a: Args) -> Answer {
    power::off(a.uint(0))
}

pub fn books(a: Args) -> Answer {
    let books = facts::books();
    if a.word(1) != size_of_val(&books) {
        return Err(Errno::EINVAL);
    }
    uaccess::put(a.addr(0), &books)?;
    Ok(0)
}

/// Compares all page tables with reverse mapping, both ways. A debug facility: it looks at every user page of the
/// machine, a space and a page at a time, and ends early for a signal.
pub fn audit(a: Args) -> Answer {
    if a.word(1) != size_of::<MapAudit>() {
        return Err(Errno::EINVAL);
    }
    let found = crate::vm::audit::run()?;
    uaccess::put(a.addr(0), &found)?;
    Ok(0)
}

/// Takes all of a contiguous memory area and gives it back; answers its pages. ENOENT for one that there is not, EBUSY
/// where somebody has pages of it that cannot be moved away. A debug facility.
pub fn cma_try(a: Args) -> Answer {
    let area = a.word(0);
    let info = PAGES.cma_info(area).ok_or(Errno::ENOENT)?;
    let start = PAGES.cma_alloc(area, info.pages, 0, None).map_err(|error| match error {
        CmaError::Killed => Errno::EINTR,
        CmaError::BadRequest | CmaError::NoSpace => Errno::EBUSY,
    })?;
    // SAFETY: it was taken just now, and nobody else knows of it.
    unsafe { PAGES.cma_release(area, start, info.pages) }.map_err(|_| Errno::EBUSY)?;
    Ok(info.pages)
}

/// The calling thread's x0th allocation from now on fails; none does for 0. Answers how many were left until the one
/// that was asked for before: 0 if it has failed, or there was none.
pub fn fail_nth(a: Args) -> Answer {
    let n = u32::try_from(a.word(0)).map_err(|_| Errno::EINVAL)?;
    Ok(inject::arm(n) as usize)
}

/// Answers what a setting was, and sets it to x1 unless that is `READ`. EINVAL for what there is not.
pub fn setting(a: Args) -> Answer {
    /// Added to `oom_score_adj`, so that it is a call's answer.
    const BIAS: i32 = 1000;
    if a.word(0) == setting::OOM_SCORE_ADJ {
        let adj = &current().process().oom_score_adj;
        let old = (adj.load(Ordering::Relaxed) + BIAS) as usize;
        match a.word(1) {
            setting::READ => {}
            new @ 0..=2000 => adj.store(new as i32 - BIAS, Ordering::Relaxed),
            _ => return Err(Errno::EINVAL),
        }
        return Ok(old);
    }
    let commit = SPACES.commit();
    let old = commit.setting(a.word(0))?;
    if a.word(1) != setting::READ {
        commit.set(a.word(0), a.word(1))?;
    }
    Ok(old)
}
