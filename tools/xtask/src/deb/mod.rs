//! `--deb`: Debian's arm64 packages in the boot archive.
//!
//! apt chooses the packages, fetches them and checks their signatures. Its state is a directory under target/: nothing of the host's
//! dpkg is read or changed, and no root is needed. The host's apt says where packages come from if that is Debian's;
//! else it is Debian's own address. `QUIRE_APT_SOURCES` names another list of sources.
//!
//! What was chosen is written to a lock file, one for each set of names, and taken from there the next time. To get newer
//! versions, delete it.

mod apt;
mod layout;
mod lock;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::cargo::Workspace;
use crate::output;
use apt::Apt;
use lock::Locked;

/// Refuses names that no package has.
pub fn check(names: &[String]) -> Result<()> {
    for name in names {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
        let is_name = name.len() > 1 && name.chars().all(is_plain) && !name.starts_with(['+', '-', '.']);
        ensure!(is_name, "--deb {name}: not a name of a Debian package");
    }
    Ok(())
}

/// A directory with the files of the packages and of those that they depend on, laid out as Debian has them.
pub fn tree(workspace: &Workspace, names: &[String]) -> Result<PathBuf> {
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    let _lock = crate::lock::exclusive(&workspace.out)?;
    let dir = workspace.out.join("deb");
    let apt = Apt::new(&dir)?;
    let set = names.join("_");
    let lock = dir.join(format!("{set}.lock"));
    let (tree, laid) = (dir.join(&set), dir.join(format!("{set}.laid")));
    let known = if lock.exists() { Some(lock::read(&fs::read_to_string(&lock)?)?) } else { None };
    if let Some(packages) = &known
        && fs::read_to_string(&laid).is_ok_and(|text| text == lock::write(packages))
    {
        return Ok(tree);
    }
    let files = match &known {
        Some(packages) => apt.fetch(packages)?,
        None => {
            let packages = apt.choose(&names)?;
            let files = apt.fetch(&packages)?;
            output::write(&lock, lock::write(&with_sums(packages, &files)?))?;
            files
        }
    };
    let packages = lock::read(&fs::read_to_string(&lock)?)?;
    for (package, file) in packages.iter().zip(&files) {
        ensure!(apt::sum(file)? == package.sum, "{} is not the file that {} names", file.display(), lock.display());
    }
    let _ = fs::remove_file(&laid);
    layout::lay_out(&files, &tree)?;
    output::write(&laid, lock::write(&packages))?;
    Ok(tree)
}

fn with_sums(packages: Vec<Locked>, files: &[PathBuf]) -> Result<Vec<Locked>> {
    let sum = |(package, file): (Locked, &PathBuf)| Ok(Locked { sum: apt::sum(file)?, ..package });
    packages.into_iter().zip(files).map(sum).collect()
}

/// The path of a tool's file as an argument.
fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| anyhow::anyhow!("{}: a path that is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_a_debian_name() {
        let ask = |name: &str| check(&[name.to_owned()]).is_ok();
        assert!(["jq", "g++", "python3-minimal", "libstdc++6", "7zip"].into_iter().all(ask));
        assert!(!["", "a", "-o", "Jq", "a b", "../x", "jq=1", "jq:arm64", "+x"].into_iter().any(ask));
    }
}
