//! Lines entered before.

use alloc::string::String;
use alloc::vec::Vec;

/// Lines that are kept.
const CAPACITY: usize = 500;

/// The lines, oldest first, and the position of the user who walks through them.
#[derive(Clone, Debug, Default)]
pub struct History {
    lines: Vec<String>,
    /// How many steps back from the line being written.
    back: usize,
    /// That line, while an older one is shown.
    draft: String,
}

impl History {
    /// Adds a line, unless it is empty or the last one again, and ends the walk.
    pub fn add(&mut self, line: &str) {
        self.back = 0;
        self.draft.clear();
        if line.trim().is_empty() || self.lines.last().is_some_and(|last| last == line) {
            return;
        }
        if self.lines.len() == CAPACITY {
            self.lines.remove(0);
        }
        self.lines.push(line.into());
    }

    /// Ends the walk.
    pub fn rewind(&mut self) {
        self.back = 0;
        self.draft.clear();
    }

    /// One step back; `current` is what is shown now, kept if it is the line being written.
    pub fn older(&mut self, current: &str) -> Option<&str> {
        if self.back == self.lines.len() {
            return None;
        }
        if self.back == 0 {
            self.draft = current.into();
        }
        self.back += 1;
        Some(&self.lines[self.lines.len() - self.back])
    }

    /// One step forward, at last to the line being written.
    pub fn newer(&mut self) -> Option<&str> {
        self.back = self.back.checked_sub(1)?;
        Some(if self.back == 0 { &self.draft } else { &self.lines[self.lines.len() - self.back] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_back_and_returns_to_the_draft() {
        let mut history = History::default();
        for line in ["one", "two", "two", "  ", "three"] {
            history.add(line);
        }
        assert_eq!(history.older("dra"), Some("three"));
        assert_eq!(history.older("three"), Some("two"));
        assert_eq!(history.older("two changed"), Some("one"));
        assert_eq!(history.older("one"), None);
        assert_eq!(history.newer(), Some("two"));
        assert_eq!(history.newer(), Some("three"));
        assert_eq!(history.newer(), Some("dra"));
        assert_eq!(history.newer(), None);
    }

    #[test]
    fn forgets_the_oldest() {
        let mut history = History::default();
        for i in 0..CAPACITY + 1 {
            history.add(&i.to_string());
        }
        let mut oldest = String::new();
        while let Some(line) = history.older("") {
            oldest = line.into();
        }
        assert_eq!(oldest, "1");
    }
}
