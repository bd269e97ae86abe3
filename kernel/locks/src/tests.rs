//! Random operations compared with a model that knows the locks of each byte; flocks and circular waits by example.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::tree::Node;
use crate::waits::STEPS;
use crate::{Edge, Flock, Flocks, Kind, Lock, Owner, Range, Records, Spare, Waits};

/// The number of bytes of the model's file. Its last byte stands for the last byte of any file.
const BYTES: usize = 24;
const OWNERS: usize = 4;

/// The lock of each owner on each byte.
type Model = [[Option<Kind>; BYTES]; OWNERS];

#[derive(Clone, Copy, Debug)]
struct Step {
    owner: usize,
    from: usize,
    to: usize,
    kind: Option<Kind>,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(None), Just(Some(Kind::Shared)), Just(Some(Kind::Exclusive))];
    (0..OWNERS, 0..BYTES, 0..BYTES, kind).prop_map(|(owner, a, b, kind)| Step {
        owner,
        from: a.min(b),
        to: a.max(b),
        kind,
    })
}

fn place(byte: usize) -> u64 {
    if byte == BYTES - 1 { Range::LAST } else { byte as u64 }
}

fn range(step: &Step) -> Range {
    // (The byte before the last one reaches up to it.)
    let start = if step.from == BYTES - 1 { BYTES as u64 - 1 } else { step.from as u64 };
    Range { start, end: place(step.to) }
}

fn is_blocked(model: &Model, owner: usize, bytes: core::ops::RangeInclusive<usize>, kind: Kind) -> bool {
    let excludes =
        |other: &Option<Kind>| other.is_some_and(|other| other == Kind::Exclusive || kind == Kind::Exclusive);
    (0..OWNERS).filter(|other| *other != owner).any(|other| model[other][bytes.clone()].iter().any(excludes))
}

/// Every owner's locks according to the model: the longest runs of one kind.
fn runs(model: &Model) -> Vec<(u64, u64, u64, Kind)> {
    let mut runs = Vec::new();
    for (owner, bytes) in model.iter().enumerate() {
        let mut byte = 0;
        while byte < BYTES {
            let first = byte;
            while byte < BYTES && bytes[byte] == bytes[first] {
                byte += 1;
            }
            if let Some(kind) = bytes[first] {
                runs.push((owner as u64, first as u64, place(byte - 1), kind));
            }
        }
    }
    runs
}

fn locks(records: &Records) -> Vec<(u64, u64, u64, Kind)> {
    let mut found = Vec::new();
    for owner in 0..OWNERS as u64 {
        let mut from = 0;
        while let Some(lock) = records.own(Owner(owner), Range { start: from, end: Range::LAST }) {
            found.push((owner, lock.range.start, lock.range.end, lock.kind));
            from = lock.range.end + 1;
            if lock.range.end == Range::LAST {
                break;
            }
        }
    }
    found
}

fn run(steps: &[Step]) {
    let mut model: Model = [[None; BYTES]; OWNERS];
    let mut records = Records::new();
    for step in steps {
        let owner = Owner(step.owner as u64);
        let mut spare = Spare::new().unwrap();
        let bytes = step.from..=step.to;
        let old = model;
        match step.kind {
            Some(kind) => {
                let lock = Lock { owner, range: range(step), kind, pid: 1 };
                let blocked = is_blocked(&model, step.owner, bytes.clone(), kind);
                match records.set(lock, &mut spare, || {}) {
                    Ok(_) => {
                        assert!(!blocked);
                        model[step.owner][bytes].fill(Some(kind));
                    }
                    Err(other) => assert!(blocked && other.conflicts(&lock), "{other:?} and {lock:?}"),
                }
            }
            None => {
                let released = records.release(owner, range(step), &mut spare, || {});
                assert_eq!(released, model[step.owner][bytes.clone()].iter().any(Option::is_some));
                model[step.owner][bytes].fill(None);
            }
        }
        records.validate();
        assert_eq!(locks(&records), runs(&model), "{step:?} after {:?}", runs(&old));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 512 } else { 4096 }))]

    #[test]
    fn records_are_what_the_bytes_say(steps in vec(step(), 1..80)) {
        run(&steps);
    }
}

#[test]
fn what_is_less_than_before_lets_others_go_on() {
    let mut records = Records::new();
    let mut set = |from, to, kind| {
        let lock = Lock { owner: Owner(1), range: Range { start: from, end: to }, kind, pid: 1 };
        records.set(lock, &mut Spare::new().unwrap(), || {})
    };
    assert_eq!(set(0, 9, Kind::Shared), Ok(false));
    assert_eq!(set(0, 9, Kind::Exclusive), Ok(false));
    assert_eq!(set(3, 4, Kind::Shared), Ok(true));
    assert_eq!(set(20, 29, Kind::Shared), Ok(false));
}

#[test]
fn a_search_passes_an_owners_own_locks() {
    let mut records = Records::new();
    let lock = |owner, at, kind| Lock { owner: Owner(owner), range: Range { start: at, end: at }, kind, pid: 1 };
    let mut points = 0;
    for at in (0..20_000).step_by(2) {
        records.set(lock(1, at, Kind::Exclusive), &mut Spare::new().unwrap(), || {}).unwrap();
    }
    records.set(lock(2, 30_001, Kind::Shared), &mut Spare::new().unwrap(), || {}).unwrap();
    records.validate();
    let all = Lock { range: Range::ALL, ..lock(1, 0, Kind::Exclusive) };
    assert_eq!(records.conflict(&all).map(|lock| lock.owner), Some(Owner(2)));
    let most = Lock { range: Range { start: 0, end: 30_000 }, ..all };
    assert_eq!(records.conflict(&most), None);
    records.set(most, &mut Spare::new().unwrap(), || points += 1).unwrap();
    assert_eq!((records.len(), points), (2, 10_000));
    records.validate();
}

#[test]
fn flocks_are_shared_or_exclusive() {
    let mut flocks = Flocks::new();
    let [mut a, mut b] = [Flock::None; 2];
    assert!(flocks.take(&mut a, Flock::Shared) && flocks.take(&mut b, Flock::Shared));
    assert!(flocks.release(&mut b));
    assert!(!flocks.take(&mut b, Flock::Exclusive) && b == Flock::None);
    assert!(flocks.release(&mut a) && !flocks.release(&mut a));
    assert!(flocks.take(&mut b, Flock::Exclusive) && !flocks.take(&mut a, Flock::Shared));
    assert!(flocks.release(&mut b) && flocks.is_empty());
}

fn edge(waiter: u64, thread: u64, blocker: u64, holds: bool) -> Box<Node<Edge<bool>>> {
    Node::new(Edge { waiter: (Owner(waiter), thread), blocker: Owner(blocker), proof: holds }).ok().unwrap()
}

#[test]
fn nobody_waits_in_a_circle() {
    let mut waits = Waits::new();
    let mut enter = |edge| waits.enter(edge, |holds| *holds).is_ok();
    assert!(enter(edge(1, 0, 2, true)) && enter(edge(2, 0, 3, true)));
    assert!(!enter(edge(3, 0, 1, true)), "three");
    assert!(!enter(edge(2, 1, 1, true)), "two, by another thread");
    assert!(enter(edge(3, 0, 4, true)) && enter(edge(3, 1, 5, true)));
    assert!(!enter(edge(5, 0, 1, true)), "by the second thread's wait");
    waits.leave((Owner(2), 0)).unwrap();
    assert!(waits.enter(edge(5, 0, 1, true), |holds| *holds).is_ok());
}

#[test]
fn a_wait_that_has_ended_is_no_part_of_a_circle() {
    let mut waits = Waits::new();
    assert!(waits.enter(edge(1, 0, 2, false), |holds| *holds).is_ok());
    assert!(waits.enter(edge(2, 0, 1, true), |holds| *holds).is_ok());
}

#[test]
fn a_search_has_an_end() {
    let mut waits = Waits::new();
    for owner in 1..=STEPS as u64 + 1 {
        assert!(waits.enter(edge(owner, 0, owner + 1, true), |holds| *holds).is_ok());
    }
    assert!(waits.enter(edge(STEPS as u64 + 2, 0, 1, true), |holds| *holds).is_ok(), "the circle is too long");
}
