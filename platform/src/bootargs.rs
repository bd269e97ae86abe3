//! The kernel's command line.
//!
//! Arguments are separated by white space. Each is `key` or `key=value`; double quotes keep white space together,
//! around a value (`title="a b"`) or around the whole argument (`"title=a b"`), as on Linux. A quote inside a value is
//! kept. A `=` that an argument starts with belongs to the key. Everything after an argument `--` is for init.

/// The arguments of `line` as (key, value), in order.
pub fn arguments(line: &str) -> Arguments<'_> {
    Arguments { rest: line, done: false }
}

/// The last value that `line` gives for `key`; a key without a value gives the empty string.
pub fn find<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    arguments(line).filter(|(name, _)| *name == key).last().map(|(_, value)| value.unwrap_or_default())
}

/// A size: decimal or 0x-hexadecimal, with K, M, G or T after it for powers of 1024.
pub fn size(text: &str) -> Option<u64> {
    let shift = match text.as_bytes().last()? {
        b'k' | b'K' => 10,
        b'm' | b'M' => 20,
        b'g' | b'G' => 30,
        b't' | b'T' => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    number(digits)?.checked_mul(1 << shift)
}

/// The size and place of memory that an argument (`cma=`) requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Bytes.
    pub size: u64,
    /// The acceptable addresses; a range of exactly `size` bytes fixes the place, and `None` means any.
    pub within: Option<(u64, u64)>,
}

/// `SIZE`, `SIZE@BASE` or `SIZE@BASE-END`, each as [`size`] reads it.
pub fn wish(text: &str) -> Option<Wish> {
    let Some((wanted, place)) = text.split_once('@') else {
        return Some(Wish { size: size(text)?, within: None });
    };
    let wanted = size(wanted)?;
    let (base, end) = match place.split_once('-') {
        Some((base, end)) => (size(base)?, size(end)?),
        // (A range beyond the highest address fits nowhere, which is reported.)
        None => (size(place)?, size(place)?.saturating_add(wanted)),
    };
    Some(Wish { size: wanted, within: Some((base, end)) }).filter(|_| base <= end)
}

/// A number: decimal or 0x-hexadecimal, nothing but digits.
pub fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // from_str_radix accepts a sign, which is not allowed here.
    let plain = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
    if plain { u64::from_str_radix(digits, radix).ok() } else { None }
}

/// The default rate of a serial line, in bits per second.
pub const BAUD: u32 = 115_200;

/// A serial line's rate, from the options after a port's name, as on Linux: the rate, then parity, bits and flow
/// control (`115200n8`). An empty text means [`BAUD`]. Only 8 bits without parity and flow control are supported.
pub fn baud(text: &str) -> Option<u32> {
    if text.is_empty() {
        return Some(BAUD);
    }
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (rate, format) = text.split_at(end);
    let plain = matches!(format, "" | "n" | "n8");
    rate.parse().ok().filter(|rate| plain && *rate > 0)
}

/// A boolean, in the words that Linux accepts.
pub fn boolean(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    match () {
        () if is(&["1", "y", "yes", "t", "true", "on"]) => Some(true),
        () if is(&["0", "n", "no", "f", "false", "off"]) => Some(false),
        () => None,
    }
}

/// See [`arguments`].
#[derive(Clone, Debug)]
pub struct Arguments<'a> {
    rest: &'a str,
    done: bool,
}

impl<'a> Arguments<'a> {
    /// The part not read yet; once the iterator has ended, init's arguments.
    pub fn rest(&self) -> &'a str {
        self.rest.trim()
    }
}

impl<'a> Iterator for Arguments<'a> {
    type Item = (&'a str, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.rest.trim_start();
        if self.done || line.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = line.find(|letter: char| {
            quoted ^= letter == '"';
            letter.is_whitespace() && !quoted
        });
        let (argument, rest) = line.split_at(end.unwrap_or(line.len()));
        self.rest = rest;
        if argument == "--" {
            self.done = true;
            return None;
        }
        let argument = unquote(argument);
        // A key has at least one character: the value of `=a=b` is `b`.
        let first = argument.chars().next().map_or(0, char::len_utf8);
        Some(match argument[first..].split_once('=') {
            Some((key, value)) => (&argument[..first + key.len()], Some(unquote(value))),
            None => (argument, None),
        })
    }
}

/// Without the quote that `text` starts with, and the one that it may end with.
fn unquote(text: &str) -> &str {
    match text.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_and_values() {
        let line = "  log=debug quiet slab=slub,red  init=/bin/init ";
        let expected =
            [("log", Some("debug")), ("quiet", None), ("slab", Some("slub,red")), ("init", Some("/bin/init"))];
        assert!(arguments(line).eq(expected));
        assert_eq!(find(line, "quiet"), Some(""));
        assert_eq!(find(line, "lo"), None);
    }

    #[test]
    fn a_key_is_never_empty() {
        assert!(arguments("=x = =a=b é=1").eq([("=x", None), ("=", None), ("=a", Some("b")), ("é", Some("1"))]));
        assert!(arguments("\"\" \"=x\"").eq([("", None), ("=x", None)]));
    }

    #[test]
    fn the_last_value_counts() {
        assert_eq!(find("a=1 a=2", "a"), Some("2"));
    }

    #[test]
    fn quotes_keep_white_space() {
        let line = r#"title="a b" "note=c d" half="x y"#;
        assert!(arguments(line).eq([("title", Some("a b")), ("note", Some("c d")), ("half", Some("x y"))]));
    }

    #[test]
    fn the_rest_is_for_init() {
        let mut line = arguments("a -- b=c d ");
        assert_eq!(line.by_ref().count(), 1);
        assert_eq!(line.next(), None);
        assert_eq!(line.rest(), "b=c d");
    }

    #[test]
    fn sizes() {
        let expected =
            [("64M", 64 << 20), ("1g", 1 << 30), ("4096", 4096), ("0x10K", 16 << 10), ("2T", 2 << 40), ("0", 0)];
        for (text, value) in expected {
            assert_eq!(size(text), Some(value), "{text}");
        }
        for text in ["", "M", "-1", "+1", "1MM", "1 M", "0x", "17179869184G", "99999999999999999999", "1\u{e9}"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn yes_and_no() {
        for (text, value) in
            [("1", Some(true)), ("On", Some(true)), ("yes", Some(true)), ("off", Some(false)), ("0", Some(false))]
        {
            assert_eq!(boolean(text), value, "{text}");
        }
        assert!(["", "2", "maybe", "onn"].iter().all(|text| boolean(text).is_none()));
    }

    #[test]
    fn rates() {
        for (text, rate) in [("", BAUD), ("115200", 115_200), ("9600n8", 9600), ("921600n", 921_600)] {
            assert_eq!(baud(text), Some(rate), "{text}");
        }
        for text in ["9600e7", "9600n7", "115200n8r", "0", "-1", "fast", "99999999999", "n8"] {
            assert_eq!(baud(text), None, "{text}");
        }
    }

    #[test]
    fn wishes() {
        let expected = [
            ("64M", 64 << 20, None),
            ("16M@1G", 16 << 20, Some((1 << 30, (1 << 30) + (16 << 20)))),
            ("16M@1G-2G", 16 << 20, Some((1 << 30, 2 << 30))),
            ("0", 0, None),
            ("1T@0xffffffffffffffff", 1 << 40, Some((u64::MAX, u64::MAX))),
        ];
        for (text, size, within) in expected {
            assert_eq!(wish(text), Some(Wish { size, within }), "{text}");
        }
        for text in ["", "@1G", "64M@", "64M@2G-1G", "64M@1G-", "64M-1G"] {
            assert_eq!(wish(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(words in prop::collection::vec(("[a-z.]{1,8}", "[a-z0-9 ,/]{0,8}"), 0..8)) {
            let line: Vec<_> = words.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
            let read: Vec<_> = words.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
            prop_assert!(arguments(&line.join(" ")).eq(read));
        }

        #[test]
        fn no_line_is_too_odd(line in ".{0,64}") {
            prop_assert!(arguments(&line).count() <= line.len());
            size(&line);
        }
    }
}
