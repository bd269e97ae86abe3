//! Small cases worked by hand, for what textbooks give no numbers.

use quire_lab::replace::{Frame, Policy, bits, order};
use quire_lab::report::{Measure, Report};
use quire_lab::{Scheme, Trace};

fn reports(scheme: &str, text: &str) -> Vec<Report> {
    let trace = Trace::parse(text).expect("the trace is valid");
    (Scheme::named(scheme).expect("there is such a scheme").run)(&trace).expect("the scheme plays it")
}

/// A frame that was loaded and used at time `page`, and used `uses` times.
fn frame(page: u64, uses: u64, referenced: bool, dirty: bool) -> Frame {
    Frame { page, loaded: page, used: page, uses, next_use: 0, referenced, dirty, seen: page }
}

/// Class 1 (dirty, not referenced) is below class 2 (clean, referenced).
#[test]
fn nru_prefers_a_dirty_page_to_a_referenced_one() {
    let mut frames = [frame(0, 1, true, false), frame(1, 1, false, true), frame(2, 1, true, true)];
    assert_eq!(bits::Nru.victim(&mut frames, 9), 1);
}

/// Two pages have a single use; the one that was loaded first is evicted.
#[test]
fn lfu_counts_uses_and_then_looks_at_the_load() {
    let mut frames = [frame(0, 3, true, false), frame(1, 1, true, false), frame(2, 1, true, false)];
    assert_eq!(order::Lfu.victim(&mut frames, 9), 1);
}

/// One frame: the first and the second store to page 0 are each followed by an eviction.
#[test]
fn dirty_pages_are_written_back() {
    let reports = reports("replace", "frames 1\nref 0w 1 0w 1 2\n");
    assert!(reports.iter().all(|report| report.get(Measure::WriteBacks) == 2));
}

/// C needs 10 of 24 MiB beside A (10, ran last) and B (6): B was idle longest, A is the largest.
#[test]
fn the_victims_of_swapping_differ() {
    let text = "memory 24M\nrate 10M\nlatency 0ns\nalloc A 10M\nalloc B 6M\nrun A\nalloc C 10M\n";
    let times: Vec<String> = reports("swap", text).iter().map(|r| r.notes.join(";")).collect();
    assert_eq!(times, ["B (6M) out: 600 ms", "A (10M) out: 1000 ms"]);
}

/// With a queue for each partition, B waits for the partition of 2 although the one of 8 is free.
#[test]
fn a_queue_for_each_partition_leaves_others_idle() {
    let reports = reports("fixed", "partitions 2 8\nalloc A 2\nalloc B 2\n");
    let waited: Vec<u64> = reports.iter().map(|report| report.get(Measure::Waited)).collect();
    assert_eq!(waited, [0, 0, 1]);
    assert_eq!(reports[1].get(Measure::Internal), 6);
}

/// The limit is the first address that traps, for base and limit as for segmented paging.
#[test]
fn the_limit_itself_traps() {
    for scheme in ["segments", "segpaging", "compact"] {
        let reports = reports(scheme, "memory 64\npage 8\nalloc S 10\naccess S:9 S:10 S:15 S:16\n");
        assert!(reports.iter().all(|report| report.get(Measure::Traps) == 3), "{scheme}");
    }
    // Paging maps whole pages.
    assert_eq!(
        reports("paging", "memory 64\npage 8\nalloc S 10\naccess S:9 S:10 S:15 S:16\n")[0].get(Measure::Traps),
        1
    );
}

/// Two rows of one bank in turn: always a conflict after the first access, or never with closed rows.
#[test]
fn closed_rows_do_not_conflict() {
    let reports = reports("dram", "banks 4\nrow 1K\naccess 0 4K 0 4K\n");
    let counts = |name: &str| {
        let report = reports.iter().find(|report| report.scheme == name).expect("a variant");
        [Measure::Hits, Measure::Opened, Measure::Conflicts].map(|measure| report.get(measure))
    };
    assert_eq!(counts("row on top, open"), [0, 1, 3]);
    assert_eq!(counts("row on top, closed"), [0, 4, 0]);
    assert_eq!(counts("hashed, open"), [2, 2, 0]);
}
