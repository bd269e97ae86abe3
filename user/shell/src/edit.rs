//! A line being edited, on a terminal that wraps long lines. No terminal is touched here: keys come in as bytes, and
//! output for the terminal is appended to a buffer.
//!
//! Every character is taken to be one column wide.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::history::History;
use crate::keys::{Decoder, Key};

/// What ends the editing of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The line is complete.
    Line(String),
    /// Ctrl-C: the line is given up.
    Interrupted,
    /// Ctrl-D on an empty line.
    End,
}

/// What Tab may put in place of the word before the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Where the word starts, in characters.
    pub start: usize,
    /// What it may become, in order, each as it would be typed.
    pub candidates: Vec<String>,
}

/// Finds completions.
pub trait Completer {
    /// For the text before the cursor.
    fn complete(&self, before: &str) -> Completion;
}

/// Asks a terminal for its size: moves the cursor as far as possible and asks where it is. The answer arrives like a
/// key.
pub const ASK_SIZE: &[u8] = b"\x1b7\x1b[999;999H\x1b[6n\x1b8";

/// Longest line that can be typed, in characters.
const LONGEST: usize = 4096;

/// Text and cursor.
#[derive(Clone, Debug, Default)]
struct Line {
    text: Vec<char>,
    /// From 0 to the text's length.
    cursor: usize,
    /// What was cut last.
    cut: Vec<char>,
}

impl Line {
    fn string(&self) -> String {
        self.text.iter().collect()
    }

    fn set(&mut self, text: &str) {
        self.text = text.chars().collect();
        self.cursor = self.text.len();
    }

    fn insert(&mut self, chars: &[char]) {
        let chars = &chars[..chars.len().min(LONGEST - self.text.len())];
        self.text.splice(self.cursor..self.cursor, chars.iter().copied());
        self.cursor += chars.len();
    }

    fn cut(&mut self, from: usize, to: usize) {
        if from < to {
            self.cut = self.text.drain(from..to).collect();
            self.cursor = from;
        }
    }

    /// Start of the word before the cursor.
    fn word_left(&self) -> usize {
        let mut at = self.cursor;
        while at > 0 && self.text[at - 1] == ' ' {
            at -= 1;
        }
        while at > 0 && self.text[at - 1] != ' ' {
            at -= 1;
        }
        at
    }

    /// End of the word behind the cursor.
    fn word_right(&self) -> usize {
        let mut at = self.cursor;
        while self.text.get(at) == Some(&' ') {
            at += 1;
        }
        while self.text.get(at).is_some_and(|char| *char != ' ') {
            at += 1;
        }
        at
    }

    /// Does what a key does to text and cursor.
    fn apply(&mut self, key: Key) {
        let end = self.text.len();
        match key {
            Key::Char(char) => self.insert(&[char]),
            Key::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.text.remove(self.cursor);
            }
            Key::Delete if self.cursor < end => drop(self.text.remove(self.cursor)),
            Key::Left => self.cursor = self.cursor.saturating_sub(1),
            Key::Right => self.cursor = (self.cursor + 1).min(end),
            Key::WordLeft => self.cursor = self.word_left(),
            Key::WordRight => self.cursor = self.word_right(),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = end,
            Key::KillToEnd => self.cut(self.cursor, end),
            Key::KillToStart => self.cut(0, self.cursor),
            Key::KillWord => self.cut(self.word_left(), self.cursor),
            Key::Yank => self.insert(&self.cut.clone()),
            _ => {}
        }
    }
}

/// Reads lines.
#[derive(Clone, Debug)]
pub struct Editor {
    decoder: Decoder,
    history: History,
    line: Line,
    prompt: String,
    columns: usize,
    /// Columns and rows that the terminal reported.
    size: Option<(usize, usize)>,
    /// Rows between the prompt's first one and the terminal's cursor.
    row: usize,
}

impl Default for Editor {
    fn default() -> Self {
        let (decoder, history, line) = Default::default();
        Editor { decoder, history, line, prompt: String::new(), columns: 80, size: None, row: 0 }
    }
}

impl Editor {
    /// Starts a line: shows the prompt, which must be printable. The terminal's cursor is in the first column.
    pub fn begin(&mut self, prompt: &str, columns: usize, out: &mut Vec<u8>) {
        self.prompt = prompt.into();
        self.columns = columns.max(2);
        self.line.set("");
        self.history.rewind();
        out.extend(prompt.as_bytes());
        self.wrap(out);
        self.row = self.cell(0) / self.columns;
    }

    /// Columns and rows that the terminal reported when it was last asked ([`ASK_SIZE`]).
    pub fn size(&self) -> Option<(usize, usize)> {
        self.size
    }

    /// Takes a byte that was typed.
    pub fn feed(&mut self, byte: u8, completer: &dyn Completer, out: &mut Vec<u8>) -> Option<Event> {
        let key = self.decoder.feed(byte)?;
        match key {
            Key::Enter => {
                self.leave(out);
                let line = self.line.string();
                self.history.add(&line);
                return Some(Event::Line(line));
            }
            Key::Interrupt => {
                self.move_to(self.line.text.len(), out);
                out.extend(b"^C\r\n");
                return Some(Event::Interrupted);
            }
            Key::EndOfFile if self.line.text.is_empty() => {
                out.extend(b"\r\n");
                return Some(Event::End);
            }
            Key::Position { row, column } => {
                self.size = Some((column.into(), row.into()));
                // The terminal itself has wrapped the text that is shown already.
                self.columns = usize::from(column).max(2);
                self.row = self.cell(self.line.cursor) / self.columns;
            }
            Key::EndOfFile => self.change(Key::Delete, out),
            Key::Tab => self.complete(completer, out),
            Key::Clear => {
                out.extend(b"\x1b[H\x1b[2J");
                self.row = 0;
                self.draw(out);
            }
            Key::Up => {
                if let Some(line) = self.history.older(&self.line.string()) {
                    self.line.set(line);
                    self.draw(out);
                }
            }
            Key::Down => {
                if let Some(line) = self.history.newer() {
                    self.line.set(line);
                    self.draw(out);
                }
            }
            key => self.change(key, out),
        }
        None
    }

    /// Applies a key and shows the change in few bytes: most keys are characters at the end of the line.
    fn change(&mut self, key: Key, out: &mut Vec<u8>) {
        let before = (self.line.text.len(), self.line.cursor);
        self.line.apply(key);
        let after = (self.line.text.len(), self.line.cursor);
        match key {
            _ if before == after => {}
            Key::Char(char) if after.1 == after.0 => {
                out.extend(char.encode_utf8(&mut [0; 4]).as_bytes());
                self.wrap(out);
                self.row = self.cell(after.1) / self.columns;
            }
            _ if before.0 == after.0 => {
                let cursor = self.line.cursor;
                self.line.cursor = before.1;
                self.move_to(cursor, out);
            }
            _ => self.draw(out),
        }
    }

    /// Where the character `index` stands, counted in columns from the prompt's start.
    fn cell(&self, index: usize) -> usize {
        self.prompt.chars().count() + index
    }

    /// At the right margin, terminals delay the wrap: moves the cursor on, so that all terminals agree.
    fn wrap(&self, out: &mut Vec<u8>) {
        let end = self.cell(self.line.text.len());
        if end > 0 && end.is_multiple_of(self.columns) {
            out.extend(b"\r\n");
        }
    }

    /// Draws prompt and line anew.
    fn draw(&mut self, out: &mut Vec<u8>) {
        if self.row > 0 {
            out.extend(format!("\x1b[{}A", self.row).as_bytes());
        }
        out.extend(b"\r");
        out.extend(self.prompt.as_bytes());
        out.extend(self.line.string().as_bytes());
        self.wrap(out);
        out.extend(b"\x1b[J");
        self.row = self.cell(self.line.text.len()) / self.columns;
        let cursor = self.line.cursor;
        if cursor != self.line.text.len() {
            self.place(cursor, out);
        }
    }

    /// Moves the cursor, on the terminal and in the line.
    fn move_to(&mut self, cursor: usize, out: &mut Vec<u8>) {
        if cursor != self.line.cursor {
            self.line.cursor = cursor;
            self.place(cursor, out);
        }
    }

    /// Moves the terminal's cursor to a character.
    fn place(&mut self, cursor: usize, out: &mut Vec<u8>) {
        let (row, column) = (self.cell(cursor) / self.columns, self.cell(cursor) % self.columns);
        if row < self.row {
            out.extend(format!("\x1b[{}A", self.row - row).as_bytes());
        } else if row > self.row {
            out.extend(format!("\x1b[{}B", row - self.row).as_bytes());
        }
        out.extend(b"\r");
        if column > 0 {
            out.extend(format!("\x1b[{column}C").as_bytes());
        }
        self.row = row;
    }

    /// Leaves the line as it is, with the cursor in the first column below it.
    fn leave(&mut self, out: &mut Vec<u8>) {
        self.move_to(self.line.text.len(), out);
        // A line that ends at the margin has its cursor in the next row already.
        if self.line.text.is_empty() || !self.cell(self.line.text.len()).is_multiple_of(self.columns) {
            out.extend(b"\r\n");
        }
        self.row = 0;
    }

    /// Inserts as much as all candidates have in common; shows them if that is nothing.
    fn complete(&mut self, completer: &dyn Completer, out: &mut Vec<u8>) {
        let before: String = self.line.text[..self.line.cursor].iter().collect();
        let Completion { start, candidates } = completer.complete(&before);
        let Some(first) = candidates.first() else { return };
        let mut common: Vec<char> = first.chars().collect();
        for candidate in &candidates[1..] {
            let same = common.iter().zip(candidate.chars()).take_while(|(a, b)| **a == *b).count();
            common.truncate(same);
        }
        let start = start.min(self.line.cursor);
        if common.len() > self.line.cursor - start {
            self.line.text.drain(start..self.line.cursor);
            self.line.cursor = start;
            self.line.insert(&common);
            self.draw(out);
        } else if candidates.len() > 1 {
            self.show(&candidates, out);
        }
    }

    fn show(&mut self, candidates: &[String], out: &mut Vec<u8>) {
        let cursor = self.line.cursor;
        self.leave(out);
        let width = candidates.iter().map(|candidate| candidate.chars().count()).max().unwrap_or(0) + 2;
        let per_row = (self.columns / width).max(1);
        for row in candidates.chunks(per_row) {
            for (i, candidate) in row.iter().enumerate() {
                out.extend(candidate.as_bytes());
                if i + 1 < row.len() {
                    out.resize(out.len() + width - candidate.chars().count(), b' ');
                }
            }
            out.extend(b"\r\n");
        }
        self.line.cursor = cursor;
        self.draw(out);
    }
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
