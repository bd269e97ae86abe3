//! `cargo xtask lint`: formatting, who imports whom, clippy for each of the three targets, and rustdoc, with warnings as
//! errors.

use anyhow::Result;

use crate::cargo::{self, KERNEL_TARGET, USER_TARGET, Workspace};
use crate::docs;
use crate::floors;

/// Files whose heads list floors, and the paths that the modules on them begin with.
pub const FLOORS: &[(&str, &str)] = &[
    ("kernel/mm/src/lib.rs", "crate::"),
    ("kernel/mm/src/slab/mod.rs", "crate::slab::"),
    ("kernel/src/main.rs", "crate::"),
    ("kernel/src/task/mod.rs", "crate::task::"),
];

/// Fails at the first check that is not clean.
pub fn lint() -> Result<u8> {
    let workspace = Workspace::find()?;
    cargo::run("formatting", workspace.cargo(&["fmt", "--all", "--check"]))?;
    FLOORS.iter().try_for_each(|(file, path)| floors::check(&workspace.root.join(file), path))?;
    clippy(&workspace, "clippy, host", &["--all-targets"])?;
    clippy(&workspace, "clippy, tests of machines", &["--package", "quire-tests", "--all-targets"])?;
    let kernel = ["--package", "quire-kernel", "--target", KERNEL_TARGET];
    clippy(&workspace, "clippy, kernel", &kernel)?;
    clippy(&workspace, "clippy, self-test kernel", &[&kernel[..], &["--features", "selftest"]].concat())?;

    let (to_link, to_load) = ("quire-malloc-static", "quire-malloc-preload");
    clippy(&workspace, "clippy, malloc to link", &["--package", to_link, "--target", USER_TARGET])?;
    clippy(&workspace, "clippy, malloc to load", &["--package", to_load])?;

    let mut programs = vec!["--target", USER_TARGET];
    programs.extend(workspace.bare_metal_programs().iter().flat_map(|&package| ["--package", package]));
    clippy(&workspace, "clippy, programs", &programs)?;
    docs::rustdoc(&workspace)?;
    Ok(0)
}

fn clippy(workspace: &Workspace, what: &str, selection: &[&str]) -> Result<()> {
    cargo::run(what, workspace.cargo(&[&["clippy"], selection, &["--", "-D", "warnings"]].concat()))
}
