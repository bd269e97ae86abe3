//! The lexer: from text to tokens, which are words with their quoting, and operators.

use alloc::vec::Vec;
use core::fmt;

/// A piece of a word. Quoted pieces are not split and match themselves only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Literal bytes.
    Text {
        /// The bytes, quoting removed.
        bytes: Vec<u8>,
        /// Whether they were quoted.
        quoted: bool,
    },
    /// A variable: a name, or `?`, `$`, `!`.
    Variable {
        /// Its name.
        name: Vec<u8>,
        /// Whether it stood within double quotes.
        quoted: bool,
    },
}

/// A word: its pieces side by side. `""` is a word of one empty piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// The pieces.
    pub parts: Vec<Part>,
}

impl Word {
    /// The word's text, if no part of it is quoted or a variable.
    pub fn plain(&self) -> Option<&[u8]> {
        match &self.parts[..] {
            [Part::Text { bytes, quoted: false }] => Some(bytes),
            _ => None,
        }
    }

    fn push(&mut self, byte: u8, quote: bool) {
        match self.parts.last_mut() {
            Some(Part::Text { bytes, quoted }) if *quoted == quote => bytes.push(byte),
            _ => self.parts.push(Part::Text { bytes: Vec::from([byte]), quoted: quote }),
        }
    }

    /// Makes sure that the word exists even if the quotes are empty.
    fn open_quote(&mut self) {
        self.parts.push(Part::Text { bytes: Vec::new(), quoted: true });
    }
}

/// What a redirection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `<`
    Read,
    /// `>`
    Write,
    /// `>>`
    Append,
    /// `<&` and `>&`
    Duplicate,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A word.
    Word(Word),
    /// A redirection of this descriptor; its target is the next word.
    Redirect(i32, Direction),
    /// `;`
    Semicolon,
    /// The end of a line.
    Newline,
    /// `&`
    Ampersand,
    /// `&&`
    And,
    /// `||`
    Or,
    /// `|`
    Pipe,
}

/// Why text is not a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It may become one with another line: an open quote, a trailing `|`, `&&`, `||` or backslash.
    Incomplete(&'static str),
    /// A token is in the wrong place.
    Unexpected(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Incomplete(what) => write!(f, "syntax error: unexpected end of text ({what})"),
            Error::Unexpected(what) => write!(f, "syntax error: unexpected {what}"),
        }
    }
}

/// Splits text into tokens.
pub fn tokens(text: &[u8]) -> Result<Vec<Token>, Error> {
    Lexer { text, at: 0 }.run()
}

/// Whether `byte` may stand in a variable's name.
pub(crate) fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn next_if(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += there as usize;
        there
    }

    fn run(mut self) -> Result<Vec<Token>, Error> {
        let mut tokens = Vec::new();
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'#' => self.comment(),
                b'\\' if self.text.get(self.at + 1) == Some(&b'\n') => self.at += 2,
                _ => tokens.push(match self.operator()? {
                    Some(token) => token,
                    None => self.word_or_descriptor()?,
                }),
            }
        }
        Ok(tokens)
    }

    fn comment(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.at += 1;
        }
    }

    fn operator(&mut self) -> Result<Option<Token>, Error> {
        let Some(byte) = self.next() else { return Ok(None) };
        Ok(Some(match byte {
            b'\n' => Token::Newline,
            b';' => Token::Semicolon,
            b'&' if self.next_if(b'&') => Token::And,
            b'&' => Token::Ampersand,
            b'|' if self.next_if(b'|') => Token::Or,
            b'|' => Token::Pipe,
            b'<' => Token::Redirect(0, self.direction(byte)?),
            b'>' => Token::Redirect(1, self.direction(byte)?),
            b'(' => return Err(Error::Unexpected("(")),
            b')' => return Err(Error::Unexpected(")")),
            _ => {
                self.at -= 1;
                return Ok(None);
            }
        }))
    }

    /// What follows a `<` or `>` that was just read.
    fn direction(&mut self, first: u8) -> Result<Direction, Error> {
        Ok(if self.next_if(b'&') {
            Direction::Duplicate
        } else if first == b'>' {
            if self.next_if(b'>') { Direction::Append } else { Direction::Write }
        } else if self.next_if(b'<') {
            return Err(Error::Unexpected("<<"));
        } else {
            Direction::Read
        })
    }

    /// A word, or the number of a redirection such as `2>`.
    fn word_or_descriptor(&mut self) -> Result<Token, Error> {
        if let [digit @ b'0'..=b'9', sign @ (b'<' | b'>'), ..] = self.text[self.at..] {
            self.at += 2;
            return Ok(Token::Redirect((digit - b'0') as i32, self.direction(sign)?));
        }
        let mut word = Word::default();
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' => break,
                _ => self.at += 1,
            }
            match byte {
                b'\\' => match self.next() {
                    Some(b'\n') => {}
                    Some(byte) => word.push(byte, true),
                    None => return Err(Error::Incomplete("after a backslash")),
                },
                b'\'' => self.single_quoted(&mut word)?,
                b'"' => self.double_quoted(&mut word)?,
                b'$' => self.variable(&mut word, false)?,
                byte => word.push(byte, false),
            }
        }
        Ok(Token::Word(word))
    }

    fn single_quoted(&mut self, word: &mut Word) -> Result<(), Error> {
        word.open_quote();
        loop {
            match self.next() {
                Some(b'\'') => return Ok(()),
                Some(byte) => word.push(byte, true),
                None => return Err(Error::Incomplete("within '")),
            }
        }
    }

    fn double_quoted(&mut self, word: &mut Word) -> Result<(), Error> {
        word.open_quote();
        loop {
            match self.next() {
                Some(b'"') => return Ok(()),
                Some(b'$') => self.variable(word, true)?,
                Some(b'\\') => match self.next() {
                    Some(b'\n') => {}
                    Some(byte @ (b'"' | b'\\' | b'$' | b'`')) => word.push(byte, true),
                    Some(byte) => {
                        word.push(b'\\', true);
                        word.push(byte, true);
                    }
                    None => return Err(Error::Incomplete("within \"")),
                },
                Some(byte) => word.push(byte, true),
                None => return Err(Error::Incomplete("within \"")),
            }
        }
    }

    /// What follows a `$`; a `$` without a name stands for itself.
    fn variable(&mut self, word: &mut Word, quoted: bool) -> Result<(), Error> {
        let braced = self.next_if(b'{');
        let start = self.at;
        match self.peek() {
            Some(b'?' | b'$' | b'!' | b'#' | b'0'..=b'9') => self.at += 1,
            Some(byte) if is_name(byte) => {
                while self.peek().is_some_and(is_name) {
                    self.at += 1;
                }
            }
            _ if braced => return Err(Error::Unexpected("${")),
            _ => {
                word.push(b'$', quoted);
                return Ok(());
            }
        }
        let name = self.text[start..self.at].to_vec();
        if braced && !self.next_if(b'}') {
            return Err(if self.peek().is_none() { Error::Incomplete("within ${") } else { Error::Unexpected("${") });
        }
        word.parts.push(Part::Variable { name, quoted });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &str, quoted: bool) -> Part {
        Part::Text { bytes: bytes.into(), quoted }
    }

    fn word(parts: &[Part]) -> Token {
        Token::Word(Word { parts: parts.to_vec() })
    }

    fn plain(bytes: &str) -> Token {
        word(&[text(bytes, false)])
    }

    #[test]
    fn operators_need_no_blanks() {
        assert_eq!(
            tokens(b"a&&b||c|d;e&f\ng"),
            Ok(vec![
                plain("a"),
                Token::And,
                plain("b"),
                Token::Or,
                plain("c"),
                Token::Pipe,
                plain("d"),
                Token::Semicolon,
                plain("e"),
                Token::Ampersand,
                plain("f"),
                Token::Newline,
                plain("g"),
            ])
        );
    }

    #[test]
    fn quotes_join_within_a_word() {
        let variable = Part::Variable { name: b"y".to_vec(), quoted: true };
        assert_eq!(
            tokens(br#"a'b c'"$y \" \n"\;"#),
            Ok(vec![word(&[text("a", false), text("b c", true), text("", true), variable, text(" \" \\n;", true),])])
        );
        assert_eq!(tokens(b"''"), Ok(vec![word(&[text("", true)])]));
    }

    #[test]
    fn a_number_sign_starts_a_comment_only_before_a_word() {
        assert_eq!(tokens(b"a#b # c ' d\n"), Ok(vec![plain("a#b"), Token::Newline]));
    }

    #[test]
    fn a_digit_belongs_to_a_redirection_that_touches_it() {
        assert_eq!(
            tokens(b"x 2>&1 3 >>f"),
            Ok(vec![
                plain("x"),
                Token::Redirect(2, Direction::Duplicate),
                plain("1"),
                plain("3"),
                Token::Redirect(1, Direction::Append),
                plain("f"),
            ])
        );
        assert_eq!(tokens(b"x2>f").unwrap()[0], plain("x2"));
    }

    #[test]
    fn a_dollar_that_names_nothing_is_itself() {
        assert_eq!(tokens(b"$ $% a$"), Ok(vec![plain("$"), plain("$%"), plain("a$")]));
        let variable = |name: &str| Part::Variable { name: name.into(), quoted: false };
        assert_eq!(
            tokens(b"$?x ${ab}c $10"),
            Ok(vec![
                word(&[variable("?"), text("x", false)]),
                word(&[variable("ab"), text("c", false)]),
                word(&[variable("1"), text("0", false)]),
            ])
        );
        assert_eq!(tokens(b"${}"), Err(Error::Unexpected("${")));
    }

    #[test]
    fn what_is_open_asks_for_more() {
        for open in [&b"'a"[..], b"\"a", b"a\\", b"${a"] {
            assert!(matches!(tokens(open), Err(Error::Incomplete(_))), "{open:?}");
        }
        assert_eq!(tokens(b"a\\\nb"), Ok(vec![plain("ab")]));
        assert_eq!(tokens(b"a \\\n b"), Ok(vec![plain("a"), plain("b")]));
    }
}
