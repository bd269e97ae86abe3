//! Properties of all placement schemes for random requests.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quire_lab::place::buddy::Buddy;
use quire_lab::place::compact::{Compact, Strategy as Compaction};
use quire_lab::place::fits::{Fit, Fits};
use quire_lab::place::fixed::{Fixed, Queues};
use quire_lab::place::quick::QuickFit;
use quire_lab::place::{Placement, play, play_watched};
use quire_lab::report::{Kind, Measure, Picture, Piece};
use quire_lab::trace::{Event, Trace};
use quire_lab::translate::paging::{Paging, Unit};
use quire_lab::{Scheme, Trace as T};

/// The size of memory for all schemes.
const MEMORY: u64 = 256;

/// Random requests and frees of allocated names.
fn trace() -> impl Strategy<Value = Trace> {
    let step = (any::<prop::sample::Index>(), 1u64..80, prop::bool::weighted(0.55));
    prop::collection::vec(step, 1..60).prop_map(|steps| {
        let mut text = format!("memory {MEMORY}\n");
        let mut live = Vec::new();
        for (number, (which, size, is_alloc)) in steps.into_iter().enumerate() {
            if is_alloc || live.is_empty() {
                text += &format!("alloc b{number} {size}\n");
                live.push(number);
            } else {
                text += &format!("free b{}\n", live.swap_remove(which.index(live.len())));
            }
        }
        Trace::parse(&text).expect("the trace makes sense")
    })
}

fn schemes() -> Vec<Box<dyn Placement>> {
    let mut schemes: Vec<Box<dyn Placement>> = Vec::new();
    for fit in Fit::ALL {
        schemes.push(Box::new(Fits::new(fit, &[MEMORY])));
        schemes.push(Box::new(Fits::new(fit, &[100, 60, 96])));
    }
    schemes.push(Box::new(QuickFit::new(&[MEMORY], &[8, 16, 40])));
    for strategy in [Compaction::Static, Compaction::Slide, Compaction::Evacuate] {
        schemes.push(Box::new(Compact::new(strategy, MEMORY)));
    }
    schemes.push(Box::new(Buddy::new(MEMORY, 1)));
    schemes.push(Box::new(Buddy::new(MEMORY, 16)));
    schemes.push(Box::new(Fixed::new(Queues::Equal, &[64; 4])));
    schemes.push(Box::new(Fixed::new(Queues::One, &[16, 48, 80, 112])));
    schemes.push(Box::new(Fixed::new(Queues::Each, &[16, 48, 80, 112])));
    schemes.push(Box::new(Paging::new(Unit::Process, MEMORY, 16, 8).expect("16 frames")));
    schemes.push(Box::new(Paging::new(Unit::Segment, MEMORY, 8, 8).expect("32 frames")));
    schemes
}

/// Checks that the pieces cover memory without gaps or overlaps.
fn covers(pieces: &[Piece]) -> Result<(), String> {
    let mut at = 0;
    for piece in pieces {
        if piece.start != at || piece.size == 0 {
            return Err(format!("a piece at {} of {}, expected at {at}", piece.start, piece.size));
        }
        at += piece.size;
    }
    if at == MEMORY { Ok(()) } else { Err(format!("memory ends at {at}")) }
}

/// The requested bytes of each owner.
fn owned(pieces: &[Piece]) -> BTreeMap<String, u64> {
    let mut owned = BTreeMap::new();
    for piece in pieces {
        if let Kind::Used { name, wasted } = &piece.kind {
            *owned.entry(name.clone()).or_insert(0) += piece.size - wasted;
        }
    }
    owned
}

/// The sizes of requests that were not freed.
fn live(trace: &Trace) -> BTreeMap<String, u64> {
    let mut live = BTreeMap::new();
    for step in &trace.steps {
        match &step.event {
            Event::Alloc(request) => drop(live.insert(request.name.clone(), request.size)),
            Event::Free(name) => drop(live.remove(name)),
            _ => {}
        }
    }
    live
}

/// The trace, followed by frees of all remaining names.
fn then_free_all(trace: &Trace) -> Trace {
    let mut whole = trace.clone();
    let steps = live(trace).into_keys().map(|name| quire_lab::trace::Step { line: 0, event: Event::Free(name) });
    whole.steps.extend(steps);
    whole
}

proptest! {
    /// Memory is covered without overlaps, each owner has exactly the requested size, and the scheme's own checks pass.
    #[test]
    fn memory_is_conserved(trace in trace()) {
        let asked: BTreeMap<String, u64> = trace.steps.iter().filter_map(|step| match &step.event {
            Event::Alloc(request) => Some((request.name.clone(), request.size)),
            _ => None,
        }).collect();
        for mut scheme in schemes() {
            let name = scheme.name();
            let mut bad = Ok(());
            play_watched(scheme.as_mut(), &trace, |now| {
                let pieces = now.pieces();
                let mut seen = covers(&pieces).and(now.check());
                for (owner, size) in owned(&pieces) {
                    if asked.get(&owner) != Some(&size) {
                        seen = Err(format!("{owner} has {size}"));
                    }
                }
                bad = core::mem::replace(&mut bad, Ok(())).and(seen);
            }).expect("it plays");
            prop_assert_eq!(bad, Ok(()), "{}", name);
            let at_end = owned(&scheme.pieces());
            prop_assert!(at_end.keys().all(|owner| live(&trace).contains_key(owner)), "{} keeps what was freed", name);
        }
    }

    /// After all names are freed, all of memory is free, and the buddy system has a single block.
    #[test]
    fn freed_memory_is_whole_again(trace in trace()) {
        let trace = then_free_all(&trace);
        for mut scheme in schemes() {
            let report = play(scheme.as_mut(), &trace).expect("it plays");
            prop_assert_eq!(report.get(Measure::Free), MEMORY, "{}", report.scheme);
            prop_assert_eq!(report.get(Measure::Internal), 0);
        }
        let mut buddy = Buddy::new(MEMORY, 1);
        let report = play(&mut buddy, &trace).expect("it plays");
        prop_assert_eq!(buddy.pieces().len(), 1);
        prop_assert_eq!(report.get(Measure::Splits), report.get(Measure::Merges));
    }

    /// With compaction or paging, a request is refused only if it exceeds the free memory.
    #[test]
    fn compaction_and_paging_refuse_only_what_cannot_fit(trace in trace()) {
        let schemes: [Box<dyn Placement>; 3] = [
            Box::new(Compact::new(Compaction::Slide, MEMORY)),
            Box::new(Compact::new(Compaction::Evacuate, MEMORY)),
            Box::new(Paging::new(Unit::Process, MEMORY, 1, 8).expect("frames of a byte")),
        ];
        for mut scheme in schemes {
            let report = play(scheme.as_mut(), &trace).expect("it plays");
            let Some(Picture::Map(map)) = report.pictures.first() else { panic!("no picture") };
            for row in map.rows.iter().filter(|row| row.note == "refused") {
                let size: u64 = row.label.split(' ').nth(1).and_then(|size| size.parse().ok()).expect("its size");
                let free: u64 = row.pieces.iter().filter(|p| p.kind == Kind::Free).map(|p| p.size).sum();
                prop_assert!(free < size, "{} refuses {} with {} free", report.scheme, size, free);
            }
        }
    }

    /// At the first compaction both strategies start from the same state, and emptying a window copies no more than
    /// sliding.
    #[test]
    fn a_window_costs_no_more_than_sliding(trace in trace()) {
        let copied = [Compaction::Slide, Compaction::Evacuate].map(|strategy| {
            let report = play(&mut Compact::new(strategy, MEMORY), &trace).expect("it plays");
            let first = report.notes.iter().filter_map(|note| note.split(" is moved ").nth(1)).count();
            let Some(Picture::Map(map)) = report.pictures.first() else { panic!("no picture") };
            let note = map.rows.iter().find_map(|row| row.note.strip_suffix(" copied"));
            (first > 0, note.map_or(0, |note| note.parse::<u64>().expect("bytes")))
        });
        prop_assert_eq!(copied[0].0, copied[1].0);
        prop_assert!(copied[1].1 <= copied[0].1);
    }

    #[test]
    fn blocks_of_the_buddy_system_are_aligned_powers_of_two(trace in trace(), least in 1u64..40) {
        let mut buddy = Buddy::new(MEMORY, least);
        let mut bad = None;
        play_watched(&mut buddy, &trace, |now| {
            for piece in now.pieces() {
                if !piece.size.is_power_of_two() || piece.start % piece.size != 0 || piece.size < least {
                    bad = Some(piece);
                }
            }
        }).expect("it plays");
        prop_assert_eq!(bad, None);
    }

    /// Each fit chooses the hole of its definition.
    #[test]
    fn a_fit_takes_the_hole_of_its_definition(holes in prop::collection::vec(1u64..50, 1..10), size in 1u64..50) {
        let text = format!("memory 1\nalloc A {size}\n");
        let trace = T::parse(&text).unwrap();
        let fits = || holes.iter().enumerate().filter(|(_, hole)| **hole >= size);
        let smallest = fits().map(|(_, hole)| *hole).min();
        let largest = fits().map(|(_, hole)| *hole).max();
        for fit in Fit::ALL {
            let expected = match fit {
                Fit::First | Fit::Next => fits().next(),
                Fit::Best => fits().find(|(_, hole)| Some(**hole) == smallest),
                Fit::Worst => fits().find(|(_, hole)| Some(**hole) == largest),
            };
            let start = expected.map(|(index, _)| holes[..index].iter().sum::<u64>());
            let mut scheme = Fits::new(fit, &holes);
            play(&mut scheme, &trace).unwrap();
            let pieces = scheme.pieces();
            let used = pieces.iter().find(|piece| piece.kind != Kind::Free).map(|piece| piece.start);
            prop_assert_eq!(used, start, "{:?}", fit);
        }
    }

    /// A running process is in memory.
    #[test]
    fn a_running_process_is_in_memory(sizes in prop::collection::vec(1u64..=256, 1..8), runs in prop::collection::vec(0usize..8, 1..30)) {
        let mut text = format!("memory {MEMORY}\n");
        sizes.iter().enumerate().for_each(|(name, size)| text += &format!("alloc p{name} {size}\n"));
        runs.iter().for_each(|run| text += &format!("run p{}\n", run % sizes.len()));
        let reports = (Scheme::named("swap").unwrap().run)(&T::parse(&text).unwrap()).unwrap();
        for report in reports {
            let Some(Picture::Map(map)) = report.pictures.first() else { panic!("no picture") };
            for row in &map.rows {
                prop_assert_eq!(covers(&row.pieces), Ok(()));
                let name = row.label.strip_prefix("run ").or(row.label[1..].split(' ').next()).unwrap();
                prop_assert!(owned(&row.pieces).contains_key(name), "{}", row.label);
            }
        }
    }

    /// Overlays need the memory of the longest path, and modules in memory do not overlap.
    #[test]
    fn overlays_need_the_longest_path(modules in prop::collection::vec((1u64..50, any::<prop::sample::Index>()), 1..12)) {
        let mut text = String::new();
        let mut ends: Vec<u64> = Vec::new();
        for (number, (size, above)) in modules.iter().enumerate() {
            match number {
                0 => text += &format!("module m0 {size}\n"),
                _ => text += &format!("module m{number} {size} under m{}\n", above.index(number)),
            }
            let start = if number == 0 { 0 } else { ends[above.index(number)] };
            ends.push(start + size);
        }
        (0..modules.len()).rev().for_each(|number| text += &format!("call m{number}\n"));
        let report = (Scheme::named("overlays").unwrap().run)(&T::parse(&text).unwrap()).unwrap().remove(0);
        let needed = ends.iter().copied().max().unwrap();
        prop_assert_eq!(report.get(Measure::Needed), needed);
        prop_assert!(needed <= report.get(Measure::Whole));
        let Some(Picture::Map(map)) = report.pictures.first() else { panic!("no picture") };
        for row in &map.rows {
            let end = row.pieces.iter().try_fold(0, |at, piece| (piece.start == at).then_some(at + piece.size));
            prop_assert_eq!(end, Some(needed), "{}", row.label);
            if let Some(called) = row.label.strip_prefix("call ") {
                prop_assert!(owned(&row.pieces).contains_key(called));
            }
        }
    }
}
