//! `cargo xtask lint`: formatting, and clippy for each of the three targets, with warnings as errors.

use anyhow::Result;

use crate::cargo::{self, KERNEL_TARGET, USER_TARGET, Workspace};

/// Fails at the first thing that is not clean.
pub fn lint() -> Result<u8> {
    let workspace = Workspace::find()?;
    check(&workspace, &["fmt", "--all", "--check"])?;
    check(&workspace, &["clippy", "--all-targets", "--", "-D", "warnings"])?;
    check(&workspace, &["clippy", "--package", "quire-tests", "--all-targets", "--", "-D", "warnings"])?;
    let kernel = ["clippy", "--package", "quire-kernel", "--target", KERNEL_TARGET];
    for features in [&[][..], &["--features", "selftest"]] {
        check(&workspace, &[&kernel, features, &["--", "-D", "warnings"]].concat())?;
    }

    let (to_link, to_load) = ("quire-malloc-static", "quire-malloc-preload");
    check(&workspace, &["clippy", "--package", to_link, "--target", USER_TARGET, "--", "-D", "warnings"])?;
    check(&workspace, &["clippy", "--package", to_load, "--", "-D", "warnings"])?;

    let programs = workspace.bare_metal_programs();
    let mut arguments = vec!["clippy", "--target", USER_TARGET];
    for package in &programs {
        arguments.extend(["--package", package]);
    }
    arguments.extend(["--", "-D", "warnings"]);
    check(&workspace, &arguments)?;
    Ok(0)
}

fn check(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    cargo::run(&format!("cargo {}", arguments.join(" ")), workspace.cargo(arguments))
}
