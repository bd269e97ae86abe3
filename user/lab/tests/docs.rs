//! Compares docs/lab.md with the output of `lab`. With QUIRE_WRITE_DOCS=1 the test updates the page instead.

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

#[test]
fn the_page_shows_what_lab_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lab.md");
    let page = fs::read_to_string(&path).expect("the page is there");
    let filled = filled(&page);
    if std::env::var_os("QUIRE_WRITE_DOCS").is_some() {
        return fs::write(&path, &filled).expect("the page is written");
    }
    for (number, (is, should)) in page.lines().zip(filled.lines()).enumerate() {
        assert_eq!(is, should, "docs/lab.md, line {}; QUIRE_WRITE_DOCS=1 writes what is printed", number + 1);
    }
    assert_eq!(page.lines().count(), filled.lines().count());
    assert!(SCHEMES.iter().all(|scheme| page.contains(&format!("\n$ lab {}", scheme.name))), "every scheme is shown");
}
