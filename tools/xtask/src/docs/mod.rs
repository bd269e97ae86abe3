//! `cargo xtask docs`: the book (docs/, by mdBook) and, behind it, the reference of every crate (by rustdoc).
//!
//! mdBook comes from the registry, in the version named here, and is compiled once into target/. Rustdoc runs once per
//! target: the host's crates, the kernel's, the programs'. Its warnings are errors, so that broken links are noticed.

mod links;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::cargo::{self, KERNEL_TARGET, USER_TARGET, Workspace};
use crate::output;
use crate::progress;

const MDBOOK: &str = "mdbook";
const MDBOOK_VERSION: &str = "0.5.4";

/// Private items are documented, so that links to them lead somewhere.
const FLAGS: &str = "-Dwarnings -Arustdoc::private_intra_doc_links";

/// Builds book and reference, and prints where they begin.
pub fn docs() -> Result<u8> {
    let workspace = Workspace::find()?;
    let reference = rustdoc(&workspace)?;
    let mdbook = mdbook(&workspace)?;
    let book = workspace.out.join("docs");
    let pages = workspace.out.join("pages");
    lay_out(&workspace.root.join("docs"), &pages)?;
    build_book(&mdbook, &pages, &book)?;
    for (name, made) in reference {
        output::copy_tree(&made, &book.join("reference").join(name))?;
    }
    println!("{}", book.join("index.html").display());
    Ok(0)
}

/// Documents every crate of the workspace; returns each part's name in the book, and its directory.
///
/// The kernel and the programs have directories of their own, since rustdoc makes one per target; the host's crates are
/// those of plain `cargo doc`. Private items are included: readers of this want to know how it works.
pub fn rustdoc(workspace: &Workspace) -> Result<Vec<(&'static str, PathBuf)>> {
    let programs = workspace.bare_metal_programs();
    let programs: Vec<&str> = programs.iter().flat_map(|&package| ["--package", package]).collect();
    let kernel: &[&str] = &["--package", "quire-kernel"];
    let mut made = Vec::new();
    for (name, target, selection) in
        [("host", None, &[][..]), ("kernel", Some(KERNEL_TARGET), kernel), ("programs", Some(USER_TARGET), &programs)]
    {
        let mut cargo = workspace.cargo(&["doc", "--no-deps", "--document-private-items"]);
        cargo.args(selection).env("RUSTDOCFLAGS", FLAGS);
        if let Some(target) = target {
            cargo.args(["--target", target]);
        }
        cargo::run(&format!("rustdoc, {name}"), cargo)?;
        made.push((name, workspace.target().join(target.unwrap_or("")).join("doc")));
    }
    Ok(made)
}

/// mdBook in the version that the book is written for; compiles it the first time.
fn mdbook(workspace: &Workspace) -> Result<PathBuf> {
    let root = workspace.out.join("tools");
    let program = root.join("bin").join(MDBOOK);
    let version = Command::new(&program).arg("--version").output();
    if version.is_ok_and(|version| String::from_utf8_lossy(&version.stdout).trim().ends_with(MDBOOK_VERSION)) {
        return Ok(program);
    }
    let what = format!("compiling {MDBOOK} {MDBOOK_VERSION}, once (some minutes)");
    let mut cargo = workspace.cargo(&["install", MDBOOK, "--locked", "--version", MDBOOK_VERSION]);
    cargo.args(["--no-default-features", "--features", "search", "--root"]).arg(&root);
    cargo::run(&what, cargo)?;
    ensure!(program.exists(), "cargo install left no {}", program.display());
    Ok(program)
}

/// Copies the pages, with links to sources rewritten for the book.
fn lay_out(docs: &Path, pages: &Path) -> Result<()> {
    if pages.exists() {
        fs::remove_dir_all(pages)?;
    }
    output::copy_tree(docs, pages)?;
    for entry in fs::read_dir(pages)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            output::write(&path, links::rewritten(&fs::read_to_string(&path)?))?;
        }
    }
    Ok(())
}

fn build_book(mdbook: &Path, from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new(mdbook);
    command.arg("build").arg("--dest-dir").arg(to).arg(from);
    let (status, ()) = progress::watch("the book", &mut command, true, |step, line| step.note(line), |_| Ok(()))?;
    ensure!(status.success(), "mdbook failed ({status})");
    Ok(())
}
