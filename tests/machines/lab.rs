//! The laboratory on the machine: `lab` prints there what docs/lab.md shows, and reads traces from files.

use std::fs;
use std::path::Path;

use crate::harness::Machine;

/// The commands in docs/lab.md and their outputs.
fn shown() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lab.md");
    let page = fs::read_to_string(path).expect("docs/lab.md is there");
    let blocks = page.split("```\n$ ").skip(1).filter_map(|rest| rest.split_once("\n```"));
    blocks
        .map(|(block, _)| block.split_once('\n').expect("a command and what it prints"))
        .map(|(command, printed)| (command.to_owned(), format!("{printed}\n")))
        .collect()
}

#[test]
fn the_page_is_true_on_the_machine() {
    let shown = shown();
    assert!(shown.len() > 15, "{} commands", shown.len());
    let commands: Vec<&str> = shown.iter().map(|(command, _)| command.as_str()).collect();
    let outcome = Machine::virt().exec(&commands.join("; "));
    let expected: String = shown.iter().map(|(_, printed)| printed.as_str()).collect();
    assert_eq!(outcome.succeeded(), expected);
}

#[test]
fn a_trace_comes_from_a_file() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mine.trace");
    fs::write(&path, "# mine\nmemory 64\nalloc A 5\nalloc B 60\n").expect("there is room");
    let outcome = Machine::virt().add(&path, "mine.trace").exec("lab buddy --trace /mine.trace");
    assert!(outcome.succeeded().contains("mine") && outcome.output.contains("refused"), "{outcome}");
    let wrong = path.with_file_name("wrong.trace");
    fs::write(&wrong, "memory 64\n\nalloc A\n").expect("there is room");
    let commands =
        "lab fits --trace /wrong.trace; echo $?; lab fits --trace /nowhere; echo $?; lab fits --trace /bin; echo $?";
    let outcome = Machine::virt().add(&wrong, "wrong.trace").exec(commands);
    let said = outcome.all();
    assert!(said.contains("lab: /wrong.trace: line 3: alloc needs a name and a size"), "{outcome}");
    assert!(said.contains("lab: /nowhere: ") && said.contains("lab: /bin: "), "{outcome}");
    assert_eq!(outcome.output.lines().filter(|line| *line == "2").count(), 3, "{outcome}");
}
