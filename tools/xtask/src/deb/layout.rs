//! A tree of packages' files, as an installed Debian has it: `/bin`, `/sbin` and `/lib` are in `/usr`, and what maintainer scripts
//! would have made is there, or named as missing.
//!
//! The dynamic linker needs no cache: it searches `/lib/aarch64-linux-gnu` and `/usr/lib/aarch64-linux-gnu` by itself.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::output;
use crate::setup;

/// Directories whose files are in `/usr`.
const MERGED: [&str; 3] = ["bin", "sbin", "lib"];

/// Files that scripts of Debian's base make.
const MADE: [(&str, &str); 2] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
];

/// Unpacks packages into a new directory.
pub fn lay_out(packages: &[PathBuf], tree: &Path) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree)?;
    }
    fs::create_dir_all(tree)?;
    let mut scripted = Vec::new();
    let mut alternatives = Vec::new();
    for package in packages {
        setup::output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(tree))?;
        let script =
            setup::output(Command::new("dpkg-deb").arg("--info").arg(package).arg("postinst")).unwrap_or_default();
        alternatives.extend(links_of(&script));
        if has_more(&script) {
            scripted.push(name_of(package));
        }
    }
    merge_usr(tree)?;
    for (link, target) in alternatives {
        let (link, target) = (tree.join(link), target);
        let has_target = fs::symlink_metadata(tree.join(target.trim_start_matches('/'))).is_ok();
        if has_target && fs::symlink_metadata(&link).is_err() {
            fs::create_dir_all(link.parent().context("a link's path has a parent")?)?;
            symlink(&target, &link)?;
        }
    }
    for (path, text) in MADE {
        let path = tree.join(path);
        if !path.exists() {
            fs::create_dir_all(path.parent().context("a file's path has a parent")?)?;
            output::write(&path, text)?;
        }
    }
    if !scripted.is_empty() {
        let names = scripted.join(" ");
        eprintln!("xtask: --deb: scripts of these were not run, so what they make is missing: {names}");
    }
    Ok(())
}

fn name_of(package: &Path) -> String {
    let file = package.file_name().unwrap_or_default().to_string_lossy();
    file.split('_').next().unwrap_or_default().to_owned()
}

/// Moves what is in `/bin`, `/sbin` and `/lib` to `/usr`, and leaves links.
fn merge_usr(tree: &Path) -> Result<()> {
    for name in MERGED {
        let (from, to) = (tree.join(name), tree.join("usr").join(name));
        if fs::symlink_metadata(&from).is_ok_and(|there| there.is_dir()) {
            move_into(&from, &to)?;
        }
        if fs::symlink_metadata(&from).is_err() && to.exists() {
            symlink(format!("usr/{name}"), &from)?;
        }
    }
    Ok(())
}

/// Moves a directory's contents into another; a file that is there stays.
fn move_into(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let there = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            move_into(&entry.path(), &there)?;
        } else if fs::symlink_metadata(&there).is_err() {
            fs::rename(entry.path(), &there)?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(fs::remove_dir(from)?)
}

/// The alternatives that a script installs: (link, target), for those that it names plainly.
fn links_of(script: &str) -> Vec<(String, String)> {
    let script = script.replace("\\\n", " ");
    let words: Vec<&str> = script.split_whitespace().collect();
    let is_plain = |word: &str| word.starts_with('/') && !word.contains(['$', '"', '\'', '`']);
    let triple = |words: &[&str]| {
        let [option, link, _, target] = words else { return None };
        let is_it = matches!(*option, "--install" | "--slave") && is_plain(link) && is_plain(target);
        is_it.then(|| (link.trim_start_matches('/').to_owned(), (*target).to_owned()))
    };
    words.windows(4).filter_map(triple).collect()
}

/// Whether a script does more than what is made here, or what a machine that runs needs: alternatives, the linker's cache, services.
fn has_more(script: &str) -> bool {
    const COVERED: [&str; 14] = [
        "set -e",
        "#",
        "exit 0",
        "fi",
        "esac",
        ";;",
        "update-alternatives",
        "--slave",
        "ldconfig",
        "case ",
        "if ",
        "configure",
        "activate-noawait",
        "}",
    ];
    script.lines().map(str::trim).any(|line| !line.is_empty() && !COVERED.iter().any(|known| line.starts_with(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_are_read_from_scripts() {
        let script = "update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 \\\n\
            --slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz\n\
            update-alternatives --install \"$LINK\" x /usr/bin/x 1\n";
        let links = links_of(script);
        assert_eq!(links[0], ("usr/bin/awk".to_owned(), "/usr/bin/mawk".to_owned()));
        assert_eq!(links.len(), 2);
    }

    #[test]
    fn a_script_that_does_more_is_named() {
        assert!(!has_more("#!/bin/sh\nset -e\nif [ \"$1\" = configure ]; then\n  ldconfig\nfi\nexit 0\n"));
        assert!(has_more("#!/bin/sh\nset -e\nadduser --system games\n"));
    }

    #[test]
    fn directories_move_to_usr() {
        let tree = std::env::temp_dir().join(format!("quire-usr-merge-{}", std::process::id()));
        let _ = fs::remove_dir_all(&tree);
        for path in ["bin/a", "usr/bin/b", "lib/x/one", "usr/lib/x/two"] {
            fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
            fs::write(tree.join(path), path).unwrap();
        }
        merge_usr(&tree).unwrap();
        assert_eq!(fs::read_link(tree.join("lib")).unwrap(), Path::new("usr/lib"));
        for (path, text) in
            [("bin/a", "bin/a"), ("bin/b", "usr/bin/b"), ("lib/x/one", "lib/x/one"), ("usr/lib/x/two", "usr/lib/x/two")]
        {
            assert_eq!(fs::read_to_string(tree.join(path)).unwrap(), text);
        }
        assert!(fs::symlink_metadata(tree.join("sbin")).is_err(), "no link to nowhere");
        fs::remove_dir_all(&tree).unwrap();
    }
}
