//! Several CPUs: threads spread, moves come to an end, and every thread is in exactly one place.

use std::ptr::NonNull;

use proptest::prelude::*;

use super::super::class::{Class, Policy};
use super::super::queue::{Enters, Former};
use super::super::share::Share;
use super::super::spread::{Pace, RAREST, is_uneven, may_move, may_take_turn};
use super::{Cpu, SLICE, fifo, nice, share};

/// CPUs of which each has threads of these weights.
struct Machine {
    cpus: Vec<Vec<u32>>,
    paces: Vec<Pace>,
    now: u64,
}

impl Machine {
    fn new(cpus: Vec<Vec<u32>>) -> Self {
        let paces = cpus.iter().map(|_| Pace::new()).collect();
        Self { cpus, paces, now: 1 }
    }

    fn load(&self, cpu: usize) -> u64 {
        self.cpus[cpu].iter().map(|weight| u64::from(*weight)).sum()
    }

    fn loads(&self) -> Vec<u64> {
        (0..self.cpus.len()).map(|cpu| self.load(cpu)).collect()
    }

    /// Ends a slice on a CPU that knows these loads; returns which CPU it asked, and whether it took a thread.
    fn end_slice(&mut self, cpu: usize, known: &[u64]) -> Option<(usize, bool)> {
        self.now += SLICE;
        let own = self.load(cpu);
        let others = known.iter().copied().enumerate().filter(|(other, _)| *other != cpu);
        let source = self.paces[cpu].source(cpu, self.now, SLICE, own, others)?;
        let there = self.load(source);
        let at = self.cpus[source].iter().position(|weight| may_move(*weight, own, there));
        if let Some(at) = at {
            let weight = self.cpus[source].remove(at);
            self.cpus[cpu].push(weight);
            self.paces[cpu].took_one(self.now, SLICE);
        }
        Some((source, at.is_some()))
    }
}

fn weights() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec((-20i8..=19).prop_map(|value| nice(value).weight()), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Each move makes the machine more even, even if a CPU uses loads that it read long ago; finally no CPU takes
    /// anything any more.
    #[test]
    fn moves_come_to_an_end(cpus in prop::collection::vec(weights(), 2..8), turns in prop::collection::vec((0usize..8, any::<bool>()), 200)) {
        let squares = |machine: &Machine| machine.loads().iter().map(|load| u128::from(*load).pow(2)).sum::<u128>();
        let mut machine = Machine::new(cpus);
        let mut old = machine.loads();
        for (cpu, sees_now) in turns {
            let before = squares(&machine);
            if sees_now {
                old = machine.loads();
            }
            let moved = machine.end_slice(cpu % old.len(), &old).is_some_and(|(_, moved)| moved);
            prop_assert!(squares(&machine) < before || !moved && squares(&machine) == before);
        }
        let count = machine.cpus.len();
        // (If there was no move for this number of slices, each CPU has asked all others.)
        let mut quiet = 0;
        for _ in 0..100_000 {
            quiet += 1;
            if quiet > 2 * RAREST as usize * count {
                break;
            }
            for cpu in 0..count {
                let loads = machine.loads();
                if machine.end_slice(cpu, &loads).is_some_and(|(_, moved)| moved) {
                    quiet = 0;
                }
            }
        }
        prop_assert!(quiet > 2 * RAREST as usize * count, "moves do not end: {:?}", machine.loads());
        for (here, there) in (0..count).flat_map(|here| (0..count).map(move |there| (here, there))) {
            let (own, other) = (machine.load(here), machine.load(there));
            prop_assert!(!machine.cpus[there].iter().any(|weight| may_move(*weight, own, other)), "{:?}", machine.loads());
        }
    }

    /// Whatever happens to threads, and wherever, each ready one is in exactly one place, and runs eventually.
    #[test]
    fn each_thread_is_in_one_place(steps in prop::collection::vec((0u8..8, 0usize..3, 0usize..8, -20i8..=19), 1..400)) {
        let mut cpus = [0, 1, 2].map(Cpu::new);
        let threads: Vec<_> = (0..8).map(|_| share(Class::NORMAL)).collect();
        let mut ready = [false; 8];
        let mut moving: Option<NonNull<Share>> = None;
        let index = |share: &Share| threads.iter().position(|other| std::ptr::eq(*other, share)).expect("one of the threads");
        for (what, at, which, value) in steps {
            let cpu = &mut cpus[at];
            cpu.pass(SLICE / 3);
            let thread = threads[which];
            match what {
                0 | 1 if !ready[which] => {
                    ready[which] = true;
                    cpu.wake(thread);
                }
                2 => if let Some(running) = cpu.running {
                    ready[index(running)] = false;
                    cpu.sleep();
                },
                3 => _ = cpu.yields(),
                4 if moving.is_none() => moving = cpu.queue.take_for_another(4, |_| true),
                5 => if let Some(share) = moving.take() {
                    // SAFETY: it lives for ever, and was taken out of its queue.
                    unsafe { cpu.queue.enter(share, Enters::Moved, SLICE, cpu.now) };
                },
                6 => {
                    thread.set_class(match value {
                        -20..-16 => fifo((value + 21) as u8),
                        -16..-14 => Class { policy: Policy::Idle, ..Class::NORMAL },
                        _ => nice(value),
                    });
                    if let Some(queue) = thread.queue_after_change() {
                        let cpu = &mut cpus[queue];
                        prop_assert!(cpu.queue.has(thread));
                        cpu.queue.reenter(thread, SLICE, cpu.now);
                    }
                }
                _ => _ = cpu.tick(),
            }
            for (at, thread) in threads.iter().enumerate() {
                let queued = cpus.iter().filter(|cpu| cpu.queue.has(thread)).count();
                let running = cpus.iter().filter(|cpu| cpu.is(thread)).count();
                let on_its_way = usize::from(moving.is_some_and(|moving| std::ptr::eq(moving.as_ptr(), *thread)));
                prop_assert_eq!(queued + running + on_its_way, usize::from(ready[at]));
            }
        }
        // Each comes out once.
        let mut seen = [0; 8];
        // SAFETY: shares of tests live for ever.
        moving.into_iter().for_each(|share| seen[index(unsafe { share.as_ref() })] += 1);
        for cpu in &mut cpus {
            cpu.running.into_iter().for_each(|running| seen[index(running)] += 1);
            let mut former = cpu.running.map_or(Former::Nothing, Former::Leaves);
            while let Some(next) = cpu.queue.pick(&former, SLICE, cpu.now) {
                // SAFETY: shares of tests live for ever.
                let next: &'static Share = unsafe { next.as_ref() };
                seen[index(next)] += 1;
                former = Former::Leaves(next);
            }
            prop_assert_eq!(cpu.queue.load(), 0);
        }
        prop_assert_eq!(seen, ready.map(usize::from));
    }
}

#[test]
fn loops_spread_evenly() {
    for (cpus, loops) in [(2, 8), (4, 8), (8, 16), (3, 7)] {
        let mut all = vec![Vec::new(); cpus];
        all[0] = vec![Class::NORMAL.weight(); loops];
        let mut machine = Machine::new(all);
        for _ in 0..RAREST as usize * cpus {
            for cpu in 0..cpus {
                let loads = machine.loads();
                machine.end_slice(cpu, &loads);
            }
        }
        let counts: Vec<_> = machine.cpus.iter().map(Vec::len).collect();
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
    }
}

/// Threads whose number is no multiple of the number of CPUs: over some seconds each gets about its share. (Without
/// turns one would get twice as much as others.)
#[test]
fn what_is_left_over_takes_turns() {
    for (cpus, loops) in [(2, 3), (4, 5), (4, 7), (3, 7)] {
        let weight = Class::NORMAL.weight();
        // Each CPU's threads by number, of which the first one runs; and the number of slices of each thread.
        let mut queues = vec![Vec::new(); cpus];
        (0..loops).for_each(|thread| queues[thread % cpus].push(thread));
        let mut paces: Vec<Pace> = queues.iter().map(|_| Pace::new()).collect();
        let mut had = vec![0_u64; loops];
        let mut moved_at = vec![0; loops];
        let load = |queue: &Vec<usize>| queue.len() as u64 * u64::from(weight);
        let slices = 10_000;
        for now in 1..=slices {
            for cpu in 0..cpus {
                had[queues[cpu][0]] += 1;
                queues[cpu].rotate_left(1);
                let own = load(&queues[cpu]);
                let others = queues.iter().enumerate().filter(|(other, queue)| *other != cpu && queue.len() > 1);
                let others = others.map(|(other, queue)| (other, load(queue)));
                let Some(source) = paces[cpu].source(cpu, now * SLICE, SLICE, own, others) else { continue };
                let there = load(&queues[source]);
                let is_better = may_move(weight, own, there);
                if !(is_better || paces[cpu].is_rare() && may_take_turn(weight, own, there)) {
                    continue;
                }
                let Some(at) = (1..queues[source].len()).find(|at| moved_at[queues[source][*at]] + 2 <= now) else {
                    continue;
                };
                let thread = queues[source].remove(at);
                moved_at[thread] = now;
                queues[cpu].push(thread);
                if is_better {
                    paces[cpu].took_one(now * SLICE, SLICE);
                }
            }
        }
        let due = slices * cpus as u64 / loops as u64;
        assert!(had.iter().all(|had| had.abs_diff(due) < due / 3), "{cpus} CPUs, {due} slices each: {had:?}");
    }
}

proptest! {
    /// After a turn neither CPU is busier than the busier one was before.
    #[test]
    fn a_turn_makes_nothing_worse(weight in 1u32..90_000, own in 0u64..1 << 20, other in 0u64..1 << 20) {
        if may_take_turn(weight, own, other) {
            prop_assert!(own + u64::from(weight) <= other && other >= u64::from(weight));
        }
        prop_assert!(!may_move(weight, own, other) || may_take_turn(weight, own, other));
    }
}

#[test]
fn a_cpu_that_has_nothing_to_give_does_not_hide_the_next_one() {
    let mut pace = Pace::new();
    let mut now = 1;
    let mut look = |pace: &mut Pace| {
        now += 2 * RAREST * SLICE;
        pace.source(0, now, SLICE, 1024, [(1, 9000), (2, 8000), (3, 1100)].into_iter())
    };
    let asked = [(); 6].map(|()| look(&mut pace));
    assert_eq!(asked, [Some(1), Some(2), None, Some(1), Some(2), None]);
    assert!(!is_uneven(1024, 1100));
}

#[test]
fn whoever_finds_nothing_looks_seldom() {
    let mut pace = Pace::new();
    // (The last value says whether another CPU was asked.)
    let looks = |pace: &mut Pace, from: u64| {
        let slices = from..from + 8 * RAREST;
        slices.filter(|at| pace.source(0, at * SLICE, SLICE, 0, [(1, 2048 + at % 2)].into_iter()).is_some()).count()
    };
    assert!(looks(&mut pace, 1) <= 8);
    let later = 1000;
    pace.took_one(later * SLICE, SLICE);
    assert_eq!(pace.source(0, later * SLICE + SLICE - 1, SLICE, 0, [(1, 2048)].into_iter()), None);
    assert_eq!(pace.source(0, later * SLICE + SLICE, SLICE, 0, [(1, 2048)].into_iter()), Some(1));
}
