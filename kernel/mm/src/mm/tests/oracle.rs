//! The oracle: random programs run on the real code and on the model, which must agree after each step.

use std::collections::HashSet;
use std::format;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use quire_abi::flags::madv;

use super::pair::{Pair, Updates};
use super::script::{Op, Random};
use super::trace::Trace;
use crate::seeded::{self, Bug};
use crate::sim::Call;
use crate::sim::mmu::Sabotage;

/// Steps after which everything is compared, also what the last step had nothing to do with.
const CHECKED: usize = 50;

/// Runs a script; returns the calls that it led to, or what went wrong and at which step.
fn run(script: &[Op], updates: Updates, sabotage: Option<Sabotage>) -> Result<HashSet<Call>, (usize, String)> {
    run_traced(script, updates, sabotage, &mut None)
}

/// As [`run`]; a trace is filled as far as it goes.
fn run_traced(
    script: &[Op],
    updates: Updates,
    sabotage: Option<Sabotage>,
    trace: &mut Option<Trace>,
) -> Result<HashSet<Call>, (usize, String)> {
    let mut at = 0;
    let done = catch_unwind(AssertUnwindSafe(|| {
        // What is broken is not ended, which would panic again.
        let mut pair = ManuallyDrop::new(Pair::on(updates, sabotage, trace.take()));
        let mmu = pair.rig.mmu.clone();
        for (n, op) in script.iter().enumerate() {
            at = n;
            pair.step(op);
            *trace = pair.trace.clone();
            if n % CHECKED == CHECKED - 1 {
                pair.check();
            }
        }
        at = script.len();
        pair.check();
        ManuallyDrop::into_inner(pair).end();
        mmu.calls()
    }));
    done.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        (at, text.unwrap_or_default())
    })
}

/// Scripts that are tried to make one shorter: a minute's work.
const TRIED: usize = 300;

/// A shorter script that fails too.
fn shrink(script: &[Op], updates: Updates, failed_at: usize) -> Vec<Op> {
    let mut script = script[..(failed_at + 1).min(script.len())].to_vec();
    let mut chunk = script.len() / 2;
    let mut tried = 0;
    while chunk > 0 {
        let mut from = 0;
        while from < script.len() && tried < TRIED {
            tried += 1;
            let mut shorter = script.clone();
            shorter.drain(from..(from + chunk).min(script.len()));
            match run(&shorter, updates, None) {
                Err((at, _)) => {
                    shorter.truncate(at + 1);
                    script = shorter;
                }
                Ok(_) => from += chunk,
            }
        }
        chunk /= 2;
    }
    script
}

/// Writes what a real machine needs to do a script; returns the command for it.
fn save(script: &[Op], trace: &Trace) -> Option<String> {
    let folder = std::env::temp_dir().join("quire-oracle");
    std::fs::create_dir_all(&folder).ok()?;
    let mut command = String::from("on a machine: cargo xtask run --smp 4");
    let mut put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        command += &format!(" --add {}:/replay/{name}", path.display());
        std::fs::write(path, bytes).ok()
    };
    put("script", (trace.lines().join("\n") + "\n").as_bytes())?;
    if script.iter().any(|op| matches!(op, Op::Map { file: Some(_), .. })) {
        for (number, bytes) in Pair::new(None, None).file_contents().into_iter().enumerate() {
            put(&format!("file{}", number + 1), &bytes)?;
        }
    }
    Some(command + " --exec '/tests/replay /replay/script'")
}

const BOTH: [Updates; 2] = [Updates::BySoftware, Updates::ByHardware];

fn compare(seed: u64, steps: usize, updates: Updates) {
    let mut random = Random::new(seed);
    let script: Vec<Op> = (0..steps).map(|_| random.op()).collect();
    if let Err((at, text)) = run(&script, updates, None) {
        let short = shrink(&script, updates, at);
        let error = run(&short, updates, None).err().map_or(text, |(_, text)| text);
        let mut listing = vec![format!("seed {seed}, {updates:?}, step {at}: {error}")];
        listing.extend(short.iter().map(|op| format!("    {op:?},")));
        let mut trace = Some(Trace::default());
        let _ = run_traced(&short, updates, None, &mut trace);
        listing.extend(trace.and_then(|trace| save(&short, &trace)));
        panic!("{}", listing.join("\n"));
    }
}

#[test]
fn random_programs_agree_with_the_model() {
    for seed in 1..=20 {
        BOTH.into_iter().for_each(|updates| compare(seed, 1000, updates));
    }
}

/// The program of a seed, of 1000 steps, every other one on CPUs that update entries.
fn program(seed: u64) -> (Vec<Op>, Updates) {
    let mut random = Random::new(seed);
    ((0..1000).map(|_| random.op()).collect(), BOTH[seed as usize % 2])
}

/// Runs the program of a seed; answers the calls that it led to, or what went wrong.
pub(super) fn run_program(seed: u64, sabotage: Option<Sabotage>) -> Result<HashSet<Call>, String> {
    let (script, updates) = program(seed);
    run(&script, updates, sabotage).map_err(|(at, text)| format!("seed {seed}, step {at}: {text}"))
}

/// How many steps it takes, in 20 programs, until one fails.
fn steps_until_noticed(sabotage: Option<Sabotage>, first: u64) -> Option<usize> {
    let mut steps = 0;
    (first..first + 20).find_map(|seed| {
        let (script, updates) = program(seed);
        let noticed = run(&script, updates, sabotage).err();
        steps += noticed.as_ref().map_or(1000, |(at, _)| *at);
        noticed.map(|_| steps)
    })
}

fn is_noticed(sabotage: Option<Sabotage>) -> bool {
    steps_until_noticed(sabotage, 1).is_some()
}

/// Prints after how many steps each bug is noticed, with ten sets of seeds.
#[test]
#[ignore = "prints"]
fn how_soon_bugs_are_noticed() {
    let show = |name: String, sabotage: Option<Sabotage>| {
        let mut steps: Vec<_> = (0..10).map(|n| steps_until_noticed(sabotage, 1 + n * 100)).collect();
        steps.sort_by_key(|steps| steps.unwrap_or(usize::MAX));
        let steps: Vec<String> = steps.iter().map(|s| s.map_or("never".into(), |s| s.to_string())).collect();
        std::println!("{name}: {}", steps.join(" "));
    };
    for sabotage in Sabotage::ALL {
        show(format!("{sabotage:?}"), Some(sabotage));
    }
    for bug in Bug::ALL {
        seeded::switch(Some(bug));
        show(format!("{bug:?}"), None);
    }
    seeded::switch(None);
}

#[test]
fn wrong_tlb_maintenance_is_noticed() {
    for sabotage in Sabotage::ALL {
        assert!(is_noticed(Some(sabotage)), "nobody noticed {sabotage:?}");
    }
}

#[test]
fn seeded_bugs_are_noticed() {
    let missed: Vec<Bug> = Bug::ALL
        .into_iter()
        .filter(|bug| {
            seeded::switch(Some(*bug));
            let noticed = is_noticed(None);
            seeded::switch(None);
            !noticed
        })
        .collect();
    assert_eq!(missed, [], "in 20,000 steps");
}

/// Prints a random program for a real machine: the data of user/tests/src/bin/replay.rs.
#[test]
#[ignore = "prints"]
fn print_a_program_for_a_real_machine() {
    let seed: u64 = std::env::var("ORACLE_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let steps: usize = std::env::var("ORACLE_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let mut random = Random::new(seed);
    // The files are the oracle's own; MADV_FREE may free later elsewhere, and mlockall is limited.
    let is_for_all = |op: &Op| {
        !matches!(op, Op::Map { file: Some(_), .. } | Op::LockAll { .. } | Op::Advise { advice: madv::FREE, .. })
    };
    let script: Vec<Op> = core::iter::repeat_with(|| random.op()).filter(is_for_all).take(steps).collect();
    let mut trace = Some(Trace::default());
    assert_eq!(run_traced(&script, Updates::BySoftware, None, &mut trace).err(), None);
    trace.iter().flat_map(|trace| trace.lines()).for_each(|line| std::println!("{line}"));
}

/// The long form: `ORACLE_STEPS=1000000 cargo test --release -p quire-mm oracle -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn random_programs_agree_for_a_long_time() {
    let steps: u64 = std::env::var("ORACLE_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let first: u64 = std::env::var("ORACLE_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    for seed in first..first + steps.div_ceil(2000) {
        compare(seed, 2000, BOTH[seed as usize % 2]);
    }
}
