//! Calls of cargo: the workspace's packages, and the results of a build.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cargo_metadata::{Artifact, Message, Metadata, MetadataCommand};

use crate::progress::{self, Progress};
use crate::setup::{self, Toolchain};

/// The target of the kernel, which must not touch the floating-point registers.
pub const KERNEL_TARGET: &str = "aarch64-unknown-none-softfloat";
/// The target of the programs.
pub const USER_TARGET: &str = "aarch64-unknown-none";

/// The workspace that this xtask was built in.
pub struct Workspace {
    /// Where the sources are.
    pub root: PathBuf,
    /// The directory for artefacts other than cargo's own.
    pub out: PathBuf,
    /// How cargo is called.
    pub toolchain: Toolchain,
    metadata: Metadata,
}

/// A program that a build made.
pub struct Executable {
    /// The name of the binary target.
    pub name: String,
    /// The package it comes from.
    pub package: String,
    /// The file.
    pub path: PathBuf,
}

impl Workspace {
    /// Asks cargo about the workspace; gets a toolchain first if there is none.
    pub fn find() -> Result<Workspace> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let toolchain = setup::toolchain()?;
        let mut cargo = toolchain.cargo();
        cargo.current_dir(&root).args(["metadata", "--format-version=1", "--no-deps"]).stderr(Stdio::inherit());
        let metadata = MetadataCommand::parse(String::from_utf8(cargo.output().context("starting cargo")?.stdout)?)?;
        let out = metadata.target_directory.join("quire").into_std_path_buf();
        Ok(Workspace { root, out, toolchain, metadata })
    }

    /// The packages below user/ that only build for the bare machine: those that plain `cargo test` leaves out, without
    /// those in the allocator's folders, its C libraries, which are not programs of Quire.
    pub fn bare_metal_programs(&self) -> Vec<&str> {
        let host = self.metadata.workspace_default_packages();
        let packages = self.metadata.workspace_packages().into_iter();
        let user_dir = self.metadata.workspace_root.join("user");
        let malloc = user_dir.join("malloc");
        let user = packages.filter(|p| p.manifest_path.starts_with(&user_dir) && !p.manifest_path.starts_with(&malloc));
        user.filter(|p| host.iter().all(|h| h.id != p.id)).map(|p| p.name.as_str()).collect()
    }

    /// The libraries that are built for the host too, by the names of their crates.
    pub fn host_libraries(&self) -> Vec<&str> {
        let targets = self.metadata.workspace_default_packages().into_iter().flat_map(|package| &package.targets);
        targets.filter(|target| target.is_lib()).map(|target| target.name.as_str()).collect()
    }

    /// Cargo's target directory.
    pub fn target(&self) -> &Path {
        self.metadata.target_directory.as_std_path()
    }

    /// A cargo command in this workspace.
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = self.toolchain.cargo();
        cargo.current_dir(&self.root).args(arguments);
        cargo
    }

    /// Builds packages for a target and returns their programs; `what` names them in messages.
    pub fn build(&self, what: &str, packages: &[&str], target: &str, extra: &[&str]) -> Result<Vec<Executable>> {
        let mut cargo = self.cargo(&["build", "--target", target]);
        for package in packages {
            cargo.args(["--package", package]);
        }
        cargo.args(extra);
        let artifacts = artifacts(what, cargo)?;
        let executables = artifacts.into_iter().filter_map(|artifact| {
            let package = self.metadata.workspace_packages().into_iter().find(|p| p.id == artifact.package_id)?;
            let path = artifact.executable?.into();
            Some(Executable { name: artifact.target.name, package: package.name.to_string(), path })
        });
        Ok(executables.collect())
    }
}

/// Runs a cargo command that builds something, and returns the programs.
pub fn artifacts(what: &str, mut cargo: Command) -> Result<Vec<Artifact>> {
    cargo.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let (status, made) = progress::watch(what, &mut cargo, false, pass_on, |child| {
        let mut made = Vec::new();
        for message in Message::parse_stream(BufReader::new(child.stdout.take().context("cargo's output")?)) {
            if let Message::CompilerArtifact(artifact) = message? {
                made.push(artifact);
            }
        }
        Ok(made)
    })?;
    ensure!(status.success(), "{what}: cargo failed ({status})");
    Ok(made)
}

/// Runs a cargo command whose output is for the user.
pub fn run(what: &str, mut cargo: Command) -> Result<()> {
    let (status, ()) = progress::watch(what, &mut cargo, true, pass_on, |_| Ok(()))?;
    ensure!(status.success(), "{what}: cargo failed ({status})");
    Ok(())
}

/// Shows cargo's output, except lines that the live line already covers. What cargo waits for it says once, and this for
/// as long as it waits.
pub fn pass_on(progress: &Progress, line: &str) {
    if let Some(wait) = progress::wait_of_cargo(line) {
        progress.detail(&wait);
    } else if !progress::is_cargo_step(line) {
        progress.note(line);
    }
}
