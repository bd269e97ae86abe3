//! Decodes the bytes that a terminal sends into keys.

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character to insert.
    Char(char),
    /// Ends the line.
    Enter,
    /// Completes the word.
    Tab,
    /// Deletes the character before the cursor.
    Backspace,
    /// Deletes the character under the cursor.
    Delete,
    /// One character to the left.
    Left,
    /// One character to the right.
    Right,
    /// One word to the left.
    WordLeft,
    /// One word to the right.
    WordRight,
    /// To the start of the line.
    Home,
    /// To its end.
    End,
    /// The older line of the history.
    Up,
    /// The newer line.
    Down,
    /// Cuts to the end of the line.
    KillToEnd,
    /// Cuts to its start.
    KillToStart,
    /// Cuts the word before the cursor.
    KillWord,
    /// Inserts what was cut last.
    Yank,
    /// Clears the screen.
    Clear,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    EndOfFile,
    /// Not a key: the terminal's answer to a query of its cursor's position.
    Position {
        /// Counted from 1.
        row: u16,
        /// Counted from 1.
        column: u16,
    },
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Ground,
    /// A return came: a line feed right behind it belongs to it.
    Return,
    /// ESC came.
    Escape,
    /// ESC and `[`, then these numbers.
    Control { first: u16, last: u16, numbers: u8 },
    /// ESC and `O`.
    Single,
    /// Bytes of a character that still come, and its bits so far.
    Character { missing: u8, bits: u32, least: u32 },
}

/// Assembles bytes; unknown sequences and invalid UTF-8 are dropped.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    state: State,
}

impl Decoder {
    /// The key that this byte completes, if it does.
    pub fn feed(&mut self, byte: u8) -> Option<Key> {
        match core::mem::take(&mut self.state) {
            State::Return if byte == b'\n' => None,
            State::Ground | State::Return => self.ground(byte),
            State::Escape => self.escape(byte),
            State::Control { first, last, numbers } => self.control(byte, first, last, numbers),
            State::Single => letter(byte, 0),
            State::Character { missing, bits, least } => self.character(byte, missing, bits, least),
        }
    }

    fn ground(&mut self, byte: u8) -> Option<Key> {
        Some(match byte {
            0x01 => Key::Home,
            0x02 => Key::Left,
            0x03 => Key::Interrupt,
            0x04 => Key::EndOfFile,
            0x05 => Key::End,
            0x06 => Key::Right,
            0x08 | 0x7f => Key::Backspace,
            b'\t' => Key::Tab,
            b'\n' => Key::Enter,
            0x0b => Key::KillToEnd,
            0x0c => Key::Clear,
            b'\r' => {
                self.state = State::Return;
                Key::Enter
            }
            0x0e => Key::Down,
            0x10 => Key::Up,
            0x15 => Key::KillToStart,
            0x17 => Key::KillWord,
            0x19 => Key::Yank,
            0x1b => {
                self.state = State::Escape;
                return None;
            }
            b' '..=b'~' => Key::Char(byte as char),
            _ => {
                self.state = match byte {
                    0xc2..=0xdf => State::Character { missing: 1, bits: byte as u32 & 0x1f, least: 0x80 },
                    0xe0..=0xef => State::Character { missing: 2, bits: byte as u32 & 0x0f, least: 0x800 },
                    0xf0..=0xf4 => State::Character { missing: 3, bits: byte as u32 & 0x07, least: 0x1_0000 },
                    _ => State::Ground,
                };
                return None;
            }
        })
    }

    fn character(&mut self, byte: u8, missing: u8, bits: u32, least: u32) -> Option<Key> {
        if byte & 0xc0 != 0x80 {
            // Not a continuation: the character before it was cut short, this byte starts anew.
            return self.ground(byte);
        }
        let bits = bits << 6 | byte as u32 & 0x3f;
        if missing > 1 {
            self.state = State::Character { missing: missing - 1, bits, least };
            return None;
        }
        char::from_u32(bits).filter(|char| bits >= least && !char.is_control()).map(Key::Char)
    }

    fn escape(&mut self, byte: u8) -> Option<Key> {
        match byte {
            b'[' => self.state = State::Control { first: 0, last: 0, numbers: 0 },
            b'O' => self.state = State::Single,
            0x1b => self.state = State::Escape,
            b'b' => return Some(Key::WordLeft),
            b'f' => return Some(Key::WordRight),
            0x08 | 0x7f => return Some(Key::KillWord),
            // A lone ESC and then a control key: the control key counts.
            0x00..=0x1f => return self.ground(byte),
            _ => {}
        }
        None
    }

    fn control(&mut self, byte: u8, first: u16, last: u16, numbers: u8) -> Option<Key> {
        match byte {
            b'0'..=b'9' => {
                let last = last.saturating_mul(10).saturating_add((byte - b'0') as u16);
                let first = if numbers == 0 { last } else { first };
                self.state = State::Control { first, last, numbers };
                None
            }
            b';' => {
                self.state = State::Control { first, last: 0, numbers: numbers.saturating_add(1) };
                None
            }
            b'~' => match first {
                1 | 7 => Some(Key::Home),
                3 => Some(Key::Delete),
                4 | 8 => Some(Key::End),
                _ => None,
            },
            b' '..=b'/' | b':'..=b'?' => {
                self.state = State::Control { first, last, numbers };
                None
            }
            0x00..=0x1f => self.ground(byte),
            // F3 with Shift, Ctrl or the like is a position in the first row as well.
            b'R' if numbers == 1 && first > 1 => Some(Key::Position { row: first, column: last }),
            _ => letter(byte, if numbers > 0 { last } else { 0 }),
        }
    }
}

/// The last byte of a cursor key's sequence; `modifier` is 5 with Ctrl, 3 with Alt.
fn letter(byte: u8, modifier: u16) -> Option<Key> {
    let word = matches!(modifier, 3 | 5);
    Some(match byte {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' if word => Key::WordRight,
        b'C' => Key::Right,
        b'D' if word => Key::WordLeft,
        b'D' => Key::Left,
        b'F' => Key::End,
        b'H' => Key::Home,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|byte| decoder.feed(*byte)).collect()
    }

    #[test]
    fn knows_what_terminals_send() {
        use Key::*;
        assert_eq!(
            keys(b"a\x1b[A\x1bOB\x1b[1;5D\x1b[3~\x1b[H\x1b[4~\x7f"),
            [Char('a'), Up, Down, WordLeft, Delete, Home, End, Backspace]
        );
        assert_eq!(keys("aü€😀".as_bytes()), [Char('a'), Char('ü'), Char('€'), Char('😀')]);
    }

    #[test]
    fn a_position_is_told_from_a_function_key() {
        assert_eq!(keys(b"\x1b[50;132Rx"), [Key::Position { row: 50, column: 132 }, Key::Char('x')]);
        assert_eq!(keys(b"\x1b[1;5R\x1b[R\x1b[5R\x1b[1;2;3Rx"), [Key::Char('x')], "F3, and what is none");
    }

    #[test]
    fn a_line_ends_once() {
        use Key::Enter;
        assert_eq!(keys(b"\r\n"), [Enter]);
        assert_eq!(keys(b"\n\n"), [Enter, Enter]);
        assert_eq!(keys(b"\r\r\n"), [Enter, Enter]);
    }

    #[test]
    fn what_is_unknown_is_swallowed_whole() {
        assert_eq!(keys(b"\x1b[200~\x1b[12;34;56x\x1b[?25h\x1bzq"), [Key::Char('q')]);
        assert_eq!(keys(b"\xff\xc0\xe2\x82q\xed\xa0\x80"), [Key::Char('q')], "surrogates and cut characters");
        assert_eq!(keys(b"\x1b\x03"), [Key::Interrupt]);
    }

    proptest! {
        #[test]
        fn all_text_comes_through(text in "\\PC{0,40}") {
            let expected: Vec<Key> = text.chars().map(Key::Char).collect();
            prop_assert_eq!(keys(text.as_bytes()), expected);
        }

        #[test]
        fn any_bytes_leave_it_able_to_read_a_line(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut decoder = Decoder::default();
            for byte in bytes {
                decoder.feed(byte);
            }
            // Whatever sequence is open, two returns end it.
            let ends = [decoder.feed(b'\r'), decoder.feed(b'\r')];
            prop_assert!(ends.contains(&Some(Key::Enter)));
        }
    }
}
