//! Tests that boot machines, one module a subject. `cargo xtask test` runs them: it builds what they boot.
//!
//! All of them are one program so that they share its threads. A test that is `#[ignore]`d widens the matrix
//! and is left out by `--quick`. Those in modules named `long` run for many minutes, and are left out without `--long`.

mod archive;
mod areas;
mod arguments;
mod boot;
mod builds;
mod closeup;
mod console;
mod debugger;
mod disks;
mod errata;
mod fat;
mod faults;
mod harness;
mod lab;
mod latency;
mod lessons;
mod limits;
mod linux;
mod misuse;
mod names;
mod oom;
mod options;
mod pressure;
mod programs;
mod readme;
mod root;
mod selftest;
mod shell;
mod status;
mod terminal;
mod trees;
mod view;
