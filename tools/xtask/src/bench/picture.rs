//! The picture: a bar a row, as long as Quire's figure is beside tiny Linux's.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::report::{Line, Report};

const ROW_HEIGHT: i32 = 18;
const LABEL_WIDTH: i32 = 190;
/// Of a bar that says that both cost the same.
const WHOLE: i32 = 600;
const MARGIN: i32 = 40;
/// The longest bar, as a ratio; what is longer is cut.
const LONGEST: f64 = 1.5;

/// Draws it as an SVG file.
pub fn draw(path: &Path, report: &Report<'_>) -> Result<()> {
    let lines: Vec<(&Line, f64)> = report.lines.iter().filter_map(|l| Some((l, l.quire / l.peers?[1]))).collect();
    let bottom = MARGIN + ROW_HEIGHT * lines.len() as i32;
    let width = LABEL_WIDTH + (f64::from(WHOLE) * LONGEST) as i32 + 2 * MARGIN;
    let root = SVGBackend::new(path, (width as u32, (bottom + MARGIN) as u32)).into_drawing_area();
    let font = ("sans-serif", 12).into_font();
    let wrong = |error: DrawingAreaErrorKind<std::io::Error>| anyhow!("{}: {error}", path.display());
    let text = |words: String, at: (i32, i32)| root.draw(&Text::new(words, at, font.clone())).map_err(wrong);

    root.fill(&WHITE).map_err(wrong)?;
    text("Instructions an operation, Quire's to those of tiny Linux 6.12".to_owned(), (LABEL_WIDTH, 10))?;
    for (i, (line, ratio)) in lines.iter().enumerate() {
        let top = MARGIN + ROW_HEIGHT * i as i32;
        let length = (ratio.min(LONGEST) * f64::from(WHOLE)) as i32;
        let colour = match ratio {
            r if *r <= 0.5 => RGBColor(60, 140, 80),
            r if *r < 1.0 => RGBColor(200, 160, 50),
            _ => RGBColor(190, 60, 50),
        };
        text(line.name.clone(), (10, top + 3))?;
        let bar = [(LABEL_WIDTH, top + 2), (LABEL_WIDTH + length, top + ROW_HEIGHT - 2)];
        root.draw(&Rectangle::new(bar, colour.filled())).map_err(wrong)?;
        text(format!("{ratio:.2}  ({:.0})", line.quire), (LABEL_WIDTH + length + 6, top + 3))?;
    }
    for part in [0.5, 1.0] {
        let x = LABEL_WIDTH + (part * f64::from(WHOLE)) as i32;
        root.draw(&PathElement::new([(x, MARGIN), (x, bottom)], BLACK.mix(0.5))).map_err(wrong)?;
        text(format!("{part}"), (x - 8, bottom + 4))?;
    }
    root.present().map_err(wrong)
}
