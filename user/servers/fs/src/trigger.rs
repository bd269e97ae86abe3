//! Triggers of memory pressure: texts that are written to `/proc/pressure/memory` and to a group's `memory.pressure`,
//! in the format of Linux's psi.rst.

use quire_abi::Errno;
use quire_abi::names::trigger as word;
use quire_abi::pressure::trigger::{PERIOD, is_sound};

use crate::request::Answer;
use crate::who::Who;

/// The trigger that a text describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whether it is about full pressure instead of some.
    pub is_full: bool,
    /// In microseconds.
    pub threshold: u64,
    /// In microseconds.
    pub window: u64,
}

/// Parses "some 150000 1000000": threshold and window in microseconds. A newline and a zero byte may follow. EINVAL for
/// anything else, and for invalid numbers.
pub fn parse(text: &[u8]) -> Result<Wanted, Errno> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = core::str::from_utf8(&text[..end]).map_err(|_| Errno::EINVAL)?;
    let mut words = text.split_ascii_whitespace();
    let is_full = match words.next() {
        Some("some") => false,
        Some("full") => true,
        _ => return Err(Errno::EINVAL),
    };
    let mut number = || {
        let word = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))?;
        word.parse::<u64>().ok()
    };
    let (Some(threshold), Some(window), None) = (number(), number(), words.next()) else {
        return Err(Errno::EINVAL);
    };
    if is_sound(threshold, window) { Ok(Wanted { is_full, threshold, window }) } else { Err(Errno::EINVAL) }
}

/// The answer to a write to such a file: the kernel sets the trigger for the group with this key. Windows of writers
/// other than root must be multiples of two seconds, as on Linux: EINVAL otherwise.
pub fn answer(text: &[u8], who: &impl Who, group: u64) -> Result<Answer, Errno> {
    let wanted = parse(text)?;
    if !who.is_root() && !wanted.window.is_multiple_of(PERIOD) {
        return Err(Errno::EINVAL);
    }
    let mut words = [0; 6];
    words[word::LEN] = text.len() as u64;
    words[word::GROUP] = group;
    words[word::IS_FULL] = wanted.is_full.into();
    words[word::THRESHOLD] = wanted.threshold;
    words[word::WINDOW] = wanted.window;
    Ok(Answer::done(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::who::Identity;

    #[test]
    fn a_threshold_within_a_window() {
        let some = Wanted { is_full: false, threshold: 150_000, window: 1_000_000 };
        for text in
            ["some 150000 1000000", "some 150000 1000000\n", "some 150000 1000000\0", " some\t150000  1000000 \n"]
        {
            assert_eq!(parse(text.as_bytes()), Ok(some), "{text:?}");
        }
        assert_eq!(parse(b"full 1 500000"), Ok(Wanted { is_full: true, threshold: 1, window: 500_000 }));
        assert_eq!(parse(b"full 10000000 10000000").map(|wanted| wanted.threshold), Ok(10_000_000));
    }

    #[test]
    fn all_else_is_refused() {
        for text in [
            "",
            "some",
            "some 150000",
            "some 150000 1000000 1",
            "none 150000 1000000",
            "some0 150000 1000000",
            "some 0 1000000",
            "some 1000001 1000000",
            "some 1 499999",
            "some 1 10000001",
            "some -1 1000000",
            "some +1 1000000",
            "some 0x1 1000000",
            "some 1 99999999999999999999",
            "\0some 150000 1000000",
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Errno::EINVAL), "{text:?}");
        }
        assert_eq!(parse(b"some 1 10000\xff0"), Err(Errno::EINVAL));
    }

    #[test]
    fn others_than_root_have_long_windows() {
        let ask = |user: u32, window: u64| {
            let text = alloc::format!("some 1000 {window}\n");
            answer(text.as_bytes(), &Identity((user, user)), 7).map(|answer| answer.words)
        };
        assert_eq!(ask(0, 500_000), Ok([17, 7, 0, 1000, 500_000, 0]));
        assert_eq!(ask(5, 2_000_000), Ok([18, 7, 0, 1000, 2_000_000, 0]));
        assert_eq!(ask(5, 500_000), Err(Errno::EINVAL));
        assert_eq!(ask(5, 3_000_000), Err(Errno::EINVAL));
    }
}
