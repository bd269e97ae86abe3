//! Patterns: `*` is any bytes, `?` any one byte, and every other byte matches itself. Only a slash matches a slash, and
//! only a dot matches a dot at the start of a name.

use alloc::vec::Vec;

/// One step of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This byte.
    Byte(u8),
    /// Any one byte.
    One,
    /// Any number of any bytes.
    Many,
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
    if name.first() == Some(&b'.') && pattern.first() != Some(&Step::Byte(b'.')) {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // Where the last `*` was, and how far it reached: on a mismatch it takes one byte more. An earlier `*` need
    // not be tried again, so the time is at most the product of the lengths.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(Step::Many) => {
                p += 1;
                star = Some((p, n));
                continue;
            }
            Some(Step::One) => {
                p += 1;
                n += 1;
                continue;
            }
            Some(Step::Byte(byte)) if *byte == name[n] => {
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
    pattern[p..].iter().all(|step| *step == Step::Many)
}

/// All paths that match, in order; none if nothing matches.
pub fn expand(pattern: &[Step], directories: &dyn Directories) -> Vec<Vec<u8>> {
    let mut paths = Vec::from([Vec::new()]);
    let mut components = pattern.split(|step| *step == Step::Byte(b'/')).peekable();
    while let Some(component) = components.next() {
        let literal = literal(component);
        let mut next = Vec::new();
        for path in &paths {
            match &literal {
                Some(name) => next.push([path, &name[..]].concat()),
                None => next.extend(
                    directories
                        .names(path)
                        .iter()
                        .filter(|name| matches(component, name))
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
fn literal(component: &[Step]) -> Option<Vec<u8>> {
    component
        .iter()
        .map(|step| match step {
            Step::Byte(byte) => Some(*byte),
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
        assert!(expanded("/nothing/*").is_empty());
        assert!(expanded("/*/nothing").is_empty());
    }

    #[test]
    fn many_stars_take_no_time() {
        let stars = "*a".repeat(40);
        assert!(!matches(&pattern(&stars), "a".repeat(2000).replace("aaaa", "aaab").replace('a', "b").as_bytes()));
    }

    /// The definition, without regard to time.
    fn model(pattern: &[Step], name: &[u8]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some(Step::Many), _) => model(&pattern[1..], name) || (!name.is_empty() && model(pattern, &name[1..])),
            (Some(Step::One), Some(_)) => model(&pattern[1..], &name[1..]),
            (Some(Step::Byte(byte)), Some(first)) => byte == first && model(&pattern[1..], &name[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(text in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let pattern = pattern(&text);
            prop_assert_eq!(matches(&pattern, name.as_bytes()), model(&pattern, name.as_bytes()));
        }
    }
}
