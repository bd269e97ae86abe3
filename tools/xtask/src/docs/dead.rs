//! Links in the built book that lead nowhere.
//!
//! Every link of the book's own pages is followed. Of rustdoc's pages those that leave their part of the reference are:
//! rustdoc has checked the others, and what it takes over from the standard library's text is not ours. Those to sources
//! are mended first: rustdoc makes them as if each page lay in the folder of its crate.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::output;

/// The folder of rustdoc's pages in the book.
const REFERENCE: &str = "reference";

/// The folder of the lessons' pages.
const LESSONS: &str = "lessons";

/// The parts whose pages lead to those of the host's libraries.
const PARTS: [&str; 2] = ["kernel", "programs"];

/// Every dead link of a book, as "page: target".
pub fn links(book: &Path) -> Result<Vec<String>> {
    let mut dead = Vec::new();
    let mut known = HashMap::new();
    // mdBook's page for addresses that do not exist refers to the server's root.
    let own = |page: &Path| page.file_name().is_none_or(|name| name != "404.html");
    let lessons = pages_if_any(&book.join(LESSONS))?;
    for page in pages(book, false)?.into_iter().chain(lessons).filter(|page| own(page)) {
        check(book, &page, |_| true, &mut known, &mut dead)?;
    }
    for part in PARTS {
        for page in rustdoc_pages(&book.join(REFERENCE).join(part))? {
            check(book, &page, leaves_its_part, &mut known, &mut dead)?;
        }
    }
    Ok(dead)
}

/// Mends rustdoc's links to sources that lie in another part than this one.
pub fn mend_sources(part: &Path) -> Result<()> {
    const MADE: &str = "href=\"../../host/src/";
    for page in rustdoc_pages(part)? {
        let text = fs::read_to_string(&page)?;
        let depth = page.strip_prefix(part)?.components().count();
        if text.contains(MADE) {
            output::write(&page, text.replace(MADE, &format!("href=\"{}host/src/", "../".repeat(depth))))?;
        }
    }
    Ok(())
}

/// Rustdoc's pages in a part of the reference, except those that show sources.
fn rustdoc_pages(part: &Path) -> Result<Vec<PathBuf>> {
    let sources = part.join("src");
    Ok(pages(part, true)?.into_iter().filter(|page| !page.starts_with(&sources)).collect())
}

/// Whether rustdoc made a link with a place that it was told.
fn leaves_its_part(target: &str) -> bool {
    target.trim_start_matches("../").starts_with("host/")
}

/// The pages in a folder, if there is one.
fn pages_if_any(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.is_dir() { pages(folder, false) } else { Ok(Vec::new()) }
}

/// The pages in a folder, or also those below it.
fn pages(folder: &Path, deep: bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if deep {
                found.extend(pages(&path, deep)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "html") {
            found.push(path);
        }
    }
    Ok(found)
}

fn check(
    book: &Path,
    page: &Path,
    wanted: impl Fn(&str) -> bool,
    known: &mut HashMap<PathBuf, bool>,
    dead: &mut Vec<String>,
) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let folder = page.parent().context("a page lies in a folder")?;
    for target in targets(&text).filter(|target| is_relative(target) && wanted(target)) {
        let file = target.split(['#', '?']).next().unwrap_or_default();
        let path = folder.join(file);
        if !*known.entry(path).or_insert_with_key(|path| path.exists()) {
            dead.push(format!("{}: {target}", page.strip_prefix(book).unwrap_or(page).display()));
        }
    }
    Ok(())
}

/// What a page's links say.
fn targets(page: &str) -> impl Iterator<Item = &str> {
    page.split("href=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(target, _)| target)
}

/// Whether a link leads to another page of the book.
fn is_relative(target: &str) -> bool {
    let scheme = target.split_once(':').is_some_and(|(scheme, _)| scheme.chars().all(|c| c.is_ascii_lowercase()));
    !scheme && !target.starts_with('#') && !target.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_nowhere_is_named_and_sources_are_found() {
        let book = std::env::temp_dir().join(format!("quire-book-{}", std::process::id()));
        let place = |page: &str, text: &str| {
            let page = book.join(page);
            fs::create_dir_all(page.parent().unwrap()).unwrap();
            fs::write(page, text).unwrap();
        };
        place(
            "index.html",
            r##"<a href="https://x.y/z"> <a href="#here"> <a href="a.html#x"> <a href="reference/host/b/b.html?s#x">"##,
        );
        place("reference/host/b/b.html", r#"<a href="gone.html">: rustdoc's to find"#);
        place("reference/host/src/b/b.rs.html", "");
        let links = r#"<a href="../../../host/b/b.html"> <a href="../../../host/b/gone.html"> <a href="../../host/src/b/b.rs.html#1">"#;
        place("reference/kernel/k/m/k.html", links);
        place("reference/kernel/src/k/k.rs.html", r#"let link = "&lt;a href="../../host/gone.html">";"#);
        place("reference/programs/p/p.html", r#"<a href="../../host/src/b/b.rs.html">"#);
        PARTS.iter().for_each(|part| mend_sources(&book.join(REFERENCE).join(part)).unwrap());
        let dead = super::links(&book);
        fs::remove_dir_all(&book).unwrap();
        let expected = ["index.html: a.html#x", "reference/kernel/k/m/k.html: ../../../host/b/gone.html"];
        assert_eq!(dead.unwrap(), expected);
    }
}
