//! The parser: from tokens to commands. The grammar, a small subset of POSIX's:
//!
//! ```text
//! list      = { and-or ( ";" | "&" | newline ) }
//! and-or    = pipeline { ( "&&" | "||" ) pipeline }
//! pipeline  = [ "time" ] [ "!" ] command { "|" command }
//! command   = { name "=" word | redirection } { word | redirection }
//! ```

use alloc::vec::Vec;

use crate::token::{Direction, Error, Part, Token, Word, is_name, tokens};

/// Commands one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// The commands.
    pub items: Vec<Item>,
}

/// A chain, and whether to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What to run.
    pub chain: AndOr,
    /// An `&` follows it.
    pub background: bool,
}

/// Pipelines, each but the first behind a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AndOr {
    /// Runs in any case.
    pub first: Pipeline,
    /// Run if the status so far fits.
    pub rest: Vec<(When, Pipeline)>,
}

/// When a pipeline of a chain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// `&&`: if the status is 0.
    Success,
    /// `||`: if it is not.
    Failure,
}

/// Commands side by side, each reading what the one before it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// `time`: say how long it took.
    pub timed: bool,
    /// `!`: the status is negated.
    pub negated: bool,
    /// The commands, at least one.
    pub commands: Vec<Command>,
}

/// One command: not all three are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Variables to set, for the command alone if it has words.
    pub assignments: Vec<(Vec<u8>, Word)>,
    /// Program and arguments.
    pub words: Vec<Word>,
    /// Descriptors to change, in this order.
    pub redirects: Vec<Redirect>,
}

/// A descriptor to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Which.
    pub fd: i32,
    /// How.
    pub direction: Direction,
    /// A path, or a descriptor's number.
    pub target: Word,
}

/// Parses text.
pub fn parse(text: &[u8]) -> Result<List, Error> {
    let tokens = tokens(text)?;
    Parser { tokens: tokens.into_iter().peekable() }.list()
}

struct Parser {
    tokens: core::iter::Peekable<alloc::vec::IntoIter<Token>>,
}

impl Parser {
    fn list(mut self) -> Result<List, Error> {
        let mut items = Vec::new();
        loop {
            self.newlines();
            if self.tokens.peek().is_none() {
                return Ok(List { items });
            }
            let chain = self.and_or()?;
            let background = match self.tokens.next() {
                Some(Token::Ampersand) => true,
                Some(Token::Semicolon | Token::Newline) | None => false,
                Some(token) => return Err(Error::Unexpected(name(&token))),
            };
            items.push(Item { chain, background });
        }
    }

    fn newlines(&mut self) {
        while self.tokens.next_if_eq(&Token::Newline).is_some() {}
    }

    fn and_or(&mut self) -> Result<AndOr, Error> {
        let first = self.pipeline()?;
        let mut rest = Vec::new();
        loop {
            let (when, sign) = match self.tokens.peek() {
                Some(Token::And) => (When::Success, "after &&"),
                Some(Token::Or) => (When::Failure, "after ||"),
                _ => return Ok(AndOr { first, rest }),
            };
            self.tokens.next();
            self.newlines();
            if self.tokens.peek().is_none() {
                return Err(Error::Incomplete(sign));
            }
            rest.push((when, self.pipeline()?));
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline, Error> {
        let timed = self.next_if_word(b"time");
        let negated = self.next_if_word(b"!");
        let mut commands = Vec::from([self.command()?]);
        while self.tokens.next_if_eq(&Token::Pipe).is_some() {
            self.newlines();
            if self.tokens.peek().is_none() {
                return Err(Error::Incomplete("after |"));
            }
            commands.push(self.command()?);
        }
        Ok(Pipeline { timed, negated, commands })
    }

    fn next_if_word(&mut self, reserved: &[u8]) -> bool {
        self.tokens.next_if(|token| matches!(token, Token::Word(word) if word.plain() == Some(reserved))).is_some()
    }

    fn command(&mut self) -> Result<Command, Error> {
        let mut command = Command::default();
        loop {
            match self.tokens.peek() {
                Some(Token::Word(_)) => {
                    let Some(Token::Word(word)) = self.tokens.next() else { continue };
                    match assignment(word) {
                        Ok(assignment) if command.words.is_empty() => command.assignments.push(assignment),
                        // After the command's name it is an ordinary argument: put the word together again.
                        Ok((name, value)) => command.words.push(rejoin(name, value)),
                        Err(word) => command.words.push(word),
                    }
                }
                Some(&Token::Redirect(fd, direction)) => {
                    self.tokens.next();
                    let target = match self.tokens.next() {
                        Some(Token::Word(word)) => word,
                        Some(token) => return Err(Error::Unexpected(name(&token))),
                        None => return Err(Error::Unexpected("end after a redirection")),
                    };
                    command.redirects.push(Redirect { fd, direction, target });
                }
                other => {
                    return match other {
                        _ if command != Command::default() => Ok(command),
                        Some(token) => Err(Error::Unexpected(name(token))),
                        None => Err(Error::Unexpected("end")),
                    };
                }
            }
        }
    }
}

/// Splits `name=value`; gives any other word back.
fn assignment(mut word: Word) -> Result<(Vec<u8>, Word), Word> {
    let Some(Part::Text { bytes, quoted: false }) = word.parts.first_mut() else { return Err(word) };
    match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) if at > 0 && bytes[..at].iter().all(|&byte| is_name(byte)) && !bytes[0].is_ascii_digit() => {
            let rest = bytes.split_off(at + 1);
            let mut name = core::mem::replace(bytes, rest);
            name.pop();
            Ok((name, word))
        }
        _ => Err(word),
    }
}

fn rejoin(mut name: Vec<u8>, mut value: Word) -> Word {
    name.push(b'=');
    if let Some(Part::Text { bytes, .. }) = value.parts.first_mut() {
        name.append(bytes);
        *bytes = name;
    }
    value
}

fn name(token: &Token) -> &'static str {
    match token {
        Token::Word(_) => "word",
        Token::Redirect(..) => "redirection",
        Token::Semicolon => ";",
        Token::Newline => "end of line",
        Token::Ampersand => "&",
        Token::And => "&&",
        Token::Or => "||",
        Token::Pipe => "|",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Command {
        let list = parse(text.as_bytes()).unwrap();
        assert_eq!(list.items.len(), 1);
        list.items[0].chain.first.commands[0].clone()
    }

    #[test]
    fn conditions_bind_weaker_than_pipes_and_tighter_than_semicolons() {
        let list = parse(b"a | b && c || d & e; f\n\n").unwrap();
        assert_eq!(list.items.len(), 3);
        let first = &list.items[0];
        assert!(first.background);
        assert_eq!(first.chain.first.commands.len(), 2);
        assert_eq!(first.chain.rest.iter().map(|(when, _)| *when).collect::<Vec<_>>(), [When::Success, When::Failure]);
        assert!(!list.items[1].background && !list.items[2].background);
    }

    #[test]
    fn assignments_end_at_the_first_word() {
        let command = one("A=1 B='x y' echo C=2");
        assert_eq!(command.assignments.len(), 2);
        assert_eq!(command.words.len(), 2);
        assert_eq!(command.words[1].plain(), Some(&b"C=2"[..]));
        assert_eq!(one("=x").assignments.len(), 0);
        assert_eq!(one("1a=x").assignments.len(), 0);
        assert_eq!(one("'a'=x").assignments.len(), 0);
    }

    #[test]
    fn redirections_stand_anywhere() {
        let command = one("<in cat >out 2>&1 -n");
        assert_eq!(command.words.len(), 2);
        assert_eq!(command.redirects.iter().map(|r| r.fd).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn reserved_words_are_so_only_in_front_and_unquoted() {
        let list = parse(b"time ! a time !").unwrap();
        let pipeline = &list.items[0].chain.first;
        assert!(pipeline.timed && pipeline.negated);
        assert_eq!(pipeline.commands[0].words.len(), 3);
        assert!(!parse(b"'time' a").unwrap().items[0].chain.first.timed);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, what) in [(";", ";"), ("a;;b", ";"), ("| a", "|"), ("a && && b", "&&"), ("a > ;", ";"), ("(a)", "(")]
        {
            assert_eq!(parse(text.as_bytes()), Err(Error::Unexpected(what)), "{text}");
        }
        for text in ["a &&", "a ||\n", "a |", "a && b | "] {
            assert!(matches!(parse(text.as_bytes()), Err(Error::Incomplete(_))), "{text}");
        }
        assert_eq!(parse(b" # nothing\n\n"), Ok(List::default()));
    }

    /// Text that would parse to the same command again.
    fn quote(argument: &[u8]) -> Vec<u8> {
        let mut out = vec![b'\''];
        for &byte in argument {
            if byte == b'\'' { out.extend(b"'\\''") } else { out.push(byte) }
        }
        out.push(b'\'');
        out
    }

    proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_what_looks_like_commands(text in "[ab $'\"\\\\{}?=#;&|<>()2\\n]{0,60}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn a_quoted_argument_comes_back(arguments in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..20), 1..5)) {
            let text = arguments.iter().map(|a| quote(a)).collect::<Vec<_>>().join(&b' ');
            let list = parse(&text).unwrap();
            let words = &list.items[0].chain.first.commands[0].words;
            prop_assert_eq!(words.len(), arguments.len());
            for (word, argument) in words.iter().zip(&arguments) {
                let bytes: Vec<u8> = word.parts.iter().flat_map(|part| match part {
                    Part::Text { bytes, quoted: true } => bytes.clone(),
                    other => panic!("{other:?}"),
                }).collect();
                prop_assert_eq!(&bytes, argument);
            }
        }
    }
}
