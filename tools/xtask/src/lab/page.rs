//! Writes the page: for each trace a table with a bar in each cell, and the drawings of all variants side by side.

use std::fmt::Write;

use quire_lab::report::{Measure, Picture, Value};
use quire_lab::{Report, draw as text};

use super::map::Owners;
use super::svg::escaped;
use super::{Played, chart, grid, map};

const STYLE: &str = include_str!("page.css");

/// Writes the page.
pub fn draw(played: &[Played]) -> String {
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
    page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n";
    page += "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>Quire: the laboratory</title>\n";
    put(&mut page, format_args!("<style>\n{STYLE}</style>\n</head>\n<body>\n{PATTERNS}"));
    page += "<header>\n<h1>The laboratory</h1>\n<p>The classic schemes of memory management, compared on the same traces. \
             All are exact simulations; the program <code>lab</code> on Quire prints the same figures.</p>\n";
    page += LEGEND;
    if played.len() > 1 {
        navigation(&mut page, played);
    }
    page += "</header>\n<main>\n";
    played.iter().for_each(|one| section(&mut page, one));
    page + "</main>\n</body>\n</html>\n"
}

fn navigation(page: &mut String, played: &[Played]) {
    page.push_str("<nav aria-label=\"Traces\">\n");
    for one in played {
        let (id, name) = (id(one), escaped(&one.name));
        put(page, format_args!("<a href=\"#{id}\"><b>{name}</b> {}</a>\n", escaped(&one.title)));
    }
    page.push_str("</nav>\n");
}

/// The fill patterns for waste and kept blocks.
const PATTERNS: &str = r#"<svg width="0" height="0" class="patterns" aria-hidden="true"><defs>
<pattern id="waste" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="3" height="6" class="ink"/></pattern>
<pattern id="kept" width="5" height="5" patternUnits="userSpaceOnUse"><circle cx="2" cy="2" r="1" class="ink"/></pattern>
</defs></svg>
"#;

/// The legend.
const LEGEND: &str = r#"<ul class="legend">
<li><svg viewBox="0 0 26 16"><rect width="26" height="16" rx="2" class="c1"/></svg> in use, with the name of the owner</li>
<li><svg viewBox="0 0 26 16"><rect width="26" height="16" rx="2" class="hole"/></svg> free</li>
<li><svg viewBox="0 0 26 16"><rect width="26" height="16" rx="2" class="c1"/><rect width="26" height="16" rx="2" class="waste"/></svg> allocated but unrequested</li>
<li><svg viewBox="0 0 26 16"><rect width="26" height="16" rx="2" class="kept"/></svg> free, kept on a list</li>
<li><svg viewBox="0 0 26 16"><rect width="26" height="16" rx="2" class="c1 new"/></svg> new in this step</li>
<li><svg viewBox="0 0 26 16"><circle cx="13" cy="8" r="4" class="dot"/></svg> or <svg viewBox="0 0 26 16"><rect width="26" height="16" rx="2" class="hit"/></svg> a hit</li>
<li><svg viewBox="0 0 26 16"><rect width="26" height="16" rx="2" class="filled"/><text x="13" y="12" text-anchor="middle" class="name">+</text></svg> into an empty place</li>
<li><svg viewBox="0 0 26 16"><rect width="26" height="16" rx="2" class="replaced"/><text x="13" y="13" text-anchor="middle" class="name">*</text></svg> replaces another</li>
<li><svg viewBox="0 0 26 16"><path d="M8 12 l5 -8 l5 8 z" class="mark"/></svg> a fault, a miss or a conflict</li>
</ul>
"#;

fn section(page: &mut String, played: &Played) {
    let (id, name, title) = (id(played), escaped(&played.name), escaped(&played.title));
    put(page, format_args!("<section id=\"{id}\">\n<h2><span>{name}</span> {title}</h2>\n"));
    let lines = escaped(played.text.trim_end());
    put(page, format_args!("<details><summary>The trace</summary><pre>{lines}</pre></details>\n"));
    // Placement schemes share a table.
    let (placing, others): (Vec<_>, Vec<_>) = played.schemes.iter().partition(|(_, reports)| is_placement(reports));
    if !placing.is_empty() {
        table(page, &placing.iter().flat_map(|(_, reports)| reports).collect::<Vec<_>>());
    }
    let mut owners = Owners::default();
    for (scheme, reports) in placing.iter().chain(&others) {
        put(page, format_args!("<h3>{}</h3>\n", escaped(scheme.summary)));
        if !is_placement(reports) {
            table(page, &reports.iter().collect::<Vec<_>>());
        }
        page.push_str("<div class=\"cards\">\n");
        reports.iter().for_each(|report| card(page, report, &played.name, &mut owners));
        page.push_str("</div>\n");
    }
    page.push_str("</section>\n");
}

/// Whether these are reports of a placement scheme.
fn is_placement(reports: &[Report]) -> bool {
    reports.iter().any(|report| report.value(Measure::Requests).is_some())
}

/// The anchor of a trace: the letters and digits of its name.
fn id(played: &Played) -> String {
    played.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// Writes the figures of several reports. The length of a bar is relative to the maximum of its column.
fn table(page: &mut String, all: &[&Report]) {
    let measures = text::measures(all.iter().copied());
    page.push_str("<div class=\"scroll\"><table>\n<thead><tr><th></th>");
    for measure in &measures {
        let (heading, meaning) = (escaped(measure.heading()), escaped(measure.meaning()));
        put(page, format_args!("<th scope=\"col\" title=\"{meaning}\">{heading}</th>"));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    let largest: Vec<u128> =
        measures.iter().map(|&m| all.iter().filter_map(|r| r.value(m)).map(hundredths).max().unwrap_or(0)).collect();
    for report in all.iter().filter(|report| !report.figures.is_empty()) {
        put(page, format_args!("<tr><th scope=\"row\">{}</th>", escaped(&report.scheme)));
        for (&measure, &largest) in measures.iter().zip(&largest) {
            cell(page, report, measure, largest);
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n");
}

fn cell(page: &mut String, report: &Report, measure: Measure, largest: u128) {
    match report.value(measure) {
        None => page.push_str("<td class=\"none\">–</td>"),
        Some(value) => {
            let part = (hundredths(value) * 100).checked_div(largest).unwrap_or(0);
            put(page, format_args!("<td style=\"--part:{part}%\">{value}</td>"));
        }
    }
}

/// A figure as a whole number, for comparison within its column.
fn hundredths(value: Value) -> u128 {
    match value {
        Value::Count(number) | Value::Bytes(number) => u128::from(number) * 100,
        Value::Ratio(ratio) | Value::Time(ratio) => ratio.hundredths(),
    }
}

/// Writes the drawings and notes of a report, and their text version.
fn card(page: &mut String, report: &Report, trace: &str, owners: &mut Owners) {
    let shown = text::pictures(report);
    if shown.is_empty() {
        return;
    }
    let name = escaped(&report.scheme);
    put(page, format_args!("<figure>\n<figcaption>{name} <span>{}</span></figcaption>\n", escaped(&headline(report))));
    for picture in &report.pictures {
        let label = format!("{} on {trace}", report.scheme);
        page.push_str(&match picture {
            Picture::Map(picture) => map::draw(picture, owners, &label),
            Picture::Grid(picture) => grid::draw(picture, &label),
            Picture::Chart(picture) => chart::draw(picture, &label),
        });
        page.push('\n');
    }
    if !report.notes.is_empty() {
        page.push_str("<ul class=\"notes\">\n");
        report.notes.iter().for_each(|note| put(page, format_args!("<li>{}</li>\n", escaped(note))));
        page.push_str("</ul>\n");
    }
    put(page, format_args!("<details><summary>as text</summary><pre>{}</pre></details>\n</figure>\n", escaped(&shown)));
}

/// The most important figure of a report.
fn headline(report: &Report) -> String {
    let ranked = [
        Measure::Faults,
        Measure::AverageTime,
        Measure::SwapTime,
        Measure::Needed,
        Measure::TableBytes,
        Measure::Refused,
    ];
    let found = ranked.into_iter().find_map(|measure| Some((measure, report.value(measure)?)));
    found.map_or(String::new(), |(measure, value)| format!("{value} {}", measure.heading()))
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = page.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::super::play;
    use super::*;
    use quire_lab::trace::builtin;
    use std::collections::BTreeSet;

    fn whole() -> String {
        draw(&builtin::ALL.iter().map(|trace| play(trace.name).unwrap()).collect::<Vec<_>>())
    }

    /// The first element that is not closed in the right order, or has an unterminated attribute.
    fn unbalanced(page: &str) -> Option<String> {
        let mut open = Vec::new();
        let mut rest = page;
        while let Some((text, after)) = rest.split_once('<') {
            let (tag, after) = after.split_once('>')?;
            if text.contains('>') && !text.contains('{') || tag.matches('"').count() % 2 == 1 {
                return Some(format!("{text}<{tag}>"));
            }
            let name = tag.trim_start_matches('/').split([' ', '/']).next()?.to_owned();
            match tag {
                _ if tag.starts_with('!') || tag.ends_with('/') => {}
                _ if tag.starts_with('/') => {
                    if open.pop() != Some(name) {
                        return Some(format!("<{tag}>"));
                    }
                }
                _ => open.push(name),
            }
            rest = after;
        }
        open.pop()
    }

    #[test]
    fn the_page_is_well_formed_and_self_contained() {
        let page = whole();
        assert_eq!(unbalanced(&page), None);
        for outside in ["http", "//", "src=", "@import", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "ids are unique");
    }

    #[test]
    fn every_scheme_has_its_drawing() {
        let page = whole();
        for name in ["next fit", "quick fit", "dynamic, evacuate", "buddy", "overlays", "WSClock", "segmented paging"] {
            assert!(page.contains(&format!("aria-label=\"{name} on t")), "{name}");
        }
        for trace in builtin::ALL {
            assert!(page.contains(&format!("<section id=\"{}\">", trace.name)));
        }
    }

    #[test]
    fn names_and_titles_are_escaped() {
        let mut played = play("t1").unwrap();
        played.title = "<b>\"&".into();
        played.name = "../a b.trace".into();
        let page = draw(&[played]);
        assert!(
            page.contains("&lt;b&gt;&quot;&amp;") && page.contains("id=\"---a-b-trace\"") && !page.contains("<b>\"")
        );
        assert_eq!(unbalanced(&page), None);
    }
}
