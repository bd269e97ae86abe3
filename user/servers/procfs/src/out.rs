//! The requested part of a text. A file's text is generated from its beginning, or from a mark, and only the part is
//! kept: however long the text is, the server only stores as much as fits into one answer.

use alloc::vec::Vec;
use core::fmt;

/// Receives a text, and keeps a part of it. Writing fails once the part is complete, which ends the work.
pub struct Out {
    /// The position of the next byte in the text.
    at: u64,
    from: u64,
    room: usize,
    kept: Vec<u8>,
    mark: Option<Mark>,
}

/// A position in a text, and the state with which the writer can continue there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The place.
    pub at: u64,
    /// The writer's own.
    pub state: u64,
}

impl Out {
    /// The part from `from` on, of at most `room` bytes. The writer continues at the mark, if that is before the part.
    pub fn new(from: u64, room: usize, mark: Option<Mark>) -> Self {
        let mark = mark.filter(|mark| mark.at <= from);
        Self { at: mark.map_or(0, |mark| mark.at), from, room, kept: Vec::new(), mark }
    }

    /// The state with which the writer continues; 0 at the beginning.
    pub fn state(&self) -> u64 {
        self.mark.map_or(0, |mark| mark.state)
    }

    /// Records that the writer could continue here.
    pub fn set_mark(&mut self, state: u64) {
        self.mark = Some(Mark { at: self.at, state });
    }

    /// The part, and the last mark.
    pub fn finish(self) -> (Vec<u8>, Option<Mark>) {
        (self.kept, self.mark)
    }

    /// Adds bytes.
    pub fn put(&mut self, bytes: &[u8]) -> fmt::Result {
        let skipped = usize::try_from(self.from.saturating_sub(self.at)).unwrap_or(usize::MAX).min(bytes.len());
        self.at += bytes.len() as u64;
        let rest = &bytes[skipped..];
        let taken = rest.len().min(self.room - self.kept.len());
        self.kept.try_reserve(taken).map_err(|_| fmt::Error)?;
        self.kept.extend_from_slice(&rest[..taken]);
        if self.kept.len() == self.room { Err(fmt::Error) } else { Ok(()) }
    }
}

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes())
    }
}

/// Where the last reads ended, for a few readers and files: so reading a long text in pieces generates each part of it
/// only once.
pub struct Marks {
    all: [Option<(Key, Mark)>; MARKS],
    next: usize,
}

const MARKS: usize = 16;

/// The file's number and the reader's.
type Key = (u64, u32);

impl Default for Marks {
    fn default() -> Self {
        Self { all: [None; MARKS], next: 0 }
    }
}

impl Marks {
    /// The mark of a file and a reader, if it is at or before the place `at`.
    pub fn find(&self, key: Key, at: u64) -> Option<Mark> {
        let found = self.all.iter().flatten().find(|(other, _)| *other == key);
        found.map(|(_, mark)| *mark).filter(|mark| mark.at <= at)
    }

    /// Stores a mark, replacing the oldest one.
    pub fn keep(&mut self, key: Key, mark: Mark) {
        if let Some((_, old)) = self.all.iter_mut().flatten().find(|(other, _)| *other == key) {
            *old = mark;
            return;
        }
        self.all[self.next] = Some((key, mark));
        self.next = (self.next + 1) % MARKS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;

    fn part(from: u64, room: usize) -> Vec<u8> {
        let mut out = Out::new(from, room, None);
        for n in 0..5 {
            if write!(out, "{n}{n}").is_err() {
                break;
            }
        }
        out.finish().0
    }

    #[test]
    fn parts_are_those_of_the_whole() {
        let whole = b"0011223344";
        for from in 0..12 {
            for room in 1..12 {
                let rest = whole.get(from..).unwrap_or(&[]);
                assert_eq!(part(from as u64, room), &rest[..rest.len().min(room)], "{from} {room}");
            }
        }
        assert_eq!(part(u64::MAX, 3), b"");
    }

    #[test]
    fn a_writer_goes_on_at_its_mark() {
        let mut out = Out::new(5, 100, Some(Mark { at: 4, state: 7 }));
        assert_eq!(out.state(), 7);
        out.put(b"abc").unwrap();
        out.set_mark(8);
        assert_eq!(out.finish(), (b"bc".to_vec(), Some(Mark { at: 7, state: 8 })));
        assert_eq!(Out::new(3, 100, Some(Mark { at: 4, state: 7 })).state(), 0);
    }

    #[test]
    fn marks_are_of_a_file_and_a_reader() {
        let mut marks = Marks::default();
        marks.keep((1, 2), Mark { at: 10, state: 3 });
        assert_eq!(marks.find((1, 2), 9), None);
        assert_eq!(marks.find((1, 3), 10), None);
        assert_eq!(marks.find((1, 2), 10), Some(Mark { at: 10, state: 3 }));
        (0..MARKS as u64).for_each(|n| marks.keep((n + 5, 0), Mark { at: 0, state: n }));
        assert_eq!(marks.find((1, 2), 10), None);
    }
}
