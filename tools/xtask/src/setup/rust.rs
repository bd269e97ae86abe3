//! A Rust toolchain that can build for the host and for both bare-metal targets.
//!
//! If rustup may download, it adds the targets. If it may not (RUSTUP_AUTO_INSTALL=0 is respected), Debian's packages
//! provide a newer compiler with the sources of its libraries. From them and the existing cargo a toolchain directory
//! is assembled once, in the cache, under the names of the compilers in it. Its `bin` goes first in PATH for every
//! cargo that xtask starts.

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

use super::{apt, cache, on_path, output, run, say};
use crate::cargo::{KERNEL_TARGET, USER_TARGET};

/// Incremented when the assembly of a toolchain changes, so that old ones are replaced.
const RECIPE: u32 = 1;

const TARGETS: [&str; 2] = [KERNEL_TARGET, USER_TARGET];

/// Debian's compiler, the sources of its libraries, and its clippy.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "rust-web-clippy"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust";

/// How cargo is called.
pub struct Toolchain {
    /// A directory that goes first in PATH; without one, the cargo in PATH is sufficient.
    bin: Option<PathBuf>,
}

impl Toolchain {
    /// A cargo command, without the environment variables of the cargo that runs xtask.
    pub fn cargo(&self) -> Command {
        self.command("cargo")
    }

    /// One line that describes this toolchain.
    pub fn describe(&self) -> Result<String> {
        let version = output(self.command("rustc").arg("--version"))?;
        let place = self.bin.as_ref().map_or("rustup's or the system's".into(), |bin| bin.display().to_string());
        Ok(format!("{} ({place})", version.trim()))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(bin) = &self.bin {
            command = Command::new(bin.join(program));
            let mut path = bin.clone().into_os_string();
            path.push(":");
            path.push(env::var_os("PATH").unwrap_or_default());
            command.env("PATH", path);
            // These select another compiler; rustup sets the first for the cargo that runs xtask.
            command.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC").env_remove("RUSTDOC");
        }
        // Cargo names itself and lets its programs find the libraries of its own compiler.
        command.env_remove("CARGO").env_remove("LD_LIBRARY_PATH");
        command
    }
}

/// Finds a toolchain or makes one.
pub fn toolchain() -> Result<Toolchain> {
    let found = Toolchain { bin: None };
    let sysroot = PathBuf::from(output(found.command("rustc").args(["--print", "sysroot"]))?.trim());
    if TARGETS.iter().all(|target| has_core(&sysroot, target)) {
        return Ok(found);
    }
    let may_download = env::var_os("RUSTUP_AUTO_INSTALL").is_none_or(|value| value != "0");
    if on_path("rustup") && may_download {
        say("adding Rust's bare-metal AArch64 targets with rustup: the kernel and the programs are built for them");
        match run(found.command("rustup").args(["target", "add"]).args(TARGETS)) {
            Ok(()) => return Ok(found),
            Err(error) if apt::present() => say(&format!("{error}; trying Debian's packages instead")),
            Err(error) => return Err(error),
        }
    }
    from_debian(&found, &sysroot)
}

fn has_core(sysroot: &Path, target: &str) -> bool {
    let Ok(entries) = fs::read_dir(sysroot.join("lib/rustlib").join(target).join("lib")) else { return false };
    entries.flatten().any(|e| e.file_name().to_string_lossy().starts_with("libcore-"))
}

fn from_debian(found: &Toolchain, sysroot: &Path) -> Result<Toolchain> {
    let installed = Path::new(DEBIAN_SOURCES).exists() && Path::new("/usr/bin/clippy-driver").exists();
    if !installed || !Path::new(DEBIAN_RUSTC).exists() {
        say(
            "installing Debian's Rust compiler and library sources: rustup may not download the bare-metal targets here",
        );
        ensure!(apt::present(), "there is no apt-get here: run `rustup target add {}`", TARGETS.join(" "));
        apt::install(&DEBIAN_PACKAGES, None)?;
    }
    let mut key = DefaultHasher::new();
    let debian = output(Command::new(DEBIAN_RUSTC).env_remove("LD_LIBRARY_PATH").arg("-vV"))?;
    (RECIPE, &debian, output(found.command("rustc").arg("-vV"))?, sysroot).hash(&mut key);
    let dir = cache()?.join(format!("toolchain-{:016x}", key.finish()));
    let complete = dir.join("complete");
    if !complete.exists() {
        // Two commands that start at once must not write the same directory.
        let lock = File::create(dir.with_extension("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        if !complete.exists() {
            say("building Rust's core library for the bare-metal targets, once (about a minute)");
            let host = debian.lines().find_map(|l| l.strip_prefix("host: ")).context("rustc -vV names no host")?;
            assemble(&dir, sysroot, host)?;
            File::create(&complete)?;
        }
    }
    Ok(Toolchain { bin: Some(dir.join("bin")) })
}

/// Assembles the directory: Debian's compiler and host libraries; the cargo, formatter and linker of the existing
/// toolchain; core and alloc, built for the bare-metal targets.
fn assemble(dir: &Path, sysroot: &Path, host: &str) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    let (bin, rustlib) = (dir.join("bin"), dir.join("lib/rustlib"));
    fs::create_dir_all(&bin)?;
    fs::create_dir_all(rustlib.join(host))?;
    fs::create_dir_all(rustlib.join("src"))?;
    symlink(format!("/usr/lib/rustlib/{host}/lib"), rustlib.join(host).join("lib"))?;
    symlink(fs::canonicalize(DEBIAN_SOURCES)?, rustlib.join("src/rust"))?;
    let linkers = sysroot.join("lib/rustlib").join(host).join("bin");
    ensure!(linkers.join("rust-lld").exists(), "{} has no rust-lld, which links the kernel", linkers.display());
    symlink(linkers, rustlib.join(host).join("bin"))?;

    for tool in ["cargo", "rustfmt", "cargo-fmt"] {
        let file = sysroot.join("bin").join(tool);
        ensure!(file.exists(), "{} is missing", file.display());
        symlink(file, bin.join(tool))?;
    }
    let place = dir.display();
    for tool in ["rustc", "rustdoc"] {
        script(&bin.join(tool), &format!("exec /usr/bin/{tool} --sysroot '{place}' \"$@\""))?;
    }
    for tool in ["cargo-clippy", "clippy-driver"] {
        script(&bin.join(tool), &format!("SYSROOT='{place}' exec /usr/bin/{tool} \"$@\""))?;
    }
    TARGETS.iter().try_for_each(|target| build_core(dir, target))
}

fn script(path: &Path, line: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{line}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Builds the libraries of a target through an empty crate, and keeps the results.
fn build_core(dir: &Path, target: &str) -> Result<()> {
    let work = dir.join("work");
    fs::create_dir_all(work.join("src"))?;
    fs::write(work.join("src/lib.rs"), "#![no_std]\n")?;
    let manifest =
        "[package]\nname = \"empty\"\nedition = \"2024\"\n[workspace]\n[profile.release]\npanic = \"abort\"\n";
    fs::write(work.join("Cargo.toml"), manifest)?;
    let mut cargo = Toolchain { bin: Some(dir.join("bin")) }.cargo();
    cargo.current_dir(&work).env("CARGO_TARGET_DIR", work.join("target"));
    // The bitcode is for link-time optimization, which the kernel's release profile uses.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Cembed-bitcode=yes");
    cargo.args(["build", "--quiet", "--release", "-Zbuild-std=core,alloc,compiler_builtins"]);
    cargo.args(["-Zbuild-std-features=compiler-builtins-mem", "--target", target]);
    run(&mut cargo)?;

    let libraries = dir.join("lib/rustlib").join(target).join("lib");
    fs::create_dir_all(&libraries)?;
    for entry in fs::read_dir(work.join("target").join(target).join("release/deps"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let wanted = ["libcore-", "liballoc-", "libcompiler_builtins-"].iter().any(|prefix| name.starts_with(prefix));
        if wanted && name.ends_with(".rlib") {
            fs::copy(entry.path(), libraries.join(&name))?;
        }
    }
    fs::remove_dir_all(&work)?;
    Ok(())
}
