//! Completion of the word before the cursor.

use alloc::string::String;
use alloc::vec::Vec;

use crate::edit::Completion;
use crate::glob::Directories;

/// Where a word is in a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Command,
    Argument,
}

/// The word before the cursor, quoting removed, where it starts in bytes, and where it stands.
fn last_word(text: &str) -> (String, usize, Place) {
    let mut word = String::new();
    let mut start = None;
    let mut place = Place::Command;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match (quote, char) {
            (Some(open), char) if char == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(char);
                start.get_or_insert(at);
            }
            (None | Some('"'), '\\') => {
                start.get_or_insert(at);
                word.extend(chars.next().map(|(_, char)| char));
            }
            (None, ' ' | '\t' | ';' | '&' | '|' | '<' | '>') => {
                if start.take().is_some() && !matches!(&word[..], "time" | "!") && !word.contains('=') {
                    place = Place::Argument;
                }
                match char {
                    ';' | '&' | '|' => place = Place::Command,
                    '<' | '>' => place = Place::Argument,
                    _ => {}
                }
                word.clear();
            }
            (_, char) => {
                start.get_or_insert(at);
                word.push(char);
            }
        }
    }
    (word, start.unwrap_or(text.len()), place)
}

/// Quotes characters that are special to the shell.
fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for char in name.chars() {
        if char.is_ascii() && !char.is_ascii_alphanumeric() && !"_./-+:@%,=^".contains(char) {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

/// Completes the word before the cursor: in a command's place by a name from `commands`, elsewhere or if the word has a
/// slash by a path.
pub fn complete(before: &str, commands: &[String], directories: &dyn Directories) -> Completion {
    let (word, start, place) = last_word(before);
    let mut candidates = match place {
        Place::Command if !word.contains('/') => {
            commands.iter().filter(|name| name.starts_with(&word[..])).map(|name| escape(name) + " ").collect()
        }
        _ => paths(&word, directories),
    };
    candidates.sort();
    candidates.dedup();
    Completion { start: before[..start].chars().count(), candidates }
}

fn paths(word: &str, directories: &dyn Directories) -> Vec<String> {
    let (directory, prefix) = word.split_at(word.rfind('/').map_or(0, |at| at + 1));
    let names = directories.names(directory.as_bytes()).into_iter().filter_map(|name| String::from_utf8(name).ok());
    names
        .filter(|name| name.starts_with(prefix) && (name.starts_with('.') == prefix.starts_with('.')))
        .filter(|name| !name.chars().any(char::is_control))
        .map(|name| {
            let path = String::from(directory) + &name;
            let is_directory = directories.exists((path.clone() + "/").as_bytes());
            escape(&path) + if is_directory { "/" } else { " " }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use proptest::prelude::*;

    struct Tree;

    impl Directories for Tree {
        fn names(&self, directory: &[u8]) -> Vec<Vec<u8>> {
            match directory {
                b"/" => vec![b"bin".to_vec(), b"boot file".to_vec()],
                b"/bin/" => vec![b"cat".to_vec(), b".rc".to_vec()],
                b"" => vec![b"init".to_vec(), b"it's".to_vec()],
                _ => vec![],
            }
        }

        fn exists(&self, path: &[u8]) -> bool {
            path == b"/bin/"
        }
    }

    fn completed(text: &str) -> (usize, Vec<String>) {
        let commands = ["ls".into(), "less".into()];
        let Completion { start, candidates } = complete(text, &commands, &Tree);
        (start, candidates)
    }

    #[test]
    fn commands_where_commands_stand() {
        assert_eq!(completed("l"), (0, vec!["less ".into(), "ls ".into()]));
        for text in ["a;ls", "a|ls", "a && ls", "time ls", "X=1 ls"] {
            assert_eq!(completed(text).1, ["ls "], "{text}");
        }
    }

    #[test]
    fn paths_elsewhere() {
        assert_eq!(completed("cat /b"), (4, vec!["/bin/".into(), "/boot\\ file ".into()]));
        assert_eq!(completed("/bin/"), (0, vec!["/bin/cat ".into()]));
        assert_eq!(completed("/bin/.").1, ["/bin/.rc "]);
        assert_eq!(completed("wc <in").1, ["init "]);
        assert_eq!(completed("ü 'it"), (2, vec!["it\\'s ".into()]));
        assert_eq!(completed("cat /bo\\ot\\ f").1, ["/boot\\ file "]);
        assert!(completed("cat /nothing/x").1.is_empty());
    }

    proptest! {
        #[test]
        fn any_text_gives_a_start_within_it(text in "[a-cü/ '\"\\\\;|<=]{0,20}") {
            prop_assert!(completed(&text).0 <= text.chars().count());
        }

        #[test]
        fn an_escaped_name_is_one_word(name in "\\PC{1,12}") {
            let list = parse(escape(&name).as_bytes()).unwrap();
            let command = &list.items[0].chain.first.commands[0];
            let words = command.words.len() + command.assignments.len();
            // The parser does not take a lone `!` or a name such as `a=b` for a word; neither is completed in a
            // command's place.
            prop_assert_eq!(words, 1);
        }
    }
}
