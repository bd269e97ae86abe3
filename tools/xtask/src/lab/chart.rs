//! Draws curves.
//!
//! Identical curves are drawn once with a joint name. Curves differ in colour and in the shape of their markers, and have their
//! names at their ends.

use quire_lab::report::Chart;

use super::svg::{Anchor, Svg, width_of};

const LEFT: i32 = 44;
const TOP: i32 = 28;
const WIDTH: i32 = 420;
const HEIGHT: i32 = 220;
const NAME: i32 = 16;
/// The number of colours for curves in the style sheet.
const COLOURS: usize = 6;
/// The approximate number of ticks on an axis.
const TICKS: u64 = 8;

/// A curve, or several identical ones.
struct Line<'a> {
    names: Vec<&'a str>,
    points: &'a [(u64, u64)],
}

/// Draws curves.
pub fn draw(chart: &Chart, label: &str) -> String {
    let lines = together(chart);
    let names: Vec<String> = lines.iter().map(|line| line.names.join(" = ")).collect();
    let widest = names.iter().map(|name| width_of(name)).max().unwrap_or(0);
    let scale = Scale { x: chart.span(), y: chart.highest().max(1) };
    let mut svg = Svg::new(LEFT + WIDTH + 24 + widest * 8 / 7, TOP + HEIGHT + 44);
    scale.draw(&mut svg, chart);
    let ends: Vec<i32> = lines.iter().map(|line| line.points.last().map_or(0, |&(_, y)| scale.y(y))).collect();
    let places = apart(&ends);
    for (number, line) in lines.iter().enumerate() {
        let colour = number % COLOURS;
        svg.path(&scale.path(line.points), &format!("line l{colour}"));
        // Markers on many points would hide the curve.
        if line.points.len() <= 16 {
            for &(x, y) in line.points {
                let title = format!("{}: {y} {} with {x} {}", names[number], chart.y, chart.x);
                sign(&mut svg, number, (scale.x(x), scale.y(y)), &title);
            }
        }
        let (end, place) = (ends[number], places[number]);
        svg.path(
            &format!("M{} {end} L{} {place}", LEFT + WIDTH + 2, LEFT + WIDTH + 12),
            &format!("line thin l{colour}"),
        );
        svg.text((LEFT + WIDTH + 16, place + 4), Anchor::Start, &format!("series t{colour}"), &names[number]);
    }
    svg.finish(label)
}

/// Groups identical curves.
fn together(chart: &Chart) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (name, points) in &chart.lines {
        match lines.iter_mut().find(|line| line.points == points) {
            Some(line) => line.names.push(name),
            None => lines.push(Line { names: vec![name], points }),
        }
    }
    lines
}

/// The positions of names that belong at these heights, adjusted so that they do not overlap.
fn apart(heights: &[i32]) -> Vec<i32> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by_key(|&index| heights[index]);
    let mut places = heights.to_vec();
    // From the bottom up, so that the lowest name stays within the drawing.
    let mut below = TOP + HEIGHT + NAME;
    for &index in order.iter().rev() {
        places[index] = heights[index].min(below - NAME);
        below = places[index];
    }
    places
}

/// Draws the marker of a point.
fn sign(svg: &mut Svg, number: usize, (x, y): (i32, i32), title: &str) {
    let class = format!("sign l{}", number % COLOURS);
    match number % 3 {
        0 => svg.circle((x, y), 4, &class, title),
        1 => svg.rect((x - 4, y - 4), (8, 8), &class, title),
        _ => svg.path(&format!("M{x} {} l5 5 l-5 5 l-5 -5 z", y - 5), &class),
    }
}

/// The mapping from values to coordinates.
struct Scale {
    x: (u64, u64),
    y: u64,
}

impl Scale {
    fn x(&self, x: u64) -> i32 {
        let (from, to) = self.x;
        LEFT + ((x - from) * WIDTH as u64 / (to - from).max(1)) as i32
    }

    fn y(&self, y: u64) -> i32 {
        TOP + HEIGHT - (y * HEIGHT as u64 / self.y) as i32
    }

    fn path(&self, points: &[(u64, u64)]) -> String {
        let steps = points
            .iter()
            .enumerate()
            .map(|(number, &(x, y))| format!("{}{} {}", if number == 0 { "M" } else { "L" }, self.x(x), self.y(y)));
        steps.collect::<Vec<_>>().join(" ")
    }

    /// Draws the axes and horizontal grid lines.
    fn draw(&self, svg: &mut Svg, chart: &Chart) {
        let step = self.y.div_ceil(TICKS);
        for y in (0..=self.y).step_by(step as usize) {
            svg.path(&format!("M{LEFT} {} h{WIDTH}", self.y(y)), "scale");
            svg.text((LEFT - 6, self.y(y) + 4), Anchor::End, "axis", &y.to_string());
        }
        let (from, to) = self.x;
        for x in (from..=to).step_by((to - from + 1).div_ceil(TICKS + 4) as usize) {
            svg.text((self.x(x), TOP + HEIGHT + 16), Anchor::Middle, "axis", &x.to_string());
        }
        svg.text((LEFT + WIDTH / 2, TOP + HEIGHT + 36), Anchor::Middle, "label", chart.x);
        svg.text((4, 10), Anchor::Start, "label", chart.y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_cover_each_other() {
        let places = apart(&[100, 100, 104, 20, TOP + HEIGHT]);
        let mut sorted = places.clone();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= NAME), "{places:?}");
        assert_eq!(places[4], TOP + HEIGHT);
    }

    #[test]
    fn lines_that_are_the_same_are_named_together() {
        let line = |name: &str, y| (name.to_owned(), vec![(1, y), (2, y)]);
        let chart = Chart { x: "frames", y: "faults", lines: vec![line("FIFO", 3), line("OPT", 2), line("clock", 3)] };
        let drawn = draw(&chart, "faults");
        assert!(drawn.contains("FIFO = clock") && drawn.matches("class=\"line l").count() == 2);
    }
}
