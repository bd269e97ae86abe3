//! `cargo xtask lab`: the laboratory of memory schemes (user/lab) on the host.
//!
//! With a scheme it prints the same text as the program `lab` on Quire. Without one it writes a page ([`page`]) that compares
//! the schemes on each trace in tables and drawings ([`map`], [`grid`], [`chart`]). The page is a single file without scripts and
//! external resources.

mod chart;
mod grid;
mod map;
mod page;
mod svg;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use quire_lab::trace::builtin;
use quire_lab::{Report, SCHEMES, Scheme, Trace, command};

use crate::cargo::Workspace;
use crate::options::LabOptions;
use crate::output;

/// A trace and the reports of each scheme.
pub struct Played {
    /// The name on the command line.
    name: String,
    title: String,
    text: String,
    schemes: Vec<(&'static Scheme, Vec<Report>)>,
}

/// Prints the reports of a scheme, or writes the page.
pub fn lab(options: &LabOptions) -> Result<u8> {
    if !options.words.is_empty() {
        let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
        let read = |name: &str| fs::read_to_string(name).map_err(|error| error.to_string());
        print!("{}", command::run(&words, read).map_err(|error| anyhow!("{error}"))?);
        return Ok(0);
    }
    let played: Vec<Played> = match options.trace.is_empty() {
        true => builtin::ALL.iter().map(|trace| play(trace.name)).collect::<Result<_>>()?,
        false => options.trace.iter().map(|name| play(name)).collect::<Result<_>>()?,
    };
    let path = match &options.output {
        Some(path) => path.clone(),
        None => Workspace::find()?.out.join("lab.html"),
    };
    if let Some(directory) = path.parent().filter(|directory| *directory != Path::new("")) {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    output::write(&path, page::draw(&played))?;
    println!("{}", path.display());
    Ok(0)
}

/// Plays a built-in trace on its suitable schemes, or a user's trace on all schemes that can play it.
fn play(name: &str) -> Result<Played> {
    let text = match builtin::text(name) {
        Some(text) => text.to_owned(),
        None => fs::read_to_string(name)
            .with_context(|| format!("{name} is neither a built-in trace nor a readable file"))?,
    };
    let trace = Trace::parse(&text).map_err(|error| anyhow!("{name}: {error}"))?;
    let is_suitable = |scheme: &&Scheme| builtin::text(name).is_none() || scheme.traces.contains(&name);
    let run = |scheme: &'static Scheme| Some((scheme, (scheme.run)(&trace).ok()?));
    let schemes: Vec<_> = SCHEMES.iter().filter(is_suitable).filter_map(run).collect();
    ensure!(!schemes.is_empty(), "{name}: no scheme can play this trace; cargo xtask lab fits --trace {name} says why");
    Ok(Played { name: name.to_owned(), title: trace.title, text, schemes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_traces_are_played_on_their_schemes() {
        for trace in builtin::ALL {
            let played = play(trace.name).unwrap();
            let suitable = SCHEMES.iter().filter(|scheme| scheme.traces.contains(&trace.name)).count();
            assert_eq!(played.schemes.len(), suitable, "{}", trace.name);
        }
    }

    #[test]
    fn a_user_s_trace_is_played_on_all_schemes_that_can() {
        let path = std::env::temp_dir().join(format!("quire-lab-{}.trace", std::process::id()));
        let name = path.to_str().unwrap();
        fs::write(&path, "# mine\nmemory 64K\nalloc A 5K\n").unwrap();
        let names: Vec<&str> = play(name).unwrap().schemes.iter().map(|(scheme, _)| scheme.name).collect();
        assert_eq!(names, ["fixed", "fits", "compact", "buddy", "swap", "paging", "segments", "segpaging"]);
        fs::write(&path, "memory 64K\nfree A\n").unwrap();
        assert!(play(name).err().unwrap().to_string().contains("line 2: A is not allocated"));
        fs::remove_file(path).unwrap();
    }
}
