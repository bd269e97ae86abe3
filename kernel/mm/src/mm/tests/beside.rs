//! Programs on several CPUs at once against one space and its children: each step of each CPU is a call, an access, or
//! a fork, and a seed decides where one CPU stops and another continues ([`turns`]), between any two accesses to an
//! entry.
//!
//! In a third of the worlds the memory is shared memory, in which forks are left out: a page of it would be in two registers.
//!
//! After a round the machine is quiet: then the other steps must explain the result of each step (history.rs), the
//! spaces' counts must balance, and every CPU must see the memory that the tables map.

mod history;

use std::boxed::Box;
use std::collections::HashSet;
use std::format;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::String;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use quire_abi::Errno;
use quire_abi::flags::{Map, Mremap, Prot, madv};

use super::non_present::{Elsewhere, How};
use super::pair::take_apart;
use super::script::Random;
use super::{PAGE, Rig, Space, map_at};
use crate::addr::UserAddr;
use crate::frame;
use crate::machine::Machine;
use crate::mm::{Access, FaultError, Mm, migrate};
use crate::pte::NonPresent;
use crate::seeded::{self, Bug};
use crate::sim::mmu::{Drain, Sabotage};
use crate::sim::{Call, Sim, turns};
use crate::spaces::HugePages;
use crate::table::LEAF_SPAN;
use history::{Done, History, Key};

/// Pages that all programs use: half of them around the edge of one table, half in another one.
const PAGES: usize = 8;
/// Spaces that live at a time.
const SPACES: usize = 3;

/// Where a page is.
fn address(page: usize) -> usize {
    let window = [0x4_0000 - PAGES / 4, 0x8_0000][page / (PAGES / 2)];
    (window + page % (PAGES / 2)) * PAGE
}

/// One step. Spaces are taken modulo what there is; a range is cut where its half of the pages ends.
#[derive(Clone, Copy, Debug)]
enum Op {
    Touch {
        space: usize,
        page: usize,
        access: Access,
    },
    Pin {
        space: usize,
        page: usize,
        write: bool,
    },
    Map {
        space: usize,
        page: usize,
        len: usize,
        prot: Prot,
    },
    Unmap {
        space: usize,
        page: usize,
        len: usize,
    },
    Protect {
        space: usize,
        page: usize,
        len: usize,
        prot: Prot,
    },
    Advise {
        space: usize,
        page: usize,
        len: usize,
        advice: i32,
    },
    Move {
        space: usize,
        from: usize,
        to: usize,
    },
    Fork {
        space: usize,
    },
    /// No call: what reclaim or migration does behind the programs' backs.
    Away {
        space: usize,
        page: usize,
        how: How,
    },
    /// No call either: a page moves to another frame.
    Migrate {
        space: usize,
        page: usize,
    },
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Access(Result<u64, FaultError>),
    Call(Result<(), Errno>),
    Child(Option<usize>),
    /// Nobody is told.
    Unseen,
}

/// Makes a step.
fn draw(random: &mut Random) -> Op {
    let space = if random.below(3) == 0 { random.below(SPACES) } else { 0 };
    let page = random.below(PAGES);
    let len = 1 + random.below(PAGES / 2 - page % (PAGES / 2));
    let prot = [Prot::empty(), Prot::READ, super::RW, super::RW, Prot::READ | Prot::EXEC, Prot::all()];
    let prot = prot[random.below(6)] & (Prot::READ | Prot::WRITE | Prot::EXEC);
    match random.below(25) {
        0..9 => {
            let access = [Access::Read, Access::Write, Access::Write, Access::Exec][random.below(4)];
            Op::Touch { space, page, access }
        }
        9 => Op::Pin { space, page, write: random.below(2) == 0 },
        10 | 11 => Op::Map { space, page, len, prot },
        12 => Op::Unmap { space, page, len },
        13..16 => Op::Protect { space, page, len, prot },
        16 => {
            let advices = [madv::DONTNEED, madv::COLD, madv::POPULATE_READ, madv::FREE, madv::FREE, madv::WILLNEED];
            let advice = advices[random.below(6)];
            Op::Advise { space, page, len, advice }
        }
        17 => Op::Move { space, from: page, to: (page + 1 + random.below(PAGES - 1)) % PAGES },
        18 | 19 => Op::Fork { space },
        20..23 => Op::Away { space, page, how: [How::Swap, How::Move, How::Collapse][random.below(3)] },
        _ => Op::Migrate { space, page },
    }
}

struct World {
    rig: Rig,
    elsewhere: &'static Elsewhere,
    is_shared: bool,
    /// The second half of the pages is the beginning of a block.
    has_blocks: bool,
    spaces: Mutex<Vec<Space>>,
    clock: AtomicU64,
    log: Mutex<Vec<Done>>,
}

impl World {
    fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let has_blocks = seed % 5 < 2 && seed / 2 % 3 != 2;
        let rig = Rig::broken(if has_blocks { 64 } else { 16 }, sabotage);
        if has_blocks {
            rig.sim.spaces().huge_pages().set(HugePages::Always);
        }
        if seed.is_multiple_of(2) {
            rig.sim.spaces().set_hardware_updates();
        }
        rig.mmu.set_chance(seed, if seed.is_multiple_of(3) { Drain::AtChance } else { Drain::Late });
        rig.sim.spaces().asids().set_bits(3);
        let mm = rig.space();
        let elsewhere = Elsewhere::attach(rig.sim);
        let is_shared = seed / 2 % 3 == 2;
        let spaces = Mutex::new([mm.clone()].into());
        let this =
            Self { rig, elsewhere, is_shared, has_blocks, spaces, clock: AtomicU64::new(1), log: Mutex::default() };
        for half in 0..2 {
            let page = half * PAGES / 2;
            map_at(&mm, address(page), this.extent(page, PAGES / 2), super::RW, this.kind()).unwrap();
        }
        this
    }

    /// The bytes of a range of pages: those of the block, if the range has all of it that programs use.
    fn extent(&self, page: usize, len: usize) -> usize {
        let is_block = self.has_blocks && page == PAGES / 2 && len == PAGES / 2;
        if is_block { LEAF_SPAN } else { len * PAGE }
    }

    /// How all is mapped.
    fn kind(&self) -> Map {
        if self.is_shared { Map::FIXED | Map::SHARED } else { Map::FIXED }
    }

    fn spaces(&self) -> MutexGuard<'_, Vec<Space>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// Does a step on `cpu`, and writes down what came of it.
    fn step(&self, cpu: usize, op: Op) {
        let start = self.tick();
        let (space, mm) = self.space(op);
        let outcome = self.make(cpu, &mm, op, start);
        let end = self.tick();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            // Known to the others from now on.
            Err(child) => Outcome::Child(child.map(|child| {
                let mut spaces = self.spaces();
                spaces.push(child);
                spaces.len() - 1
            })),
        };
        let done = Done { cpu, start, end, space, op, outcome };
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(done);
    }

    fn space(&self, op: Op) -> (usize, Space) {
        let (Op::Touch { space, .. }
        | Op::Pin { space, .. }
        | Op::Map { space, .. }
        | Op::Unmap { space, .. }
        | Op::Protect { space, .. }
        | Op::Advise { space, .. }
        | Op::Move { space, .. }
        | Op::Fork { space }
        | Op::Away { space, .. }
        | Op::Migrate { space, .. }) = op;
        let spaces = self.spaces();
        let space = space % spaces.len();
        (space, spaces[space].clone())
    }

    fn make(&self, cpu: usize, mm: &Space, op: Op, stamp: u64) -> Result<Outcome, Option<Space>> {
        Ok(match op {
            Op::Touch { page, access, .. } => {
                Outcome::Access(self.touch(cpu, mm, page, access, (access == Access::Write).then_some(stamp)))
            }
            Op::Pin { page, write, .. } => Outcome::Access(mm.pin(address(page), write).map(|page| {
                let word = page.as_ptr().cast::<u64>();
                // SAFETY: the page is pinned, for writing if so, and no other thread has its turn.
                unsafe { if write { word.replace(stamp) } else { word.read() } }
            })),
            Op::Map { page, len, prot, .. } => {
                Outcome::Call(map_at(mm, address(page), self.extent(page, len), prot, self.kind()).map(drop))
            }
            Op::Unmap { page, len, .. } => Outcome::Call(mm.unmap(address(page), self.extent(page, len))),
            Op::Protect { page, len, prot, .. } => {
                Outcome::Call(mm.protect(address(page), self.extent(page, len), prot))
            }
            Op::Advise { page, len, advice, .. } => {
                let is_refused = self.is_shared && advice == madv::FREE;
                let advice = if is_refused { madv::COLD } else { advice };
                Outcome::Call(mm.advise(address(page), self.extent(page, len), advice))
            }
            Op::Move { from, to, .. } => {
                let flags = Mremap::MAYMOVE | Mremap::FIXED;
                Outcome::Call(mm.remap(address(from), PAGE, PAGE, flags, address(to)).map(drop))
            }
            Op::Fork { .. } if self.is_shared || self.spaces().len() >= SPACES => Outcome::Child(None),
            Op::Fork { .. } => return Err(Some(mm.fork().unwrap())),
            Op::Away { page, how, .. } => {
                self.elsewhere.take_away(mm, UserAddr::new(address(page)), how);
                Outcome::Unseen
            }
            Op::Migrate { page, .. } => {
                let pte = mm.entry(UserAddr::new(address(page)));
                if pte.is_present() && !pte.is_special() {
                    // Whatever the frame is by now.
                    take_apart(self.rig.sim, pte.addr().pfn());
                    let _ = migrate(self.rig.sim, pte.addr().pfn(), || frame::alloc_to_move(self.rig.sim));
                }
                Outcome::Unseen
            }
        })
    }

    /// An access by a program on `cpu`: the word that was there.
    fn touch(
        &self,
        cpu: usize,
        mm: &Space,
        page: usize,
        access: Access,
        write: Option<u64>,
    ) -> Result<u64, FaultError> {
        self.rig.mmu.load(cpu, Some(mm.activate(cpu)));
        for _ in 0..50 {
            match self.rig.mmu.access(cpu, address(page), access) {
                Ok(at) => {
                    let word = self.rig.sim.direct_map(at).cast::<u64>();
                    // SAFETY: the MMU allows the access, and no other thread has its turn.
                    return Ok(unsafe { write.map_or_else(|| word.read(), |value| word.replace(value)) });
                }
                Err(_) => mm.fault(address(page), access)?,
            }
        }
        panic!("the access to page {page} never goes through");
    }

    /// What a quiet space has at a page: its rights, and the word, if it is in memory or in swap.
    fn state(&self, mm: &Space, page: usize) -> (Option<Prot>, Option<u64>) {
        let at = UserAddr::new(address(page));
        let mut prot = None;
        mm.area_from(at, |area| {
            prot = (area.start <= at).then(|| Prot::from_bits_truncate(area.flags.bits() & 7));
        });
        let pte = mm.entry(at);
        let word = match pte.kind() {
            // SAFETY: a frame of the simulated machine that an entry refers to; one thread runs.
            None => Some(unsafe { self.rig.sim.direct_map(pte.addr()).cast::<u64>().read() }),
            Some(NonPresent::Swap(swapped)) => Some(self.elsewhere.word(swapped.slot)),
            Some(NonPresent::None) => self.word_of_object(mm, at),
            // Left over from a move: see non_present.rs of the code.
            Some(NonPresent::Migration(_)) if self.is_shared => self.word_of_object(mm, at),
            Some(other) => panic!("{other:?} at page {page}, and nobody moves anything"),
        };
        (prot, word)
    }

    /// The word of the page that the object at this address has.
    fn word_of_object(&self, mm: &Space, at: UserAddr) -> Option<u64> {
        let backing = mm.areas.read().tree.find(at)?.backing_at(at)?;
        backing.object.look_at(backing.index).map(|place| match place {
            // SAFETY: as in `state`.
            Ok(pfn) => unsafe { self.rig.sim.direct_map(pfn.addr()).cast::<u64>().read() },
            Err(slot) => self.elsewhere.word(slot),
        })
    }

    /// All threads have ended: explains what they saw, and what is there now.
    fn check(&self, history: &mut History) {
        let log = core::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner));
        history.add(log);
        history.explain_all();
        let now = self.tick();
        let spaces = self.spaces().clone();
        for (space, mm) in spaces.iter().enumerate() {
            mm.validate();
            assert_eq!(Mm::audit(mm, || true).unlisted, 0, "entries that reverse mapping does not know");
            for page in 0..PAGES {
                let (prot, word) = self.state(mm, page);
                history.explain_state(Key { space, page }, now, prot, word);
                if prot.is_some_and(|prot| !prot.is_empty()) {
                    for cpu in 0..CPUS {
                        Sim::set_cpu(cpu);
                        let seen = self.touch(cpu, mm, page, Access::Read, None);
                        assert_eq!(seen, Ok(word.unwrap_or(0)), "CPU {cpu} at page {page} of space {space}");
                    }
                    Sim::set_cpu(0);
                }
            }
        }
        assert_eq!(self.rig.sim.pages().bad_pages(), 0, "a page was freed that was not fit for it");
    }

    /// One space lives on, the first or the last one. What is there now is where the next round begins.
    fn begin_anew(&self, last: bool) -> History {
        (0..CPUS).for_each(|cpu| self.rig.idle(cpu));
        let mut spaces = self.spaces();
        let kept = if last { spaces.pop() } else { Some(spaces.swap_remove(0)) };
        let ended = core::mem::replace(&mut *spaces, kept.into_iter().collect());
        let kept = spaces[0].clone();
        drop(spaces);
        drop(ended);
        let mut history = History::new(self.is_shared);
        for page in 0..PAGES {
            let (prot, word) = self.state(&kept, page);
            history.begin(Key { space: 0, page }, prot, word.unwrap_or(0));
            let pte = kept.entry(UserAddr::new(address(page)));
            if pte.is_present() && pte.is_given_up() {
                history.may_be_zero(Key { space: 0, page }, (0, 0));
            }
        }
        history
    }
}

const CPUS: usize = 3;
const ROUNDS: usize = 6;
const STEPS: usize = 5;

impl World {
    /// Runs a script for each CPU, and checks what came of it; returns what went wrong.
    fn round(&self, history: &mut History, seed: u64, scripts: &[Vec<Op>]) -> Result<(), String> {
        let bug = seeded::current();
        let mut random = Random::new(seed);
        let stretch = 1 + random.below(30);
        let done = catch_unwind(AssertUnwindSafe(|| {
            let bodies = scripts.iter().enumerate().map(|(cpu, script)| {
                Box::new(move || {
                    seeded::switch(bug);
                    Sim::set_cpu(cpu);
                    script.iter().for_each(|op| self.step(cpu, *op));
                }) as turns::Body
            });
            turns::run(seed, stretch, bodies.collect());
            self.check(history);
            *history = self.begin_anew(random.below(2) == 0);
        }));
        done.map_err(|panic| {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            turns::text_of(&*panic) + &history.listing(&log)
        })
    }

    /// Everybody exits, and everything is back; answers the calls that there were, or what went wrong.
    fn end(&self) -> Result<HashSet<Call>, String> {
        let done = catch_unwind(AssertUnwindSafe(|| self.end_all()));
        done.map(|()| self.rig.mmu.calls()).map_err(|panic| format!("at the end: {}", turns::text_of(&*panic)))
    }

    fn end_all(&self) {
        (0..CPUS).for_each(|cpu| self.rig.idle(cpu));
        self.spaces().clear();
        assert_eq!(self.elsewhere.used_slots(), 0, "swap slots in use");
        self.rig.assert_balanced();
    }
}

/// Runs what a seed says; returns the calls that it led to, or what went wrong.
pub(super) fn run(seed: u64, sabotage: Option<Sabotage>) -> Result<HashSet<Call>, String> {
    let mut random = Random::new(seed);
    // What is broken is not ended, which would panic again.
    let world = ManuallyDrop::new(World::new(seed, sabotage));
    let mut history = world.begin_anew(false);
    for round in 0..ROUNDS {
        let scripts: Vec<Vec<Op>> = (0..CPUS).map(|_| (0..STEPS).map(|_| draw(&mut random)).collect()).collect();
        let done = world.round(&mut history, seed << 8 | round as u64, &scripts);
        done.map_err(|text| format!("seed {seed}, round {round}: {text}"))?;
    }
    world.end().map_err(|text| format!("seed {seed}, {text}"))
}

/// Runs each two steps beside each other, after what leads to them; returns the calls that led to, or what went wrong.
fn run_pairs(seed: u64, sabotage: Option<Sabotage>) -> Result<HashSet<Call>, String> {
    let (space, page, len) = (0, 1, 2);
    let (read, write) = (Prot::READ, super::RW);
    let touch = |page, access| Op::Touch { space, page, access };
    let map = |prot| Op::Map { space, page, len, prot };
    let protect = |prot| Op::Protect { space, page, len, prot };
    let steps = [
        touch(page, Access::Read),
        touch(page, Access::Write),
        touch(page, Access::Exec),
        Op::Pin { space, page, write: true },
        map(Prot::all() & (write | Prot::EXEC)),
        Op::Unmap { space, page, len },
        protect(Prot::empty()),
        protect(read | Prot::EXEC),
        protect(write),
        Op::Advise { space, page, len, advice: madv::DONTNEED },
        Op::Advise { space, page, len, advice: madv::COLD },
        Op::Advise { space, page, len, advice: madv::POPULATE_READ },
        Op::Advise { space, page, len, advice: madv::FREE },
        Op::Advise { space, page, len, advice: madv::WILLNEED },
        Op::Move { space, from: page, to: PAGES - 1 },
        Op::Fork { space },
        Op::Away { space, page, how: How::Swap },
        Op::Away { space, page, how: How::Move },
        Op::Migrate { space, page },
    ];
    // Nothing is left in the first page's table: only its neighbour had anything there.
    let alone = Op::Unmap { space, page: page - 1, len: 1 };
    let before: [&[Op]; 6] = [
        &[alone, map(write)],
        &[map(write), touch(page, Access::Write), touch(page + 1, Access::Read)],
        &[map(write), touch(page, Access::Write), Op::Fork { space }],
        &[map(write), touch(page, Access::Write), protect(Prot::empty())],
        &[map(write), touch(page, Access::Write), Op::Away { space, page, how: How::Swap }],
        &[map(write), touch(page, Access::Write), Op::Advise { space, page, len, advice: madv::FREE }],
    ];
    let world = ManuallyDrop::new(World::new(seed, sabotage));
    let mut history = world.begin_anew(false);
    for (n, (one, other)) in steps.iter().flat_map(|one| steps.iter().map(move |other| (one, other))).enumerate() {
        // Each pair has each beginning in turn.
        let lead = before[(n / steps.len() + n + seed as usize) % before.len()];
        let seed = seed << 16 | n as u64;
        let child = Op::Touch { space: 1, page, access: Access::Write };
        // On CPUs of their own; what they leave is looked at by both.
        let scripts = [lead.to_vec(), [*one, touch(page, Access::Read)].into(), [*other, child].into()];
        Sim::set_cpu(0);
        scripts[0].iter().for_each(|op| world.step(0, *op));
        let done = world.round(&mut history, seed, &[Vec::new(), scripts[1].clone(), scripts[2].clone()]);
        done.map_err(|text| format!("{one:?} beside {other:?}, seed {seed}: {text}"))?;
    }
    world.end()
}

/// A child's pages are copied on somebody's behalf while it runs for the first time; returns the calls that led to, or what
/// went wrong.
fn run_first_runs(seeds: core::ops::Range<u64>, sabotage: Option<Sabotage>) -> Result<HashSet<Call>, String> {
    let (space, page) = (1, 1);
    let world = ManuallyDrop::new(World::new(2, sabotage));
    let mut history = world.begin_anew(false);
    for seed in seeds {
        let map = Op::Map { space: 0, page, len: 1, prot: super::RW };
        let write = Op::Touch { space: 0, page, access: Access::Write };
        let read = Op::Touch { space, page, access: Access::Read };
        Sim::set_cpu(0);
        [map, write, Op::Fork { space: 0 }].into_iter().for_each(|op| world.step(0, op));
        let scripts = [Vec::new(), [Op::Pin { space, page, write: true }].into(), [read, read].into()];
        world.round(&mut history, seed, &scripts).map_err(|text| format!("seed {seed}: {text}"))?;
    }
    world.end()
}

fn is_noticed() -> bool {
    let fails = || {
        (1..60).any(|seed| run_pairs(seed, None).is_err())
            || run_first_runs(1..300, None).is_err()
            || run(1, None).is_err()
    };
    catch_unwind(AssertUnwindSafe(fails)).unwrap_or(true)
}

#[test]
fn each_two_steps_beside_each_other_are_explained() {
    (1..7).for_each(|seed| drop(run_pairs(seed, None).unwrap_or_else(|text| panic!("{text}"))));
}

#[test]
fn a_space_that_runs_for_the_first_time_has_no_page_that_was_just_replaced() {
    if let Err(text) = run_first_runs(1..200, None) {
        panic!("{text}");
    }
}

#[test]
fn bugs_that_only_show_beside_others_are_noticed() {
    for bug in Bug::BESIDE_OTHERS {
        seeded::switch(Some(bug));
        let noticed = is_noticed();
        seeded::switch(None);
        assert!(noticed, "nobody noticed {bug:?}");
    }
}

#[test]
fn what_each_cpu_sees_is_explained_by_what_the_others_did() {
    for seed in 1..=100 {
        if let Err(text) = run(seed, None) {
            panic!("{text}");
        }
    }
}

/// The long form: `ORACLE_STEPS=1000000 cargo test --release -p quire-mm beside -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn what_each_cpu_sees_is_explained_for_a_long_time() {
    let steps: u64 = std::env::var("ORACLE_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let first: u64 = std::env::var("ORACLE_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    for seed in first..first + steps / (CPUS * ROUNDS * STEPS) as u64 {
        if let Err(text) = run(seed, None) {
            panic!("{text}");
        }
    }
}

#[test]
fn a_seed_leads_to_the_same_every_time() {
    let noticed = || {
        seeded::switch(Some(Bug::ForkForgetsWriteProtection));
        let text = (1..50).find_map(|seed| run(seed, None).err());
        seeded::switch(None);
        text.expect("the bug is noticed")
    };
    assert_eq!(noticed(), noticed());
}
