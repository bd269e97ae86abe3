//! Memory runs out at every step of every call: of all allocations of a call (pages, tables, boxes, shares of swap
//! slots), the first fails, then the second, and so on, until the call completes without a failure.
//!
//! A state cannot be copied, so a short random program recreates it each time. After a failure the space is as the
//! model allows ([`outcomes`]), the call succeeds when it is repeated, and in the end everything is freed: pages,
//! promises, slots, boxes.

use std::collections::BTreeMap;
use std::format;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::{String, ToString};
use std::vec::Vec;

use quire_abi::flags::{Map, Prot, madv};

use super::non_present::How;
use super::outcomes::{self, Errno, Outcome};
use super::pair::{Pair, area_end};
use super::script::{BRK, CPUS, Op, PROCESSES, Random, WINDOW};
use super::{PAGE, RW, Space};
use crate::addr::UserAddr;
use crate::fallible::inject;
use crate::mm::{Access, FaultError, MapRequest, Mm, MmLayout};
use crate::pte::{NonPresent, Pte};
use crate::seeded::{self, Bug};

/// What a write that meets a failure writes.
const VALUE: u64 = 99;

/// Longer ranges show nothing more, and populating them takes as many trials as they have pages.
const LONGEST: usize = 10;

/// What is tried.
#[derive(Clone, Debug)]
enum Call {
    Step(Op),
    /// What exec does: a new space with a file, zeros, a stack that is written to, and a heap.
    Fresh,
}

impl Call {
    /// What it has in common with others of its sort.
    fn kind(&self, pair: &Pair) -> String {
        let Call::Step(op) = self else { return "exec".into() };
        let process = op.process().unwrap_or(0) % pair.processes.len();
        let mm = &pair.processes[process].mm;
        match *op {
            Op::Map { flags, file, .. } => {
                let what = if file.is_some() { "file" } else { "anonymous" };
                format!("mmap {what} {:?}", flags - Map::NORESERVE)
            }
            Op::Unmap { .. } => "munmap".into(),
            Op::Protect { prot, .. } => format!("mprotect {}", if prot & 2 != 0 { "write" } else { "no write" }),
            Op::Brk { to, .. } if to * PAGE > mm.heap().1.get() => "brk up".into(),
            Op::Brk { .. } => "brk down".into(),
            Op::Remap { old, new, flags, .. } => format!("mremap {:?} {flags:?}", new.cmp(&old)),
            Op::Advise { advice, .. } => format!("madvise {advice}"),
            Op::Lock { on_fault, .. } => format!("mlock {on_fault}"),
            Op::Unlock { .. } => "munlock".into(),
            Op::LockAll { current, future, .. } => format!("mlockall {current} {future}"),
            Op::Sync { .. } => "msync".into(),
            Op::InCore { .. } => "mincore".into(),
            Op::Poke { at, write, .. } => format!("pin {write} {}", entry_at(mm, at)),
            Op::Touch { at, access, .. } => format!("touch {access:?} {}", entry_at(mm, at)),
            Op::Fork { .. } => "fork".into(),
            Op::Exit { .. } => "exit".into(),
            Op::Away { .. } | Op::Migrate { .. } | Op::Clean { .. } | Op::Settle => "nothing".into(),
        }
    }

    /// Whether it never allocates, and so cannot fail for want of memory.
    fn needs_no_memory(&self) -> bool {
        let Call::Step(op) = self else { return false };
        match *op {
            Op::Advise { advice, .. } => matches!(
                advice,
                madv::DONTNEED | madv::DONTNEED_LOCKED | madv::FREE | madv::REMOVE | madv::COLD | madv::PAGEOUT
            ),
            Op::LockAll { current, .. } => !current,
            Op::Sync { .. } | Op::InCore { .. } | Op::Exit { .. } => true,
            _ => false,
        }
    }

    /// How many of its kind are tried after one program: few where each means many trials.
    fn of_a_kind(&self) -> usize {
        match self {
            Call::Fresh | Call::Step(Op::LockAll { .. } | Op::Fork { .. }) => 1,
            Call::Step(Op::Map { flags, .. }) => 1 + (!flags.intersects(Map::POPULATE | Map::LOCKED)) as usize,
            Call::Step(_) => 2,
        }
    }

    /// Whether it is worth a try: the model does it, or at least in one of eight cases.
    fn is_promising(&self, pair: &Pair, random: &mut Random) -> bool {
        let Call::Step(op) = self else { return true };
        let live = pair.processes.len();
        match *op {
            Op::Away { .. } | Op::Migrate { .. } | Op::Clean { .. } | Op::Settle => false,
            Op::Map { at, flags, .. } if at != 0 && at < WINDOW.min && !flags.is_empty() => false,
            Op::Fork { .. } => live < PROCESSES,
            Op::Exit { .. } => live > 1,
            Op::Touch { process, at, access, .. } => {
                let p = &pair.processes[process % live];
                // As a read: what spaces share is not copied with the model.
                let reads = p.model.clone().touch(at, Access::Read, 0, |page| area_end(&p.mm, page)).is_ok();
                reads
                    && (access != Access::Write || p.model.pages.get(&at).is_none_or(|p| p.prot.contains(Prot::WRITE)))
            }
            Op::Poke { process, at, .. } => pair.processes[process % live].model.pages.contains_key(&at),
            _ => {
                let p = &pair.processes[op.process().unwrap_or(0) % live];
                let done = outcomes::expected(pair, &p.mm, &mut p.model.clone(), op);
                done.is_ok() || random.below(8) == 0
            }
        }
    }
}

/// What a page's entry is.
fn entry_at(mm: &Space, page: usize) -> String {
    let vma = mm.area_from(UserAddr::new(page * PAGE), |area| {
        let what = if area.object.is_some() { "object" } else { "memory" };
        if area.start.get() <= page * PAGE { what } else { "nothing" }
    });
    let pte: Pte = mm.entry(UserAddr::new(page * PAGE));
    let entry = match pte.kind() {
        None if pte.is_special() => "in place",
        None if pte.is_writable() => "writable",
        None if pte.is_anon() => "read-only",
        None => "object's",
        Some(NonPresent::None) => "empty",
        Some(NonPresent::Swap(_)) => "in swap",
        Some(NonPresent::Migration(_)) => "moving",
        Some(NonPresent::Marker(_)) => "marked",
    };
    format!("{} {entry}", vma.unwrap_or("nothing"))
}

/// Does `work` with its `nth` allocation failing. Whether there was one.
fn failing<T>(nth: u32, work: impl FnOnce() -> T) -> (T, bool) {
    inject::fail(Some(nth));
    let done = work();
    let met = !inject::is_armed();
    inject::fail(None);
    (done, met)
}

/// Makes a call with a failure, and sees that the model allows what comes of it. Whether there was a failure.
fn fail(pair: &mut Pair, call: &Call, nth: u32) -> bool {
    let Call::Step(op) = call else { return fail_fresh(pair, nth) };
    let number = op.process().unwrap_or(0) % pair.processes.len();
    let mm = pair.processes[number].mm.clone();
    pair.forget_old(op);
    match *op {
        Op::Fork { .. } => {
            let (child, met) = failing(nth, || mm.fork());
            match child {
                Ok(child) => assert_eq!(pair.difference(&child, &pair.processes[number].model.fork()), Ok(())),
                Err(errno) => assert!(met && errno == Errno::ENOMEM, "{errno:?}"),
            }
            met
        }
        Op::Exit { .. } => {
            drop(mm);
            failing(nth, || pair.step(op)).1
        }
        Op::Touch { cpu, at, access, .. } => {
            let value = (access == Access::Write).then_some(VALUE);
            let (real, met) = failing(nth, || pair.reach(number, cpu % CPUS, at, access, value));
            settle_access(pair, number, at, access, real, met);
            met
        }
        Op::Poke { at, write, .. } => {
            let (page, met) = failing(nth, || mm.pin(at * PAGE, write));
            let real = page.map(|page| {
                let word = page.as_ptr().cast::<u64>();
                // SAFETY: the page is pinned, for writing if so; one thread runs.
                unsafe { if write { word.replace(VALUE) } else { word.read() } }
            });
            let access = if write { Access::Write } else { Access::Read };
            settle_access(pair, number, at, access, real, met);
            met
        }
        _ => {
            let old = pair.processes[number].model.clone();
            let mut new = old.clone();
            let bounds = outcomes::bounds(&mm);
            let stats = mm.stats();
            let expected = outcomes::expected(pair, &mm, &mut new, op);
            let (real, met) = failing(nth, || outcomes::real(pair, &mm, op));
            let allowed = outcomes::allowed(op, expected, &old, new, &bounds, met);
            let found = allowed.iter().find(|o| o.answer == real && pair.difference(&mm, &o.state).is_ok());
            let Some(Outcome { state, is_as_before, .. }) = found else {
                let answers: Vec<_> = allowed.iter().map(|o| o.answer).collect();
                let difference = pair.difference(&mm, &old);
                panic!("answers {real:?}, not one of {answers:?}, or leaves other than it may: {difference:?}");
            };
            if *is_as_before {
                let now = mm.stats();
                let books = |s: &crate::mm::Stats| (s.total, s.data, s.stack, s.locked, s.areas);
                assert_eq!(books(&now), books(&stats), "the books of a call that did nothing");
            }
            pair.processes[number].model = state.clone();
            met
        }
    }
}

/// An access that met a failure either worked, or did nothing but let a stack grow.
fn settle_access(pair: &mut Pair, number: usize, at: usize, access: Access, real: Result<u64, FaultError>, met: bool) {
    let mm = pair.processes[number].mm.clone();
    let end = |page| area_end(&mm, page);
    if real != Err(FaultError::OutOfMemory) {
        assert_eq!(real, pair.processes[number].model.touch(at, access, VALUE, end));
        return;
    }
    assert!(met, "there is memory");
    let old = &pair.processes[number].model;
    let mut grown = old.clone();
    let _ = grown.touch(at, Access::Read, 0, end);
    if pair.difference(&mm, old).is_err() {
        assert_eq!(pair.difference(&mm, &grown), Ok(()));
        pair.processes[number].model = grown;
    }
}

fn fail_fresh(pair: &Pair, nth: u32) -> bool {
    let (made, met) = failing(nth, || fresh(pair));
    assert!(made.is_ok() || met && made == Err(Errno::ENOMEM), "{made:?}");
    met
}

fn fresh(pair: &Pair) -> Result<(), Errno> {
    let sim = pair.rig.sim;
    let mm = Mm::new(sim, &MmLayout::default())?;
    let object = pair.files[0].0.clone();
    let text = MapRequest {
        addr: 16 * PAGE,
        object: Some((object, 0)),
        flags: Map::PRIVATE | Map::FIXED_NOREPLACE,
        ..MapRequest::anonymous(4 * PAGE, Prot::all())
    };
    mm.map(&text)?;
    let at = |addr: usize, flags: Map| MapRequest {
        addr: addr * PAGE,
        flags: flags | Map::PRIVATE | Map::ANONYMOUS | Map::FIXED_NOREPLACE,
        ..MapRequest::anonymous(4 * PAGE, RW)
    };
    mm.map(&at(20, Map::empty()))?;
    mm.map(&at(1 << 20, Map::GROWSDOWN))?;
    mm.set_brk_start(UserAddr::new(BRK * PAGE));
    for page in [(1 << 20) + 3, 19, 21, (1 << 20) - 2] {
        mm.pin(page * PAGE, true).map_err(|error| {
            assert_eq!(error, FaultError::OutOfMemory);
            Errno::ENOMEM
        })?;
    }
    if mm.brk((BRK + 3) * PAGE).get() != (BRK + 3) * PAGE {
        return Err(Errno::ENOMEM);
    }
    mm.validate();
    Ok(())
}

/// The state that `script` leads to, the call with its `nth` failure, and what must work after it. Whether there was one.
fn attempt(pair: &mut Pair, script: &[Op], call: &Call, nth: u32) -> bool {
    script.iter().for_each(|op| pair.do_both(op));
    let met = fail(pair, call, nth);
    pair.check();
    if let Call::Step(op) = call
        && !matches!(op, Op::Exit { .. })
    {
        // With memory it works, and the pages that it was about are sound.
        pair.step(op);
        let number = op.process().unwrap_or(0) % pair.processes.len();
        for at in outcomes::pages_of(op) {
            pair.touch(number, 0, at, Access::Read);
            pair.touch(number, 1, at, Access::Write);
        }
        pair.check();
    }
    pair.begin_anew();
    met
}

fn shortened(mut op: Op) -> Op {
    match &mut op {
        Op::Map { len, .. }
        | Op::Unmap { len, .. }
        | Op::Protect { len, .. }
        | Op::Advise { len, .. }
        | Op::Lock { len, .. }
        | Op::Unlock { len, .. } => *len = 1 + *len % LONGEST,
        Op::Touch { count, .. } => *count = 1,
        _ => {}
    }
    op
}

/// The call at a page that is mapped, three times of four.
fn aimed(mut op: Op, pair: &Pair, random: &mut Random) -> Op {
    let Some(process) = op.process() else { return op };
    let pages = &pair.processes[process % pair.processes.len()].model.pages;
    if let Op::Map { at, .. }
    | Op::Unmap { at, .. }
    | Op::Protect { at, .. }
    | Op::Remap { at, .. }
    | Op::Advise { at, .. }
    | Op::Lock { at, .. }
    | Op::Unlock { at, .. }
    | Op::Poke { at, .. }
    | Op::Away { at, .. }
    | Op::Touch { at, .. } = &mut op
        && *at != 0
        && !pages.is_empty()
        && random.below(4) != 0
    {
        *at = pages.keys().nth(random.below(pages.len())).copied().unwrap_or(*at);
    }
    op
}

/// How many failures each kind of call has met.
type Hits = BTreeMap<String, u32>;

/// How many calls are looked at to find some of each kind.
const DRAWN: usize = 1000;

/// One random program, and calls of each kind after it.
fn exhaust(pair: &mut Pair, seed: u64, hits: &mut Hits) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut script: Vec<Op> = (0..20 + random.below(40)).map(|_| shortened(random.op())).collect();
    script.iter().for_each(|op| pair.step(op));
    // Pages that are locked, or written, and some of them taken elsewhere.
    for n in 0..12 {
        let (process, at) = (random.below(PROCESSES), 1);
        let how = [How::Swap, How::Move, How::Mark][random.below(3)];
        let op = match n {
            0 => Op::Lock { process, at, len: 6, on_fault: false },
            1..8 => Op::Touch { process, cpu: n % CPUS, at, count: 3, access: Access::Write },
            _ => Op::Away { process, at, count: 3, how },
        };
        let op = aimed(op, pair, &mut random);
        pair.step(&op);
        script.push(op);
    }
    let mut calls: BTreeMap<String, Vec<Call>> = BTreeMap::new();
    if seed % 6 == 1 {
        calls.insert("exec".into(), Vec::from([Call::Fresh]));
    }
    for _ in 0..DRAWN {
        let op = shortened(random.op());
        let call = Call::Step(aimed(op, pair, &mut random));
        if call.is_promising(pair, &mut random) {
            let alike = calls.entry(call.kind(pair)).or_default();
            if alike.len() < call.of_a_kind() {
                alike.push(call);
            }
        }
    }
    pair.begin_anew();
    let boxes = inject::live();
    for (kind, call) in calls.into_iter().flat_map(|(kind, calls)| calls.into_iter().map(move |c| (kind.clone(), c))) {
        let mut nth = 1;
        loop {
            let tried = catch_unwind(AssertUnwindSafe(|| {
                let met = attempt(pair, &script, &call, nth);
                assert_eq!(inject::live(), boxes, "boxes that live");
                assert!(!met || !call.needs_no_memory(), "it allocates");
                met
            }));
            inject::fail(None);
            let met = tried.map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
                format!("seed {seed}, {kind}: with failure {nth}, {call:?}: {text}")
            })?;
            if !met {
                break;
            }
            *hits.entry(kind.clone()).or_default() += 1;
            nth += 1;
        }
    }
    Ok(())
}

/// Runs random programs until one fails, or all did not.
fn run(seeds: impl Iterator<Item = u64>) -> Result<Hits, String> {
    inject::keep_ledger();
    let mut pair = core::mem::ManuallyDrop::new(Pair::new(None, None));
    pair.rig.sim.pages().ask_about_failures();
    let mut hits = Hits::new();
    for seed in seeds {
        exhaust(&mut pair, seed, &mut hits)?;
    }
    core::mem::ManuallyDrop::into_inner(pair).end();
    Ok(hits)
}

#[test]
fn a_failed_allocation_loses_nothing_and_leaves_nothing_half_done() {
    let hits = run(1..=24).unwrap_or_else(|text| panic!("{text}"));
    let sorts = [
        "exec", "fork", "mmap", "munmap", "mprotect", "brk up", "mremap", "madvise", "mlock ", "mlockall", "munlock",
        "pin", "touch",
    ];
    let count = |sort: &&str| hits.iter().filter(|(kind, _)| kind.starts_with(*sort)).map(|(_, n)| n).sum::<u32>();
    let missed: Vec<_> = sorts.iter().filter(|sort| count(sort) == 0).collect();
    assert!(missed.is_empty(), "no failure met {missed:?}: {hits:#?}");
    assert!(hits.values().sum::<u32>() > 2000, "few failures: {hits:#?}");
}

/// `ORACLE_STEPS=1000 cargo test --release -p quire-mm every_allocation_fails -- --ignored` runs 1,000 programs.
#[test]
#[ignore = "takes minutes"]
fn every_allocation_fails_for_a_long_time() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let first: u64 = number("ORACLE_SEED", 1000);
    run(first..first + number("ORACLE_STEPS", 1000)).unwrap_or_else(|text| panic!("{text}"));
}

#[test]
fn bugs_behind_failures_are_noticed() {
    let missed: Vec<Bug> = Bug::BEHIND_FAILURES
        .into_iter()
        .filter(|bug| {
            seeded::switch(Some(*bug));
            let noticed = (1..=12).step_by(3).any(|seed| run(seed..seed + 3).is_err());
            seeded::switch(None);
            !noticed
        })
        .collect();
    assert_eq!(missed, []);
}
