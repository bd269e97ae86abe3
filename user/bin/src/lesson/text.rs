//! Cutting title and exercise out of a page, at compile time.

const TITLE: &[u8] = b"# ";
const EXERCISE: &[u8] = b"\n## Exercise\n\n";

/// The page's heading, without the mark.
pub const fn title(page: &str) -> &[u8] {
    let page = page.as_bytes();
    assert!(begins_with(page, TITLE));
    part(page, TITLE.len(), find(page, b"\n", 0))
}

/// The section of this name, to the next heading or the end of the page.
pub const fn exercise(page: &str) -> &[u8] {
    let page = page.as_bytes();
    let start = find(page, EXERCISE, 0);
    assert!(start < page.len());
    let start = start + EXERCISE.len();
    part(page, start, find(page, b"\n## ", start))
}

/// The same bytes in a place of their own.
pub const fn copy<const N: usize>(from: &[u8]) -> [u8; N] {
    let mut to = [0; N];
    let mut i = 0;
    while i < N {
        to[i] = from[i];
        i += 1;
    }
    to
}

/// They are cut at ASCII.
pub const fn text(bytes: &'static [u8]) -> &'static str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("a page is UTF-8"),
    }
}

const fn part(bytes: &[u8], from: usize, to: usize) -> &[u8] {
    bytes.split_at(to).0.split_at(from).1
}

const fn begins_with(bytes: &[u8], start: &[u8]) -> bool {
    let mut i = 0;
    while i < start.len() {
        if i >= bytes.len() || bytes[i] != start[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Where a word is at or behind `from`; the length of all if nowhere.
const fn find(bytes: &[u8], word: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() && !begins_with(bytes.split_at(at).1, word) {
        at += 1;
    }
    at
}
