//! The lock file: a line for each package, with its version, where it came from, and its file's SHA-256.

use anyhow::{Context, Result};

/// A package that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The release that it is of, as apt says it.
    pub suite: String,
    /// The SHA-256 of its file, once that is known.
    pub sum: String,
}

/// The file's text.
pub fn write(packages: &[Locked]) -> String {
    let line = |p: &Locked| format!("{} {} {} {}\n", p.name, p.version, p.suite, p.sum);
    packages.iter().map(line).collect()
}

/// Reads it.
pub fn read(text: &str) -> Result<Vec<Locked>> {
    let package = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let mut next =
            || words.next().filter(|word| !word.is_empty()).with_context(|| format!("a lock file with: {line}"));
        Ok(Locked { name: next()?, version: next()?, suite: next()?, sum: next()? })
    };
    text.lines().map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_says_what_was_written_to_it() {
        let package = |name: &str| Locked {
            name: name.into(),
            version: "1:2.3-4+deb12u1".into(),
            suite: "Debian:12.1/stable".into(),
            sum: "0123".into(),
        };
        let packages = vec![package("jq"), package("libc6")];
        assert_eq!(read(&write(&packages)).unwrap(), packages);
        assert!(read("jq 1.6\n").is_err());
    }
}
