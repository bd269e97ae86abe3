//! The parser of traces. Every error names its line.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::pattern::Pattern;
use super::{Access, Event, MOST_EVENTS, Module, Reference, Request, Setting, Step, Trace};
use crate::Error;
use crate::units;

/// The maximum length of a name; pictures have no room for more.
const LONGEST_NAME: usize = 12;

/// The maximum number of modules in a program.
const MOST_MODULES: usize = 64;

pub(super) fn parse(text: &str) -> Result<Trace, Error> {
    let mut parser = Parser::default();
    for (number, line) in text.lines().enumerate() {
        parser.line(number + 1, line).map_err(|what| Error::at(number + 1, what))?;
    }
    match parser.trace.steps.is_empty() && parser.trace.settings == Default::default() {
        true => Err(Error::new("the trace is empty")),
        false => Ok(parser.trace),
    }
}

/// The trace so far, and the names that are currently defined.
#[derive(Default)]
struct Parser {
    trace: Trace,
    allocated: BTreeSet<String>,
    modules: BTreeSet<String>,
}

impl Parser {
    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        let (statement, comment) = line.split_once('#').unwrap_or((line, ""));
        if self.trace.title.is_empty() && statement.trim().is_empty() {
            self.trace.title = comment.trim().to_owned();
        }
        let mut words: Vec<&str> = statement.split_whitespace().collect();
        let mut times = 1;
        if let ["repeat", count, ..] = words[..] {
            times = units::number(count)?;
            words.drain(..2);
            if words.is_empty() {
                return Err("repeat needs a statement".into());
            }
        }
        let [word, operands @ ..] = &words[..] else { return Ok(()) };
        if let Some(setting) = Setting::named(word) {
            return match times {
                1 => self.trace.settings.set(setting, operands.iter().copied()),
                _ => Err(format!("{word} is a setting, which cannot be repeated")),
            };
        }
        for _ in 0..times {
            for event in self.events(word, operands)? {
                if self.trace.steps.len() == MOST_EVENTS {
                    return Err(format!("a trace has at most {MOST_EVENTS} events"));
                }
                self.trace.steps.push(Step { line: number, event });
            }
        }
        Ok(())
    }

    /// The events of a statement.
    fn events(&mut self, word: &str, operands: &[&str]) -> Result<Vec<Event>, String> {
        let one = |event| Ok(Vec::from([event]));
        match (word, operands) {
            ("alloc", [name, size, more @ ..]) => one(Event::Alloc(self.request(name, size, more)?)),
            ("free", [name]) => match self.allocated.remove(*name) {
                true => one(Event::Free((*name).to_owned())),
                false => Err(format!("{name} is not allocated")),
            },
            ("run", [name]) => one(Event::Run(self.known(name)?)),
            ("module", [name, size]) => one(Event::Module(self.module(name, size, None)?)),
            ("module", [name, size, "under", parent]) => one(Event::Module(self.module(name, size, Some(parent))?)),
            ("call", [name]) if self.modules.contains(*name) => one(Event::Call((*name).to_owned())),
            ("call", [name]) => Err(format!("unknown module {name}")),
            ("access", [_, ..]) => self.accesses(operands),
            ("ref", [_, ..]) => references(operands),
            ("pattern", [name]) => one(Event::Pattern(pattern(name)?)),
            ("alloc", _) => Err("alloc needs a name and a size: alloc A 212K".into()),
            ("free" | "run" | "call", _) => Err(format!("{word} needs one name")),
            ("module", _) => Err("module needs a name and a size: module pass1 70K under root".into()),
            ("access", _) => Err("access needs addresses: access A:430 0x1000w".into()),
            ("ref", _) => Err("ref needs numbers of pages: ref 7 0 1w".into()),
            ("pattern", _) => Err("pattern needs one name: pattern sweep".into()),
            _ => Err(format!("unknown statement '{word}'")),
        }
    }

    fn request(&mut self, name: &str, size: &str, more: &[&str]) -> Result<Request, String> {
        let name = new_name(name)?;
        let size = at_least_1(units::size(size)?, size)?;
        let (at, frames) = match more {
            [] => (None, Vec::new()),
            ["at", address] => (Some(units::size(address)?), Vec::new()),
            ["in", frames @ ..] if !frames.is_empty() => {
                (None, frames.iter().map(|frame| units::number(frame)).collect::<Result<_, _>>()?)
            }
            [other, ..] => return Err(format!("unexpected '{other}'; use at ADDRESS or in FRAME...")),
        };
        match self.allocated.insert(name.clone()) {
            true => Ok(Request { name, size, at, frames }),
            false => Err(format!("{name} is allocated already")),
        }
    }

    fn module(&mut self, name: &str, size: &str, parent: Option<&str>) -> Result<Module, String> {
        let name = new_name(name)?;
        let size = at_least_1(units::size(size)?, size)?;
        if let Some(parent) = parent.filter(|parent| !self.modules.contains(*parent)) {
            return Err(format!("unknown module {parent}"));
        }
        if self.modules.len() == MOST_MODULES {
            return Err(format!("a program has at most {MOST_MODULES} modules"));
        }
        match self.modules.insert(name.clone()) {
            true => Ok(Module { name, size, parent: parent.map(str::to_owned) }),
            false => Err(format!("module {name} is defined already")),
        }
    }

    fn known(&self, name: &str) -> Result<String, String> {
        self.allocated.get(name).cloned().ok_or_else(|| format!("{name} is not allocated"))
    }

    /// `A:430`, `0x1000w`, `0-64K/64`.
    fn accesses(&self, words: &[&str]) -> Result<Vec<Event>, String> {
        let mut events = Vec::new();
        for word in words {
            let (space, rest) = match word.split_once(':') {
                Some((space, rest)) => (Some(self.known(space)?), rest),
                None => (None, *word),
            };
            let (rest, write) = store(rest);
            let mut add = |address| events.push(Event::Access(Access { space: space.clone(), address, write }));
            match rest.split_once('/') {
                None => add(units::size(rest)?),
                Some((range, step)) => {
                    let wrong = || format!("'{word}' is not a range of addresses such as 0-64K/64");
                    let (from, to) = range.split_once('-').ok_or_else(wrong)?;
                    let (from, to, step) = (units::size(from)?, units::size(to)?, units::size(step)?);
                    let step = at_least_1(step, word)?;
                    if from >= to || (to - from) / step > MOST_EVENTS as u64 {
                        return Err(format!("'{word}' is an empty range or has more than {MOST_EVENTS} addresses"));
                    }
                    (0..(to - from).div_ceil(step)).for_each(|number| add(from + number * step));
                }
            }
            few(&events)?;
        }
        Ok(events)
    }
}

fn pattern(name: &str) -> Result<Pattern, String> {
    Pattern::named(name).ok_or_else(|| {
        let names = Pattern::ALL.map(Pattern::name).join(", ");
        format!("unknown pattern '{name}'; there are {names}")
    })
}

/// `7`, `0w`, `2-5`.
fn references(words: &[&str]) -> Result<Vec<Event>, String> {
    let mut events = Vec::new();
    for word in words {
        let (rest, write) = store(word);
        let (from, to) = rest.split_once('-').unwrap_or((rest, rest));
        let (from, to) = (units::number(from)?, units::number(to)?);
        if from > to || to - from >= MOST_EVENTS as u64 {
            return Err(format!("'{word}' is an empty range or has more than {MOST_EVENTS} pages"));
        }
        events.extend((from..=to).map(|page| Event::Refer(Reference { page, write })));
        few(&events)?;
    }
    Ok(events)
}

/// Rejects a line that alone exceeds the maximum number of events.
fn few(events: &[Event]) -> Result<(), String> {
    match events.len() <= MOST_EVENTS {
        true => Ok(()),
        false => Err(format!("a trace has at most {MOST_EVENTS} events")),
    }
}

/// Splits off the suffix of a store.
fn store(word: &str) -> (&str, bool) {
    word.strip_suffix('w').map_or((word, false), |rest| (rest, true))
}

fn new_name(name: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    match name.len() <= LONGEST_NAME && name.bytes().all(plain) {
        true => Ok(name.to_string()),
        false => Err(format!("'{name}' is not a name: up to {LONGEST_NAME} letters, digits, and . _ - +")),
    }
}

fn at_least_1(number: u64, word: &str) -> Result<u64, String> {
    if number > 0 { Ok(number) } else { Err(format!("'{word}' must be at least 1")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_become_events() {
        let text = "# a title\n# not this\nmemory 1M\nalloc A 4K at 8K # why\nalloc B 16 in 5 6\nfree A\nrepeat 2 ref 1w 3-4\naccess B:0x10w 0-128/64\n";
        let trace = Trace::parse(text).unwrap();
        assert_eq!(trace.title, "a title");
        assert_eq!(trace.settings.memory(), Some(1 << 20));
        let shown: Vec<String> = trace.steps.iter().map(|step| step.event.to_string()).collect();
        assert_eq!(shown.join(" "), "+A 4K +B 16 -A 1 3 4 1 3 4 B:16 0 64");
        assert_eq!(trace.steps[3].line, 7);
        assert_eq!(trace.references().unwrap().iter().filter(|r| r.write).count(), 3);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line, what) in [
            ("memory 1M\n\nfrob 3", 3, "unknown statement 'frob'"),
            ("alloc A", 1, "alloc needs"),
            ("alloc A 1K\nalloc A 2K", 2, "allocated already"),
            ("free A", 1, "A is not allocated"),
            ("alloc A 0", 1, "at least 1"),
            ("alloc A/B 3", 1, "not a name"),
            ("alloc A 3 under 7", 1, "'under'"),
            ("ref 1 x", 1, "'x' is not a number"),
            ("ref 5-1", 1, "empty"),
            ("ref 0-99999999", 1, "more than"),
            ("access 0-1T/1", 1, "more than"),
            ("access Q:3", 1, "Q is not allocated"),
            ("repeat 3", 1, "needs a statement"),
            ("repeat 3 memory 1M", 1, "a setting"),
            ("repeat 99999999 ref 1", 1, "at most 10000 events"),
            ("module a 3 under b", 1, "unknown module b"),
            ("call a", 1, "unknown module a"),
            ("pattern", 1, "needs one name"),
            ("pattern zigzag", 1, "unknown pattern 'zigzag'"),
            ("frames 0", 1, "frames must be between 1"),
        ] {
            let error = Trace::parse(text).unwrap_err();
            assert_eq!(error.line, Some(line), "{text}: {error}");
            assert!(error.what.contains(what), "{text}: {error}");
        }
        assert!(Trace::parse("# nothing\n").is_err());
    }
}
