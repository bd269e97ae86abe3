//! Compares docs/lab.md and docs/pressure.md with the output of `lab`. With QUIRE_WRITE_DOCS=1 the tests update the
//! pages instead.

use std::fs;
use std::path::Path;

use quire_lab::{SCHEMES, command};

/// The page with the current output of each command. The first line of a block is the command.
fn filled(page: &str) -> String {
    let mut text = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        text += line;
        text.push('\n');
        if line != "```" {
            continue;
        }
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match block.first().and_then(|first| first.strip_prefix("$ lab ")) {
            Some(command) => {
                let words: Vec<&str> = command.split_whitespace().collect();
                let printed = command::run(&words, |_| Err("the page uses built-in traces".into()));
                let printed = printed.unwrap_or_else(|error| panic!("{command}: {error}"));
                text += &format!("$ lab {command}\n{printed}");
            }
            None => block.iter().for_each(|line| text += &format!("{line}\n")),
        }
        text += "```\n";
    }
    text
}

/// Compares a page, or updates it; returns its text.
fn check(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    let page = fs::read_to_string(&path).expect("the page is there");
    let filled = filled(&page);
    if std::env::var_os("QUIRE_WRITE_DOCS").is_some() {
        fs::write(&path, &filled).expect("the page is written");
        return filled;
    }
    for (number, (is, should)) in page.lines().zip(filled.lines()).enumerate() {
        assert_eq!(is, should, "docs/{name}, line {}; QUIRE_WRITE_DOCS=1 writes what is printed", number + 1);
    }
    assert_eq!(page.lines().count(), filled.lines().count());
    page
}

#[test]
fn the_page_shows_what_lab_prints() {
    let page = check("lab.md");
    assert!(SCHEMES.iter().all(|scheme| page.contains(&format!("\n$ lab {}", scheme.name))), "every scheme is shown");
}

#[test]
fn the_page_on_pressure_shows_what_lab_prints() {
    assert!(check("pressure.md").contains("\n$ lab pressure"));
}
