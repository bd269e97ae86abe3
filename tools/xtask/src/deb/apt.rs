//! apt with a state of its own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::lock::Locked;
use super::text;
use crate::output;
use crate::setup::{self, apt as host};

/// A list of sources to use in place of the host's.
const SOURCES: &str = "QUIRE_APT_SOURCES";

/// Debian's own.
const DEBIAN: &str =
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main\n";

/// See the module.
pub struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// With its state in `dir`, which is made.
    pub fn new(dir: &Path) -> Result<Apt> {
        ensure!(host::present(), "--deb: this machine has no apt-get, which finds and checks Debian's packages");
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(part))?;
        }
        // No package is installed.
        output::write(&dir.join("state/status"), "")?;
        let sources = match env::var_os(SOURCES) {
            Some(list) => Some(PathBuf::from(list)),
            None if is_debian() => None,
            None => {
                let list = dir.join("sources.list");
                output::write(&list, DEBIAN)?;
                Some(list)
            }
        };
        let apt = Apt { dir: dir.to_owned() };
        output::write(&apt.configuration(), settings(text(dir)?, sources.as_deref().map(text).transpose()?))?;
        Ok(apt)
    }

    fn configuration(&self) -> PathBuf {
        self.dir.join("apt.conf")
    }

    fn get(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command.arg("-c").arg(self.configuration()).args(arguments);
        command
    }

    /// The packages and all that they depend on, in the newest versions.
    pub fn choose(&self, names: &[String]) -> Result<Vec<Locked>> {
        self.update()?;
        let mut simulation = self.get(&["-qq", "--simulate", "install"]);
        let said = setup::output(simulation.args(names)).with_context(|| format!("--deb {}", names.join(" --deb ")))?;
        let packages = chosen(&said);
        ensure!(!packages.is_empty(), "--deb {}: apt would install nothing", names.join(" --deb "));
        Ok(packages)
    }

    fn update(&self) -> Result<()> {
        eprintln!("xtask: --deb: asking for Debian's list of arm64 packages");
        setup::output(&mut self.get(&["-qq", "update"])).map(drop)
    }

    /// The files of packages, fetched unless they are there.
    pub fn fetch(&self, packages: &[Locked]) -> Result<Vec<PathBuf>> {
        if let Some(files) = self.files(packages)? {
            return Ok(files);
        }
        let exact: Vec<String> = packages.iter().map(|p| format!("{}={}", p.name, p.version)).collect();
        let fetch = || setup::output(self.get(&["-qq", "-y", "--download-only", "install"]).args(&exact));
        eprintln!("xtask: --deb: fetching {} packages", packages.len());
        if fetch().is_err() {
            // The lists may be old, or have never been here.
            self.update()?;
            fetch()?;
        }
        self.files(packages)?.context("apt has fetched other files than it was asked for")
    }

    fn files(&self, packages: &[Locked]) -> Result<Option<Vec<PathBuf>>> {
        let cache = self.dir.join("cache/archives");
        let file = |package: &Locked| {
            let stem = format!("{}_{}", package.name, package.version.replace(':', "%3a"));
            let paths = ["arm64", "all"].map(|architecture| cache.join(format!("{stem}_{architecture}.deb")));
            paths.into_iter().find(|path| path.exists())
        };
        Ok(packages.iter().map(file).collect())
    }
}

fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| text.lines().any(|line| line == "ID=debian"))
}

/// The configuration, which comes after the host's: of that, hooks are dropped, which would act on the host.
fn settings(dir: &str, sources: Option<&str>) -> String {
    let hooks = [
        "APT::Update::Pre-Invoke",
        "APT::Update::Post-Invoke",
        "APT::Update::Post-Invoke-Success",
        "DPkg::Pre-Invoke",
        "DPkg::Post-Invoke",
        "DPkg::Pre-Install-Pkgs",
        "APT::Architectures",
    ];
    let mut lines: Vec<String> = hooks.iter().map(|hook| format!("#clear {hook};")).collect();
    let mut set = |name: &str, value: &str| lines.push(format!("{name} \"{value}\";"));
    set("APT::Architecture", "arm64");
    set("APT::Architectures::", "arm64");
    set("APT::Install-Recommends", "false");
    set("APT::Sandbox::User", "");
    set("APT::Keep-Downloaded-Packages", "true");
    set("Acquire::Languages", "none");
    set("Dir::State", &format!("{dir}/state"));
    set("Dir::State::status", &format!("{dir}/state/status"));
    set("Dir::Cache", &format!("{dir}/cache"));
    set("Dir::Cache::archives", "archives");
    set("Dir::Log", &format!("{dir}/state"));
    if let Some(list) = sources {
        set("Dir::Etc::sourcelist", list);
        set("Dir::Etc::sourceparts", "/dev/null");
    }
    lines.join("\n") + "\n"
}

/// What a simulation would install: `Inst NAME (VERSION SUITE… [ARCHITECTURE])`.
fn chosen(said: &str) -> Vec<Locked> {
    let package = |line: &str| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
        let (version, rest) = rest.split_once(' ')?;
        let suite = rest.split([',', ' ']).next()?;
        let (name, version, suite) = (name.to_owned(), version.to_owned(), suite.to_owned());
        Some(Locked { name, version, suite, sum: "unknown".to_owned() })
    };
    said.lines().filter_map(package).collect()
}

/// A file's SHA-256.
pub fn sum(file: &Path) -> Result<String> {
    let said = setup::output(Command::new("sha256sum").arg(file))?;
    Ok(said.split(' ').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulation_names_packages_and_versions() {
        let said = "Inst gcc-12-base (12.2.0-14+deb12u1 Debian:12.11/oldstable [arm64]) []\n\
            Inst libjq1 (1.6-2.1 Debian:12.11/oldstable, Debian-Security:12/oldstable-security [arm64])\n\
            Conf libjq1 (1.6-2.1 Debian:12.11/oldstable [arm64])\n";
        let found: Vec<_> = chosen(said).into_iter().map(|p| (p.name, p.version, p.suite)).collect();
        let wanted = [
            ("gcc-12-base", "12.2.0-14+deb12u1", "Debian:12.11/oldstable"),
            ("libjq1", "1.6-2.1", "Debian:12.11/oldstable"),
        ];
        assert_eq!(found, wanted.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    }

    #[test]
    fn the_host_s_hooks_are_dropped_and_its_directories_left_alone() {
        let settings = settings("/x", Some("/y"));
        assert!(settings.contains("#clear APT::Update::Post-Invoke;\n"));
        for line in ["Dir::State \"/x/state\";", "Dir::Cache \"/x/cache\";", "Dir::Etc::sourcelist \"/y\";"] {
            assert!(settings.lines().any(|there| there == line), "{line}");
        }
    }
}
