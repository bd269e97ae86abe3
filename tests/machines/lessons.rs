//! The lessons: what docs/lessons shows is printed by machines; the exercises are not solved by the kernel as it is, and are by the
//! solutions beside the pages.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Machine, busybox};

/// How many there are.
const LESSONS: usize = 12;

/// The exercises whose checks need options of the machine, and all of these.
const WITH_OPTIONS: [usize; 2] = [4, 9];
const OPTIONS: [&str; 4] = ["--smp", "1", "--append", "slab=slab cma=64M"];

/// The most lines that a solution changes.
const MOST_LINES: usize = 30;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the tests lie in the repository")
}

/// The pages by name, with their texts.
fn pages() -> Vec<(String, String)> {
    let entries = fs::read_dir(root().join("docs/lessons")).expect("there are lessons");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"));
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".md")).collect();
    names.sort();
    let text = |name: &str| fs::read_to_string(root().join("docs/lessons").join(name)).expect("a page");
    names.into_iter().map(|name| (name.clone(), text(&name))).collect()
}

fn solution(number: usize) -> PathBuf {
    root().join(format!("docs/lessons/solutions/{number}.patch"))
}

/// A command on a page, and the lines that it is shown to print.
struct Shown {
    page: String,
    command: String,
    lines: Vec<String>,
}

/// All commands on the pages, by the options of their machines.
fn shown() -> BTreeMap<String, Vec<Shown>> {
    let mut machines: BTreeMap<String, Vec<Shown>> = BTreeMap::new();
    for (page, text) in pages() {
        let blocks = text.split("```\n$ cargo xtask run").skip(1).filter_map(|rest| rest.split_once("\n```"));
        for (block, _) in blocks {
            let (options, block) = block.split_once('\n').expect("a block has commands");
            let shown = machines.entry(options.trim().to_owned()).or_default();
            for line in block.lines() {
                match (line.strip_prefix("quire:/# "), shown.last_mut()) {
                    (Some(command), _) => {
                        let (page, command) = (page.clone(), command.to_owned());
                        shown.push(Shown { page, command, lines: Vec::new() });
                    }
                    (None, Some(last)) => last.lines.push(line.to_owned()),
                    (None, None) => panic!("{page}: '{line}' is before the first command"),
                }
            }
        }
    }
    machines
}

/// A line with all numbers replaced, whatever their width and base, and with or without a unit.
fn shape(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let mut words = Vec::new();
    for word in line.split_whitespace() {
        let mut shape = String::new();
        for token in word.split_inclusive(|c| !is_part(c)) {
            let name = token.trim_end_matches(|c| !is_part(c));
            let digits = name.strip_prefix("0x").unwrap_or(name);
            let is_hexadecimal = name.len() >= 8 || name.starts_with("0x");
            let number = name.trim_end_matches(['i', 'B']).trim_end_matches(['K', 'M', 'G']);
            let is_decimal = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            if is_decimal || is_hexadecimal && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                shape.push('N');
            } else {
                for c in name.chars() {
                    match c {
                        '0'..='9' if shape.ends_with('N') => {}
                        '0'..='9' => shape.push('N'),
                        other => shape.push(other),
                    }
                }
            }
            shape.push_str(&token[name.len()..]);
        }
        words.push(shape);
    }
    words.join(" ")
}

/// A word of the options as this test gives it: files to be added are in the repository, and busybox is where it is.
fn option(word: &str) -> String {
    match word.split_once(':') {
        Some(("busybox", guest)) => format!("{}:{guest}", busybox().display()),
        Some((file, guest)) if file.starts_with("docs/") => format!("{}:{guest}", root().join(file).display()),
        _ => word.to_owned(),
    }
}

/// A machine boots for each set of options that the pages name. Each line that they show behind a command, is what that command
/// printed, numbers aside.
#[test]
fn what_the_pages_show_is_true() {
    const END: &str = "--- end of a command";
    let machines = shown();
    assert!(machines.values().flatten().count() > 25, "the pages show commands");
    for (options, shown) in machines {
        let options: Vec<String> = options.split_whitespace().map(option).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let commands = shown.iter().map(|shown| format!("{}; echo {END}", shown.command)).collect::<Vec<_>>();
        let outcome = Machine::new(&options).exec(&commands.join("; "));
        outcome.succeeded();
        let printed: Vec<&str> = outcome.output.split(&format!("{END}\n")).collect();
        assert_eq!(printed.len(), shown.len() + 1, "{outcome}");
        for (Shown { page, command, lines }, printed) in shown.iter().zip(printed) {
            let printed: Vec<String> = printed.lines().map(shape).collect();
            for line in lines.iter().filter(|line| !line.is_empty() && *line != "…") {
                assert!(printed.contains(&shape(line)), "{page}: {command} does not print '{line}'\n{outcome}");
            }
            assert!(!lines.is_empty() || printed.is_empty(), "{page}: {command} prints something\n{outcome}");
        }
    }
}

/// The words of an exercise are those of its page, and the kernel as it is solves none.
#[test]
fn no_exercise_is_solved_by_itself() {
    let all = (1..=LESSONS).map(|number| format!("lesson {number}; echo ---")).collect::<Vec<_>>().join("; ");
    let outcome = Machine::virt().exec(&format!("lesson; echo ---; {all}; lesson 0; echo $?; lesson 3 solve; echo $?"));
    let parts: Vec<&str> = outcome.succeeded().split("---\n").collect();
    let pages = pages();
    let lessons: Vec<&(String, String)> =
        pages.iter().filter(|(name, _)| name.as_bytes()[0].is_ascii_digit()).collect();
    assert_eq!((parts.len(), lessons.len()), (LESSONS + 2, LESSONS), "{outcome}");
    for (number, (name, page)) in (1..).zip(lessons) {
        let title = page.lines().next().and_then(|line| line.strip_prefix("# ")).expect("a page has a title");
        assert!(parts[0].contains(&format!("{number:>2}  {title}\n")), "{name}: {title}\n{outcome}");
        let (_, exercise) = page.split_once("\n## Exercise\n\n").expect("a lesson has an exercise");
        assert_eq!(parts[number], exercise, "{name}");
        assert!(exercise.lines().all(|line| line.len() <= 96), "{name}: an exercise fits a terminal");
    }
    assert_eq!(parts[LESSONS + 1].lines().filter(|line| *line == "2").count(), 2, "{outcome}");
    for (options, with_options) in [(&["--smp", "1"][..], false), (&OPTIONS, true)] {
        check(&Machine::new(options), with_options, false);
    }
}

/// Runs the checks of the exercises that need options, or of all others.
fn check(machine: &Machine, with_options: bool, is_solved: bool) {
    let numbers: Vec<usize> = (1..=LESSONS).filter(|n| WITH_OPTIONS.contains(n) == with_options).collect();
    let commands = numbers.iter().map(|n| format!("lesson {n} check; echo $?")).collect::<Vec<_>>();
    let outcome = machine.exec(&commands.join("; "));
    let lines: Vec<&str> = outcome.succeeded().lines().collect();
    let (word, status) = if is_solved { ("is solved: ", "0") } else { ("is not solved: ", "1") };
    for number in numbers {
        let start = format!("lesson {number} {word}");
        let at = lines.iter().position(|line| line.starts_with(&start));
        let at = at.unwrap_or_else(|| panic!("no line '{start}'\n{outcome}"));
        assert_eq!(lines.get(at + 1), Some(&status), "{outcome}");
    }
}

fn git_apply(folder: &Path, arguments: &[&str], patch: &Path) {
    // Whatever repository the folder lies in, paths are those of the folder.
    let mut git = Command::new("git");
    git.env("GIT_CEILING_DIRECTORIES", folder.parent().expect("a folder above"));
    git.env("GIT_DIR", folder.join("no-repository"));
    git.current_dir(folder).arg("apply").args(arguments).arg(patch);
    let done = git.output().expect("git starts");
    assert!(done.status.success(), "{}: {}", patch.display(), String::from_utf8_lossy(&done.stderr));
}

/// Each solution is short, and can be tried without the others.
#[test]
fn solutions_are_short_and_fit() {
    for number in 1..=LESSONS {
        let patch = fs::read_to_string(solution(number)).expect("each lesson has a solution");
        let is_change =
            |line: &&str| line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---");
        let lines = patch.lines().filter(is_change).count();
        assert!((1..=MOST_LINES).contains(&lines), "solution {number} changes {lines} lines");
        git_apply(&root(), &["--check"], &solution(number));
    }
}

mod long {
    use super::*;

    /// What is not copied: outputs, and what is none of the sources.
    const NOT_COPIED: [&str; 2] = ["target", ".git"];

    /// Makes a folder's files those of another one. Files that are the same keep their times, so that little is compiled again.
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder") {
            let entry = entry.expect("an entry");
            let (path, target) = (entry.path(), to.join(entry.file_name()));
            if NOT_COPIED.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if entry.file_type().expect("a type").is_dir() {
                copy(&path, &target);
                continue;
            }
            let text = fs::read(&path).expect("a file");
            if fs::read(&target).ok().as_ref() != Some(&text) {
                fs::write(&target, text).expect("there is room");
            }
        }
    }

    /// All solutions together, in a copy of the sources under target/, are built and checked.
    #[test]
    #[ignore = "long"]
    fn solutions_solve_the_exercises() {
        let tree = root().join("target/lessons");
        copy(&root(), &tree);
        (1..=LESSONS).for_each(|number| git_apply(&tree, &[], &solution(number)));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        let done = build.current_dir(&tree).args(["xtask", "build"]).output().expect("cargo starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let xtask = tree.join("target/xtask/xtask");
        for (options, with_options) in [(&["--smp", "1"][..], false), (&OPTIONS, true)] {
            check(&Machine::new(options).by(&xtask), with_options, true);
        }
    }
}

#[test]
fn numbers_of_any_base_look_alike() {
    assert_eq!(shape("level 3   0x7b01e000 + 8 * 0 = 0x7b01e000: 0x1f"), shape("level 0 0x1 + 8 * 511 = 0x2: 0xabc"));
    assert_eq!(shape("000000000088c000   136 rw--- [heap]"), shape("0000fffffecb0000 8 rw--- [heap]"));
    assert_eq!(shape("  a   1    15.9M    0K   0.00"), shape("a 1 8388K 16.0M 22.16"));
    assert_ne!(shape("kmalloc-96 13"), shape("kmalloc 13"));
}
