//! `cargo xtask`: set-up, build, run, test and documentation, so that a contributor does nothing by hand.
//!
//! [`options`] is the command line, and [`setup`] installs what the commands need; each command has a module of its
//! own. The path from sources to a booted machine is [`build`] (which uses [`cargo`], [`kernel`] and [`archive`]), then
//! [`qemu`], then [`run`]; [`mod@test`] takes it many times. [`view`] runs one beside a page that shows its memory. [`lab`] needs no machine. [`progress`] shows long-running
//! steps, [`output`] writes files, and [`mod@lock`] keeps others from doing so at the same time. xtask's own messages always go to standard error: standard output belongs to the guest.

mod added;
mod archive;
mod bench;
mod build;
mod cargo;
mod deb;
mod docs;
mod flash;
mod floors;
mod image;
mod kernel;
mod lab;
mod lint;
mod lock;
mod malloc;
mod options;
mod output;
mod progress;
mod qemu;
mod run;
mod samples;
mod setup;
mod test;
mod view;

use std::process::ExitCode;

use clap::Parser;

use options::{Cli, Command};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup => setup::setup(),
        Command::Build(options) => build::build(&options).map(|_| 0),
        Command::Run(options) => run::run(&options),
        Command::Bench(options) => bench::bench(&options),
        Command::Image(options) => image::image(&options),
        Command::Flash(options) => flash::flash(&options),
        Command::Docs => docs::docs(),
        Command::Lab(options) => lab::lab(&options),
        Command::Lint => lint::lint(),
        Command::Malloc => malloc::malloc(),
        Command::Test(options) => test::test(&options),
        Command::View(options) => view::view(&options),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
