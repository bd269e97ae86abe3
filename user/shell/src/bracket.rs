//! Bracket expressions of patterns, as POSIX has them: `[abc]`, `[a-z]`, `[!a-z]`, `[[:digit:]]`. Bytes are ordered by value.
//!
//! A `]` that comes first is a member, and so is a `-` that comes first or last, and anything quoted. What is not closed, or
//! names no class, is no bracket expression.

use crate::glob::Step;

/// A set of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set([u64; 4]);

impl Set {
    const EMPTY: Self = Self([0; 4]);

    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte) / 64] |= 1 << (byte % 64);
    }

    /// Whether a byte is a member.
    pub fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte) / 64] >> (byte % 64) & 1 != 0
    }
}

/// Reads what follows a `[`: the set, and how many steps it took with the closing bracket. `None` if this is no bracket
/// expression.
pub fn read(steps: &[Step]) -> Option<(Set, usize)> {
    let without = steps.first() == Some(&Step::Mark(b'!'));
    let begin = usize::from(without);
    let mut set = Set::EMPTY;
    let mut at = begin;
    loop {
        let step = *steps.get(at)?;
        if step == Step::Mark(b']') && at > begin {
            break;
        }
        if let Some(length) = class(&steps[at..], &mut set)? {
            at += length;
            continue;
        }
        let first = step.byte();
        at += 1;
        match steps.get(at..at + 2) {
            Some([Step::Mark(b'-'), last]) if *last != Step::Mark(b']') => {
                (first..=last.byte()).for_each(|byte| set.add(byte));
                at += 2;
            }
            _ => set.add(first),
        }
    }
    if without {
        set.0.iter_mut().for_each(|word| *word = !*word);
    }
    Some((set, at + 1))
}

/// Adds a class such as `[:alpha:]`, or the one byte of `[=a=]` or `[.a.]`; how many steps it took. `Some(None)` if none
/// begins here, `None` if the class has no such name.
fn class(steps: &[Step], set: &mut Set) -> Option<Option<usize>> {
    let [Step::Mark(b'['), Step::Byte(kind @ (b':' | b'=' | b'.')), rest @ ..] = steps else { return Some(None) };
    let end = [Step::Byte(*kind), Step::Mark(b']')];
    let Some(length) = rest.windows(2).position(|pair| *pair == end) else { return Some(None) };
    match (kind, &rest[..length]) {
        (b':', name) => {
            let is_in = CLASSES.iter().find(|(own, _)| own.bytes().eq(name.iter().map(|step| step.byte())))?.1;
            (0..=u8::MAX).filter(is_in).for_each(|byte| set.add(byte));
        }
        (_, [one]) => set.add(one.byte()),
        _ => return None,
    }
    Some(Some(length + 4))
}

type IsIn = fn(&u8) -> bool;

/// The classes of the POSIX locale.
const CLASSES: [(&str, IsIn); 12] = [
    ("alnum", u8::is_ascii_alphanumeric),
    ("alpha", u8::is_ascii_alphabetic),
    ("blank", |byte| matches!(byte, b' ' | b'\t')),
    ("cntrl", u8::is_ascii_control),
    ("digit", u8::is_ascii_digit),
    ("graph", u8::is_ascii_graphic),
    ("lower", u8::is_ascii_lowercase),
    ("print", |byte| matches!(byte, b' '..=b'~')),
    ("punct", u8::is_ascii_punctuation),
    ("space", |byte| matches!(byte, b' ' | b'\t'..=b'\r')),
    ("upper", u8::is_ascii_uppercase),
    ("xdigit", u8::is_ascii_hexdigit),
];

#[cfg(test)]
mod tests {
    use crate::glob::{Step, matches, tests::pattern};

    fn all_of(text: &str, yes: &str, no: &str) {
        for (bytes, wanted) in [(yes, true), (no, false)] {
            for byte in bytes.bytes() {
                assert_eq!(matches(&pattern(text), &[byte]), wanted, "{text} {}", char::from(byte));
            }
        }
    }

    #[test]
    fn reads_what_posix_says() {
        all_of("[abc]", "abc", "d[]-");
        all_of("[a-c]", "abc", "d-");
        all_of("[!a-c]", "d-]!", "abc");
        all_of("[]a]", "]a", "[b");
        all_of("[!]a]", "[b", "]a");
        all_of("[-a]", "-a", "b");
        all_of("[a-]", "-a", "b");
        all_of("[!-a]", "b", "-a");
        all_of("[a!]", "a!", "b");
        all_of("[a-c-e]", "abc-e", "d");
        all_of("[c-a]", "", "abc-");
        all_of("[*?]", "*?", "a");
        all_of("[[]", "[", "]a");
        all_of("[[:digit:]x]", "09x", "a:[");
        all_of("[![:lower:]]", "A0", "az");
        all_of("[[=a=][.-.]]", "a-", "=.");
        all_of("[%--]", "%&'()*+,-", "$.");
    }

    #[test]
    fn what_is_no_bracket_expression_is_itself() {
        for text in ["[", "[a", "[]", "[!", "[!]", "[a-", "a]"] {
            assert!(matches(&pattern(text), text.as_bytes()), "{text}");
        }
        // There is no such class: the first bracket is itself, and what follows is a set.
        assert!(matches(&pattern("[[:none:]]"), b"[n]") && !matches(&pattern("[[:none:]]"), b"n"));
    }

    #[test]
    fn what_is_quoted_is_a_member() {
        let quoted = |text: &str, at: usize| {
            let mut pattern = pattern(text);
            pattern[at] = Step::Byte(pattern[at].byte());
            pattern
        };
        assert!(matches(&quoted("[a-c]", 2), b"-") && !matches(&quoted("[a-c]", 2), b"b"));
        assert!(matches(&quoted("[!a]", 1), b"!") && !matches(&quoted("[!a]", 1), b"b"));
        assert!(matches(&quoted("[a]]", 2), b"]") && matches(&quoted("[a]", 0), b"[a]"));
    }
}
