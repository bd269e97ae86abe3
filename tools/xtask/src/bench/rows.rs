//! The names of user/bench's rows, known before anything is built: its sources name each in a call `row("NAME", ...)`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use proc_macro2::{TokenStream, TokenTree};

const SOURCES: &str = "user/bench/src";

/// Refuses beginnings of names that no row's name has.
pub fn check(root: &Path, beginnings: &[String]) -> Result<()> {
    if beginnings.is_empty() {
        return Ok(());
    }
    let names = names(root)?;
    for beginning in beginnings {
        ensure!(
            names.iter().any(|name| name.starts_with(beginning)),
            "no row's name begins with {beginning}; `cargo xtask bench` without names measures all rows, which begin with {}",
            groups(&names).join(" ")
        );
    }
    Ok(())
}

/// What the names begin with, up to the first dot, in the order in which they are measured first.
fn groups(names: &[String]) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    for group in names.iter().filter_map(|name| Some(format!("{}.", name.split_once('.')?.0))) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

/// All names, by source file.
fn names(root: &Path) -> Result<Vec<String>> {
    let directory = root.join(SOURCES);
    let reading = || format!("reading {}", directory.display());
    let entries = fs::read_dir(&directory).with_context(reading)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<Result<Vec<_>>>().with_context(reading)?;
    files.sort();
    let mut names = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let tokens = text.parse().map_err(|error| anyhow!("{}: {error}", file.display()))?;
        collect(tokens, &mut names);
    }
    ensure!(!names.is_empty(), "{SOURCES} names no rows");
    Ok(names)
}

fn collect(tokens: TokenStream, names: &mut Vec<String>) {
    let mut is_call = false;
    for token in tokens {
        if let TokenTree::Group(group) = &token {
            let first = group.stream().into_iter().next().map(|first| first.to_string());
            let name = first.as_deref().and_then(|text| text.strip_prefix('"')?.strip_suffix('"'));
            match name {
                Some(name) if is_call => names.push(name.to_owned()),
                _ => collect(group.stream(), names),
            }
        }
        is_call = matches!(&token, TokenTree::Ident(word) if word == "row");
    }
}

#[cfg(test)]
mod tests {
    use super::super::report;
    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    fn ask(beginnings: &[&str]) -> Result<(), String> {
        let beginnings: Vec<String> = beginnings.iter().map(|&beginning| beginning.to_owned()).collect();
        check(root(), &beginnings).map_err(|error| error.to_string())
    }

    #[test]
    fn a_row_that_does_not_exist_is_refused() {
        assert_eq!(ask(&[]), Ok(()));
        assert_eq!(ask(&["fault.", "brk.query", "m"]), Ok(()));
        for wrong in ["nosuchrow", "brk.query2", "noop", "settle"] {
            let said = ask(&["fault.", wrong]).unwrap_err();
            assert!(said.contains(&format!("begins with {wrong};")) && said.contains(" brk. "), "{said}");
        }
    }

    /// Every group of rows that Linux was measured with is known, and so are rows that only Quire has.
    #[test]
    fn all_groups_of_rows_are_known() {
        let names = names(root()).unwrap();
        let groups = groups(&names);
        for (row, _) in report::committed().unwrap() {
            assert!(groups.iter().any(|group| row.starts_with(group.as_str())), "{row}");
        }
        assert!(names.iter().any(|name| name == "ipc.call"), "{names:?}");
    }
}
