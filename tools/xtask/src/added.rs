//! `--add`: host files in the boot archive.
//!
//! [`check`] finds what cannot work before anything is built. Whether a place is free is known when the archive is there
//! ([`crate::archive`]).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;

use anyhow::{Context, Result, ensure};

use crate::options::AddedFile;

/// Where the archive has the commands of `--exec`.
pub const EXEC: &str = "etc/exec";

/// The archive has 32 bits for a file's size.
const MOST_BYTES: u64 = u32::MAX as u64;

/// Refuses files that cannot be read, and a place that two of them, or one of them and `--exec`, would have.
pub fn check(files: &[AddedFile], has_exec: bool) -> Result<()> {
    let mut places = BTreeSet::new();
    for AddedFile { host, guest } in files {
        let name = host.display();
        let there = fs::metadata(host).with_context(|| format!("--add {name}"))?;
        let kind = there.file_type();
        ensure!(!kind.is_dir(), "--add {name}: a directory; add its files one by one, or a tar archive of them");
        ensure!(!kind.is_block_device() && !kind.is_char_device(), "--add {name}: a device, which has no end");
        ensure!(there.len() <= MOST_BYTES, "--add {name}: a file of the boot archive has less than 4 GiB");
        // Opening a pipe would take its writer's end.
        if kind.is_file() {
            File::open(host).with_context(|| format!("--add {name}"))?;
        }
        ensure!(places.insert(guest), "--add {name}: /{guest} has another added file already");
        ensure!(!(has_exec && guest == EXEC), "--add {name}: --exec needs /{EXEC} itself");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(files: &[&str], has_exec: bool) -> Result<(), String> {
        let files: Vec<AddedFile> = files.iter().map(|file| file.parse().unwrap()).collect();
        check(&files, has_exec).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_cannot_be_added_is_refused_with_the_reason() {
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let at = |place: &str| format!("{own}:{place}");
        assert_eq!(ask(&[own, &at("/etc/exec"), &at("/b")], false), Ok(()));
        for (files, why) in [
            (&[env!("CARGO_MANIFEST_DIR")][..], "a directory"),
            (&["/dev/zero"], "a device"),
            (&["/nonexistent"], "No such file"),
            (&[own, own], "/Cargo.toml has another added file"),
            (&[&at("/a"), &at("a")], "/a has another"),
            (&[&at("/etc/exec")], "--exec needs /etc/exec"),
        ] {
            let said = ask(files, true).unwrap_err();
            assert!(said.contains(why), "{files:?}: {said}");
        }
    }
}
