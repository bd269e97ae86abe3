//! Failed allocations at every step: of a page, a table, a box, a share of a swap slot. What was asked for fails or not;
//! then the space is as it was, or as Linux leaves it, and nothing is lost.

use std::vec::Vec;

use quire_abi::Errno;
use quire_abi::flags::{Map, Mremap, Prot};

use super::model::{Lock, Model};
use super::pair::Pair;
use super::script::{Op, PROCESSES, Random};
use super::{PAGE, Space};
use crate::addr::UserAddr;
use crate::fallible::inject;
use crate::machine::Machine;
use crate::mm::{Access, FaultError, MapRequest};
use crate::page_alloc::FaultInjection;

/// What fails: the so-many-th allocation of a kind, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    Page(u32),
    Box(u32),
    Slot(u32),
}

impl Failing {
    fn arm(self, pair: &Pair) {
        match self {
            Self::Page(nth) => pair.rig.sim.pages().inject_failures(FaultInjection::nth(nth)),
            Self::Box(nth) => inject::fail(Some(nth)),
            Self::Slot(nth) => pair.elsewhere.fail_sharing(Some(nth as usize - 1)),
        }
    }

    fn disarm(pair: &Pair) {
        pair.rig.sim.pages().inject_failures(FaultInjection::OFF);
        inject::fail(None);
        pair.elsewhere.fail_sharing(None);
    }
}

/// The states in which a call that ran out of memory may leave a space: as it was; what MAP_FIXED and mremap replace, or
/// mremap cuts off, gone already; the areas before the one that could not be split changed.
fn leftovers(op: &Op, old: &Model, new: &Model) -> Vec<Model> {
    let mut states = Vec::from([old.clone()]);
    let mut without = |ranges: &[(usize, usize)]| {
        let mut state = old.clone();
        ranges.iter().for_each(|(at, len)| state.unmap(*at, *len));
        states.push(state);
    };
    match *op {
        Op::Map { at, len, flags, .. } if flags.contains(Map::FIXED) => without(&[(at, len)]),
        Op::Remap { at, old, new, flags, to, .. } => {
            let cut = (at + new.min(old), old.saturating_sub(new));
            if flags.contains(Mremap::FIXED) {
                without(&[(to, new)]);
                without(&[(to, new), cut]);
            }
            without(&[cut]);
        }
        Op::Protect { at, len, .. }
        | Op::Advise { at, len, .. }
        | Op::Lock { at, len, .. }
        | Op::Unlock { at, len, .. } => {
            states.extend((1..=len).rev().map(|n| old.with_prefix_of(new, at, n)));
        }
        // The stack has grown before the page could not be had.
        Op::Poke { at, .. } => states.push(new.with_value_of(old, at)),
        _ => {}
    }
    states
}

fn signal(error: FaultError) -> Errno {
    match error {
        FaultError::Unmapped => Errno::EFAULT,
        FaultError::Protection => Errno::EACCES,
        FaultError::BeyondObject => Errno::EIO,
        FaultError::OutOfMemory => Errno::ENOMEM,
    }
}

/// What Linux would answer with enough memory; `None` for steps that are no call on a space.
fn expected(pair: &Pair, mm: &Space, model: &mut Model, op: &Op) -> Option<Result<usize, Errno>> {
    Some(match *op {
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
            model.remap(at, old, new, flags, to, || area)
        }
        Op::Advise { at, len, advice, .. } => model.advise(at, len, advice).map(|()| 0),
        Op::Lock { at, len, on_fault, .. } => {
            model.lock(at, len, if on_fault { Lock::OnFault } else { Lock::Yes }).map(|()| 0)
        }
        Op::Unlock { at, len, .. } => model.lock(at, len, Lock::No).map(|()| 0),
        Op::Poke { at, write, .. } => {
            let access = if write { Access::Write } else { Access::Read };
            let end = |page| mm.area_from(UserAddr::new(page * PAGE), |area| area.end.get() / PAGE).unwrap_or(0);
            model.touch(at, access, 99, end).map(|word| word as usize).map_err(signal)
        }
        _ => return None,
    })
}

fn real(pair: &Pair, mm: &Space, op: &Op) -> Result<usize, Errno> {
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
            mm.remap(at * PAGE, old * PAGE, new * PAGE, flags, to * PAGE).map(|at| at.get() / PAGE)
        }
        Op::Advise { at, len, advice, .. } => mm.advise(at * PAGE, len * PAGE, advice).map(|()| 0),
        Op::Lock { at, len, on_fault, .. } => mm.lock(at * PAGE, len * PAGE, on_fault).map(|()| 0),
        Op::Unlock { at, len, .. } => mm.unlock(at * PAGE, len * PAGE).map(|()| 0),
        Op::Poke { at, write, .. } => {
            let page = mm.pin(at * PAGE, write).map_err(signal)?;
            let word = page.as_ptr().cast::<u64>();
            // SAFETY: the page is pinned, for writing if so; one thread runs.
            Ok(unsafe { if write { word.replace(99) } else { word.read() } } as usize)
        }
        _ => Ok(0),
    }
}

/// A step with a failure. Whether it made a difference.
fn step(pair: &mut Pair, op: &Op, failing: Failing) -> bool {
    let live = pair.processes.len();
    if let Op::Fork { process } = *op {
        let mm = pair.processes[process % live].mm.clone();
        failing.arm(pair);
        let child = if live < PROCESSES { mm.fork().map(drop) } else { Ok(()) };
        Failing::disarm(pair);
        assert!(matches!(child, Ok(()) | Err(Errno::ENOMEM)));
        return child.is_err();
    }
    let Some(number) = op.process().map(|process| process % live) else { return false };
    let mm = pair.processes[number].mm.clone();
    let old = pair.processes[number].model.clone();
    let mut new = old.clone();
    let Some(expected) = expected(pair, &mm, &mut new, op) else {
        pair.step(op);
        return false;
    };
    failing.arm(pair);
    let done = real(pair, &mm, op);
    Failing::disarm(pair);
    let as_always = done == expected && pair.difference(&mm, &new).is_ok();
    pair.processes[number].model = if as_always {
        new
    } else {
        let ran_out = matches!(done, Err(Errno::ENOMEM | Errno::EAGAIN)) || matches!(op, Op::Brk { .. });
        assert!(ran_out, "{failing:?} makes {op:?} answer {done:?}, not {expected:?}");
        let state = leftovers(op, &old, &new).into_iter().find(|state| pair.difference(&mm, state).is_ok());
        state.unwrap_or_else(|| panic!("{failing:?} leaves {op:?} half done: {:?}", pair.difference(&mm, &old)))
    };
    !as_always
}

#[test]
fn failed_allocations_lose_nothing_and_leave_nothing_half_done() {
    let mut hits = [0; 3];
    for seed in 1..=8_u64 {
        let mut random = Random::new(seed);
        let mut pair = Pair::new(None, None);
        for n in 0..600 {
            let op = random.op();
            if matches!(op, Op::Map { at, flags, .. } if at != 0 && at < super::script::WINDOW.min && !flags.is_empty())
            {
                continue;
            }
            let shares = matches!(op, Op::Fork { .. } | Op::Poke { .. });
            let kind = if shares && random.below(2) == 0 { 2 } else { n % 2 };
            let nth = 1 + random.below(5) as u32;
            let failing = [Failing::Page(nth), Failing::Box(nth), Failing::Slot(1)][kind];
            hits[kind] += step(&mut pair, &op, failing) as usize;
            // Memory and tables come and go, so that more than one allocation is needed.
            pair.processes.iter().for_each(|p| p.mm.validate());
            if n % 50 == 0 {
                pair.check();
            }
            let more = random.op();
            pair.step(&more);
        }
        pair.check();
        pair.end();
    }
    assert!(hits[0] > 10 && hits[1] > 40 && hits[2] > 0, "few failures met an allocation: {hits:?}");
}
