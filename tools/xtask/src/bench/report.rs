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
    /// Why the row is in no mean, if it is in none. The means are of memory calls on pages of 4 KiB.
    pub fn outside(&self) -> Option<&'static str> {
        match self.name.as_str() {
            name if name.starts_with("sys.") => Some("no memory call"),
            name if name.contains("_huge") => Some("huge pages"),
            _ if [self.tiny, self.debian, self.measured] == [None; 3] => Some("no figure of Linux"),
            _ => None,
        }
    }

    /// Whether it costs no less than with tiny Linux.
    pub fn is_behind(&self) -> bool {
        self.tiny.is_some_and(|tiny| self.quire >= tiny)
    }

    /// The group that it belongs to.
    pub fn group(&self) -> &str {
        group_of(&self.name)
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

    /// The means, the rows behind, those that are in no mean, and the marks: what is true of all rows, a sentence each.
    pub fn headlines(&self) -> Vec<String> {
        let mut said = vec![self.means(), self.behind()];
        said.extend(self.outside());
        said.push(self.verdict());
        said
    }

    fn means(&self) -> String {
        let all = self.lines.len();
        let means = [
            (self.versions.tiny.as_str(), mean(&self.lines, |line| line.tiny)),
            (self.versions.debian.as_str(), mean(&self.lines, |line| line.debian)),
            ("Debian's Linux measured now", mean(&self.lines, |line| line.measured)),
        ];
        let means = means.into_iter().filter_map(|(what, mean)| {
            let (mean, rows) = mean?;
            Some(format!("{mean:.3} of {what} ({rows} of {all} rows)"))
        });
        match means.collect::<Vec<_>>() {
            none if none.is_empty() => format!("Quire: {all} rows, none of them in a mean"),
            means => format!("Quire costs in geometric mean {}", means.join(", ")),
        }
    }

    fn behind(&self) -> String {
        let rows: Vec<&str> =
            self.lines.iter().filter(|line| line.is_behind()).map(|line| line.name.as_str()).collect();
        let compared = self.lines.iter().filter(|line| line.tiny.is_some()).count();
        let names = if rows.is_empty() { String::new() } else { format!(": {}", rows.join(", ")) };
        format!("{} of {compared} rows are behind tiny{names}", rows.len())
    }

    /// The rows that are in no mean, by reason, if there are any.
    fn outside(&self) -> Option<String> {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for line in &self.lines {
            let Some(why) = line.outside() else { continue };
            match reasons.iter_mut().find(|(reason, _)| *reason == why) {
                Some((_, rows)) => rows.push(&line.name),
                None => reasons.push((why, vec![&line.name])),
            }
        }
        let count: usize = reasons.iter().map(|(_, rows)| rows.len()).sum();
        let said: Vec<String> = reasons.iter().map(|(why, rows)| format!("{} ({why})", rows.join(", "))).collect();
        (count > 0).then(|| format!("{count} rows are in no mean: {}", said.join("; ")))
    }

    fn verdict(&self) -> String {
        let failing = self.marks.iter().filter_map(Mark::complaint).count();
        let marks = match (self.marks.len(), failing) {
            (0, _) => "no marks".to_owned(),
            (all, 0) => format!("all {all} marks hold"),
            (all, failing) => format!("{failing} of {all} marks FAIL"),
        };
        match self.failed.len() {
            0 => marks,
            rows => format!("{marks}; {rows} rows FAILED: {}", self.failed.join(", ")),
        }
    }

    /// As comma-separated values, one line per row, then one per mark that no row shows.
    pub fn csv(&self) -> String {
        let mut text = String::from("group,row,quire,tiny,debian,debian_measured,mark,in_means\n");
        let show = |figure: Option<f64>| figure.map_or(String::new(), |figure| format!("{figure:.1}"));
        for line in &self.lines {
            let [tiny, debian, measured] = [line.tiny, line.debian, line.measured].map(show);
            let (mark, in_means) = (show(marks::of_row(&line.name)), line.outside().unwrap_or("yes"));
            let Line { name, quire, .. } = line;
            text += &format!("{},{name},{quire:.1},{tiny},{debian},{measured},{mark},{in_means}\n", line.group());
        }
        for failed in &self.failed {
            let name = failed.split(": ").next().unwrap_or(failed);
            text += &format!("{},{name},,,,,{},failed\n", group_of(name), show(marks::of_row(name)));
        }
        for section in self.fast_paths {
            for row in section.rows() {
                let mark = show(marks::of_pair(row).filter(|_| section.name == "slub"));
                text += &format!("{},{row},{},,,,{mark},in the kernel\n", section.name, show(section.net(row)));
            }
        }
        for mark in self.marks.iter().filter(|mark| mark.is_derived) {
            text += &format!("mark,\"{}\",{},,,,{:.1},derived\n", mark.row, show(mark.figure), mark.most);
        }
        text
    }
}

/// The group of a row: the part before the first dot.
fn group_of(row: &str) -> &str {
    row.split('.').next().unwrap_or(row)
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

/// The geometric mean of Quire's figures to another's over the lines that are in means, and of how many.
pub fn mean(lines: &[Line], peer: impl Fn(&Line) -> Option<f64>) -> Option<(f64, usize)> {
    let ratios = lines.iter().filter(|line| line.outside().is_none()).filter_map(|line| Some(line.quire / peer(line)?));
    let logarithms: Vec<f64> = ratios.map(f64::ln).collect();
    let count = logarithms.len();
    (count > 0).then(|| ((logarithms.iter().sum::<f64>() / count as f64).exp(), count))
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.headlines().iter().try_for_each(|sentence| writeln!(f, "{sentence}"))?;
        writeln!(f, "{}\n", self.versions)?;
        writeln!(f, "Instructions an operation; by page in the rows of touches. Ratios are Quire's to the other's.")?;
        self.main_table(f)?;
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
        let rows = "sys.getpid 1 1 1.0\nbrk.query 1 1 127.6\nfault.write_huge 1 1 1.0\nown.row 1 1 7.0\nDONE";
        let quire = Figures::parse(rows);
        let versions = versions();
        let report = Report::new(&versions, &quire, None, &[], false).unwrap();
        let text = report.to_string();
        assert!(text.starts_with("Quire costs in geometric mean 0.501 of tiny (1 of 4 rows)"), "{text}");
        let outside =
            "3 rows are in no mean: sys.getpid (no memory call); fault.write_huge (huge pages); own.row (no figure";
        assert!(text.contains(outside), "{text}");
        assert!(text.contains("brk.query                                             150      128  holds"), "{text}");
        assert!(report.complaints().is_empty());
        assert_eq!(report.groups().count(), 4);
    }

    #[test]
    fn a_row_that_is_in_no_mean_is_behind_too() {
        let rows = "sys.getpid 1 1 999.0\nbrk.query 1 1 127.6\nfault.write_huge 1 1 99999.0\nown.row 1 1 7.0\nDONE";
        let versions = versions();
        let report = Report::new(&versions, &Figures::parse(rows), None, &[], false).unwrap();
        let text = report.to_string();
        assert!(text.contains("\n2 of 3 rows are behind tiny: sys.getpid, fault.write_huge\n"), "{text}");
        let none = Report::new(&versions, &Figures::parse("brk.query 1 1 127.6\nDONE"), None, &[], false).unwrap();
        assert_eq!(none.behind(), "0 of 1 rows are behind tiny");
    }

    #[test]
    fn a_mark_that_is_missed_is_a_complaint() {
        let quire = Figures::parse("brk.query 1 1 151.0\nFAIL cow.x EINVAL\nDONE");
        let versions = versions();
        let report = Report::new(&versions, &quire, None, &[], false).unwrap();
        assert!(
            report.to_string().contains("FAILS")
                && report.verdict() == "1 of 1 marks FAIL; 1 rows FAILED: cow.x: EINVAL"
        );
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
        let quire = "brk.query 1 1 127.6\nown.row 1 1 5.0\nfault.unmap_huge 1 1 9.0\nFAIL cow.x EINVAL\nDONE";
        let kernel = "BENCH kernel.loop 100 200\nBENCH kernel.alloc_page 100 11200\nBENCH kernel.fill.0 100 10200\n\
                      BENCH kernel.fill.1 100 10700\n";
        let slub = [Section { name: "slub", figures: Figures::parse(kernel) }];
        let versions = versions();
        let csv = Report::new(&versions, &Figures::parse(quire), None, &slub, false).unwrap().csv();
        let rows: Vec<&str> = csv.lines().collect();
        assert_eq!(
            rows[1..3],
            ["brk,brk.query,127.6,254.6,593.9,,150.0,yes", "own,own.row,5.0,,,,,no figure of Linux"]
        );
        assert!(
            rows[3].starts_with("fault,fault.unmap_huge,9.0,") && rows[3].ends_with(",,,huge pages"),
            "{}",
            rows[3]
        );
        assert_eq!(rows[4..6], ["cow,cow.x,,,,,,failed", "slub,kernel.alloc_page,110.0,,,,120.0,in the kernel"]);
        assert_eq!(rows.last(), Some(&"mark,\"kernel.fill.1, % of fill.0\",105.0,,,,110.0,derived"));
        let columns = |row: &str| row.replace("fill.1, %", "fill.1 %").split(',').count();
        assert!(rows.iter().all(|row| columns(row) == 8), "{csv}");
    }
}
