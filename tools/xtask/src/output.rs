//! Files that xtask writes: complete or absent, and every error names the file.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Writes a file. It gets its name when it is complete, so that a full disk leaves the old file intact.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    replace(path, |part| fs::write(part, bytes))
}

/// Copies a file with its permissions, as [`fn@write`] writes one.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    replace(to, |part| fs::copy(from, part).map(drop)).with_context(|| format!("copying {}", from.display()))
}

/// Copies a directory's files and links into another, which need not exist.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    let reading = || format!("reading {}", from.display());
    for entry in fs::read_dir(from).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type().with_context(|| format!("reading {}", entry.path().display()))?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(entry.path()).with_context(|| format!("reading {}", entry.path().display()))?;
            symlink(link, &target).with_context(|| format!("making {}", target.display()))?;
        } else {
            copy(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Refuses a file that cannot be written, before the work whose result it will be.
pub fn check(path: &Path) -> Result<()> {
    is_replaceable(path)?;
    let part = part_of(path);
    let made = fs::File::create(&part).and_then(|_| fs::remove_file(&part));
    made.with_context(|| format!("writing {}", path.display()))
}

/// Has the file written under a temporary name beside it, and renames it.
fn replace(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    is_replaceable(path)?;
    let part = part_of(path);
    let done = make(&part).and_then(|()| fs::rename(&part, path));
    if done.is_err() {
        // The partial file may be what fills the disk, and it may not exist at all.
        let _ = fs::remove_file(&part);
    }
    done.with_context(|| format!("writing {}", path.display()))
}

/// Refuses a device or a pipe of this name: it would be replaced by a file, not written to.
fn is_replaceable(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(there) => ensure!(there.is_file(), "{} exists and is not a regular file", path.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    }
    ensure!(path.file_name().is_some(), "'{}' is not the name of a file", path.display());
    Ok(())
}

/// The name of a file until it is complete: of this process alone.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(format!(".part{}", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("quire-output-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = scratch("whole");
        let file = dir.join("image");
        write(&file, b"old").unwrap();
        write(&file, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left beside it");
        fs::remove_dir_all(dir).unwrap();
    }

    /// /dev/full fails like a full disk.
    #[test]
    fn a_full_disk_is_named_and_leaves_the_old_file() {
        let dir = scratch("full");
        let file = dir.join("image");
        write(&file, b"old").unwrap();
        let error = replace(&file, |part| {
            fs::write(part, b"ha")?;
            fs::write("/dev/full", b"half of it")
        });
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains(&file.display().to_string()) && error.contains("No space"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no torn file is left");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let error = format!("{:#}", write(Path::new("/dev/null"), b"x").unwrap_err());
        assert!(error.contains("/dev/null exists and is not a regular file"), "{error}");
        assert!(write(Path::new("/nonexistent/dir/file"), b"x").is_err());
        let dir = scratch("check");
        let wrong = [dir.clone(), dir.join("none/file"), "/dev/null".into(), "".into(), "..".into()];
        wrong.iter().for_each(|path| assert!(check(path).is_err(), "{}", path.display()));
        check(&dir.join("file")).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing is written yet");
        fs::remove_dir_all(dir).unwrap();
    }
}
