//! `cargo xtask bench`: the cost of the memory calls in instructions, compared with Linux.
//!
//! The program user/bench runs on Quire with one CPU and 1 GiB under `--icount`, the self-test kernel counts its own
//! fast paths, and the figures go into tables ([`report`]), a picture ([`picture`]) and comma-separated values. Linux's are
//! committed (`linux.tsv`); with `--vs-linux` the same binary runs on Debian's kernel too ([`linux`]). A mark that does not
//! hold ([`marks`]) or a row that does not work makes the exit status 1.

mod linux;
mod marks;
mod picture;
mod report;
mod rows;

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::build::{self, Built};
use crate::cargo::Workspace;
use crate::options::{BenchOptions, Board, BuildOptions};
use crate::output;
use crate::progress::Progress;
use crate::setup;
use report::{Report, Section};

/// The figures of a run: for each row, in the order printed, instructions per operation.
#[derive(Default)]
pub struct Figures {
    rows: Vec<(String, f64)>,
    /// Other lines of a name and a number: the kernel's counters, before the rows and after them.
    counters: Vec<(String, u64)>,
    failed: Vec<String>,
    done: bool,
}

impl Figures {
    /// Reads what user/bench, `vmstat` and the self-test kernel print. Other lines are the machine's messages.
    fn parse(text: &str) -> Figures {
        let mut figures = Figures::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["DONE"] => figures.done = true,
                ["FAIL", row, why] => figures.failed.push(format!("{row}: {why}")),
                ["BENCH", row, ops, nanoseconds] => {
                    if let (Ok(ops), Ok(ns)) = (ops.parse::<f64>(), nanoseconds.parse::<f64>()) {
                        figures.rows.push((row.to_owned(), ns / ops));
                    }
                }
                [row, ops, ticks, figure] if ops.parse::<u64>().is_ok() && ticks.parse::<u64>().is_ok() => {
                    figures.rows.extend(figure.parse().ok().map(|figure| (row.to_owned(), figure)));
                }
                [name, value] => figures.counters.extend(value.parse().ok().map(|value| (name.to_owned(), value))),
                _ => {}
            }
        }
        figures
    }

    fn get(&self, row: &str) -> Option<f64> {
        self.rows.iter().find(|(name, _)| name == row).map(|&(_, figure)| figure)
    }

    /// The growth of each counter between its first and its last value, if it grew.
    fn growth(&self) -> BTreeMap<&str, u64> {
        let mut ends = BTreeMap::new();
        for (name, value) in &self.counters {
            ends.entry(name.as_str()).or_insert((*value, *value)).1 = *value;
        }
        ends.into_iter().map(|(name, (first, last))| (name, last.saturating_sub(first))).collect()
    }
}

/// The versions of what was measured, and of what it is compared with.
pub struct Versions {
    pub quire: String,
    pub tiny: String,
    pub debian: String,
    pub machine: String,
}

impl Versions {
    fn find(workspace: &Workspace, (major, minor): (u32, u32)) -> Versions {
        let git = |arguments: &[&str]| {
            let done = Command::new("git").current_dir(&workspace.root).args(arguments).output().ok()?;
            done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
        };
        // Sources need not come from git.
        let commit = git(&["rev-parse", "--short", "HEAD"]).map_or(String::new(), |commit| format!(" at {commit}"));
        let is_changed = git(&["status", "--porcelain", "-uno"]).is_some_and(|changes| !changes.is_empty());
        Versions {
            quire: format!("Quire {}{commit}{}", env!("CARGO_PKG_VERSION"), if is_changed { ", changed" } else { "" }),
            tiny: report::said_of("tiny").to_owned(),
            debian: report::said_of("debian").to_owned(),
            machine: format!("QEMU {major}.{minor}, cortex-a72, 1 CPU, 1 GiB, --icount"),
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Versions { quire, tiny, debian, machine } = self;
        write!(f, "{quire} on {machine}; beside it {tiny} and {debian}")
    }
}

/// Measures and reports.
pub fn bench(options: &BenchOptions) -> Result<u8> {
    let workspace = Workspace::find()?;
    rows::check(&workspace.root, &options.rows)?;
    let qemu = setup::qemu()?;
    let normal = BuildOptions { board: Board::Virt, debug: false, selftest: false };
    let complete = options.rows.is_empty();
    if !options.no_build {
        build::build(&normal)?;
        if complete {
            build::build(&BuildOptions { selftest: true, ..normal.clone() })?;
        }
    }
    let rows = options.rows.join(" ");

    let commands = format!("vmstat tlb; bench {rows}; vmstat tlb");
    let expected = if complete { report::committed()?.len() } else { 0 };
    // As Linux was measured: where areas lie decides what their tree has to do.
    // (Rows that are not about huge pages refuse them.)
    let append = "norandmaps transparent_hugepage=always";
    let quire_options = ["--append", append, "--exec", &commands];
    let quire = Figures::parse(&run("measuring Quire", expected, &quire_options)?);
    ensure!(quire.done, "user/bench did not finish on Quire");
    let linux = match options.vs_linux {
        true => {
            let program = Built::at(&workspace, &normal).program("bin/bench");
            Some(Figures::parse(&linux::run(&program, &rows, expected)?))
        }
        false => None,
    };
    let mut fast_paths = Vec::new();
    if complete {
        for back_end in ["slub", "slab", "slob"] {
            let append = format!("selftest=bench slab={back_end} {}", marks::TWO_ZONES);
            let what = format!("measuring the kernel's fast paths with {back_end}");
            let output = run(&what, 0, &["--selftest", "--append", &append])?;
            fast_paths.push(Section { name: back_end, figures: Figures::parse(&output) });
        }
    }

    let versions = Versions::find(&workspace, qemu);
    let report = Report::new(&versions, &quire, linux.as_ref(), &fast_paths, complete)?;
    print!("{report}");
    let [picture, values] = ["bench.svg", "bench.csv"].map(|name| workspace.out.join(name));
    output::write(&picture, picture::draw(&report)?)?;
    output::write(&values, report.csv())?;
    eprintln!("xtask: the picture is {}, the figures are {}", picture.display(), values.display());
    let complaints = report.complaints();
    complaints.iter().for_each(|complaint| eprintln!("xtask: {complaint}"));
    Ok(u8::from(!complaints.is_empty()))
}

/// Boots Quire through this program, and returns its output. `expected` is the number of rows, if it is known.
fn run(what: &str, expected: usize, options: &[&str]) -> Result<String> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["run", "--no-build", "--icount", "--smp", "1", "--mem", "1G", "--timeout", "1800"]).args(options);
    command.stderr(Stdio::null());
    let (status, output) = measure(what, expected, &mut command)?;
    ensure!(status.success(), "the machine ended with {status}: cargo xtask run {}", options.join(" "));
    Ok(output)
}

/// Runs a machine that prints one row per line, and returns its whole output.
fn measure(what: &str, expected: usize, command: &mut Command) -> Result<(std::process::ExitStatus, String)> {
    let progress = Progress::new(what);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting a machine")?;
    let (mut output, mut done) = (String::new(), 0);
    let mut lines = BufReader::new(child.stdout.take().context("the machine's output")?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        if let Some((row, _)) = Figures::parse(&text).rows.first() {
            done += 1;
            let total = if expected > 0 { done.max(expected as u64) } else { 0 };
            progress.at(done, total, row);
        }
        output += &text;
        line.clear();
    }
    Ok((child.wait()?, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_among_other_words() {
        let text = "tlb_flush_page 3\r\n[    0.1] Linux version 6 x\nbrk.query 20000 195018 156.0\nFAIL mremap.x EINVAL\n\
                    BENCH kernel.loop 100 250\ntlb_flush_page 10\nDONE\n";
        let figures = Figures::parse(text);
        assert_eq!((figures.get("brk.query"), figures.get("kernel.loop")), (Some(156.0), Some(2.5)));
        assert_eq!(figures.get("mremap.x"), None);
        assert_eq!(figures.failed, ["mremap.x: EINVAL"]);
        assert_eq!(figures.growth().get("tlb_flush_page"), Some(&7));
        assert!(figures.done);
        assert!(!Figures::parse("brk.query 1 2 3.0").done);
    }
}
