//! Patterns: `*` is any bytes, `?` any one byte, a [bracket expression](crate::bracket) one byte of a set, and every other
//! byte matches itself. Only a slash matches a slash, and only a dot matches a dot at the start of a name.

use alloc::vec::Vec;

use crate::bracket::{self, Set};

/// One step of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This byte.
    Byte(u8),
    /// Any one byte.
    One,
    /// Any number of any bytes.
    Many,
    /// An unquoted `[`, `]`, `!` or `-`: it has a meaning in a bracket expression, and elsewhere matches itself.
    Mark(u8),
}

impl Step {
    /// The byte that it was written as.
    pub fn byte(self) -> u8 {
        match self {
            Step::Byte(byte) | Step::Mark(byte) => byte,
            Step::One => b'?',
            Step::Many => b'*',
        }
    }
}

/// Whether a field may match anything but itself.
pub fn is_pattern(field: &[Step]) -> bool {
    field.iter().any(|step| matches!(step, Step::One | Step::Many | Step::Mark(b'[')))
}

/// One step of a component, with its bracket expressions read.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Byte(u8),
    One,
    Many,
    Of(Set),
}

impl Piece {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Piece::Byte(own) => *own == byte,
            Piece::One => true,
            Piece::Many => false,
            Piece::Of(set) => set.contains(byte),
        }
    }
}

/// Reads a component. A `[` that begins no bracket expression matches itself.
fn pieces(component: &[Step]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(step) = component.get(at) {
        at += 1;
        pieces.push(match step {
            Step::One => Piece::One,
            Step::Many => Piece::Many,
            Step::Mark(b'[') => match bracket::read(&component[at..]) {
                Some((set, length)) => {
                    at += length;
                    Piece::Of(set)
                }
                None => Piece::Byte(b'['),
            },
            step => Piece::Byte(step.byte()),
        });
    }
    pieces
}

/// The source of names.
pub trait Directories {
    /// The names in a directory (`""` is the working directory), in no particular order.
    fn names(&self, directory: &[u8]) -> Vec<Vec<u8>>;
    /// Whether there is something at a path.
    fn exists(&self, path: &[u8]) -> bool;
}

/// Whether a name without slashes matches.
pub fn matches(pattern: &[Step], name: &[u8]) -> bool {
    fits(&pieces(pattern), name)
}

fn fits(pattern: &[Piece], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&Piece::Byte(b'.')) {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // Where the last `*` was, and how far it reached: on a mismatch it takes one byte more. An earlier `*` need
    // not be tried again, so the time is at most the product of the lengths.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(Piece::Many) => {
                p += 1;
                star = Some((p, n));
                continue;
            }
            Some(piece) if piece.takes(name[n]) => {
                p += 1;
                n += 1;
                continue;
            }
            _ => {}
        }
        let Some((after, reached)) = star else { return false };
        p = after;
        n = reached + 1;
        star = Some((after, n));
    }
    pattern[p..].iter().all(|piece| *piece == Piece::Many)
}

/// All paths that match, in order; none if nothing matches.
pub fn expand(pattern: &[Step], directories: &dyn Directories) -> Vec<Vec<u8>> {
    let mut paths = Vec::from([Vec::new()]);
    let mut components = pattern.split(|step| *step == Step::Byte(b'/')).peekable();
    while let Some(component) = components.next() {
        let component = pieces(component);
        let literal = literal(&component);
        let mut next = Vec::new();
        for path in &paths {
            match &literal {
                Some(name) => next.push([path, &name[..]].concat()),
                None => next.extend(
                    directories
                        .names(path)
                        .iter()
                        .filter(|name| fits(&component, name))
                        .map(|name| [path, &name[..]].concat()),
                ),
            }
        }
        // A name that `*` matched but that is not a directory is dropped here, or has no names below it.
        if components.peek().is_some() {
            next.iter_mut().for_each(|path| path.push(b'/'));
        }
        paths = next;
    }
    paths.retain(|path| directories.exists(path));
    paths.sort();
    paths
}

/// The component's text, if it has no wildcard.
fn literal(component: &[Piece]) -> Option<Vec<u8>> {
    component
        .iter()
        .map(|piece| match piece {
            Piece::Byte(byte) => Some(*byte),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn pattern(text: &str) -> Vec<Step> {
        text.bytes()
            .map(|byte| match byte {
                b'*' => Step::Many,
                b'?' => Step::One,
                b'[' | b']' | b'!' | b'-' => Step::Mark(byte),
                byte => Step::Byte(byte),
            })
            .collect()
    }

    /// A tree given by the paths of its files.
    pub(crate) struct Tree(pub &'static [&'static str]);

    impl Directories for Tree {
        fn names(&self, directory: &[u8]) -> Vec<Vec<u8>> {
            let directory = std::str::from_utf8(directory).unwrap();
            let mut names: Vec<Vec<u8>> = self
                .0
                .iter()
                .filter_map(|path| path.strip_prefix(directory))
                .map(|rest| rest.split('/').next().unwrap().into())
                .filter(|name: &Vec<u8>| !name.is_empty())
                .collect();
            names.dedup();
            names
        }

        fn exists(&self, path: &[u8]) -> bool {
            let path = std::str::from_utf8(path).unwrap();
            self.0.iter().any(|file| *file == path || file.starts_with(&format!("{}/", path.trim_end_matches('/'))))
        }
    }

    const TREE: Tree =
        Tree(&["/bin/cat", "/bin/ls", "/etc/a.txt", "/etc/b.txt", "/etc/.hidden", "here", "dir/x", "dir/y"]);

    fn expanded(text: &str) -> Vec<String> {
        expand(&pattern(text), &TREE).into_iter().map(|path| String::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn expands_by_component() {
        assert_eq!(expanded("/etc/*.txt"), ["/etc/a.txt", "/etc/b.txt"]);
        assert_eq!(expanded("/*/?at"), ["/bin/cat"]);
        assert_eq!(expanded("*"), ["dir", "here"]);
        assert_eq!(expanded("d*/*"), ["dir/x", "dir/y"]);
        assert_eq!(expanded("d*/"), ["dir/"]);
        assert_eq!(expanded("/etc/.*"), ["/etc/.hidden"]);
        assert_eq!(expanded("/etc/[a-z].t[!a]t"), ["/etc/a.txt", "/etc/b.txt"]);
        assert_eq!(expanded("/[be]*/[cl][as]*"), ["/bin/cat", "/bin/ls"]);
        assert!(expanded("/etc/[.]hidden").is_empty());
        assert!(expanded("/bin[/]cat").is_empty());
        assert!(expanded("/nothing/*").is_empty());
        assert!(expanded("/*/nothing").is_empty());
    }

    #[test]
    fn many_stars_take_no_time() {
        let stars = "*a".repeat(40);
        assert!(!matches(&pattern(&stars), "a".repeat(2000).replace("aaaa", "aaab").replace('a', "b").as_bytes()));
    }

    /// One element of a pattern, and what it was written as.
    #[derive(Clone, Debug)]
    enum Element {
        Byte(u8),
        One,
        Many,
        Set { without: bool, members: Vec<(u8, u8)> },
    }

    impl Element {
        fn write(&self, text: &mut String) {
            match self {
                Element::Byte(byte) => text.push(char::from(*byte)),
                Element::One => text.push('?'),
                Element::Many => text.push('*'),
                Element::Set { without, members } => {
                    text.push_str(if *without { "[!" } else { "[" });
                    for (first, last) in members {
                        text.push(char::from(*first));
                        if first != last {
                            text.extend(['-', char::from(*last)]);
                        }
                    }
                    text.push(']');
                }
            }
        }
    }

    /// The definition, without regard to time.
    fn model(pattern: &[Element], name: &[u8]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some(Element::Many), _) => model(&pattern[1..], name) || (!name.is_empty() && model(pattern, &name[1..])),
            (Some(Element::One), Some(_)) => model(&pattern[1..], &name[1..]),
            (Some(Element::Byte(byte)), Some(first)) => byte == first && model(&pattern[1..], &name[1..]),
            (Some(Element::Set { without, members }), Some(byte)) => {
                members.iter().any(|(first, last)| first <= byte && byte <= last) != *without
                    && model(&pattern[1..], &name[1..])
            }
            _ => false,
        }
    }

    fn element() -> impl Strategy<Value = Element> {
        // (A range may be empty. What is special in brackets only is special nowhere else.)
        let member = prop_oneof![b'a'..=b'd', Just(b'*'), Just(b'?')].prop_flat_map(|first| {
            prop_oneof![Just((first, first)), (b'a'..=b'd').prop_map(move |last| (first, last))]
        });
        prop_oneof![
            prop_oneof![b'a'..=b'd', Just(b']'), Just(b'!'), Just(b'-')].prop_map(Element::Byte),
            Just(Element::One),
            Just(Element::Many),
            (any::<bool>(), proptest::collection::vec(member, 1..4))
                .prop_map(|(without, members)| Element::Set { without, members }),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            elements in proptest::collection::vec(element(), 0..8),
            name in r"[a-d\]!*?-]{0,8}",
        ) {
            let mut text = String::new();
            elements.iter().for_each(|element| element.write(&mut text));
            prop_assert_eq!(matches(&pattern(&text), name.as_bytes()), model(&elements, name.as_bytes()), "{}", text);
        }

        #[test]
        fn any_pattern_matches_in_bounds(text in r"[]\[!:=.a*?-]{0,12}", name in r"[]\[!:=.a*?-]{0,6}") {
            let pattern = pattern(&text);
            let _ = matches(&pattern, name.as_bytes());
            let quoted: Vec<Step> = name.bytes().map(Step::Byte).collect();
            prop_assert!(matches(&quoted, name.as_bytes()));
        }
    }
}
