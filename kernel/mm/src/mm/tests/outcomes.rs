//! The permitted results and effects of a call during which memory runs out, according to the manual pages or, where
//! they say nothing, to Linux's behaviour.
//!
//! - mmap, munmap, brk and madvise's hints about existing pages do all or nothing.
//! - mprotect, mlock, munlock and madvise's lasting advice work area by area: the areas before the one that could not
//!   be split have changed.
//! - mremap with a fixed target has emptied the target, and one that shrinks has cut off the rest.
//! - mlock locks the range even if it cannot populate it (EAGAIN); mlockall, MAP_POPULATE and MAP_LOCKED do not report
//!   that.

use std::vec::Vec;

pub(super) use quire_abi::Errno;
use quire_abi::flags::{Map, Mremap, Prot, madv};

use super::model::{Lock, Model};
use super::pair::{Pair, forget_given_up};
use super::script::{Op, WINDOW};
use super::{PAGE, Space};
use crate::addr::UserAddr;
use crate::mm::MapRequest;

/// One thing that may come of a call.
pub(super) struct Outcome {
    pub answer: Result<usize, Errno>,
    pub state: Model,
    /// Nothing has changed.
    pub is_as_before: bool,
}

/// Where the areas of a space begin, in pages.
pub(super) fn bounds(mm: &Space) -> Vec<usize> {
    let mut bounds = Vec::new();
    mm.for_each_vma(|area| bounds.push(area.start.get() / PAGE));
    bounds
}

/// What may come of a call, of which Linux, with enough memory, would make `new` and answer `expected`; that alone unless
/// a failure was `met`. `bounds` are those of before.
pub(super) fn allowed(
    op: &Op,
    expected: Result<usize, Errno>,
    old: &Model,
    new: Model,
    bounds: &[usize],
    met: bool,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    if met {
        let mut may = |answer, state, is_as_before| outcomes.push(Outcome { answer, state, is_as_before });
        // A range, up to the first page or to one where an area begins.
        let mut up_to = |errno, at: usize, len: usize, is_end: &dyn Fn(usize) -> bool| {
            for end in (at + 1..at + len).filter(|end| is_end(*end)) {
                may(Err(errno), old.with_prefix_of(&new, at, end - at), false);
            }
            may(Err(errno), old.clone(), true);
        };
        let is_bound = |page: usize| bounds.contains(&page);
        match *op {
            Op::Map { .. } | Op::Unmap { .. } => may(Err(Errno::ENOMEM), old.clone(), true),
            Op::Brk { .. } => may(Ok(old.brk), old.clone(), true),
            Op::Protect { at, len, .. } | Op::Unlock { at, len, .. } => up_to(Errno::ENOMEM, at, len, &is_bound),
            Op::Advise { at, len, advice, .. } => match advice {
                madv::POPULATE_READ | madv::POPULATE_WRITE => up_to(Errno::ENOMEM, at, len, &|_| true),
                _ => up_to(Errno::EAGAIN, at, len, &is_bound),
            },
            Op::Lock { at, len, on_fault, .. } => {
                up_to(Errno::ENOMEM, at, len, &is_bound);
                if !on_fault {
                    may(Err(Errno::EAGAIN), new.clone(), false);
                }
            }
            Op::Remap { at, old: from, new: to, flags, to: target, .. } => {
                let mut state = old.clone();
                may(Err(Errno::ENOMEM), state.clone(), true);
                if flags.contains(Mremap::FIXED) {
                    state.unmap(target.max(WINDOW.min), to);
                    may(Err(Errno::ENOMEM), state.clone(), false);
                }
                if from > to {
                    state.unmap(at + to, from - to);
                    may(Err(Errno::ENOMEM), state, false);
                }
            }
            _ => {}
        }
    }
    outcomes.push(Outcome { answer: expected, state: new, is_as_before: false });
    outcomes
}

/// What Linux would answer with enough memory, and make of the model.
pub(super) fn expected(pair: &Pair, mm: &Space, model: &mut Model, op: &Op) -> Result<usize, Errno> {
    match *op {
        Op::Map { at, len, prot, flags, file, .. } => {
            let words = file.map(|(file, index)| (file % 3, pair.files[file % 3].1.clone(), index));
            model.map(at, len, Prot::from_bits_retain(prot), flags, words)
        }
        Op::Unmap { at, len, .. } => {
            model.unmap(at, len);
            Ok(0)
        }
        Op::Protect { at, len, prot, .. } => model.protect(at, len, Prot::from_bits_retain(prot)).map(|()| 0),
        Op::Brk { to, .. } => Ok(model.brk(to)),
        Op::Remap { at, old, new, flags, to, .. } => {
            let mut area = (0, 0);
            mm.area_from(UserAddr::new(at * PAGE), |a| area = (a.start.get() / PAGE, a.end.get() / PAGE));
            model.remap(at, old, new, flags, to.max(WINDOW.min), || area)
        }
        Op::Advise { at, len, advice, .. } => model.advise(at, len, advice).map(|()| 0),
        Op::Lock { at, len, on_fault, .. } => {
            model.lock(at, len, if on_fault { Lock::OnFault } else { Lock::Yes }).map(|()| 0)
        }
        Op::Unlock { at, len, .. } => model.lock(at, len, Lock::No).map(|()| 0),
        Op::LockAll { current, future, .. } => {
            model.lock_all(current, future);
            Ok(0)
        }
        Op::Sync { at, len, flags, .. } => model.sync(at, len, flags).map(|()| 0),
        Op::InCore { at, len, .. } => model.in_core(at, len).map(|()| 0),
        _ => Ok(0),
    }
}

/// What the code under test answers.
pub(super) fn real(pair: &Pair, mm: &Space, op: &Op) -> Result<usize, Errno> {
    match *op {
        Op::Map { at, len, prot, flags, file, .. } => {
            let object = file.map(|(file, index)| (pair.files[file % 3].0.clone(), index));
            let (flags, max_prot) = match object {
                Some(_) => (flags, Prot::READ | Prot::EXEC),
                None => (flags | Map::ANONYMOUS, Prot::all()),
            };
            let prot = Prot::from_bits_retain(prot);
            let request = MapRequest { addr: at * PAGE, len: len * PAGE, prot, flags, object, max_prot };
            mm.map(&request).map(|at| at.get() / PAGE)
        }
        Op::Unmap { at, len, .. } => mm.unmap(at * PAGE, len * PAGE).map(|()| 0),
        Op::Protect { at, len, prot, .. } => {
            mm.protect(at * PAGE, len * PAGE, Prot::from_bits_retain(prot)).map(|()| 0)
        }
        Op::Brk { to, .. } => Ok(mm.brk(to * PAGE).get() / PAGE),
        Op::Remap { at, old, new, flags, to, .. } => {
            let to = to.max(WINDOW.min);
            mm.remap(at * PAGE, old * PAGE, new * PAGE, flags, to * PAGE).map(|at| at.get() / PAGE)
        }
        Op::Advise { at, len, advice, .. } => {
            let done = mm.advise(at * PAGE, len * PAGE, advice);
            if advice == madv::FREE {
                forget_given_up(&pair.rig.mmu, mm, at, len);
            }
            done.map(|()| 0)
        }
        Op::Lock { at, len, on_fault, .. } => mm.lock(at * PAGE, len * PAGE, on_fault).map(|()| 0),
        Op::Unlock { at, len, .. } => mm.unlock(at * PAGE, len * PAGE).map(|()| 0),
        Op::LockAll { current, future, .. } if current || future => mm.lock_all(current, future, false).map(|()| 0),
        Op::LockAll { .. } => {
            mm.unlock_all();
            Ok(0)
        }
        Op::Sync { at, len, flags, .. } => mm.sync(at * PAGE, len * PAGE, flags).map(|()| 0),
        Op::InCore { at, len, .. } => mm.in_core(at * PAGE, len * PAGE, |_, _| {}).map(|()| 0),
        _ => Ok(0),
    }
}

/// Some of the pages that a call is about.
pub(super) fn pages_of(op: &Op) -> Vec<usize> {
    const SOME: usize = 6;
    match *op {
        Op::Map { at, len, .. }
        | Op::Unmap { at, len, .. }
        | Op::Protect { at, len, .. }
        | Op::Advise { at, len, .. }
        | Op::Lock { at, len, .. }
        | Op::Unlock { at, len, .. } => (at..at + len.min(SOME)).filter(|at| *at != 0).collect(),
        Op::Remap { at, old, to, .. } => (at..at + old.min(SOME)).chain(to..to + SOME).collect(),
        Op::Poke { at, .. } | Op::Touch { at, .. } => (at..at + SOME).collect(),
        Op::Brk { to, .. } => (to - SOME..to).collect(),
        // fork leaves every page of the parent as it was: those of the hot part.
        Op::Fork { .. } | Op::LockAll { .. } => (0x4_0000 - 40..0x4_0000 + 40).collect(),
        _ => Vec::new(),
    }
}
