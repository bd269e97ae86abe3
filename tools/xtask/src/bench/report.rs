//! The tables: Quire's figures beside Linux's in groups, their means, and whether the marks hold.

use std::fmt;

use anyhow::{Context, Result};

use super::marks::{self, Mark};
use super::{Figures, Versions};

/// Linux's committed figures.
const LINUX: &str = include_str!("linux.tsv");

/// The costs of the fast paths inside the kernel with one slab back end.
pub struct Section {
    pub name: &'static str,
    pub figures: Figures,
}

impl Section {
    /// A row without the loop around it.
    pub fn net(&self, row: &str) -> Option<f64> {
        Some(self.figures.get(row)? - self.figures.get("kernel.loop")?)
    }

    /// The rows but for the loop itself.
    pub fn rows(&self) -> impl Iterator<Item = &str> {
        self.figures.rows.iter().map(|(row, _)| row.as_str()).filter(|row| *row != "kernel.loop")
    }
}

/// A row of the main table.
pub struct Line {
    pub name: String,
    pub quire: f64,
    /// Tiny's committed figure.
    pub tiny: Option<f64>,
    /// Debian's.
    pub debian: Option<f64>,
    /// Debian's, measured now with the same binary.
    pub measured: Option<f64>,
}

impl Line {
    /// Whether the row counts for the means: one about memory that needs no huge pages.
    pub fn counts(&self) -> bool {
        !self.name.starts_with("sys.") && !self.name.contains("_huge") && self.name != "fault.none"
    }

    /// The group that it belongs to: the part before the first dot.
    pub fn group(&self) -> &str {
        self.name.split('.').next().unwrap_or(&self.name)
    }
}

/// The whole report.
pub struct Report<'a> {
    pub versions: &'a Versions,
    pub lines: Vec<Line>,
    pub marks: Vec<Mark>,
    pub fast_paths: &'a [Section],
    tlb: Vec<(String, u64)>,
    /// Rows that failed or are missing.
    pub failed: Vec<String>,
}

impl<'a> Report<'a> {
    /// If `complete`, all rows were requested, so every row with figures of Linux must be present.
    pub fn new(
        versions: &'a Versions,
        quire: &Figures,
        linux: Option<&Figures>,
        fast_paths: &'a [Section],
        complete: bool,
    ) -> Result<Report<'a>> {
        let peers = committed()?;
        let line = |(name, figure): &(String, f64)| {
            let peer = peers.iter().find(|(row, _)| row == name).map(|&(_, figures)| figures);
            Line {
                name: name.clone(),
                quire: *figure,
                tiny: peer.map(|[_, tiny]| tiny),
                debian: peer.map(|[debian, _]| debian),
                measured: linux.and_then(|linux| linux.get(name)),
            }
        };
        let mut failed = quire.failed.clone();
        if complete {
            let missing = peers.iter().filter(|(row, _)| quire.get(row).is_none());
            failed.extend(missing.map(|(row, _)| format!("{row}: not measured")));
        }
        Ok(Report {
            versions,
            lines: quire.rows.iter().map(line).collect(),
            marks: marks::all(quire, fast_paths, complete),
            fast_paths,
            tlb: quire.growth().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            failed,
        })
    }

    /// What is wrong, a sentence each: marks that do not hold, rows that did not work.
    pub fn complaints(&self) -> Vec<String> {
        let marks = self.marks.iter().filter_map(Mark::complaint);
        marks.chain(self.failed.iter().map(|row| format!("row failed: {row}"))).collect()
    }

    /// The lines of each group, in order.
    pub fn groups(&self) -> impl Iterator<Item = &[Line]> {
        self.lines.chunk_by(|one, next| one.group() == next.group())
    }

    /// The rows, the means and the marks in a sentence or two.
    pub fn headline(&self) -> String {
        let mut parts = Vec::new();
        let measured = ("Debian's Linux measured now", mean(&self.lines, |line| line.measured));
        let tiny = (self.versions.tiny.as_str(), mean(&self.lines, |line| line.tiny));
        for (what, mean) in [tiny, (self.versions.debian.as_str(), mean(&self.lines, |line| line.debian)), measured] {
            parts.extend(mean.map(|(mean, rows)| format!("{mean:.3} of {what} ({rows} rows)")));
        }
        let failing = self.marks.iter().filter_map(Mark::complaint).count();
        let marks = match (self.marks.len(), failing) {
            (0, _) => "no marks".to_owned(),
            (all, 0) => format!("all {all} marks hold"),
            (all, failing) => format!("{failing} of {all} marks FAIL"),
        };
        match parts.is_empty() {
            true => format!("Quire: {marks}"),
            false => format!("Quire costs in geometric mean {}; {marks}", parts.join(", ")),
        }
    }

    /// As comma-separated values, one line per row.
    pub fn csv(&self) -> String {
        let mut text = String::from("group,row,quire,tiny,debian,debian_measured,mark\n");
        let show = |figure: Option<f64>| figure.map_or(String::new(), |figure| format!("{figure:.1}"));
        for line in &self.lines {
            let [tiny, debian, measured] = [line.tiny, line.debian, line.measured].map(show);
            let mark = show(marks::of_row(&line.name));
            text += &format!("{},{},{:.1},{tiny},{debian},{measured},{mark}\n", line.group(), line.name, line.quire);
        }
        for section in self.fast_paths {
            for row in section.rows() {
                let mark = show(marks::of_pair(row).filter(|_| section.name == "slub"));
                text += &format!("{},{row},{},,,,{mark}\n", section.name, show(section.net(row)));
            }
        }
        text
    }
}

/// The rows of linux.tsv: Debian's figure, tiny's.
pub fn committed() -> Result<Vec<(&'static str, [f64; 2])>> {
    let rows = LINUX.lines().filter(|line| !line.starts_with('#')).skip(1);
    rows.map(|line| {
        let mut words = line.split('\t');
        let mut next = || words.next().with_context(|| format!("linux.tsv: {line}"));
        Ok((next()?, [next()?.parse()?, next()?.parse()?]))
    })
    .collect()
}

/// The text after "# WORD: " in linux.tsv.
pub fn said_of(word: &str) -> &'static str {
    let said = LINUX.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(word)?.strip_prefix(": "));
    said.unwrap_or("Linux")
}

/// The geometric mean of Quire's figures to another's over the lines that count, and of how many.
pub fn mean(lines: &[Line], peer: impl Fn(&Line) -> Option<f64>) -> Option<(f64, usize)> {
    let ratios = lines.iter().filter(|line| line.counts()).filter_map(|line| Some(line.quire / peer(line)?));
    let logarithms: Vec<f64> = ratios.map(f64::ln).collect();
    let count = logarithms.len();
    (count > 0).then(|| ((logarithms.iter().sum::<f64>() / count as f64).exp(), count))
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        writeln!(f, "{}\n", self.versions)?;
        writeln!(f, "Instructions an operation; by page in the rows of touches. Ratios are Quire's to the other's.")?;
        writeln!(f, "The means leave out sys and _huge: these are not about pages of 4 KiB.")?;
        self.main_table(f)?;
        let behind = self.lines.iter().filter(|line| line.counts() && line.tiny.is_some_and(|tiny| line.quire >= tiny));
        let behind: Vec<&str> = behind.map(|line| line.name.as_str()).collect();
        writeln!(f, "rows behind tiny: {}", if behind.is_empty() { "none".to_owned() } else { behind.join(", ") })?;
        if !self.fast_paths.is_empty() {
            self.fast_path_table(f)?;
        }
        if !self.marks.is_empty() {
            writeln!(f, "\n{:<32} {:>8} {:>8}", "mark", "at most", "is")?;
            self.marks.iter().try_for_each(|mark| writeln!(f, "{mark}"))?;
        }
        if !self.tlb.is_empty() {
            writeln!(f, "\nTLB invalidations over all rows")?;
            self.tlb.iter().try_for_each(|(name, count)| writeln!(f, "{name:<32} {count:>8}"))?;
        }
        self.failed.iter().try_for_each(|row| writeln!(f, "failed: {row}"))
    }
}

impl Report<'_> {
    fn main_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_measured = self.lines.iter().any(|line| line.measured.is_some());
        write!(f, "\n{:<24} {:>10} {:>10} {:>6} {:>10} {:>6}", "row", "Quire", "tiny", "ratio", "Debian", "ratio")?;
        writeln!(f, "{}", if has_measured { "   measured  ratio" } else { "" })?;
        for group in self.groups() {
            for line in group {
                write!(f, "{:<24} {:>10.0}", line.name, line.quire)?;
                for peer in [line.tiny, line.debian].into_iter().chain(has_measured.then_some(line.measured)) {
                    match peer {
                        Some(peer) => write!(f, " {peer:>10.0} {:>6.2}", line.quire / peer)?,
                        None => write!(f, " {:>10} {:>6}", "-", "-")?,
                    }
                }
                writeln!(f)?;
            }
            let means = [mean(group, |line| line.tiny), mean(group, |line| line.debian)];
            if let [Some((tiny, _)), Some((debian, _))] = means {
                writeln!(f, "{:<24} {:>10} {:>10} {tiny:>6.2} {:>10} {debian:>6.2}", "", "mean", "", "")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn fast_path_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{:<32}", "in the kernel, a pair")?;
        self.fast_paths.iter().try_for_each(|section| write!(f, " {:>8}", section.name))?;
        writeln!(f)?;
        for row in self.fast_paths[0].rows() {
            write!(f, "{row:<32}")?;
            for section in self.fast_paths {
                write!(f, " {:>8.0}", section.net(row).unwrap_or(f64::NAN))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> Versions {
        Versions { quire: "Quire".into(), tiny: "tiny".into(), debian: "Debian".into(), machine: "QEMU".into() }
    }

    #[test]
    fn the_committed_figures_are_read() {
        let rows = committed().unwrap();
        assert!(rows.len() > 60);
        let brk = rows.iter().find(|(row, _)| *row == "brk.query").unwrap().1;
        assert!(brk[0] > brk[1] && brk[1] > 100.0, "{brk:?}");
        assert!(said_of("tiny").starts_with("tiny Linux 6.") && said_of("debian").starts_with("Debian's Linux 6."));
    }

    #[test]
    fn means_leave_out_what_is_not_about_base_pages() {
        let quire = Figures::parse("sys.getpid 1 1 1.0\nbrk.query 1 1 127.6\nfault.write_huge 1 1 1.0\nDONE");
        let versions = versions();
        let report = Report::new(&versions, &quire, None, &[], false).unwrap();
        let text = report.to_string();
        assert!(text.starts_with("Quire costs in geometric mean 0.501 of tiny (1 rows)"), "{text}");
        assert!(text.contains("brk.query                             150      128  holds"), "{text}");
        assert!(report.complaints().is_empty());
        assert_eq!(report.groups().count(), 3);
    }

    #[test]
    fn a_mark_that_is_missed_is_a_complaint() {
        let quire = Figures::parse("brk.query 1 1 151.0\nFAIL cow.x EINVAL\nDONE");
        let versions = versions();
        let report = Report::new(&versions, &quire, None, &[], false).unwrap();
        assert!(report.to_string().contains("FAILS") && report.headline().contains("1 of 1 marks FAIL"));
        assert_eq!(report.complaints().len(), 2, "{:?}", report.complaints());
    }

    #[test]
    fn a_row_that_is_missing_from_all_is_a_complaint() {
        let quire = Figures::parse("brk.query 1 1 100.0\nDONE");
        let versions = versions();
        let report = Report::new(&versions, &quire, None, &[], true).unwrap();
        let complaints = report.complaints();
        assert!(complaints.iter().any(|line| line.contains("fork.vfork: not measured")), "{complaints:?}");
        assert!(!complaints.iter().any(|line| line.contains("brk.query")), "{complaints:?}");
    }

    #[test]
    fn values_have_a_column_each() {
        let quire = Figures::parse("brk.query 1 1 127.6\nown.row 1 1 5.0\nDONE");
        let kernel = "BENCH kernel.loop 100 200\nBENCH kernel.alloc_page 100 11200\n";
        let slub = [Section { name: "slub", figures: Figures::parse(kernel) }];
        let versions = versions();
        let csv = Report::new(&versions, &quire, None, &slub, false).unwrap().csv();
        let rows: Vec<&str> = csv.lines().collect();
        assert_eq!(rows[1], "brk,brk.query,127.6,254.6,593.9,,150.0");
        assert_eq!(rows[2..], ["own,own.row,5.0,,,,", "slub,kernel.alloc_page,110.0,,,,120.0"]);
        assert!(rows.iter().all(|row| row.split(',').count() == 7));
    }
}
