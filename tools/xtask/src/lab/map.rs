//! Draws memory as bars, a row for each moment. An owner has the same colour in all drawings of a trace.

use quire_lab::report::{Kind, Map, MapRow, Piece};
use quire_lab::units::Size;

use super::svg::{Anchor, Svg, width_of};

const ROW: i32 = 22;
const GAP: i32 = 4;
const WIDTH: i32 = 290;
const TOP: i32 = 20;
/// The number of colours in the style sheet.
const COLOURS: usize = 8;

/// The owners of memory, in order of first appearance. The position determines the colour.
#[derive(Default)]
pub struct Owners(Vec<String>);

impl Owners {
    /// The class for the blocks of an owner.
    fn class(&mut self, owner: &str) -> String {
        let known = self.0.iter().position(|other| other == owner);
        let index = known.unwrap_or_else(|| {
            self.0.push(owner.to_owned());
            self.0.len() - 1
        });
        format!("c{}", index % COLOURS)
    }
}

/// The maximum length of a note in a drawing; the text version contains the whole note.
const NOTE: usize = 16;

/// Draws memory.
pub fn draw(map: &Map, owners: &mut Owners, label: &str) -> String {
    let height = TOP + map.rows.len() as i32 * (ROW + GAP) + 4;
    let left = map.rows.iter().map(|row| width_of(&row.label)).max().unwrap_or(0) + 16;
    let notes = map.rows.iter().map(|row| row.note.len().min(NOTE) + 2).max().unwrap_or(0) as i32;
    let mut svg = Svg::new(left + WIDTH + 7 * notes + 14, height);
    svg.text((left, 13), Anchor::Start, "axis", "0");
    svg.text((left + WIDTH, 13), Anchor::End, "axis", &Size(map.whole).to_string());
    let mut before: &[Piece] = &[];
    for (number, row) in map.rows.iter().enumerate() {
        let top = TOP + number as i32 * (ROW + GAP);
        svg.text((left - 8, top + 15), Anchor::End, "label", &row.label);
        Row { map, row, before, left, top }.draw(&mut svg, owners);
        before = &row.pieces;
    }
    svg.finish(label)
}

/// One moment.
struct Row<'a> {
    map: &'a Map,
    row: &'a MapRow,
    /// Memory at the previous moment.
    before: &'a [Piece],
    left: i32,
    top: i32,
}

impl Row<'_> {
    fn x(&self, address: u64) -> i32 {
        self.left + (u128::from(address) * WIDTH as u128 / u128::from(self.map.whole.max(1))) as i32
    }

    fn draw(&self, svg: &mut Svg, owners: &mut Owners) {
        let all = ((self.left, self.top), (WIDTH, ROW));
        svg.rect(all.0, all.1, "free", "");
        self.row.pieces.iter().for_each(|piece| self.piece(svg, owners, piece));
        let is_refused = self.row.note == "refused";
        if is_refused {
            svg.rect(all.0, all.1, "refused", "");
        }
        let (class, mark) = if is_refused { ("note bad", "\u{2715} ") } else { ("note", "") };
        let shown: String = self.row.note.chars().take(NOTE).collect();
        let more = if shown.len() < self.row.note.len() { "…" } else { "" };
        svg.text((self.left + WIDTH + 6, self.top + 15), Anchor::Start, class, &format!("{mark}{shown}{more}"));
    }

    fn piece(&self, svg: &mut Svg, owners: &mut Owners, piece: &Piece) {
        let (left, right) = (self.x(piece.start), self.x(piece.start + piece.size));
        let (at, size) = ((left, self.top), ((right - left).max(1), ROW));
        let place = format!("{} at {}", Size(piece.size), Size(piece.start));
        let (name, wasted) = match &piece.kind {
            Kind::Free => return svg.rect(at, size, "hole", &format!("free: {place}")),
            Kind::Kept => return svg.rect(at, size, "kept", &format!("kept on a list: {place}")),
            Kind::Used { name, wasted } => (name, *wasted),
        };
        let waste = if wasted > 0 { format!(", {} of it not asked for", Size(wasted)) } else { String::new() };
        let title = format!("{name}: {place}{waste}");
        // New blocks are outlined.
        let new = if self.before.contains(piece) { "" } else { " new" };
        svg.rect(at, size, &format!("{}{new}", owners.class(name)), &title);
        let used = self.x(piece.start + piece.size - wasted);
        if used < right {
            svg.rect((used, self.top), (right - used, ROW), "waste", &title);
        }
        if width_of(name) + 4 <= right - left {
            svg.text(((left + right) / 2, self.top + 15), Anchor::Middle, "name", name);
        }
    }
}
