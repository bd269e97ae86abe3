//! The sample output in README is what a machine prints.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::harness::Machine;

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    fs::read_to_string(path).expect("README.md is there")
}

/// The block of README that starts so, and the machine's options that its first line has.
fn sample() -> (Vec<String>, Vec<String>) {
    let text = readme();
    let (_, rest) = text.split_once("```\n$ cargo xtask run").expect("README shows a run");
    let (block, _) = rest.split_once("```").expect("the block ends");
    let mut lines = block.lines().map(str::to_owned);
    let options = lines.next().expect("its first line").split_whitespace().map(str::to_owned).collect();
    (options, lines.collect())
}

/// A line with all numbers replaced, whatever their width.
fn shape(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let number = word.trim_end_matches([',', ')']);
        let digits = number.strip_prefix("0x").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if digits.is_some() { format!("N{}", &word[number.len()..]) } else { collapse(word) }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Each run of digits as one `N`; a time's opening bracket does not stick to a short number.
fn collapse(word: &str) -> String {
    let mut shape = String::new();
    for char in word.chars() {
        match char {
            '0'..='9' if shape.ends_with('N') => {}
            '0'..='9' => shape.push('N'),
            other => shape.push(other),
        }
    }
    shape
}

/// Each line of the sample except its commands is in a machine's output, numbers aside.
#[test]
fn the_sample_is_true() {
    let (options, sample) = sample();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let prompt = "quire:/# ";
    let commands: Vec<&str> = sample.iter().filter_map(|line| line.strip_prefix(prompt)).collect();
    assert!(!commands.is_empty(), "the sample types something");
    let outcome = Machine::new(&options).exec(&commands.join("; "));
    outcome.succeeded();
    let printed: BTreeSet<String> = outcome.output.lines().chain(outcome.log.lines()).map(shape).collect();
    for line in sample.iter().filter(|line| !line.starts_with(prompt) && !line.is_empty() && *line != "…") {
        // Only a shell at a terminal prints these.
        let is_banner = line.starts_with("Try ") || line.starts_with("Quire ") || line.starts_with("linux,");
        assert!(is_banner || printed.contains(&shape(line)), "README shows '{line}'\n{outcome}");
    }
}

/// README names every argument that the kernel does, in the list of kernel arguments.
#[test]
fn kernel_arguments_are_complete() {
    let outcome = Machine::new(&["--append", "nonsense"]).exec("true");
    outcome.succeeded();
    let there = outcome.log.lines().filter_map(|line| line.split_once(" known kernel arguments:"));
    let arguments: Vec<&str> = there.flat_map(|(_, names)| names.split_whitespace()).collect();
    assert_eq!(arguments.last(), Some(&"vm.overcommit_ratio"), "the list is cut\n{outcome}");
    let text = readme();
    let (_, list) = text.split_once("\nKernel arguments:").expect("README lists them");
    let (list, _) = list.split_once("An invalid value is named").expect("the list ends");
    for argument in arguments {
        let is_named = [format!("`{argument}`"), format!("`{argument}=")].iter().any(|form| list.contains(form));
        assert!(is_named, "README does not name {argument}");
    }
}

/// The memory that README says Quire needs is enough, with the boot archive as it is, and xtask takes no less.
#[test]
fn the_least_memory_is_what_it_says() {
    let text = readme();
    let (_, rest) = text.split_once("Quire needs ").expect("README says how much memory");
    let least: u32 = rest.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number of MiB");
    let boot = |mebibytes: u32| Machine::new(&["--mem", &format!("{mebibytes}M")]).exec("echo up");
    boot(least).succeeded();
    let refused = boot(least - 1);
    assert!(refused.log.contains(&format!("Quire needs {least}M")), "{refused}");
}

#[test]
fn numbers_look_alike() {
    assert_eq!(shape("[    0.036213] 4 CPUs after 78.804 ms"), shape("[   12.1] 16 CPUs after 1.2 ms"));
    assert_eq!(shape("0x0040000000 - 0x007fffffff  1 GiB  memory"), shape("0x1 - 0x2f      3 GiB memory"));
    assert_eq!(shape("(ESR 0x92000007) at 0x154e000, pc"), shape("(ESR 0x8) at 0xb97000, pc"));
    assert_ne!(shape("4 CPUs"), shape("4 CPU"));
}
