//! The picture: one bar per row, in groups. A bar's length is the ratio of Quire's figure to tiny Linux's; both Linuxes
//! and the row's mark are on the same scale. Below are the kernel's own pairs, in instructions.
//!
//! Bars longer than the scale are cut: such a bar ends in a notch, and its figure is printed beside it.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::marks::{self, Verdict};
use super::report::{Line, Report, mean};

const ROW_HEIGHT: i32 = 16;
/// A group's heading and the space above it.
const HEADING: i32 = 30;
/// Where bars begin.
const LEFT: i32 = 190;
/// The length of the longest bar.
const WIDTH: i32 = 700;
/// Where figures are printed.
const FIGURES: i32 = LEFT + WIDTH + 16;
const WHOLE: i32 = FIGURES + 290;
/// The height of the versions and the legend.
const LEGEND: i32 = 72;
/// A line of the sentences above it, and its length in characters.
const SENTENCE: i32 = 18;
const SENTENCE_LENGTH: usize = 160;
/// The longest bar of a ratio to tiny Linux.
const LONGEST_RATIO: f64 = 2.5;

const BETTER: RGBColor = RGBColor(60, 140, 80);
const EQUAL: RGBColor = RGBColor(200, 160, 50);
const WORSE: RGBColor = RGBColor(190, 60, 50);
const TINY: RGBColor = RGBColor(30, 30, 30);
const DEBIAN: RGBColor = RGBColor(40, 80, 190);
const MARK: RGBColor = RGBColor(150, 40, 150);
const OUTSIDE: RGBColor = RGBColor(130, 130, 130);
const PAIR: RGBColor = RGBColor(120, 150, 170);

type Area<'text> = DrawingArea<SVGBackend<'text>, Shift>;

/// Draws it; returns the text of an SVG file.
pub fn draw(report: &Report<'_>) -> Result<String> {
    let mut text = String::new();
    let groups: Vec<&[Line]> = report.groups().collect();
    let pairs = report.fast_paths.first().map_or(0, |section| section.rows().count()) as i32;
    let derived = report.marks.iter().filter(|mark| mark.is_derived).count() as i32;
    let rows = report.lines.len() as i32 + pairs + derived;
    let headings = groups.len() as i32 + i32::from(pairs > 0) + i32::from(derived > 0);
    let sentences: Vec<String> = report.headlines().iter().flat_map(|sentence| wrapped(sentence)).collect();
    let top = 10 + SENTENCE * sentences.len() as i32;
    let height = top + LEGEND + ROW_HEIGHT * rows + HEADING * headings + 30;
    {
        let area = SVGBackend::with_string(&mut text, (WHOLE as u32, height as u32)).into_drawing_area();
        let mut canvas = Canvas { area: &area, top, scale: LONGEST_RATIO };
        area.fill(&WHITE).map_err(wrong)?;
        (10..).step_by(SENTENCE as usize).zip(&sentences).try_for_each(|(y, words)| canvas.sentence(words, y))?;
        canvas.legend(report)?;
        groups.iter().try_for_each(|group| canvas.group(group))?;
        if pairs > 0 {
            canvas.pairs(report)?;
        }
        if derived > 0 {
            canvas.derived(report)?;
        }
        area.present().map_err(wrong)?;
    }
    Ok(text)
}

fn wrong(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

/// A sentence in lines that fit the width.
fn wrapped(sentence: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in sentence.split(' ') {
        if lines.last().is_some_and(|line| !line.is_empty() && line.len() + word.len() >= SENTENCE_LENGTH) {
            lines.push("   ".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            let space = if line.is_empty() { "" } else { " " };
            *line += &format!("{space}{word}");
        }
    }
    lines
}

/// The area, and how far down it is drawn.
struct Canvas<'a, 'text> {
    area: &'a Area<'text>,
    top: i32,
    /// The value of the longest bar.
    scale: f64,
}

impl Canvas<'_, '_> {
    fn text(&self, words: &str, at: (i32, i32), size: i32, colour: RGBColor) -> Result<()> {
        let style = ("sans-serif", size).into_font().color(&colour);
        self.area.draw(&Text::new(words.to_owned(), at, style)).map_err(wrong)
    }

    fn sentence(&self, words: &str, y: i32) -> Result<()> {
        self.text(words, (10, y), 14, if words.contains("FAIL") { WORSE } else { BLACK })
    }

    fn legend(&mut self, report: &Report<'_>) -> Result<()> {
        let (versions, y) = (self.top + 8, self.top + 28);
        self.text(&report.versions.to_string(), (10, versions), 12, BLACK)?;
        self.text("Instructions an operation, as a ratio to tiny Linux.  Bar: Quire;", (10, y), 12, BLACK)?;
        self.upright(380, y - 2, TINY, 2)?;
        self.text("tiny Linux", (386, y), 12, TINY)?;
        self.diamond(462, y + 6, DEBIAN)?;
        self.text("Debian's Linux", (470, y), 12, DEBIAN)?;
        self.triangle(572, y, MARK)?;
        self.text("the most that Quire allows itself", (580, y), 12, MARK)?;
        self.notch(796, y, BETTER)?;
        self.text("longer than drawn", (814, y), 12, BLACK)?;
        self.text("grey: in no mean", (940, y), 12, OUTSIDE)?;
        self.colours(y + 20)?;
        self.top += LEGEND;
        Ok(())
    }

    /// What the colours of bars mean.
    fn colours(&self, y: i32) -> Result<()> {
        let colours = [
            (BETTER, "at most half of tiny Linux's, or a mark that holds", 10),
            (EQUAL, "more, but less than tiny Linux's", 330),
            (WORSE, "as much or more, or a mark that fails", 550),
            (PAIR, "in the kernel: no ratio", 790),
        ];
        for (colour, meaning, x) in colours {
            let swatch = [(x, y + 1), (x + 14, y + 11)];
            self.area.draw(&Rectangle::new(swatch, colour.filled())).map_err(wrong)?;
            self.text(meaning, (x + 20, y), 12, BLACK)?;
        }
        Ok(())
    }

    /// A group of rows with its means.
    fn group(&mut self, lines: &[Line]) -> Result<()> {
        let Some(first) = lines.first() else { return Ok(()) };
        let mut heading = first.group().to_owned();
        if let (Some((tiny, rows)), Some((debian, _))) = (mean(lines, |l| l.tiny), mean(lines, |l| l.debian)) {
            heading += &format!(": mean {tiny:.2} of tiny, {debian:.2} of Debian's ({rows} of {} rows)", lines.len());
        }
        self.text(&heading, (10, self.top + 12), 14, BLACK)?;
        self.top += HEADING;
        lines.iter().try_for_each(|line| self.row(line))
    }

    fn row(&mut self, line: &Line) -> Result<()> {
        let colour = if line.outside().is_some() { OUTSIDE } else { BLACK };
        self.text(&line.name, (24, self.top + 2), 12, colour)?;
        let Some(tiny) = line.tiny else {
            self.text(&format!("{:.0}, no figure of Linux", line.quire), (LEFT, self.top + 2), 12, BLACK)?;
            self.top += ROW_HEIGHT;
            return Ok(());
        };
        let ratio = line.quire / tiny;
        let colour = match ratio {
            r if r <= 0.5 => BETTER,
            r if r < 1.0 => EQUAL,
            _ => WORSE,
        };
        self.bar(ratio, colour)?;
        self.upright(self.x(1.0), self.top, TINY, 2)?;
        self.figures(&[format!("{:.0}", line.quire), format!("{ratio:.2} of {tiny:.0}")], 0)?;
        if let Some(debian) = line.debian {
            self.diamond(self.x(debian / tiny), self.top + ROW_HEIGHT / 2, DEBIAN)?;
            self.beyond(debian / tiny, DEBIAN)?;
            self.figures(&[format!("{:.2} of {debian:.0}", line.quire / debian)], 2)?;
        }
        if let Some(mark) = marks::of_row(&line.name) {
            self.triangle(self.x(mark / tiny), self.top + 1, MARK)?;
            self.beyond(mark / tiny, MARK)?;
        }
        self.top += ROW_HEIGHT;
        Ok(())
    }

    /// The kernel's own pairs: a bar for the first back end, ticks for the others.
    fn pairs(&mut self, report: &Report<'_>) -> Result<()> {
        let [first, others @ ..] = report.fast_paths else { return Ok(()) };
        let figures = || report.fast_paths.iter().flat_map(|s| s.rows().filter_map(|row| s.net(row)));
        self.scale = figures().fold(1.0, f64::max);
        let names: Vec<&str> = report.fast_paths.iter().map(|section| section.name).collect();
        let parts = ["bar", "tick", "ring"].iter().zip(names).map(|(part, name)| format!("{part}: {name}"));
        let heading = format!("in the kernel, instructions a pair ({})", parts.collect::<Vec<_>>().join(", "));
        self.text(&heading, (10, self.top + 12), 14, BLACK)?;
        self.top += HEADING;
        for row in first.rows() {
            self.text(row, (24, self.top + 2), 12, BLACK)?;
            let figure = first.net(row).unwrap_or(0.0);
            self.bar(figure, PAIR)?;
            for (number, other) in others.iter().enumerate() {
                let Some(figure) = other.net(row) else { continue };
                match number {
                    0 => self.upright(self.x(figure), self.top, TINY, 2)?,
                    _ => self.ring(self.x(figure), self.top + ROW_HEIGHT / 2, DEBIAN)?,
                }
            }
            if let Some(mark) = marks::of_pair(row) {
                self.triangle(self.x(mark), self.top + 1, MARK)?;
            }
            let all = report.fast_paths.iter().map(|s| s.net(row).map_or("-".into(), |figure| format!("{figure:.0}")));
            self.figures(&all.collect::<Vec<_>>(), 0)?;
            self.top += ROW_HEIGHT;
        }
        Ok(())
    }

    /// The marks that no row shows, each as a share of what is allowed.
    fn derived(&mut self, report: &Report<'_>) -> Result<()> {
        self.scale = LONGEST_RATIO;
        self.text(
            "marks of several rows together, as a ratio to the most that is allowed",
            (10, self.top + 12),
            14,
            BLACK,
        )?;
        self.top += HEADING;
        for mark in report.marks.iter().filter(|mark| mark.is_derived) {
            self.text(&mark.row, (24, self.top + 2), 12, BLACK)?;
            let figure = mark.figure.filter(|figure| figure.is_finite());
            let share = figure.unwrap_or(0.0) / mark.most;
            self.bar(share, if mark.verdict() == Verdict::Holds { BETTER } else { WORSE })?;
            self.triangle(self.x(1.0), self.top + 1, MARK)?;
            let figure = figure.map_or("-".to_owned(), |figure| format!("{figure:.0}"));
            self.figures(&[figure, format!("{share:.2} of {:.0}", mark.most)], 0)?;
            self.top += ROW_HEIGHT;
        }
        Ok(())
    }

    /// Figures beside a row, the first of them in this column.
    fn figures(&self, figures: &[String], column: usize) -> Result<()> {
        const COLUMNS: [i32; 3] = [0, 64, 170];
        let columns = COLUMNS.iter().skip(column);
        let mut each = figures.iter().zip(columns);
        each.try_for_each(|(figure, x)| self.text(figure, (FIGURES + x, self.top + 2), 12, BLACK))
    }

    /// Marks a point at the end of the scale whose value lies beyond it.
    fn beyond(&self, figure: f64, colour: RGBColor) -> Result<()> {
        if figure > self.scale { self.text("»", (LEFT + WIDTH + 4, self.top + 2), 12, colour) } else { Ok(()) }
    }

    /// The position of a figure; larger figures are placed at the scale's end.
    fn x(&self, figure: f64) -> i32 {
        LEFT + ((figure / self.scale).clamp(0.0, 1.0) * f64::from(WIDTH)) as i32
    }

    fn bar(&self, figure: f64, colour: RGBColor) -> Result<()> {
        let bar = [(LEFT, self.top + 2), (self.x(figure), self.top + ROW_HEIGHT - 2)];
        self.area.draw(&Rectangle::new(bar, colour.filled())).map_err(wrong)?;
        if figure > self.scale { self.notch(LEFT + WIDTH - 12, self.top, colour) } else { Ok(()) }
    }

    /// A zigzag through a bar that was cut.
    fn notch(&self, x: i32, top: i32, colour: RGBColor) -> Result<()> {
        let corners =
            |shift: i32| [(x + shift, top), (x + shift + 5, top + 6), (x + shift, top + 10), (x + shift + 5, top + 16)];
        let mut gap: Vec<(i32, i32)> = corners(0).to_vec();
        gap.extend(corners(5).into_iter().rev());
        self.area.draw(&Polygon::new(gap, WHITE.filled())).map_err(wrong)?;
        self.area.draw(&PathElement::new(corners(0), colour)).map_err(wrong)?;
        self.area.draw(&PathElement::new(corners(5), colour)).map_err(wrong)
    }

    fn upright(&self, x: i32, top: i32, colour: RGBColor, width: u32) -> Result<()> {
        self.area.draw(&PathElement::new([(x, top), (x, top + ROW_HEIGHT)], colour.stroke_width(width))).map_err(wrong)
    }

    fn diamond(&self, x: i32, y: i32, colour: RGBColor) -> Result<()> {
        let corners = [(x - 5, y), (x, y - 5), (x + 5, y), (x, y + 5)];
        self.area.draw(&Polygon::new(corners, colour.filled())).map_err(wrong)
    }

    fn triangle(&self, x: i32, top: i32, colour: RGBColor) -> Result<()> {
        let corners = [(x - 4, top), (x + 4, top), (x, top + 8)];
        self.area.draw(&Polygon::new(corners, colour.filled())).map_err(wrong)
    }

    fn ring(&self, x: i32, y: i32, colour: RGBColor) -> Result<()> {
        self.area.draw(&Circle::new((x, y), 4, colour.stroke_width(2))).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Section;
    use super::super::{Figures, Versions};
    use super::*;

    /// Each colour that a rectangle has is in the legend too, which explains it, even if no other bar has it.
    #[test]
    fn the_legend_has_all_colours_of_bars() {
        let versions = Versions { quire: "Q".into(), tiny: "t".into(), debian: "D".into(), machine: "M".into() };
        let pairs = Figures::parse("BENCH kernel.loop 100 200\nBENCH kernel.alloc_page 100 11200\n");
        let sections = [Section { name: "slub", figures: pairs }];
        let rows = "brk.query 1 1 1.0\nfault.write 1 1 1400.0\nfault.write_huge 1 1 999999.0\nDONE";
        let report = Report::new(&versions, &Figures::parse(rows), None, &sections, false).unwrap();
        let svg = draw(&report).unwrap();
        let fills = svg.split("<rect ").skip(1).filter_map(|rect| rect.split("fill=\"").nth(1)?.split('"').next());
        let mut count = std::collections::BTreeMap::new();
        fills.filter(|&fill| fill != "#FFFFFF").for_each(|fill| *count.entry(fill).or_insert(0) += 1);
        assert_eq!(count.len(), 4, "{count:?}");
        assert!(count.values().all(|&uses| uses >= 2), "a colour is used and not explained, or not used: {count:?}");
        for meaning in ["at most half", "more, but less", "as much or more", "in the kernel: no ratio"] {
            assert!(svg.contains(meaning), "{meaning}");
        }
    }

    #[test]
    fn all_rows_are_drawn_and_long_ones_are_cut() {
        let versions =
            Versions { quire: "Quire".into(), tiny: "tiny".into(), debian: "Debian".into(), machine: "QEMU".into() };
        let text = "BENCH kernel.loop 100 200\nBENCH kernel.alloc_page 100 11200\nBENCH kernel.fill.0 100 10200\n\
                    BENCH kernel.fill.1 100 10700\n";
        let sections = ["slub", "slab", "slob"].map(|name| Section { name, figures: Figures::parse(text) });
        let drawn = |huge: &str| {
            let rows = format!("brk.query 1 1 128.0\nfault.write_huge 1 1 {huge}\nown.row 1 1 7.0\nDONE");
            let report = Report::new(&versions, &Figures::parse(&rows), None, &sections, false).unwrap();
            draw(&report).unwrap()
        };
        let (short, long) = (drawn("10.0"), drawn("9999.0"));
        for row in
            ["brk.query", "fault.write_huge", "own.row", "kernel.alloc_page", "no figure of Linux", "fill.1, % of"]
        {
            assert!(long.contains(row), "{row}");
        }
        assert!(long.contains("behind tiny: fault.write_huge") && short.contains("0 of 2 rows are behind"), "{long}");
        assert!(long.contains("2 rows are in no mean: fault.write_huge"), "{long}");
        let lines = |svg: &str| svg.matches("<polyline").count();
        assert_eq!(lines(&long), lines(&short) + 2, "a cut bar has a notch");
    }
}
