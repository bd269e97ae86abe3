//! The programs and files that the commands need, and their installation.
//!
//! Each part is a function that returns at once if its item is present, and otherwise installs it and says what and
//! why. `cargo xtask setup` calls all of them; every other command calls those that it needs. Nothing here asks a
//! question: with permission it installs, and without it prints the command to run.

pub mod apt;
mod files;
mod rust;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::progress;
use crate::qemu::QEMU;

pub use files::{busybox, device_tree, firmware, linux_kernel, speedtest1};
pub use rust::{Toolchain, toolchain};

/// QEMU has the board raspi4b from 9.0 and a second serial port on virt from 9.1.
const QEMU_MINIMUM: (u32, u32) = (9, 1);

/// The C compiler of the test that runs a static Linux program.
pub const CROSS_COMPILER: &str = "aarch64-linux-gnu-gcc";

/// The debugger that can attach to the machine.
pub const DEBUGGER: &str = "gdb-multiarch";

/// `cargo xtask setup`.
pub fn setup() -> Result<u8> {
    let toolchain = toolchain()?;
    eprintln!("setup: Rust:        {}", toolchain.describe()?);
    let (major, minor) = qemu()?;
    eprintln!("setup: QEMU:        {major}.{minor}");
    eprintln!("setup: device tree: {}", device_tree()?.display());
    test_tools()?;
    eprintln!(
        "setup: for tests:   dtc, {CROSS_COMPILER}, {DEBUGGER}, dosfstools, mtools, sfdisk, {}",
        busybox()?.display()
    );
    eprintln!(
        "setup: for malloc:  {}",
        malloc_guests().map_or_else(|| "what there is".into(), |c| c.display().to_string())
    );
    eprintln!("setup: everything is present");
    Ok(0)
}

/// The emulator; returns its version.
pub fn qemu() -> Result<(u32, u32)> {
    if let Some(version) = qemu_version().filter(|&v| v >= QEMU_MINIMUM) {
        return Ok(version);
    }
    let (major, minor) = QEMU_MINIMUM;
    say(&format!(
        "installing QEMU for AArch64, {major}.{minor} or newer: older ones lack the Pi 4 or a second serial port"
    ));
    ensure!(apt::present(), "there is no apt-get here: install qemu-system-aarch64 {major}.{minor} or newer yourself");
    apt::install_at_least("qemu-system-arm", QEMU_MINIMUM)?;
    match qemu_version() {
        Some(version) if version >= QEMU_MINIMUM => Ok(version),
        _ => bail!(
            "this distribution's QEMU is older than {major}.{minor}: install a newer qemu-system-aarch64 yourself"
        ),
    }
}

fn qemu_version() -> Option<(u32, u32)> {
    // "QEMU emulator version 10.0.2 (Debian ...)"
    let text = output(Command::new(QEMU).arg("--version")).ok()?;
    let mut numbers = text.split_once("version ")?.1.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

/// The programs that only tests use: the device-tree compiler, a C cross compiler, a debugger, and what makes and checks disks.
pub fn test_tools() -> Result<()> {
    install_missing(&[
        ("dtc", "device-tree-compiler", on_path("dtc")),
        (CROSS_COMPILER, "gcc-aarch64-linux-gnu", on_path(CROSS_COMPILER)),
        (DEBUGGER, "gdb-multiarch", on_path(DEBUGGER)),
        ("fsck.vfat", "dosfstools", in_sbin("fsck.vfat")),
        ("mcopy", "mtools", on_path("mcopy")),
        ("sfdisk", "fdisk", in_sbin("sfdisk")),
    ])
}

/// The programs that the allocator's tests run under it, as far as they are available; returns SQLite's speed test if
/// it can be compiled.
pub fn malloc_guests() -> Option<PathBuf> {
    let header = Path::new("/usr/include/sqlite3.h");
    let mut wanted = ["python3", "sqlite3", "git", "gcc"].map(|name| (name, name, on_path(name))).to_vec();
    wanted.push(("sqlite3.h", "libsqlite3-dev", header.exists()));
    if let Err(error) = install_missing(&wanted) {
        say(&format!("{error:#}; tests without their programs are skipped"));
    }
    let speedtest = header.exists().then(speedtest1)?;
    speedtest.inspect_err(|error| say(&format!("{error:#}; the test that needs it is skipped"))).ok()
}

/// Installs the packages of the missing programs.
fn install_missing(wanted: &[(&str, &'static str, bool)]) -> Result<()> {
    let mut missing = Vec::new();
    for (thing, package, _) in wanted.iter().filter(|(_, _, there)| !there) {
        say(&format!("installing {package}: tests use {thing}"));
        missing.push(*package);
    }
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(apt::present(), "there is no apt-get here: install {} yourself", missing.join(", "));
    apt::install(&missing, None)
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The same for a program of the administrator's, which a user's path may not lead to.
fn in_sbin(program: &str) -> bool {
    on_path(program) || ["/usr/sbin", "/sbin"].iter().any(|dir| Path::new(dir).join(program).is_file())
}

/// The cache for files that the system cannot install or build; independent of the work tree.
fn cache() -> Result<PathBuf> {
    let dir = match (env::var_os("QUIRE_CACHE"), env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(dir), _, _) => PathBuf::from(dir),
        (None, Some(dir), _) => Path::new(&dir).join("quire"),
        (None, None, Some(home)) => Path::new(&home).join(".cache/quire"),
        (None, None, None) => bail!("neither QUIRE_CACHE nor HOME says where the cache is"),
    };
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

fn say(text: &str) {
    eprintln!("setup: {text}");
}

/// Runs a command to its end; what it prints goes to standard error.
fn run(command: &mut Command) -> Result<()> {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    // apt's options and the text of a script mean nothing to the user.
    let what = line.split(" -").next().unwrap_or(&line).to_owned();
    let (status, ()) = progress::watch(&what, command, true, |progress, line| progress.note(line), |_| Ok(()))?;
    ensure!(status.success(), "{line} failed ({status})");
    Ok(())
}

/// Runs a command and returns what it prints on standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    let complaint = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?} failed ({}): {}", done.status, complaint.trim());
    Ok(String::from_utf8(done.stdout)?)
}
