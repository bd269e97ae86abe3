//! The marks: upper bounds for costs of this kernel, and whether they hold.
//!
//! A mark fails if the figure is too large, if the figure is impossible (not a number, zero or negative), and if the
//! figure is missing although everything was measured.

use std::fmt;

use super::{Figures, report::Section};

/// The most that a row of user/bench may cost.
const ROWS: [(&str, f64); 11] = [
    ("brk.query", 150.0),
    ("brk.touch.4K", 3000.0),
    // (1,500 where the CPU's slab of areas happens to have one left; the magazine behind it costs 260 more.)
    ("mmap.notouch.4K", 1800.0),
    ("fault.write_random", 900.0),
    ("fault.write", 500.0),
    ("fault.read_zero", 400.0),
    ("fault.unmap", 157.0),
    ("cow.write.16M", 1600.0),
    ("cow.reuse.16M", 500.0),
    ("mprotect.1M", 8000.0),
    ("mremap.move.1M", 8000.0),
];

/// The most that a pair of kernel operations may cost, without the loop around it: row, back end, instructions.
const PAIRS: [(&str, &str, f64); 2] = [("kernel.alloc_page", "slub", 120.0), ("kernel.kmalloc.64", "slub", 80.0)];

/// What may cost at most a percentage of something else: a page of the zone that comes next when the best one is used up,
/// of a page of the best one.
const RATIOS: [(&str, &str, f64); 1] = [("kernel.fill.1", "kernel.fill.0", 110.0)];

/// What is done with a page that has a single mapping: a walk to it, the page's move to another frame, and its way to
/// swap and back.
const MOVES: [&str; 3] = ["rmap", "migrate", "page_out"];

/// Where such a page is among unrelated mappings, and where it is without them: there each of [`MOVES`] may cost twice as
/// much.
const PLACES: [(&str, &str); 5] =
    [("ended", "alone"), ("younger", "alone"), ("left", "alone"), ("moved", "moved_one"), ("parts", "moved_one")];

/// The kernel argument with which a machine of 1 GiB has two zones for programs to fill.
pub const TWO_ZONES: &str = "movablecore=256M";

/// What fork and exit cost for each page that is resident, from two rows.
const FORK: (&str, &str, f64) = ("fork.exit.64M", "fork.exit.0", 120.0);
const FORK_PAGES: f64 = (64 << 20) as f64 / 4096.0;

/// The most that something may cost.
pub struct Mark {
    /// The row, or the name of a value derived from rows.
    pub row: String,
    /// Instructions.
    pub most: f64,
    /// The measured figure, if there is one.
    pub figure: Option<f64>,
    /// Whether the figure is computed from several rows, so that no row shows it.
    pub is_derived: bool,
}

/// The result of checking a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    Fails,
    /// The figure is impossible.
    Absurd,
    Unmeasured,
}

impl Mark {
    fn of(row: String, most: f64, figure: Option<f64>) -> Mark {
        Mark { row, most, figure, is_derived: false }
    }

    fn derived(row: String, most: f64, figure: Option<f64>) -> Mark {
        Mark { is_derived: true, ..Mark::of(row, most, figure) }
    }

    pub fn verdict(&self) -> Verdict {
        match self.figure {
            None => Verdict::Unmeasured,
            Some(figure) if !figure.is_finite() || figure <= 0.0 => Verdict::Absurd,
            // In tenths, as complaints show it: the kernel's clock ticks every 16 instructions.
            Some(figure) if (figure * 10.0).round() <= self.most * 10.0 => Verdict::Holds,
            Some(_) => Verdict::Fails,
        }
    }

    /// Why it does not hold, in a sentence with row, mark and figure.
    pub fn complaint(&self) -> Option<String> {
        let Mark { row, most, figure, .. } = self;
        let figure = figure.unwrap_or(f64::NAN);
        match self.verdict() {
            Verdict::Holds => None,
            Verdict::Fails => Some(format!("{row} costs {figure:.1} instructions; its mark is {most:.0}")),
            Verdict::Absurd => Some(format!("{row} cannot cost {figure:.1} instructions; its mark is {most:.0}")),
            Verdict::Unmeasured => Some(format!("{row} was not measured; its mark is {most:.0}")),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mark { row, most, figure, .. } = self;
        let figure = figure.map_or("-".to_owned(), |figure| format!("{figure:.0}"));
        let verdict = match self.verdict() {
            Verdict::Holds => "holds",
            Verdict::Fails => "FAILS",
            Verdict::Absurd => "FAILS: impossible figure",
            Verdict::Unmeasured => "FAILS: not measured",
        };
        write!(f, "{row:<48} {most:>8.0} {figure:>8}  {verdict}")
    }
}

/// All marks. If `complete`, everything was measured, and a missing figure fails its mark; otherwise marks without a
/// figure are left out.
pub fn all(quire: &Figures, fast_paths: &[Section], complete: bool) -> Vec<Mark> {
    let rows = ROWS.iter().map(|&(row, most)| Mark::of(row.to_owned(), most, quire.get(row)));
    let (large, small, most) = FORK;
    let figure = quire.get(large).zip(quire.get(small)).map(|(large, small)| (large - small) / FORK_PAGES);
    let fork = Mark::derived("fork.exit, a resident page".to_owned(), most, figure);
    let pairs = PAIRS.iter().map(|&(row, back_end, most)| {
        let section = fast_paths.iter().find(|section| section.name == back_end);
        Mark::of(format!("{row}, {back_end}"), most, section.and_then(|section| section.net(row)))
    });
    let moves = MOVES.iter().flat_map(|what| {
        PLACES
            .iter()
            .map(move |(place, plain)| (format!("kernel.{what}.{place}"), format!("kernel.{what}.{plain}"), 200.0))
    });
    let ratios = RATIOS.iter().map(|&(row, plain, most)| (row.to_owned(), plain.to_owned(), most)).chain(moves);
    let ratios = ratios.map(|(row, plain, most)| {
        let slub = fast_paths.iter().find(|section| section.name == "slub");
        let percent = slub.and_then(|slub| Some(100.0 * slub.net(&row)? / slub.net(&plain)?));
        Mark::derived(format!("{row}, % of {}", plain.trim_start_matches("kernel.")), most, percent)
    });
    rows.chain([fork]).chain(pairs).chain(ratios).filter(|mark| complete || mark.figure.is_some()).collect()
}

/// The mark of a row.
pub fn of_row(row: &str) -> Option<f64> {
    ROWS.iter().find(|(name, _)| *name == row).map(|&(_, most)| most)
}

/// The mark of a pair of kernel operations.
pub fn of_pair(row: &str) -> Option<f64> {
    PAIRS.iter().find(|(name, ..)| *name == row).map(|&(.., most)| most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(figure: Option<f64>) -> Mark {
        Mark::of("brk.query".into(), 150.0, figure)
    }

    #[test]
    fn a_mark_is_wrong_in_neither_direction() {
        for (figure, verdict) in [
            (Some(150.0), Verdict::Holds),
            (Some(0.1), Verdict::Holds),
            (Some(150.0002), Verdict::Holds),
            (Some(150.1), Verdict::Fails),
            (Some(0.0), Verdict::Absurd),
            (Some(-3.0), Verdict::Absurd),
            (Some(f64::NAN), Verdict::Absurd),
            (Some(f64::INFINITY), Verdict::Absurd),
            (None, Verdict::Unmeasured),
        ] {
            assert_eq!(mark(figure).verdict(), verdict, "{figure:?}");
            assert_eq!(mark(figure).complaint().is_none(), verdict == Verdict::Holds);
        }
    }

    #[test]
    fn a_complaint_names_row_mark_and_figure() {
        let complaint = mark(Some(151.25)).complaint().unwrap();
        assert!(["brk.query", "151.2", "150"].iter().all(|part| complaint.contains(part)), "{complaint}");
    }

    #[test]
    fn what_is_missing_counts_if_all_was_measured() {
        let quire = Figures::parse("brk.query 1 1 128.0\nfork.exit.64M 1 1 1643840\nfork.exit.0 1 1 5440\nDONE");
        let some = all(&quire, &[], false);
        assert_eq!(some.iter().map(|m| &*m.row).collect::<Vec<_>>(), ["brk.query", "fork.exit, a resident page"]);
        assert_eq!(some[1].figure, Some(100.0));
        let every = all(&quire, &[], true);
        assert_eq!(every.len(), ROWS.len() + 1 + PAIRS.len() + RATIOS.len() + MOVES.len() * PLACES.len());
        assert_eq!(every.iter().filter(|mark| mark.verdict() == Verdict::Unmeasured).count(), every.len() - 2);
    }

    #[test]
    fn pairs_are_counted_without_their_loop() {
        let text = "BENCH kernel.loop 100 200\nBENCH kernel.alloc_page 100 11200\n";
        let slub = [Section { name: "slub", figures: Figures::parse(text) }];
        let marks = all(&Figures::default(), &slub, false);
        assert_eq!((marks.len(), marks[0].figure), (1, Some(110.0)));
    }

    #[test]
    fn a_later_zone_may_cost_a_tenth_more() {
        for (later, verdict) in [(18_800, Verdict::Holds), (19_000, Verdict::Fails)] {
            let text =
                format!("BENCH kernel.loop 100 200\nBENCH kernel.fill.0 100 17200\nBENCH kernel.fill.1 100 {later}\n");
            let slub = [Section { name: "slub", figures: Figures::parse(&text) }];
            let marks = all(&Figures::default(), &slub, false);
            assert_eq!((marks.len(), marks[0].verdict()), (1, verdict));
        }
    }

    #[test]
    fn a_walk_may_cost_twice_what_it_costs_alone() {
        let text = "BENCH kernel.loop 10 20\nBENCH kernel.rmap.alone 10 4020\nBENCH kernel.rmap.ended 10 8120\n";
        let slub = [Section { name: "slub", figures: Figures::parse(text) }];
        let marks = all(&Figures::default(), &slub, false);
        assert_eq!((marks.len(), marks[0].figure), (1, Some(202.5)));
        assert_eq!(marks[0].verdict(), Verdict::Fails);
    }
}
