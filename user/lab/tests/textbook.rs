//! Results of textbook exercises, as the authors of the textbooks give them.

use quire_lab::report::{Kind, Measure, Picture, Report, Value};
use quire_lab::{Scheme, Trace};

fn reports(scheme: &str, text: &str) -> Vec<Report> {
    let trace = Trace::parse(text).expect("the trace makes sense");
    (Scheme::named(scheme).expect("there is such a scheme").run)(&trace).expect("the scheme plays it")
}

fn builtin(scheme: &str, trace: &str) -> Vec<Report> {
    reports(scheme, quire_lab::trace::builtin::text(trace).expect("it is built in"))
}

fn find<'a>(reports: &'a [Report], name: &str) -> &'a Report {
    reports.iter().find(|report| report.scheme == name).unwrap_or_else(|| panic!("no {name}"))
}

/// Faults of each policy of these names.
fn faults<const N: usize>(text: &str, names: [&str; N]) -> [u64; N] {
    let reports = reports("replace", text);
    names.map(|name| find(&reports, name).get(Measure::Faults))
}

/// The final address of an owner, in multiples of a unit.
fn start(report: &Report, name: &str, unit: u64) -> Option<u64> {
    let Some(Picture::Map(map)) = report.pictures.first() else { panic!("no picture of memory") };
    let is = |kind: &Kind| matches!(kind, Kind::Used { name: owner, .. } if owner == name);
    map.rows.last()?.pieces.iter().find(|piece| is(&piece.kind)).map(|piece| piece.start / unit)
}

fn value(report: &Report, measure: Measure) -> String {
    report.value(measure).unwrap_or(Value::Count(0)).to_string()
}

/// Silberschatz, Galvin and Gagne: 212, 417, 112 and 426 KB into 100, 500, 200, 300 and 600 KB.
#[test]
fn four_processes_in_five_holes() {
    let reports = builtin("fits", "t1");
    let places = |name: &str| ["P1", "P2", "P3", "P4"].map(|p| start(find(&reports, name), p, 1024));
    let (h500, h200, h300, h600) = (100, 600, 800, 1100);
    assert_eq!(places("first fit"), [Some(h500), Some(h600), Some(h500 + 212), None]);
    assert_eq!(places("best fit"), [Some(h300), Some(h500), Some(h200), Some(h600)]);
    assert_eq!(places("worst fit"), [Some(h600), Some(h500), Some(h600 + 212), None]);
}

/// Tanenbaum: 12, 10 and 9 MB into holes of 10, 4, 20, 18, 7, 9, 12 and 15 MB.
#[test]
fn three_segments_in_eight_holes() {
    let reports = builtin("fits", "t4");
    let places = |name: &str| ["A", "B", "C"].map(|s| start(find(&reports, name), s, 1 << 20).unwrap());
    let (h10, h20, h18, h9, h12, h15) = (0, 14, 34, 59, 68, 80);
    assert_eq!(places("first fit"), [h20, h10, h18]);
    assert_eq!(places("best fit"), [h12, h10, h9]);
    assert_eq!(places("worst fit"), [h20, h18, h15]);
    assert_eq!(places("next fit"), [h20, h18, h9]);
}

/// Stallings: of 56 MB, holes of 6, 6 and 4 MB are left, and 16 MB free do not help a process of 10.
#[test]
fn dynamic_partitioning_ends_in_small_holes() {
    let reports = builtin("fits", "t3");
    let first = find(&reports, "first fit");
    assert_eq!(
        (first.get(Measure::Holes), first.get(Measure::Free) >> 20, first.get(Measure::Largest) >> 20),
        (3, 16, 6)
    );
    assert_eq!(first.get(Measure::Refused), 1);
    assert!(builtin("compact", "t3").iter().skip(1).all(|report| report.get(Measure::Refused) == 0));
}

/// Silberschatz and Galvin's figure of compaction: 600 K are moved to the bottom, or 200 K to the end.
#[test]
fn compaction_moves_600_k_or_200() {
    let moved = |report: &Report| (report.get(Measure::Refused), report.get(Measure::Moved) >> 10);
    assert_eq!(builtin("compact", "t6").iter().map(moved).collect::<Vec<_>>(), [(1, 0), (0, 600), (0, 200)]);
}

/// Stallings: the blocks of 1 MB after each step.
#[test]
fn the_buddy_system_splits_and_merges() {
    let reports = builtin("buddy", "t7");
    let Some(Picture::Map(map)) = reports[0].pictures.first() else { panic!("no picture") };
    let sizes = |row: usize| map.rows[row].pieces.iter().map(|piece| piece.size >> 10).collect::<Vec<_>>();
    assert_eq!(sizes(0), [128, 128, 256, 512]);
    assert_eq!(sizes(2), [128, 64, 64, 256, 512]);
    assert_eq!(sizes(3), [128, 64, 64, 256, 256, 256]);
    assert_eq!(sizes(8), [512, 256, 256]);
    assert_eq!(sizes(9), [1024]);
}

/// Silberschatz and Galvin's two-pass assembler: 200 K of program and 10 K of driver run in 140 K.
#[test]
fn overlays_of_an_assembler() {
    let report = &builtin("overlays", "t8")[0];
    assert_eq!((report.get(Measure::Needed) >> 10, report.get(Measure::Whole) >> 10), (140, 210));
}

/// Silberschatz and Galvin: 10 MB at 40 MB a second and 8 ms of latency take 258 ms, out and in 516.
#[test]
fn a_swap_takes_half_a_second() {
    let text = "memory 16M\nrate 40M\nlatency 8ms\nalloc A 10M\nalloc B 10M\nfree B\nrun A\n";
    let reports = reports("swap", text);
    assert_eq!(value(&reports[0], Measure::SwapTime), "516");
    assert!(reports[0].notes[0].contains("258 ms"));
}

/// Silberschatz, Galvin and Gagne: pages of 4 bytes, table 5 6 1 2; and 72,766 bytes in pages of 2,048.
#[test]
fn paging_translates_and_wastes() {
    let report = &builtin("paging", "t10")[0];
    let ends: Vec<&str> = report.notes.iter().filter_map(|note| note.split("-> ").nth(1)).collect();
    assert_eq!(ends, ["20", "23", "24", "9", "11", "trap"]);
    let report = &reports("paging", "memory 256K\npage 2048\nalloc P 72766\n")[0];
    assert_eq!(report.get(Measure::Internal), 962);
    assert_eq!(report.get(Measure::TableBytes), 36 * 8);
}

/// Silberschatz, Galvin and Gagne: five segments, five addresses.
#[test]
fn segments_translate_and_trap() {
    let report = &builtin("segments", "t11")[0];
    let ends: Vec<&str> = report.notes.iter().filter_map(|note| note.split("-> ").nth(1)).collect();
    assert_eq!(ends, ["649", "2310", "trap", "1727", "trap"]);
}

/// Tanenbaum: 0x00403004 has indices 1 and 3 and offset 4; a program of 12 MB at both ends needs four tables of 4 KB.
#[test]
fn two_levels_save_tables() {
    let report = &builtin("tables", "t13")[0];
    assert!(report.notes[0].ends_with("indices 1, 3, offset 4"));
    let text = "levels 10 10 12\nentry 4\naccess 0-4M/4K 4M-8M/4K 0xffc00000\n";
    let report = &reports("tables", text)[0];
    assert_eq!((report.get(Measure::TableBytes) >> 10, report.get(Measure::FlatBytes) >> 20), (16, 4));
}

/// Silberschatz, Galvin and Gagne: 100 ns of memory and 20 ns of TLB, 80 % and 98 % of hits; a fault of 8 ms in 1,000.
#[test]
fn effective_access_times() {
    let times = |reports: Vec<Report>| reports.iter().map(|r| value(r, Measure::AverageTime)).collect::<Vec<_>>();
    assert_eq!(times(builtin("tlb", "t14")), ["140", "122"]);
    assert_eq!(times(reports("tlb", "lookup 0ns\ncycle 10ns\nratios 80 99\n")), ["12", "10.1"]);
    assert_eq!(times(reports("tlb", "cycle 200ns\nservice 8ms\nevery 1000\n")), ["8199.8"]);
}

/// Silberschatz, Galvin and Gagne: 20 references on 3 frames.
#[test]
fn the_reference_string_of_three_frames() {
    let text = "frames 3\nref 7 0 1 2 0 3 0 4 2 3 0 3 2 1 2 0 1 7 0 1\n";
    assert_eq!(faults(text, ["FIFO", "OPT", "LRU"]), [15, 9, 12]);
}

/// Belady, Nelson and Shedler: with four frames FIFO faults more often than with three.
#[test]
fn belady_s_anomaly() {
    let with = |frames| format!("frames {frames}\nref 1 2 3 4 1 2 5 1 2 3 4 5\n");
    assert_eq!([3, 4].map(|frames| faults(&with(frames), ["FIFO"])[0]), [9, 10]);
    assert_eq!([3, 4].map(|frames| faults(&with(frames), ["LRU"])[0]), [10, 8]);
    assert_eq!([3, 4].map(|frames| faults(&with(frames), ["OPT"])[0]), [7, 6]);
    let reports = builtin("belady", "t16");
    assert_eq!(["FIFO", "LRU", "OPT"].map(|name| find(&reports, name).get(Measure::Anomalies)), [1, 0, 0]);
}

/// Stallings counts faults after the frames are full: 3 for OPT, 4 for LRU, 6 for FIFO, 5 for the clock.
#[test]
fn the_page_address_stream_of_stallings() {
    let text = "frames 3\nref 2 3 2 1 5 2 4 5 3 2 5 2\n";
    assert_eq!(faults(text, ["OPT", "LRU", "FIFO", "clock"]).map(|faults| faults - 3), [3, 4, 6, 5]);
}

/// Tanenbaum: 0172327103 on four frames.
#[test]
fn eight_pages_on_four_frames() {
    assert_eq!(faults("frames 4\nref 0 1 7 2 3 2 7 1 0 3\n", ["FIFO", "LRU"]), [6, 7]);
}

/// Tanenbaum: the victim among four pages with given times and bits.
#[test]
fn four_pages_and_their_bits() {
    use quire_lab::replace::{Frame, Policy, bits, order};
    let frame = |page, loaded, used, referenced, dirty| Frame {
        page,
        loaded,
        used,
        uses: 1,
        next_use: 0,
        referenced,
        dirty,
        seen: used,
    };
    let frames = [
        frame(0, 126, 280, true, false),
        frame(1, 230, 265, false, true),
        frame(2, 140, 270, false, false),
        frame(3, 110, 285, true, true),
    ];
    let goes = |policy: &mut dyn Policy| policy.victim(&mut frames.clone(), 300);
    assert_eq!(goes(&mut bits::Nru), 2);
    assert_eq!(goes(&mut order::Fifo), 3);
    assert_eq!(goes(&mut order::Lru), 1);
    let mut second = bits::SecondChance::default();
    [3, 0, 2, 1].into_iter().for_each(|frame| second.loaded(frame));
    assert_eq!(goes(&mut second), 2);
}

/// Silberschatz, Galvin and Gagne: with a window of 10, {1, 2, 5, 6, 7} and later {3, 4}.
#[test]
fn two_working_sets() {
    let reports = builtin("workingset", "t18");
    let notes = &find(&reports, "window 10").notes;
    assert_eq!(notes.as_slice(), ["after 10 references: {1, 2, 5, 6, 7}", "after 26 references: {3, 4}"]);
}
