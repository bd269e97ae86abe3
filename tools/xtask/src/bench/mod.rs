//! `cargo xtask bench`: what the memory calls cost in instructions, beside Linux.
//!
//! The program user/bench runs on Quire with one CPU and 1 GiB under `--icount`, the self-test kernel counts its own
//! fast paths, and the figures go into a table ([`report`]) and a picture ([`picture`]). Linux's are committed
//! (`linux.tsv`); with `--vs-linux` the same binary runs on Debian's kernel too ([`linux`]).

mod linux;
mod picture;
mod report;

use std::collections::BTreeMap;
use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::build::{self, Built};
use crate::cargo::Workspace;
use crate::options::{BenchOptions, Board, BuildOptions};
use crate::setup;
use report::{Report, Section};

/// What came of a run: for each row, in the order in which they were printed, instructions an operation.
#[derive(Default)]
pub struct Figures {
    rows: Vec<(String, f64)>,
    /// What else was printed as a name and a number: the kernel's counters, before the rows and after them.
    counters: Vec<(String, u64)>,
    failed: Vec<String>,
    done: bool,
}

impl Figures {
    /// Reads what user/bench, `vmstat` and the self-test kernel print. Other lines are the machine's own words.
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

    /// How much each counter grew between its first and its last showing, if it did.
    fn growth(&self) -> BTreeMap<&str, u64> {
        let mut ends = BTreeMap::new();
        for (name, value) in &self.counters {
            ends.entry(name.as_str()).or_insert((*value, *value)).1 = *value;
        }
        ends.into_iter().map(|(name, (first, last))| (name, last.saturating_sub(first))).collect()
    }
}

/// Measures and reports.
pub fn bench(options: &BenchOptions) -> Result<u8> {
    setup::qemu()?;
    let workspace = Workspace::find()?;
    let normal = BuildOptions { board: Board::Virt, debug: false, selftest: false };
    if !options.no_build {
        build::build(&normal)?;
        build::build(&BuildOptions { selftest: true, ..normal.clone() })?;
    }
    let rows = options.rows.join(" ");

    eprintln!("xtask: measuring Quire");
    let commands = format!("vmstat tlb; bench {rows}; vmstat tlb");
    let quire = Figures::parse(&run(&["--exec", &commands])?);
    ensure!(quire.done, "user/bench did not come to its end on Quire");
    let linux = match options.vs_linux {
        true => {
            let program = Built::at(&workspace, &normal).program("bin/bench");
            Some(Figures::parse(&linux::run(&program, &rows)?))
        }
        false => None,
    };
    let mut fast_paths = Vec::new();
    if options.rows.is_empty() {
        for back_end in ["slub", "slab", "slob"] {
            let append = format!("selftest=bench slab={back_end}");
            let output = run(&["--selftest", "--append", &append])?;
            fast_paths.push(Section { name: back_end, figures: Figures::parse(&output) });
        }
    }

    let report = Report::new(&quire, linux.as_ref(), &fast_paths)?;
    print!("{report}");
    let path = workspace.out.join("bench.svg");
    picture::draw(&path, &report)?;
    eprintln!("xtask: the picture is {}", path.display());
    Ok(u8::from(!quire.failed.is_empty()))
}

/// Boots Quire through this very program, and answers what it printed.
fn run(options: &[&str]) -> Result<String> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["run", "--no-build", "--icount", "--smp", "1", "--mem", "1G", "--timeout", "1800"]).args(options);
    let done = command.stdin(Stdio::null()).stderr(Stdio::null()).output().context("starting xtask")?;
    ensure!(done.status.success(), "the machine ended with {}: cargo xtask run {}", done.status, options.join(" "));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
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
