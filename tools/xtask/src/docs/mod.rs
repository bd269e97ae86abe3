//! `cargo xtask docs`: the book (docs/, by mdBook) and, behind it, the reference of every crate (by rustdoc).
//!
//! mdBook comes from the registry, in the version named here, and is compiled once into target/. Rustdoc runs once per
//! target: the host's crates, the kernel's, the programs'. Its warnings are errors, so that broken links are noticed; so
//! are links of the built book that lead nowhere.

mod dead;
mod links;

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

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
        let part = book.join("reference").join(name);
        output::copy_tree(&made, &part)?;
        if name != "host" {
            dead::mend_sources(&part)?;
        }
    }
    let dead = dead::links(&book)?;
    ensure!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
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
    let rustdoc = unstable_rustdoc(workspace)?;
    let mut made = Vec::new();
    for (name, target, selection) in
        [("host", None, &[][..]), ("kernel", Some(KERNEL_TARGET), kernel), ("programs", Some(USER_TARGET), &programs)]
    {
        let mut cargo = workspace.cargo(&["doc", "--no-deps", "--document-private-items"]);
        let flags = format!("{FLAGS}{}", places_of_libraries(workspace, name == "host"));
        cargo.args(selection).env("RUSTDOCFLAGS", flags).env("RUSTDOC", &rustdoc);
        if let Some(target) = target {
            cargo.args(["--target", target]);
        }
        cargo::run(&format!("rustdoc, {name}"), cargo)?;
        made.push((name, workspace.target().join(target.unwrap_or("")).join("doc")));
    }
    Ok(made)
}

/// Rustdoc's flags that say where the pages of our libraries are in the book, seen from the folder of a crate. Without
/// them, rustdoc leaves out each link to a library whose pages it does not find beside its own: those that come later,
/// and for the kernel and the programs all of them.
fn places_of_libraries(workspace: &Workspace, are_beside: bool) -> String {
    let place = if are_beside { "../" } else { "../../host/" };
    let libraries = workspace.host_libraries().into_iter();
    let flags = libraries.map(|library| format!(" --extern-html-root-url {library}={place}"));
    flags.fold(" -Zunstable-options".into(), |all, flag| all + &flag)
}

/// Rustdoc with its unstable options. (The variable that permits them is for it alone: crates that see it in cargo's
/// environment are compiled again each time it comes or goes.)
fn unstable_rustdoc(workspace: &Workspace) -> Result<PathBuf> {
    let script = workspace.out.join("rustdoc");
    fs::create_dir_all(&workspace.out).with_context(|| format!("making {}", workspace.out.display()))?;
    output::write(&script, "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n")?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    Ok(script)
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
    // cargo warns of programs that the shell would not find; this one is started by its path.
    let old = env::var_os("PATH").unwrap_or_default();
    cargo.env("PATH", env::join_paths([root.join("bin")].into_iter().chain(env::split_paths(&old)))?);
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
    for (path, depth) in self::pages(pages)? {
        output::write(&path, links::rewritten(&fs::read_to_string(&path)?, depth))?;
    }
    Ok(())
}

/// The pages in a folder and those below it, and how many folders below it they are.
fn pages(folder: &Path) -> Result<Vec<(PathBuf, usize)>> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push((path, depth + 1));
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push((path, depth));
            }
        }
    }
    Ok(found)
}

fn build_book(mdbook: &Path, from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new(mdbook);
    command.arg("build").arg("--dest-dir").arg(to).arg(from);
    let (status, ()) = progress::watch("the book", &mut command, true, |step, line| step.note(line), |_| Ok(()))?;
    ensure!(status.success(), "mdbook failed ({status})");
    Ok(())
}
