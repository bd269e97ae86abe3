//! Expansion of words to arguments: variables, splitting, patterns, in this order.

use alloc::vec::Vec;

use crate::glob::{self, Directories, Step};
use crate::token::{Part, Word};

/// The variables and directories that words are expanded with.
pub trait Context: Directories {
    /// The value of a variable, `?`, `$` and `!` among them.
    fn variable(&self, name: &[u8]) -> Option<Vec<u8>>;
}

/// All arguments that the words of a command stand for.
pub fn arguments(words: &[Word], context: &dyn Context) -> Vec<Vec<u8>> {
    let mut arguments = Vec::new();
    for word in words {
        for field in fields(word, context) {
            if glob::is_pattern(&field) {
                let paths = glob::expand(&field, context);
                if !paths.is_empty() {
                    arguments.extend(paths);
                    continue;
                }
            }
            arguments.push(text(&field));
        }
    }
    arguments
}

/// The one value of a word that is neither split nor matched: an assignment's or a redirection's.
pub fn value(word: &Word, context: &dyn Context) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in &word.parts {
        match part {
            Part::Text { bytes: text, .. } => bytes.extend_from_slice(text),
            Part::Variable { name, .. } => bytes.extend(context.variable(name).unwrap_or_default()),
        }
    }
    bytes
}

/// Splits at the blanks that came out of unquoted variables.
fn fields(word: &Word, context: &dyn Context) -> Vec<Vec<Step>> {
    let mut fields = Vec::new();
    // `None` between fields; an empty field exists if something was quoted in it.
    let mut field: Option<Vec<Step>> = None;
    for part in &word.parts {
        match part {
            Part::Text { bytes, quoted } => {
                field.get_or_insert_default().extend(bytes.iter().map(|byte| step(*byte, *quoted)));
            }
            Part::Variable { name, quoted: true } => {
                let value = context.variable(name).unwrap_or_default();
                field.get_or_insert_default().extend(value.iter().map(|byte| Step::Byte(*byte)));
            }
            Part::Variable { name, quoted: false } => {
                for byte in context.variable(name).unwrap_or_default() {
                    if matches!(byte, b' ' | b'\t' | b'\n') {
                        fields.extend(field.take());
                    } else {
                        field.get_or_insert_default().push(step(byte, false));
                    }
                }
            }
        }
    }
    fields.extend(field);
    fields
}

fn step(byte: u8, quoted: bool) -> Step {
    match byte {
        b'*' if !quoted => Step::Many,
        b'?' if !quoted => Step::One,
        b'[' | b']' | b'!' | b'-' if !quoted => Step::Mark(byte),
        byte => Step::Byte(byte),
    }
}

fn text(field: &[Step]) -> Vec<u8> {
    field.iter().map(|step| step.byte()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    struct Fixed;

    impl Directories for Fixed {
        fn names(&self, directory: &[u8]) -> Vec<Vec<u8>> {
            if directory.is_empty() { vec![b"one".to_vec(), b"two".to_vec()] } else { vec![] }
        }

        fn exists(&self, path: &[u8]) -> bool {
            matches!(path, b"one" | b"two")
        }
    }

    impl Context for Fixed {
        fn variable(&self, name: &[u8]) -> Option<Vec<u8>> {
            match name {
                b"?" => Some(b"7".to_vec()),
                b"list" => Some(b" a  b ".to_vec()),
                b"star" => Some(b"t*".to_vec()),
                _ => None,
            }
        }
    }

    fn expanded(text: &str) -> Vec<String> {
        let list = parse(text.as_bytes()).unwrap();
        arguments(&list.items[0].chain.first.commands[0].words, &Fixed)
            .into_iter()
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .collect()
    }

    #[test]
    fn unquoted_variables_split_and_vanish() {
        assert_eq!(expanded("x $list $none y$?"), ["x", "a", "b", "y7"]);
        assert_eq!(expanded("x$list'y'"), ["x", "a", "b", "y"]);
    }

    #[test]
    fn quoted_ones_do_neither() {
        assert_eq!(expanded("x \"$list\" \"$none\" ''"), ["x", " a  b ", "", ""]);
        assert_eq!(expanded("'$list' \\$list"), ["$list", "$list"]);
    }

    #[test]
    fn patterns_match_unless_quoted_or_in_vain() {
        assert_eq!(expanded("* $star"), ["one", "two", "two"]);
        assert_eq!(expanded("[n-p]ne [!o]* [!'o']w? [xo]ne"), ["one", "two", "two", "one"]);
        assert_eq!(expanded("'['o]ne [o\\]ne -o [ x[!"), ["[o]ne", "[o]ne", "-o", "[", "x[!"]);
        assert_eq!(expanded("'*' \"$star\" \\?ne z*"), ["*", "t*", "?ne", "z*"]);
    }
}
