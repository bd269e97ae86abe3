//! A builder for SVG drawings. Elements have classes; the style sheet of the page defines their looks for light and dark.

use std::fmt::Write;

/// A drawing.
pub struct Svg {
    body: String,
    width: i32,
    height: i32,
}

/// The alignment of a text.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    /// Creates an empty drawing.
    pub fn new(width: i32, height: i32) -> Svg {
        Svg { body: String::new(), width, height }
    }

    /// Adds a rectangle. The title is its tooltip.
    pub fn rect(&mut self, (x, y): (i32, i32), (width, height): (i32, i32), class: &str, title: &str) {
        let shape = format!(r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="2" class="{class}""#);
        self.shape(&shape, "rect", title);
    }

    /// Adds a circle.
    pub fn circle(&mut self, (x, y): (i32, i32), radius: i32, class: &str, title: &str) {
        let shape = format!(r#"<circle cx="{x}" cy="{y}" r="{radius}" class="{class}""#);
        self.shape(&shape, "circle", title);
    }

    /// Adds a path.
    pub fn path(&mut self, words: &str, class: &str) {
        self.put(format_args!(r#"<path d="{words}" class="{class}"/>"#));
    }

    /// Adds a text.
    pub fn text(&mut self, (x, y): (i32, i32), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        self.put(format_args!(r#"<text x="{x}" y="{y}" text-anchor="{anchor}" class="{class}">{text}</text>"#));
    }

    /// Finishes the drawing; screen readers read the label.
    pub fn finish(self, label: &str) -> String {
        let Svg { body, width, height } = self;
        let label = escaped(label);
        format!(
            r#"<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{label}">{body}</svg>"#
        )
    }

    fn shape(&mut self, shape: &str, name: &str, title: &str) {
        match title {
            "" => self.put(format_args!("{shape}/>")),
            _ => self.put(format_args!("{shape}><title>{}</title></{name}>", escaped(title))),
        }
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.body.write_fmt(element);
        self.body.push('\n');
    }
}

/// Escapes text for HTML.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            control if control.is_control() && control != '\n' => safe.push(' '),
            other => safe.push(other),
        }
    }
    safe
}

/// The approximate width of a text in the font of the drawings.
pub fn width_of(text: &str) -> i32 {
    text.chars().count() as i32 * 7
}
