//! The editor against a model of the line and a model of the terminal.

use super::*;
use proptest::prelude::*;

/// A terminal of some columns and endless rows that wraps as a VT100 does: the cursor stays in the last column
/// until another character comes.
struct Terminal {
    columns: usize,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    pending: bool,
}

impl Terminal {
    fn new(columns: usize) -> Terminal {
        Terminal { columns, rows: vec![], row: 0, column: 0, pending: false }
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut chars = std::str::from_utf8(bytes).unwrap().chars();
        while let Some(char) = chars.next() {
            match char {
                '\r' => (self.column, self.pending) = (0, false),
                '\n' => (self.row, self.pending) = (self.row + 1, false),
                '\x1b' => {
                    assert_eq!(chars.next(), Some('['));
                    let mut number = String::new();
                    let last = loop {
                        match chars.next().unwrap() {
                            digit @ '0'..='9' => number.push(digit),
                            last => break last,
                        }
                    };
                    self.pending = false;
                    let number: usize = number.parse().unwrap_or(1);
                    match last {
                        'A' => self.row = self.row.checked_sub(number).expect("moved above the first row"),
                        'B' => self.row += number,
                        'C' => self.column = (self.column + number).min(self.columns - 1),
                        'J' => {
                            self.rows.truncate(self.row + 1);
                            if let Some(row) = self.rows.get_mut(self.row) {
                                row.truncate(self.column);
                            }
                        }
                        other => panic!("unknown sequence {other}"),
                    }
                }
                char => {
                    if self.pending {
                        (self.row, self.column, self.pending) = (self.row + 1, 0, false);
                    }
                    self.rows.resize(self.rows.len().max(self.row + 1), vec![]);
                    let row = &mut self.rows[self.row];
                    row.resize(row.len().max(self.column + 1), ' ');
                    row[self.column] = char;
                    if self.column + 1 == self.columns { self.pending = true } else { self.column += 1 }
                }
            }
        }
    }

    /// All that can be seen, rows joined.
    fn text(&self) -> String {
        self.rows.iter().map(|row| row.iter().collect::<String>()).collect::<String>()
    }
}

struct Nothing;

impl Completer for Nothing {
    fn complete(&self, _: &str) -> Completion {
        Completion::default()
    }
}

struct Fixed(&'static [&'static str]);

impl Completer for Fixed {
    fn complete(&self, before: &str) -> Completion {
        let start = before.rfind(' ').map_or(0, |at| at + 1);
        let candidates = self.0.iter().filter(|name| name.starts_with(&before[start..])).map(|name| (*name).into());
        Completion { start: before[..start].chars().count(), candidates: candidates.collect() }
    }
}

fn typed(editor: &mut Editor, completer: &dyn Completer, bytes: &[u8]) -> (Vec<Event>, Vec<u8>) {
    let mut out = Vec::new();
    let events = bytes.iter().filter_map(|byte| editor.feed(*byte, completer, &mut out)).collect();
    (events, out)
}

fn line_of(bytes: &[u8]) -> String {
    let mut editor = Editor::default();
    editor.begin("$ ", 80, &mut Vec::new());
    match &typed(&mut editor, &Nothing, &[bytes, b"\r"].concat()).0[..] {
        [Event::Line(line)] => line.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_edit() {
    assert_eq!(line_of(b"abc\x1b[D\x1b[DX"), "aXbc");
    assert_eq!(line_of(b"abc\x01X\x05Y"), "XabcY");
    assert_eq!(line_of(b"abc def\x17\x17x"), "x");
    assert_eq!(line_of(b"abc\x1b[D\x0b\x01\x19"), "cab");
    assert_eq!(line_of(b"abc\x02\x15d"), "dc");
    assert_eq!(line_of(b"abc\x01\x1b[3~\x04"), "c");
    assert_eq!(line_of(b"ab cd\x1bb\x1bbX\x1bfY"), "XabY cd");
    assert_eq!(line_of(b"\x7f\x1b[D\x1b[Ca"), "a");
}

#[test]
fn a_typed_line_is_echoed_as_it_is() {
    let mut editor = Editor::default();
    let mut out = Vec::new();
    editor.begin("$ ", 80, &mut out);
    assert_eq!(out, b"$ ");
    assert_eq!(typed(&mut editor, &Nothing, b"echo x\r").1, b"echo x\r\n");
}

#[test]
fn control_keys_end_a_line() {
    let mut editor = Editor::default();
    editor.begin("$ ", 80, &mut Vec::new());
    assert_eq!(typed(&mut editor, &Nothing, b"ab\x03"), (vec![Event::Interrupted], b"ab^C\r\n".to_vec()));
    editor.begin("$ ", 80, &mut Vec::new());
    assert_eq!(typed(&mut editor, &Nothing, b"\x04").0, [Event::End]);
}

#[test]
fn up_and_down_walk_through_entered_lines() {
    let mut editor = Editor::default();
    for line in [&b"one\r"[..], b"two\r"] {
        editor.begin("$ ", 80, &mut Vec::new());
        typed(&mut editor, &Nothing, line);
    }
    editor.begin("$ ", 80, &mut Vec::new());
    assert_eq!(typed(&mut editor, &Nothing, b"dr\x1b[A\x1b[A!\r").0, [Event::Line("one!".into())]);
    editor.begin("$ ", 80, &mut Vec::new());
    assert_eq!(typed(&mut editor, &Nothing, b"dr\x1b[A\x1b[A\x1b[A\x1b[B\x1b[B\x1b[B\r").0, [Event::Line("dr".into())]);
}

#[test]
fn tab_inserts_what_is_common_and_then_shows_the_rest() {
    let names = Fixed(&["memmap ", "mem/", "ls "]);
    let mut editor = Editor::default();
    let mut terminal = Terminal::new(20);
    let mut out = Vec::new();
    editor.begin("$ ", 20, &mut out);
    out.extend(typed(&mut editor, &names, b"x m\t").1);
    terminal.write(&out);
    assert_eq!(terminal.text(), "$ x mem");
    terminal.write(&typed(&mut editor, &names, b"\t").1);
    assert_eq!(
        terminal.rows.iter().map(|row| row.iter().collect::<String>()).collect::<Vec<_>>(),
        ["$ x mem", "memmap   mem/", "$ x mem"]
    );
    assert_eq!(typed(&mut editor, &names, b"m\tl\t\r").0, [Event::Line("x memmap ls ".into())]);
}

/// Keys as bytes, and the model's key for them.
fn key() -> impl Strategy<Value = (Vec<u8>, Key)> {
    prop_oneof![
        6 => "[a-z ü]".prop_map(|text| (text.as_bytes().to_vec(), Key::Char(text.chars().next().unwrap()))),
        1 => Just((b"\x7f".to_vec(), Key::Backspace)),
        1 => Just((b"\x1b[3~".to_vec(), Key::Delete)),
        2 => Just((b"\x1b[D".to_vec(), Key::Left)),
        1 => Just((b"\x1b[C".to_vec(), Key::Right)),
        1 => Just((b"\x01".to_vec(), Key::Home)),
        1 => Just((b"\x05".to_vec(), Key::End)),
        1 => Just((b"\x15".to_vec(), Key::KillToStart)),
        1 => Just((b"\x0b".to_vec(), Key::KillToEnd)),
        1 => Just((b"\x17".to_vec(), Key::KillWord)),
    ]
}

/// The line as two plain strings around the cursor.
fn model(before: &mut String, after: &mut String, key: Key) {
    match key {
        Key::Char(char) => before.push(char),
        Key::Backspace => drop(before.pop()),
        Key::Delete => drop((!after.is_empty()).then(|| after.remove(0))),
        Key::Left => after.insert_str(0, &before.pop().map(String::from).unwrap_or_default()),
        Key::Right if after.is_empty() => {}
        Key::Right => before.push(after.remove(0)),
        Key::Home => *after = std::mem::take(before) + after,
        Key::End => *before += &std::mem::take(after),
        Key::KillToStart => before.clear(),
        Key::KillToEnd => after.clear(),
        Key::KillWord => {
            let trimmed = before.trim_end_matches(' ').len();
            let start = before[..trimmed].rfind(' ').map_or(0, |at| at + 1);
            before.truncate(start);
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn line_and_screen_agree_with_the_model(
        keys in proptest::collection::vec(key(), 0..120),
        columns in 2usize..30,
        prompt in "[a-z]{0,9}",
    ) {
        let mut editor = Editor::default();
        let mut terminal = Terminal::new(columns);
        let (mut before, mut after) = (String::new(), String::new());
        let mut out = Vec::new();
        editor.begin(&prompt, columns, &mut out);
        terminal.write(&out);
        for (bytes, key) in keys {
            terminal.write(&typed(&mut editor, &Nothing, &bytes).1);
            model(&mut before, &mut after, key);
            prop_assert_eq!(editor.line.string(), format!("{before}{after}"));
            prop_assert_eq!(terminal.text(), format!("{prompt}{before}{after}"));
            let cell = (prompt.clone() + &before).chars().count();
            prop_assert!(!terminal.pending);
            prop_assert_eq!((terminal.row, terminal.column), (cell / columns, cell % columns));
        }
        let (events, out) = typed(&mut editor, &Nothing, b"\r");
        terminal.write(&out);
        prop_assert_eq!(events, vec![Event::Line(format!("{before}{after}"))]);
        prop_assert_eq!(terminal.column, 0);
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300), columns in 0usize..20) {
        let mut editor = Editor::default();
        editor.begin("$ ", columns, &mut Vec::new());
        let _ = typed(&mut editor, &Fixed(&["alpha ", "alps/"]), &bytes);
    }
}
