//! The command line of `lab`, the same on Quire and on the host.
//!
//! ```text
//! lab                              lists schemes and traces
//! lab SCHEME [--trace T] [--only WORD] [--SETTING VALUE,...]
//! lab show T | settings | measures
//! ```
//!
//! `T` is the name of a built-in trace or of a file. `--only` shows the pictures of the variants whose names contain a
//! word; `--only -` shows no pictures. A setting on the command line overrides the trace's.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::report::Measure;
use crate::trace::{Setting, builtin};
use crate::{Error, Report, SCHEMES, Scheme, Trace, draw};

/// The text of `--help`.
pub const USAGE: &str =
    "lab [SCHEME [--trace T] [--only WORD] [--SETTING VALUE[,VALUE...]] | show T | settings | measures]";

/// Executes a command line; returns the text to print. `read` returns the contents of a file.
pub fn run(words: &[&str], read: impl Fn(&str) -> Result<String, String>) -> Result<String, Error> {
    match words {
        [] | ["list"] => Ok(list()),
        ["--help"] => Ok(format!("usage: {USAGE}\n")),
        ["settings"] => Ok(lines(Setting::ALL.iter().map(|setting| (setting.name(), setting.meaning())))),
        ["measures"] => Ok(lines(Measure::ALL.iter().map(|measure| (measure.heading(), measure.meaning())))),
        ["show", trace] => text_of(trace, read),
        [name, options @ ..] => {
            let scheme =
                Scheme::named(name).ok_or_else(|| Error::new(format!("unknown scheme '{name}'; lab lists them")))?;
            let options = Options::parse(scheme, options)?;
            let trace = options.trace(read)?;
            let reports = (scheme.run)(&trace).map_err(|error| within(options.trace, error))?;
            Ok(format!("{}: {}\n\n{}", options.trace, trace.title, shown(&reports, options.only)))
        }
    }
}

/// Reports as text: a table, then the pictures of the variants whose names contain a word.
fn shown(reports: &[Report], only: &str) -> String {
    let mut text = draw::table(reports);
    let chosen = reports.iter().filter(|report| report.scheme.contains(only));
    for pictures in chosen.map(draw::pictures).filter(|pictures| !pictures.is_empty()) {
        text.push('\n');
        text += &pictures;
    }
    text
}

/// The list of schemes and traces.
fn list() -> String {
    let mut text = String::from("Schemes\n");
    text += &lines(SCHEMES.iter().map(|scheme| (scheme.name, scheme.summary)));
    text += "Traces\n";
    text += &lines(builtin::ALL.iter().map(|trace| (trace.name, title(trace.text))));
    text + "usage: " + USAGE + "\n"
}

fn title(text: &str) -> &str {
    text.lines().next().unwrap_or("").trim_start_matches('#').trim()
}

fn lines<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    entries.map(|(name, meaning)| format!("  {name:<12}{meaning}\n")).collect()
}

/// The text of a built-in trace or of a file.
fn text_of(name: &str, read: impl Fn(&str) -> Result<String, String>) -> Result<String, Error> {
    match builtin::text(name) {
        Some(text) => Ok(text.into()),
        None => read(name).map_err(|why| Error::new(format!("{name}: {why}"))),
    }
}

/// The options after the name of a scheme.
struct Options<'a> {
    trace: &'a str,
    only: &'a str,
    settings: Vec<(Setting, &'a str)>,
}

impl<'a> Options<'a> {
    fn parse(scheme: &Scheme, words: &[&'a str]) -> Result<Options<'a>, Error> {
        let trace = scheme.traces.first().copied().unwrap_or_default();
        let mut options = Options { trace, only: "", settings: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let name =
                word.strip_prefix("--").ok_or_else(|| Error::new(format!("unexpected '{word}'; usage: {USAGE}")))?;
            let value = words.next().ok_or_else(|| Error::new(format!("{word} needs a value")))?;
            match (name, Setting::named(name)) {
                ("trace", _) => options.trace = value,
                ("only", _) => options.only = value,
                (_, Some(setting)) => options.settings.push((setting, value)),
                _ => return Err(Error::new(format!("unknown setting '{name}'; lab settings lists them"))),
            }
        }
        Ok(options)
    }

    /// The trace, with the overridden settings.
    fn trace(&self, read: impl Fn(&str) -> Result<String, String>) -> Result<Trace, Error> {
        let mut trace = Trace::parse(&text_of(self.trace, read)?).map_err(|error| within(self.trace, error))?;
        for (setting, value) in &self.settings {
            trace.settings.set(*setting, value.split(',')).map_err(Error::new)?;
        }
        Ok(trace)
    }
}

/// Prefixes an error with the name of the trace.
fn within(trace: &str, error: Error) -> Error {
    Error::new(format!("{trace}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &str) -> Result<String, String> {
        let words: Vec<&str> = words.split_whitespace().collect();
        let read = |name: &str| {
            if name == "file" { Ok("memory 8\nalloc A 9\nfree B\n".into()) } else { Err("not there".into()) }
        };
        run(&words, read).map_err(|error| error.to_string())
    }

    #[test]
    fn every_scheme_plays_its_traces() {
        for scheme in SCHEMES {
            for trace in scheme.traces {
                let text = said(&format!("{} --trace {trace}", scheme.name)).unwrap();
                assert!(text.lines().all(|line| line.len() <= 120), "{} {trace}\n{text}", scheme.name);
                assert!(text.is_ascii());
            }
        }
    }

    #[test]
    fn settings_take_the_place_of_the_trace_s() {
        let faults = |frames: &str| said(&format!("replace --trace t16 --frames {frames}")).unwrap();
        assert!(
            faults("3").contains("FIFO             12       9") && faults("4").contains("FIFO             12      10")
        );
        assert!(said("tlb --ratios 50,60").unwrap().contains("60 % hits"));
    }

    #[test]
    fn complaints_say_what_and_where() {
        for (words, complaint) in [
            ("frob", "unknown scheme 'frob'; lab lists them"),
            ("fits --trace", "--trace needs a value"),
            ("fits t1", "unexpected 't1'"),
            ("fits --colour red", "unknown setting 'colour'"),
            ("fits --trace nothing", "nothing: not there"),
            ("fits --trace file", "file: line 3: B is not allocated"),
            ("fits --trace t16", "t16: the trace does not specify the size of memory"),
            ("replace --trace t1", "t1: the trace has no 'ref'"),
            ("buddy --trace t11", "t11: line 3: the buddy system does not support 'at'"),
            ("replace --frames 0", "frames must be between 1 and 256"),
        ] {
            let error = said(words).unwrap_err();
            assert!(error.contains(complaint), "{words}: {error}");
        }
    }
}
