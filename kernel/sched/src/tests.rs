//! A CPU in model time: hogs, sleepers, policies, and a model of which thread may be picked.

use std::ptr::NonNull;

use proptest::prelude::*;

use super::class::{Class, Policy};
use super::queue::{Enters, Former, Preempts, Queue, ROUND};
use super::share::Share;

mod spread;

const SLICE: u64 = 4_000_000;

fn nice(nice: i8) -> Class {
    Class { nice, ..Class::NORMAL }
}

fn fifo(priority: u8) -> Class {
    Class { policy: Policy::Fifo, nice: 0, priority }
}

fn round_robin(priority: u8) -> Class {
    Class { policy: Policy::RoundRobin, nice: 0, priority }
}

/// A CPU, and threads that live for ever.
struct Cpu {
    queue: Queue,
    now: u64,
    running: Option<&'static Share>,
}

fn share(class: Class) -> &'static Share {
    let share = Box::leak(Box::new(Share::new()));
    share.set_class(class);
    share
}

impl Cpu {
    fn new(number: u32) -> Self {
        let mut queue = Queue::new();
        queue.set_number(number);
        Self { queue, now: 1, running: None }
    }

    fn enter(&mut self, share: &'static Share, how: Enters) -> Preempts {
        // SAFETY: shares of tests live for ever, and each is in one queue at most.
        unsafe { self.queue.enter(NonNull::from(share), how, SLICE, self.now) }
    }

    fn wake(&mut self, share: &'static Share) -> Preempts {
        self.enter(share, Enters::Woken)
    }

    /// Lets the running thread run for a time.
    fn pass(&mut self, ns: u64) {
        self.now += ns;
        if let Some(share) = self.running {
            share.charge(ns);
        }
    }

    fn schedule(&mut self, former: Former<'static>) -> Option<&'static Share> {
        let next = self.queue.pick(&former, SLICE, self.now);
        match (next, former) {
            (Some(next), former) => {
                if let Former::Ready(share) | Former::Yields(share) = former {
                    self.enter(share, Enters::Preempted);
                }
                // SAFETY: shares of tests live for ever.
                self.running = Some(unsafe { next.as_ref() });
            }
            (None, Former::Ready(_) | Former::Yields(_)) => {}
            (None, _) => self.running = None,
        }
        self.running
    }

    fn tick(&mut self) -> Option<&'static Share> {
        let former = self.running.map_or(Former::Nothing, Former::Ready);
        self.schedule(former)
    }

    fn yields(&mut self) -> Option<&'static Share> {
        let former = self.running.map_or(Former::Nothing, |share| {
            share.yields(SLICE);
            Former::Yields(share)
        });
        self.schedule(former)
    }

    fn sleep(&mut self) -> Option<&'static Share> {
        let former = self.running.map_or(Former::Nothing, Former::Leaves);
        self.schedule(former)
    }

    fn is(&self, share: &'static Share) -> bool {
        self.running.is_some_and(|running| std::ptr::eq(running, share))
    }
}

/// How long each of some hogs has run after a number of ticks.
fn run(cpu: &mut Cpu, hogs: &[&'static Share], ticks: u64) -> Vec<u64> {
    let mut spent = vec![0; hogs.len()];
    for _ in 0..ticks {
        cpu.tick();
        cpu.pass(SLICE);
        if let Some(at) = hogs.iter().position(|hog| cpu.is(hog)) {
            spent[at] += SLICE;
        }
    }
    spent
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A thread that always wants to run gets the share of its weight, within a few of its requests.
    #[test]
    fn hogs_share_by_weight(values in prop::collection::vec(-20i8..=19, 1..12)) {
        let mut cpu = Cpu::new(0);
        let hogs: Vec<_> = values.iter().map(|value| share(nice(*value))).collect();
        hogs.iter().for_each(|hog| { cpu.wake(hog); });
        let ticks = 20_000;
        let spent = run(&mut cpu, &hogs, ticks);
        let all: u64 = hogs.iter().map(|hog| u64::from(hog.weight())).sum();
        for (hog, spent) in hogs.iter().zip(spent) {
            let due = (u128::from(ticks * SLICE) * u128::from(hog.weight()) / u128::from(all)) as u64;
            prop_assert!(spent.abs_diff(due) <= 4 * SLICE, "weight {}: {spent} of {due}", hog.weight());
        }
    }

    /// With threads that arrive, sleep and yield at random, the picked thread has no more than its due, unless no
    /// thread has less; and no eligible thread with an earlier deadline waits.
    #[test]
    fn the_earliest_eligible_runs(steps in prop::collection::vec((0u8..4, 0usize..6, 1u64..3 * SLICE), 1..300)) {
        let mut cpu = Cpu::new(0);
        let shares: Vec<_> = (0..6).map(|at| share(nice([0, 0, 5, -5, 10, 0][at]))).collect();
        let mut ready = [false; 6];
        for (what, which, time) in steps {
            cpu.pass(time);
            match what {
                0 if !ready[which] => {
                    ready[which] = true;
                    cpu.wake(shares[which]);
                }
                1 => {
                    if let Some(at) = shares.iter().position(|share| cpu.is(share)) {
                        ready[at] = false;
                    }
                    cpu.sleep();
                }
                2 => {
                    cpu.yields();
                }
                _ => {
                    cpu.tick();
                    if let Some(running) = cpu.running {
                        let waiting = shares.iter().enumerate().filter(|(at, share)| ready[*at] && !cpu.is(share));
                        for (_, other) in waiting {
                            let is_eligible = cpu.queue.is_due(other);
                            prop_assert!(!is_eligible || !cpu.queue.is_due(running) || other.deadline() >= running.deadline());
                        }
                    }
                }
            }
            prop_assert_eq!(cpu.running.is_some() || ready.iter().any(|ready| *ready), ready.iter().any(|ready| *ready));
            let queued = shares.iter().filter(|share| cpu.queue.has(share)).count();
            let running = usize::from(cpu.running.is_some());
            prop_assert_eq!(queued + running, ready.iter().filter(|ready| **ready).count());
        }
    }
}

#[test]
fn who_slept_preempts_hogs_soon_and_gains_nothing_else() {
    let mut cpu = Cpu::new(0);
    let hogs: Vec<_> = (0..5).map(|_| share(Class::NORMAL)).collect();
    let sleeper = share(Class::NORMAL);
    hogs.iter().for_each(|hog| _ = cpu.wake(hog));
    run(&mut cpu, &hogs, 100);
    let (mut spent, mut waits) = (0, 0);
    // A new thread gets no more than all others.
    assert_eq!(cpu.wake(sleeper), Preempts::No);
    while !cpu.is(sleeper) {
        cpu.pass(SLICE);
        cpu.tick();
    }
    cpu.sleep();
    run(&mut cpu, &hogs, 12);
    for _ in 0..50 {
        // It needs 1 % of the CPU: it runs next whenever it wakes.
        cpu.tick();
        cpu.pass(SLICE / 8);
        if cpu.wake(sleeper) != Preempts::Soon {
            // Another thread has an earlier deadline: the rest of an interrupted request.
            waits += 1;
            cpu.pass(SLICE);
        }
        assert!(std::ptr::eq(cpu.tick().expect("somebody runs"), sleeper));
        cpu.pass(SLICE / 8);
        spent += SLICE / 8;
        cpu.sleep();
        run(&mut cpu, &hogs, 12);
    }
    assert!(spent < cpu.now / 10 && waits < 20, "{waits}");
    // Now it wants the whole CPU: it gets the slice that it is behind, and then its share like all others.
    cpu.wake(sleeper);
    let all: Vec<_> = hogs.iter().copied().chain([sleeper]).collect();
    let parts = run(&mut cpu, &all, 600);
    assert!(parts[5] <= 102 * SLICE, "{parts:?}");
}

#[test]
fn sleeping_often_wins_no_time() {
    let mut cpu = Cpu::new(0);
    let (hog, napper) = (share(Class::NORMAL), share(Class::NORMAL));
    cpu.wake(hog);
    cpu.wake(napper);
    let mut spent = [0u64; 2];
    for _ in 0..10_000 {
        cpu.tick();
        cpu.pass(SLICE);
        spent[usize::from(cpu.is(napper))] += SLICE;
        if cpu.is(napper) {
            cpu.sleep();
            cpu.wake(napper);
        }
    }
    assert!(spent[1] <= spent[0] + 4 * SLICE, "{spent:?}");
}

#[test]
fn who_yields_often_is_not_forgotten() {
    let mut cpu = Cpu::new(0);
    let (polite, hog) = (share(Class::NORMAL), share(Class::NORMAL));
    cpu.wake(polite);
    cpu.tick();
    for _ in 0..1000 {
        cpu.pass(1000);
        cpu.yields();
        assert!(cpu.is(polite), "there is nobody else");
    }
    cpu.wake(hog);
    let mut turns = 0;
    for _ in 0..1000 {
        if cpu.is(polite) {
            turns += 1;
            cpu.pass(1000);
            cpu.yields();
            assert!(cpu.is(hog));
        }
        cpu.pass(SLICE);
        cpu.tick();
    }
    assert!(turns > 400, "{turns}");
}

#[test]
fn priorities_come_first_and_turns_are_taken() {
    let mut cpu = Cpu::new(0);
    let normal = share(Class::NORMAL);
    let [low, a, b] = [share(fifo(10)), share(round_robin(20)), share(round_robin(20))];
    cpu.wake(normal);
    cpu.tick();
    assert_eq!(cpu.wake(low), Preempts::Now);
    cpu.tick();
    assert!(cpu.is(low));
    assert_eq!(cpu.wake(normal_again()), Preempts::No);
    assert_eq!(cpu.wake(a), Preempts::Now);
    cpu.tick();
    assert!(cpu.is(a));
    assert_eq!(cpu.wake(b), Preempts::No);
    cpu.pass(ROUND / 2);
    cpu.tick();
    assert!(cpu.is(a), "its turn goes on");
    cpu.pass(ROUND / 2);
    cpu.tick();
    assert!(cpu.is(b));
    cpu.sleep();
    assert!(cpu.is(a));
    cpu.yields();
    assert!(cpu.is(a), "nobody of less priority runs because it yields");
    cpu.sleep();
    assert!(cpu.is(low));
    cpu.sleep();
    assert!(cpu.running.is_some_and(|share| !share.class().is_real_time()));
}

fn normal_again() -> &'static Share {
    share(Class::NORMAL)
}

#[test]
fn one_that_was_preempted_goes_on_before_its_equals() {
    let mut cpu = Cpu::new(0);
    let [a, b, urgent] = [share(fifo(5)), share(fifo(5)), share(fifo(6))];
    cpu.wake(a);
    cpu.tick();
    cpu.wake(b);
    cpu.wake(urgent);
    cpu.tick();
    assert!(cpu.is(urgent));
    cpu.sleep();
    assert!(cpu.is(a));
    cpu.yields();
    assert!(cpu.is(b));
}

#[test]
fn a_real_time_hog_leaves_a_twentieth() {
    let mut cpu = Cpu::new(0);
    let (hog, normal) = (share(fifo(99)), share(Class::NORMAL));
    cpu.wake(hog);
    cpu.wake(normal);
    let spent = run(&mut cpu, &[hog, normal], 10_000);
    let part = spent[1] as f64 / (spent[0] + spent[1]) as f64;
    assert!((0.04..0.06).contains(&part), "{spent:?}");
}

#[test]
fn idle_ones_get_next_to_nothing_and_are_preempted_at_once() {
    let mut cpu = Cpu::new(0);
    let (idle, normal) = (share(Class { policy: Policy::Idle, ..Class::NORMAL }), share(Class::NORMAL));
    cpu.wake(idle);
    cpu.tick();
    cpu.pass(SLICE);
    assert_eq!(cpu.wake(normal), Preempts::Now);
    let spent = run(&mut cpu, &[idle, normal], 10_000);
    assert!(spent[0] * 200 < spent[1], "{spent:?}");
    assert_eq!(cpu.wake(share(Class { policy: Policy::Batch, ..Class::NORMAL })), Preempts::No);
}

#[test]
fn who_moves_keeps_what_it_is_behind_or_ahead() {
    let (mut from, mut to) = (Cpu::new(0), Cpu::new(1));
    let [a, b, c] = [(); 3].map(|()| share(Class::NORMAL));
    from.wake(a);
    from.wake(b);
    to.wake(c);
    run(&mut from, &[a, b], 1001);
    run(&mut to, &[c], 7);
    // One of the two waits, and is half a slice behind.
    let moved = from.queue.take_for_another(8, |_| true).expect("one waits");
    // SAFETY: shares of tests live for ever.
    let moved: &'static Share = unsafe { &*moved.as_ptr() };
    to.enter(moved, Enters::Moved);
    let spent = run(&mut to, &[moved, c], 1000);
    assert!(spent[0].abs_diff(spent[1]) <= 2 * SLICE, "{spent:?}");
}

#[test]
fn another_class_gives_another_place() {
    let mut cpu = Cpu::new(0);
    let [a, b] = [share(Class::NORMAL), share(Class::NORMAL)];
    cpu.wake(a);
    cpu.tick();
    cpu.wake(b);
    b.set_class(fifo(1));
    assert_eq!(cpu.queue.reenter(b, SLICE, cpu.now), Preempts::Now);
    cpu.tick();
    assert!(cpu.is(b));
    let load = cpu.queue.load();
    a.set_class(nice(19));
    cpu.queue.reenter(a, SLICE, cpu.now);
    assert_eq!(load - cpu.queue.load(), 1024 - 15);
}

#[test]
fn a_sleeper_beside_one_hog_is_served_when_it_wakes() {
    let mut cpu = Cpu::new(0);
    let (hog, sleeper) = (share(Class::NORMAL), share(Class::NORMAL));
    cpu.wake(sleeper);
    cpu.tick();
    cpu.pass(10_000);
    cpu.wake(hog);
    cpu.sleep();
    for round in 0..20 {
        assert!(cpu.is(hog));
        // A tick comes a moment before the hog's request is over, or none comes.
        cpu.pass(SLICE - 10_000);
        if round % 2 == 0 {
            cpu.tick();
        }
        cpu.pass(SLICE / 4 + round);
        let preempts = cpu.wake(sleeper);
        assert!(round == 0 || preempts == Preempts::Soon, "{round}");
        cpu.tick();
        assert!(cpu.is(sleeper), "{round}");
        cpu.pass(10_000);
        cpu.sleep();
    }
}

/// The share of a CPU that a hog gets next to another one, once both run steadily.
fn part_beside_another(cpu: &mut Cpu, hog: &'static Share) -> f64 {
    let other = share(Class::NORMAL);
    cpu.wake(other);
    let spent = run(cpu, &[hog, other], 100);
    spent[0] as f64 / (spent[0] + spent[1]) as f64
}

#[test]
fn who_was_handed_a_turn_after_a_long_sleep_is_due_no_more_than_others() {
    let mut cpu = Cpu::new(0);
    let (server, client) = (share(Class::NORMAL), share(Class::NORMAL));
    cpu.wake(server);
    cpu.tick();
    cpu.pass(1000);
    cpu.wake(client);
    cpu.sleep();
    run(&mut cpu, &[client], 5000);
    // The client calls: it sleeps, and the server runs in its turn.
    cpu.running = Some(server);
    let part = part_beside_another(&mut cpu, server);
    assert!((0.4..0.6).contains(&part), "{part}");
}

#[test]
fn who_had_a_priority_is_due_no_more_than_others_afterwards() {
    for yields in [false, true] {
        let mut cpu = Cpu::new(0);
        let (hog, before) = (share(Class::NORMAL), share(Class::NORMAL));
        cpu.wake(before);
        run(&mut cpu, &[before], 5000);
        cpu.wake(hog);
        hog.set_class(fifo(3));
        cpu.queue.reenter(hog, SLICE, cpu.now);
        cpu.tick();
        cpu.pass(1000);
        if yields {
            hog.yields(SLICE);
        }
        hog.set_class(Class::NORMAL);
        let spent = run(&mut cpu, &[hog, before], 100);
        let part = spent[0] as f64 / (spent[0] + spent[1]) as f64;
        assert!((0.4..0.6).contains(&part), "{part}");
    }
}

#[test]
fn whoever_slept_long_preempts_hogs_whatever_came_and_went_before() {
    for count in 1..6 {
        let mut cpu = Cpu::new(0);
        let hogs: Vec<_> = (0..count).map(|_| share(Class::NORMAL)).collect();
        let sleeper = share(Class::NORMAL);
        hogs.iter().for_each(|hog| _ = cpu.wake(hog));
        // Each of these threads runs for a slice, and leaves for good: it has had more than its due, which must not
        // affect the hogs.
        for _ in 0..50 {
            let guest = share(Class::NORMAL);
            cpu.wake(guest);
            while !cpu.is(guest) {
                cpu.pass(SLICE);
                cpu.tick();
            }
            cpu.pass(SLICE);
            cpu.sleep();
        }
        for round in 0..50 {
            run(&mut cpu, &hogs, 2 * count as u64 + round % 3);
            cpu.tick();
            cpu.pass(SLICE / 8 + round % 8 * SLICE / 9);
            // (A new thread is not behind.)
            let preempts = cpu.wake(sleeper);
            assert!(preempts == Preempts::Soon || round == 0, "beside {count} hogs, round {round}");
            cpu.tick();
            while round == 0 && !cpu.is(sleeper) {
                cpu.pass(SLICE);
                cpu.tick();
            }
            assert!(cpu.is(sleeper));
            cpu.pass(SLICE / 100);
            cpu.sleep();
        }
    }
}
