//! The calls by which the memory manager tells the hardware what it must know: publication, invalidation, synchronisation of
//! instructions. Each is there because a program would notice if it were not.
//!
//! The source says which calls there are ([`in_source`]). Scripts make all of them, on one CPU at a time and beside each other;
//! and with one of them left out, wherever it is, one of the scripts that make it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;

use super::{beside, oracle, paged};
use crate::sim::mmu::Sabotage;
use crate::sim::{Call, turns};
use crate::vmalloc;

/// A script, by its seed.
#[derive(Clone, Copy, Debug)]
enum Script {
    /// The oracle's.
    Program(u64),
    /// On several CPUs at once.
    Beside(u64),
    /// Kernel memory.
    Vmalloc,
    /// A file that somebody else has.
    Paged,
}

impl Script {
    /// In the order in which they are tried.
    fn all() -> Vec<Self> {
        [Self::Vmalloc, Self::Paged]
            .into_iter()
            .chain((1..=20).map(Self::Program))
            .chain((1..=30).map(Self::Beside))
            .collect()
    }

    /// The calls that it leads to, or what went wrong.
    fn run(self, without: Option<Call>) -> Result<BTreeSet<Call>, String> {
        let sabotage = without.map(Sabotage::Without);
        let run = || match self {
            Self::Program(seed) => oracle::run_program(seed, sabotage),
            Self::Beside(seed) => beside::run(seed, sabotage),
            Self::Vmalloc => Ok(vmalloc::tests::run_script(without)),
            Self::Paged => Ok(paged::run_script(without)),
        };
        let done = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(turns::text_of(&*panic)));
        // (Tests call the machine too.)
        let is_ours = |call: &Call| !call.at.file().contains("tests");
        done.map(|calls| calls.into_iter().filter(is_ours).collect())
    }
}

/// A line of the source: file below src/, and number.
type Line = (String, u32);

fn line_of(call: &Call) -> Line {
    let file = call.at.file();
    let below = file.rsplit_once("mm/src/").map_or(file, |(_, below)| below);
    (below.into(), call.at.line())
}

/// What a machine can be asked for.
const OPERATIONS: [&str; 7] = [
    "publish_tables",
    "sync_instructions",
    "tlb_flush_pages",
    "tlb_flush_asid",
    "tlb_flush_all",
    "tlb_flush_local",
    "tlb_flush_kernel",
];

/// What is published there is no table but an ASID: no simulated walker reads it, and `tests/loom_asid.rs` leaves it out.
const BY_LOOM: (&str, &str) = ("asid/allocator.rs", "publish_tables");

/// The lines of the source that make such a call, by themselves or through a function that passes it on: that one says so by
/// `track_caller`, and what it does itself does not count.
fn in_source() -> BTreeSet<Line> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    find_sources(&src, &mut files);
    let mut names: BTreeSet<String> = OPERATIONS.iter().map(|name| (*name).into()).collect();
    let mut lines: Vec<(Line, String)> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let below = file.strip_prefix(&src).unwrap().display().to_string();
        // Of a function that passes calls on: how its last line begins; first it is yet to come.
        let (mut is_marked, mut end) = (false, None);
        for (number, line) in text.lines().enumerate() {
            is_marked |= line.trim() == "#[cfg_attr(test, track_caller)]";
            if let Some((before, after)) = line.split_once("fn ")
                && core::mem::take(&mut is_marked)
            {
                names.insert(after.split(['(', '<']).next().unwrap_or_default().into());
                let indent = before.len() - before.trim_start().len();
                end = Some(format!("{}}}", &line[..indent]));
            }
            match &end {
                None => lines.push(((below.clone(), number as u32 + 1), line.into())),
                Some(last) if line == last => end = None,
                Some(_) => {}
            }
        }
    }
    let calls = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let mut words = code.split_inclusive('(').filter_map(|part| part.strip_suffix('('));
        !code.contains("fn ")
            && words.any(|before| names.contains(before.rsplit(|c| !is_name(c)).next().unwrap_or_default()))
    };
    lines.into_iter().filter(|(_, text)| calls(text)).map(|(line, _)| line).collect()
}

/// Files of what the kernel is made of, tests and the simulated machine left out.
fn find_sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match (path.is_dir(), &*name) {
            (_, "tests" | "sim" | "tests.rs") => {}
            (true, _) => find_sources(&path, files),
            (false, name) if name.ends_with(".rs") => files.push(path),
            _ => {}
        }
    }
}

/// The calls that scripts lead to, each with those scripts.
fn reached() -> BTreeMap<Call, Vec<Script>> {
    let mut reached: BTreeMap<Call, Vec<Script>> = BTreeMap::new();
    for script in Script::all() {
        let calls = script.run(None).unwrap_or_else(|text| panic!("{script:?}: {text}"));
        calls.into_iter().for_each(|call| reached.entry(call).or_default().push(script));
    }
    reached
}

#[test]
fn no_call_can_be_left_out() {
    let reached = reached();
    let lines: BTreeSet<Line> = reached.keys().map(line_of).collect();
    let in_source = in_source();
    assert_eq!(in_source.difference(&lines).collect::<Vec<_>>(), Vec::<&Line>::new(), "calls that no script leads to");
    assert_eq!(lines.difference(&in_source).collect::<Vec<_>>(), Vec::<&Line>::new(), "calls that the source hides");
    let is_noticed = |(call, scripts): &(&Call, &Vec<Script>)| {
        let failed = scripts.iter().find_map(|script| Some((script, script.run(Some(**call)).err()?)));
        if let Some((script, text)) = &failed {
            std::println!("{call:?}: {script:?}: {}", text.lines().next().unwrap_or_default());
        }
        failed.is_some()
    };
    let is_loom = |call: &Call| (&*line_of(call).0, call.what) == BY_LOOM;
    let missed: Vec<&Call> =
        reached.iter().filter(|one| !is_loom(one.0) && !is_noticed(one)).map(|(call, _)| call).collect();
    assert_eq!(missed, Vec::<&Call>::new(), "calls that nobody misses");
}
