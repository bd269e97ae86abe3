//! The tables: Quire's figures beside Linux's, and whether the marks hold.

use std::fmt;

use anyhow::{Context, Result};

use super::Figures;

/// Linux's committed figures.
const LINUX: &str = include_str!("linux.tsv");

/// What the fast paths inside the kernel cost with a slab back end.
pub struct Section {
    pub name: &'static str,
    pub figures: Figures,
}

/// A row of the main table.
pub struct Line {
    pub name: String,
    pub quire: f64,
    /// Debian's and tiny's committed figures.
    pub peers: Option<[f64; 2]>,
    /// Debian's, measured now with the same binary.
    pub linux: Option<f64>,
}

impl Line {
    /// Whether the row counts for the means: one about memory that needs no huge pages.
    fn counts(&self) -> bool {
        !self.name.starts_with("sys.") && !self.name.contains("_huge") && self.name != "fault.none"
    }
}

/// The most that something may cost.
struct Mark {
    what: &'static str,
    most: f64,
    figure: Option<f64>,
}

/// All that is to be said.
pub struct Report<'a> {
    pub lines: Vec<Line>,
    marks: Vec<Mark>,
    fast_paths: &'a [Section],
    tlb: Vec<(String, u64)>,
    failed: &'a [String],
}

impl<'a> Report<'a> {
    pub fn new(quire: &'a Figures, linux: Option<&Figures>, fast_paths: &'a [Section]) -> Result<Report<'a>> {
        let peers = committed()?;
        let line = |(name, figure): &(String, f64)| Line {
            name: name.clone(),
            quire: *figure,
            peers: peers.iter().find(|(row, _)| row == name).map(|&(_, figures)| figures),
            linux: linux.and_then(|linux| linux.get(name)),
        };
        Ok(Report {
            lines: quire.rows.iter().map(line).collect(),
            marks: marks(quire, fast_paths),
            fast_paths,
            tlb: quire.growth().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            failed: &quire.failed,
        })
    }
}

/// The rows of linux.tsv: Debian's figure, tiny's.
fn committed() -> Result<Vec<(&'static str, [f64; 2])>> {
    let rows = LINUX.lines().filter(|line| !line.starts_with('#')).skip(1);
    rows.map(|line| {
        let mut words = line.split('\t');
        let mut next = || words.next().with_context(|| format!("linux.tsv: {line}"));
        Ok((next()?, [next()?.parse()?, next()?.parse()?]))
    })
    .collect()
}

/// The marks that this kernel has set itself.
fn marks(quire: &Figures, fast_paths: &[Section]) -> Vec<Mark> {
    const ROWS: [(&str, f64); 10] = [
        ("brk.query", 150.0),
        ("brk.touch.4K", 3000.0),
        ("mmap.notouch.4K", 1500.0),
        ("fault.write_random", 900.0),
        ("fault.write", 500.0),
        ("fault.read_zero", 400.0),
        ("fault.unmap", 150.0),
        ("cow.write.16M", 1600.0),
        ("cow.reuse.16M", 500.0),
        ("mprotect.1M", 8000.0),
    ];
    let mut marks: Vec<Mark> = ROWS.iter().map(|&(what, most)| Mark { what, most, figure: quire.get(what) }).collect();
    marks.push(Mark { what: "mremap.move.1M", most: 8000.0, figure: quire.get("mremap.move.1M") });
    let pages = (64 << 20) / 4096;
    let of_a_page = |large: f64, small: f64| (large - small) / f64::from(pages);
    let fork = quire.get("fork.exit.64M").zip(quire.get("fork.exit.0")).map(|(large, small)| of_a_page(large, small));
    marks.push(Mark { what: "fork.exit, a resident page", most: 120.0, figure: fork });
    let slub = fast_paths.iter().find(|section| section.name == "slub").map(|section| &section.figures);
    for (what, row, most) in
        [("alloc_page + free", "kernel.alloc_page", 120.0), ("kmalloc(64) + kfree, slub", "kernel.kmalloc.64", 80.0)]
    {
        marks.push(Mark { what, most, figure: slub.and_then(|figures| net(figures, row)) });
    }
    marks
}

/// A row of the kernel's own less the loop around it.
fn net(figures: &Figures, row: &str) -> Option<f64> {
    Some(figures.get(row)? - figures.get("kernel.loop")?)
}

/// The geometric mean, and of how many.
fn mean(ratios: impl Iterator<Item = f64>) -> Option<(f64, usize)> {
    let logarithms: Vec<f64> = ratios.map(f64::ln).collect();
    let count = logarithms.len();
    (count > 0).then(|| ((logarithms.iter().sum::<f64>() / count as f64).exp(), count))
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Instructions an operation; by page in the rows of touches. Ratios are Quire's to the other's.\n")?;
        self.main_table(f)?;
        self.means(f)?;
        if !self.fast_paths.is_empty() {
            self.fast_path_table(f)?;
        }
        writeln!(f, "\n{:<28} {:>8} {:>8}", "mark", "at most", "is")?;
        for Mark { what, most, figure } in &self.marks {
            let Some(figure) = figure else { continue };
            let verdict = if figure <= most { "holds" } else { "FAILS" };
            writeln!(f, "{what:<28} {most:>8.0} {figure:>8.0}  {verdict}")?;
        }
        if !self.tlb.is_empty() {
            writeln!(f, "\nTLB invalidations over all rows")?;
            self.tlb.iter().try_for_each(|(name, count)| writeln!(f, "{name:<28} {count:>8}"))?;
        }
        self.failed.iter().try_for_each(|row| writeln!(f, "failed: {row}"))
    }
}

impl Report<'_> {
    fn main_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_linux = self.lines.iter().any(|line| line.linux.is_some());
        write!(f, "{:<24} {:>10} {:>10} {:>6} {:>10} {:>6}", "row", "Quire", "tiny", "ratio", "Debian", "ratio")?;
        writeln!(f, "{}", if has_linux { "   measured  ratio" } else { "" })?;
        for line in &self.lines {
            write!(f, "{:<24} {:>10.0}", line.name, line.quire)?;
            match line.peers {
                Some([debian, tiny]) => {
                    let [to_tiny, to_debian] = [tiny, debian].map(|peer| line.quire / peer);
                    write!(f, " {tiny:>10.0} {to_tiny:>6.2} {debian:>10.0} {to_debian:>6.2}")?;
                }
                None => write!(f, "{:36}", "")?,
            }
            match line.linux {
                Some(linux) => writeln!(f, " {linux:>10.0} {:>6.2}", line.quire / linux)?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }

    fn means(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = || self.lines.iter().filter(|line| line.counts());
        let to = |peer: usize| counted().filter_map(move |line| Some(line.quire / line.peers?[peer]));
        let measured = counted().filter_map(|line| Some(line.quire / line.linux?));
        writeln!(f)?;
        for (what, mean) in [("tiny", mean(to(1))), ("Debian", mean(to(0))), ("Debian, measured", mean(measured))] {
            let Some((mean, rows)) = mean else { continue };
            writeln!(f, "geometric mean to {what}: {mean:.3} over {rows} rows (sys and _huge left out)")?;
        }
        let behind: Vec<&str> = counted()
            .filter(|line| line.peers.is_some_and(|[_, tiny]| line.quire >= tiny))
            .map(|line| line.name.as_str())
            .collect();
        writeln!(f, "rows behind tiny: {}", if behind.is_empty() { "none".to_owned() } else { behind.join(", ") })
    }

    fn fast_path_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{:<28}", "in the kernel, a pair")?;
        self.fast_paths.iter().try_for_each(|section| write!(f, " {:>8}", section.name))?;
        writeln!(f)?;
        let rows = &self.fast_paths[0].figures.rows;
        for (row, _) in rows.iter().filter(|(row, _)| row != "kernel.loop") {
            write!(f, "{row:<28}")?;
            for section in self.fast_paths {
                write!(f, " {:>8.0}", net(&section.figures, row).unwrap_or(f64::NAN))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_figures_are_read() {
        let rows = committed().unwrap();
        assert!(rows.len() > 60);
        let brk = rows.iter().find(|(row, _)| *row == "brk.query").unwrap().1;
        assert!(brk[0] > brk[1] && brk[1] > 100.0, "{brk:?}");
    }

    #[test]
    fn means_leave_out_what_is_not_about_base_pages() {
        let quire = Figures::parse("sys.getpid 1 1 1.0\nbrk.query 1 1 127.6\nfault.write_huge 1 1 1.0\nDONE");
        let text = Report::new(&quire, None, &[]).unwrap().to_string();
        assert!(text.contains("geometric mean to tiny: 0.5") && text.contains("over 1 rows"), "{text}");
        assert!(text.contains("brk.query                         150      128  holds"), "{text}");
    }

    #[test]
    fn a_mark_that_is_missed_says_so() {
        let quire = Figures::parse("brk.query 1 1 151.0\nDONE");
        assert!(Report::new(&quire, None, &[]).unwrap().to_string().contains("FAILS"));
    }
}
